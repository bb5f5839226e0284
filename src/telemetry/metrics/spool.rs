//! What the spool counts: its backlog, and what it could not keep.
//!
//! The spool's own threads write, once a commit or less often, through the exporter's handles.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};

/// Handles of the spool's metrics; clones count into the same ones.
#[derive(Clone)]
pub struct SpoolMetrics {
    bytes: Gauge,
    bytes_max: Gauge,
    records: Gauge,
    damaged_frames: Counter,
    dropped_records: Counter,
}

impl SpoolMetrics {
    pub(super) fn register() -> Self {
        describe_gauge!("forebay_spool_bytes", "Bytes of the segments that hold undelivered records");
        describe_gauge!("forebay_spool_bytes_max", "FOREBAY_SPOOL_BYTES_MAX; 0 without a spool");
        describe_gauge!("forebay_spool_records", "Records in the spool that have not been delivered");
        describe_counter!("forebay_spool_damaged_frames_total", "Frames that could not be read back");
        describe_counter!("forebay_spool_dropped_records_total", "Undelivered records dropped to make room");
        Self {
            bytes: gauge!("forebay_spool_bytes"),
            bytes_max: gauge!("forebay_spool_bytes_max"),
            records: gauge!("forebay_spool_records"),
            damaged_frames: counter!("forebay_spool_damaged_frames_total"),
            dropped_records: counter!("forebay_spool_dropped_records_total"),
        }
    }

    /// Counts for nobody: for a folder of which nobody asks.
    pub fn unseen() -> Self {
        let (bytes, bytes_max, records) = (Gauge::noop(), Gauge::noop(), Gauge::noop());
        Self { bytes, bytes_max, records, damaged_frames: Counter::noop(), dropped_records: Counter::noop() }
    }

    /// Counts damage into the same counters, and its backlog for nobody.
    pub fn without_backlog(&self) -> Self {
        Self { bytes: Gauge::noop(), records: Gauge::noop(), ..self.clone() }
    }

    /// What waits for delivery.
    pub fn set_backlog(&self, bytes: u64, records: u64) {
        self.bytes.set(bytes as f64);
        self.records.set(records as f64);
    }

    /// How many bytes it may take.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.set(bytes_max as f64);
    }

    pub fn frames_damaged(&self, frames: u64) {
        self.damaged_frames.increment(frames);
    }

    pub fn records_dropped(&self, records: u64) {
        self.dropped_records.increment(records);
    }
}
