//! What the audit log could not say.
//!
//! Written where an event happens, through the exporter's handles: an event that is left out is rare, or one of a flood
//! that has cost more already.

use metrics::{Counter, counter, describe_counter};

/// Handles of the audit log's metrics; clones count into the same ones.
#[derive(Clone)]
pub struct AuditMetrics {
    sampled: Counter,
    dropped: Counter,
}

impl AuditMetrics {
    pub(super) fn register() -> Self {
        const NAME: &str = "forebay_audit_omitted_events_total";
        describe_counter!(NAME, "Events without a line in the audit log: too many of a kind, or not written in time");
        Self { sampled: counter!(NAME, "why" => "sampled"), dropped: counter!(NAME, "why" => "dropped") }
    }

    /// Counts for nobody.
    pub fn unseen() -> Self {
        Self { sampled: Counter::noop(), dropped: Counter::noop() }
    }

    /// There were too many of its kind in this second.
    pub fn event_sampled(&self) {
        self.sampled.increment(1);
    }

    /// The queue was full, or the file could not be written.
    pub fn event_dropped(&self) {
        self.dropped.increment(1);
    }
}
