//! Events of the fleet that nobody will read.
//!
//! Workers count those for which there is no room, delivery those that their stream refuses for
//! good; both rarely, through the exporter's handle.

use metrics::Counter;

use super::register::counter;

/// A handle of the count; clones count into the same one.
#[derive(Clone)]
pub struct EventMetrics {
    dropped: Counter,
}

impl EventMetrics {
    pub(super) fn register() -> Self {
        Self {
            dropped: counter(
                "forebay_events_dropped_total",
                "Events of the fleet that were dropped: too many wait for their stream, or it refuses them for good",
            ),
        }
    }

    /// Counts events that are lost.
    pub(crate) fn dropped(&self, events: usize) {
        self.dropped.increment(events as u64);
    }
}
