//! What watches the gateway: metrics, the audit and access logs, and the count of the busiest devices.
//!
//! `gateway` starts them before anything that they watch, and stops them last.

use std::sync::Arc;

use anyhow::Context;
use tokio::time::{MissedTickBehavior, interval};

use crate::admission::Admission;
use crate::config::Config;
use crate::limits::Limits;
use crate::telemetry::audit::Audit;
use crate::telemetry::journal::Journal;
use crate::telemetry::metrics::{Metrics, ProbedGauge};
#[cfg(feature = "otlp")]
use crate::telemetry::otlp::Otlp;
use crate::telemetry::spans::Spans;
use crate::telemetry::top::{self, Top};

/// Clones watch together.
#[derive(Clone)]
pub(crate) struct Observers {
    pub metrics: Arc<Metrics>,
    pub audit: Audit,
    /// The access log, where there is one, and its share of all requests.
    pub access: (Option<Journal>, f64),
    pub top: Top,
    #[cfg(feature = "otlp")]
    otlp: Otlp,
}

impl Observers {
    pub(crate) fn start(
        config: &Config,
        limits: &Arc<Limits>,
        admission: &Arc<Admission>,
    ) -> anyhow::Result<Self> {
        let metrics = metrics(config, limits, admission);
        let audit = start_audit(config, &metrics)?;
        let access = start_access_log(config, &metrics)?;
        let metrics = Arc::new(metrics);
        Ok(Self {
            #[cfg(feature = "otlp")]
            otlp: start_otlp(metrics.clone())?,
            metrics,
            audit,
            access,
            top: Top::default(),
        })
    }

    /// The files may have been moved away.
    pub(crate) fn reopen(&self) {
        self.audit.reopen();
        self.access.0.iter().for_each(Journal::reopen);
    }

    /// Writes what waits.
    pub(crate) fn stop(&self) {
        self.audit.stop();
        self.access.0.iter().for_each(Journal::stop);
        #[cfg(feature = "otlp")]
        self.otlp.stop();
    }

    /// For a worker.
    pub(crate) fn spans(&self) -> Spans {
        Spans {
            #[cfg(feature = "otlp")]
            tracer: self.otlp.tracer(),
        }
    }

    /// Keeps the count of the busiest devices, until it is dropped.
    pub(crate) async fn keep_top(self) {
        let mut looks = interval(top::GATHER_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.top.gather();
        }
    }
}

#[cfg(feature = "otlp")]
fn start_otlp(metrics: Arc<Metrics>) -> anyhow::Result<Otlp> {
    Otlp::start(move || metrics.render()).context("OTEL_EXPORTER_OTLP_ENDPOINT: cannot be used")
}

fn start_audit(config: &Config, metrics: &Metrics) -> anyhow::Result<Audit> {
    let Some(target) = config.audit_log.clone() else {
        return Ok(Audit::off());
    };
    Audit::start(target, metrics.audit()).context("FOREBAY_AUDIT_LOG: cannot be opened")
}

fn start_access_log(config: &Config, metrics: &Metrics) -> anyhow::Result<(Option<Journal>, f64)> {
    const VARIABLE: &str = "FOREBAY_ACCESS_LOG";
    let Some(log) = &config.access_log else {
        return Ok((None, 0.0));
    };
    let journal = Journal::start(VARIABLE, log.target.clone(), metrics.access(), Vec::new);
    Ok((
        Some(journal.with_context(|| format!("{VARIABLE}: cannot be opened"))?),
        log.share,
    ))
}

fn metrics(config: &Config, limits: &Arc<Limits>, admission: &Arc<Admission>) -> Metrics {
    let streams: Vec<String> = config
        .streams
        .iter()
        .map(|stream| stream.name.clone())
        .collect();
    let taken = taken(limits.clone(), admission.clone());
    Metrics::new(
        config.listen.workers.get(),
        &streams,
        taken.into_iter().chain(bounds(config)).collect(),
    )
}

/// How much is taken of what there is.
fn taken(limits: Arc<Limits>, admission: Arc<Admission>) -> [ProbedGauge; 2] {
    [
        ProbedGauge {
            name: "forebay_limits_devices",
            help: "Devices whose buckets are held",
            read: Box::new(move || limits.devices_len() as f64),
        },
        ProbedGauge {
            name: "forebay_admission_bytes",
            help: "Bytes reserved for records that are not yet safe",
            read: Box::new(move || admission.reserved_bytes() as f64),
        },
    ]
}

/// How much there is.
fn bounds(config: &Config) -> [ProbedGauge; 4] {
    let bound = |name, help, value: usize| ProbedGauge {
        name,
        help,
        read: Box::new(move || value as f64),
    };
    let connections = config.listen.connections.all_max;
    [
        bound(
            "forebay_limits_devices_max",
            "FOREBAY_DEVICES_MAX",
            config.limits.devices_max,
        ),
        bound(
            "forebay_admission_bytes_max",
            "FOREBAY_MEMORY_MAX",
            config.memory_bytes_max,
        ),
        bound(
            "forebay_http_connections_max",
            "FOREBAY_CONNECTIONS_MAX",
            connections,
        ),
        bound(
            "forebay_worker_threads",
            "FOREBAY_WORKERS",
            config.listen.workers.get(),
        ),
    ]
}
