//! Opens what watches the gateway, as configured.

use std::sync::Arc;

use anyhow::Context;

use crate::config::{AccessLogConfig, Config, JournalTarget};
use crate::ingest::Gate;
use crate::telemetry::audit::Audit;
use crate::telemetry::expiring::Expiring;
use crate::telemetry::journal::Journal;
use crate::telemetry::metrics::{Metrics, ProbedGauge};
use crate::telemetry::observers::{Access, Observers};
#[cfg(feature = "otlp")]
use crate::telemetry::otlp::Otlp;
use crate::telemetry::top::Top;

const ACCESS_LOG: &str = "FOREBAY_ACCESS_LOG";

pub(crate) fn start(config: &Config, gate: &Gate) -> anyhow::Result<Observers> {
    let metrics = Arc::new(metrics(config, gate));
    let audit = start_audit(config.audit_log.clone(), &metrics)?;
    let access = start_access_log(config.access_log.as_ref(), &metrics)?;
    Ok(Observers {
        #[cfg(feature = "otlp")]
        otlp: start_otlp(metrics.clone())?,
        metrics,
        audit,
        access,
        top: Top::default(),
        expiring: Expiring::default(),
    })
}

#[cfg(feature = "otlp")]
fn start_otlp(metrics: Arc<Metrics>) -> anyhow::Result<Otlp> {
    Otlp::start(move || metrics.render()).context("OTEL_EXPORTER_OTLP_ENDPOINT: cannot be used")
}

fn start_audit(target: Option<JournalTarget>, metrics: &Metrics) -> anyhow::Result<Audit> {
    let Some(target) = target else {
        return Ok(Audit::off());
    };
    Audit::start(target, metrics.audit()).context("FOREBAY_AUDIT_LOG: cannot be opened")
}

fn start_access_log(log: Option<&AccessLogConfig>, metrics: &Metrics) -> anyhow::Result<Access> {
    let Some(log) = log else {
        return Ok(Access {
            journal: None,
            share: 0.0,
        });
    };
    let journal = Journal::start(ACCESS_LOG, log.target.clone(), metrics.access(), Vec::new)
        .with_context(|| format!("{ACCESS_LOG}: cannot be opened"))?;
    Ok(Access {
        journal: Some(journal),
        share: log.share,
    })
}

fn metrics(config: &Config, gate: &Gate) -> Metrics {
    let streams = config.streams.iter().map(|stream| stream.name.clone());
    let streams: Vec<String> = streams.collect();
    let gauges = taken(gate).into_iter().chain(bounds(config)).collect();
    Metrics::new(config.listen.workers.get(), &streams, gauges)
}

/// Gauges of what is taken of each bound.
fn taken(gate: &Gate) -> [ProbedGauge; 2] {
    let (limits, admission) = (gate.limits.clone(), gate.admission.clone());
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

/// Gauges of the bounds, each with the variable that sets it.
fn bounds(config: &Config) -> [ProbedGauge; 4] {
    let bound = |name, variable, value: usize| ProbedGauge {
        name,
        help: variable,
        read: Box::new(move || value as f64),
    };
    let (listen, connections) = (&config.listen, &config.listen.connections);
    let (devices, memory) = (config.limits.devices_max, config.memory_bytes_max);
    [
        bound("forebay_limits_devices_max", "FOREBAY_DEVICES_MAX", devices),
        bound("forebay_admission_bytes_max", "FOREBAY_MEMORY_MAX", memory),
        bound(
            "forebay_http_connections_max",
            "FOREBAY_CONNECTIONS_MAX",
            connections.all_max,
        ),
        bound(
            "forebay_worker_threads",
            "FOREBAY_WORKERS",
            listen.workers.get(),
        ),
    ]
}
