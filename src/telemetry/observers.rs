//! The observers of the gateway, together: metrics, the audit and access logs, spans, the count of
//! the busiest devices, and the certificates that end first.
//!
//! `gateway` opens them before anything that they watch, gives each worker its share
//! ([`WorkerObservers`]), and stops them last. Nobody waits for any of them: what cannot be written
//! is counted.

use std::error::Error;
use std::sync::Arc;

use tokio::time::{MissedTickBehavior, interval};

use super::access::AccessLog;
use super::audit::{Audit, Event};
use super::expiring::Expiring;
use super::journal::Journal;
use super::metrics::{Metrics, WorkerMetrics};
#[cfg(feature = "otlp")]
use super::otlp::Otlp;
use super::spans::Spans;
use super::top::{self, Top};
use crate::record::Timestamp;
use crate::words::Reload;

/// Observe the whole gateway. Clones observe together.
#[derive(Clone)]
pub(crate) struct Observers {
    pub metrics: Arc<Metrics>,
    pub audit: Audit,
    pub access: Access,
    pub top: Top,
    pub expiring: Expiring,
    #[cfg(feature = "otlp")]
    pub otlp: Otlp,
}

/// The access log, where there is one, and its share of all requests.
#[derive(Clone)]
pub(crate) struct Access {
    pub journal: Option<Journal>,
    pub share: f64,
}

/// Observe one worker.
pub struct WorkerObservers {
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) audit: Audit,
    pub(crate) access: AccessLog,
    pub(crate) spans: Spans,
    pub(crate) top: Top,
    pub(crate) expiring: Expiring,
}

impl WorkerObservers {
    /// Metrics, and no logs, for whoever drives a worker's rooms without a gateway.
    pub fn counting(metrics: Arc<WorkerMetrics>) -> Self {
        Self {
            metrics,
            audit: Audit::off(),
            access: AccessLog::off(),
            spans: Spans::default(),
            top: Top::default(),
            expiring: Expiring::default(),
        }
    }
}

impl Observers {
    pub(crate) fn of_worker(&self, index: usize) -> WorkerObservers {
        WorkerObservers {
            metrics: self.metrics.worker(index),
            audit: self.audit.clone(),
            access: AccessLog::new(self.access.journal.clone(), self.access.share),
            spans: self.spans(),
            top: self.top.clone(),
            expiring: self.expiring.clone(),
        }
    }

    fn spans(&self) -> Spans {
        Spans {
            #[cfg(feature = "otlp")]
            tracer: self.otlp.tracer(),
        }
    }

    /// Counts a changed file that cannot be used, and writes it down.
    pub(crate) fn reload_failed(&self, what: Reload, error: &dyn Error) {
        self.metrics.reload_failed(what);
        self.audit.record(Event::ReloadFailed {
            what: what.label(),
            error: &error.to_string(),
        });
    }

    /// Opens the files of both logs anew: they may have been moved away.
    pub(crate) fn reopen(&self) {
        self.audit.reopen();
        self.access.journal.iter().for_each(Journal::reopen);
    }

    /// Writes down that the gateway has stopped, and all that waits.
    pub(crate) fn stop(&self, is_clean: bool) {
        self.audit.record(Event::Stopped { clean: is_clean });
        self.audit.stop();
        self.access.journal.iter().for_each(Journal::stop);
        #[cfg(feature = "otlp")]
        self.otlp.stop();
    }

    /// Gathers what workers say of devices, until it is dropped.
    pub(crate) async fn gather_devices(self) {
        let mut looks = interval(top::GATHER_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.top.gather();
            self.expiring.gather(Timestamp::now());
        }
    }
}
