//! The metrics of the live page's watchers.
//!
//! The admin's thread writes it, through the exporter's handles, when a watcher comes or goes.

use metrics::{Counter, Gauge};

use super::register::{counters, each, gauge};

/// Handles of the watchers' metrics; clones count into the same ones.
#[derive(Clone)]
pub(crate) struct WatcherMetrics {
    watchers: Gauge,
    full: Counter,
    slow: Counter,
}

impl WatcherMetrics {
    pub(super) fn register() -> Self {
        let shed = counters(
            "forebay_admin_watchers_shed_total",
            "Watchers of the live page that were refused because there are as many as may be, or ended because they took nothing",
            each("why", &["full", "slow"]),
        );
        let [full, slow] = shed.try_into().expect("one for each reason");
        Self {
            watchers: gauge("forebay_admin_watchers", "Watchers of the live page"),
            full,
            slow,
        }
    }

    /// Says how many watch.
    pub(crate) fn set(&self, watchers: usize) {
        self.watchers.set(watchers as f64);
    }

    /// Counts one that was refused because others watch.
    pub(crate) fn refused(&self) {
        self.full.increment(1);
    }

    /// Counts one that was ended because it took nothing.
    pub(crate) fn ended_slow(&self) {
        self.slow.increment(1);
    }
}
