//! What a log of JSON lines could not say.
//!
//! Written where an event happens, through the exporter's handles: an event that is left out is
//! rare, or one of a flood that has cost more already.

use metrics::{Counter, counter, describe_counter};

/// Handles of one log's metrics; clones count into the same ones.
#[derive(Clone)]
pub(crate) struct JournalMetrics {
    sampled: Counter,
    dropped: Counter,
}

impl JournalMetrics {
    pub(super) fn audit() -> Self {
        const NAME: &str = "forebay_audit_omitted_events_total";
        describe_counter!(
            NAME,
            "Events without a line in the audit log: too many of a kind, or not written in time"
        );
        Self {
            sampled: counter!(NAME, "why" => "sampled"),
            dropped: counter!(NAME, "why" => "dropped"),
        }
    }

    pub(super) fn access() -> Self {
        const NAME: &str = "forebay_access_dropped_lines_total";
        describe_counter!(
            NAME,
            "Lines of the access log that could not be written in time"
        );
        Self {
            sampled: Counter::noop(),
            dropped: counter!(NAME),
        }
    }

    /// Counts for nobody.
    #[cfg(test)]
    pub(crate) fn unseen() -> Self {
        Self {
            sampled: Counter::noop(),
            dropped: Counter::noop(),
        }
    }

    /// There were too many of its kind in this second.
    pub(crate) fn sampled(&self) {
        self.sampled.increment(1);
    }

    /// The queue was full, or the file could not be written.
    pub(crate) fn dropped(&self) {
        self.dropped.increment(1);
    }
}
