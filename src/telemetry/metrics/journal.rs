//! The lines that a log of JSON lines could not write.
//!
//! Written where an event happens, through the exporter's handles: an event that is left out is
//! rare, or one of a flood that has cost more already.

use metrics::Counter;

use super::register::{counter, counters, each};

/// Handles of one log's metrics; clones count into the same ones.
#[derive(Clone)]
pub(crate) struct JournalMetrics {
    sampled: Counter,
    dropped: Counter,
}

impl JournalMetrics {
    pub(super) fn audit() -> Self {
        let omitted = counters(
            "forebay_audit_omitted_events_total",
            "Events without a line in the audit log: too many of a kind, or not written in time",
            each("why", &["sampled", "dropped"]),
        );
        let [sampled, dropped] = omitted.try_into().expect("one for each reason");
        Self { sampled, dropped }
    }

    pub(super) fn access() -> Self {
        Self {
            sampled: Counter::noop(),
            dropped: counter(
                "forebay_access_dropped_lines_total",
                "Lines of the access log that could not be written in time",
            ),
        }
    }

    /// Handles that count for nobody.
    #[cfg(test)]
    pub(crate) fn unseen() -> Self {
        Self {
            sampled: Counter::noop(),
            dropped: Counter::noop(),
        }
    }

    /// Counts an event of whose kind there were too many in this second.
    pub(crate) fn sampled(&self) {
        self.sampled.increment(1);
    }

    /// Counts a line for which the queue was full, or the file could not be written.
    pub(crate) fn dropped(&self) {
        self.dropped.increment(1);
    }
}
