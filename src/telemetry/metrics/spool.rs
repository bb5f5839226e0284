//! The spool's metrics: its backlog, and the records that it could not keep.
//!
//! The spool's own threads write, once a commit or less often, through the exporter's handles.

use metrics::{Counter, Gauge};

use super::register::{counter, gauge};

/// Handles of the spool's metrics; clones count into the same ones.
#[derive(Clone)]
pub struct SpoolMetrics {
    up: Gauge,
    bytes: Gauge,
    bytes_max: Gauge,
    records: Gauge,
    dead_letter_bytes: Gauge,
    dead_letter_records: Gauge,
    disk_failures: Counter,
    damaged_frames: Counter,
    dropped_records: Counter,
}

impl SpoolMetrics {
    pub(super) fn register() -> Self {
        Self {
            up: gauge(
                "forebay_spool_up",
                "1 while the spool takes records, 0 while it is full, its disk fails, or there is none",
            ),
            bytes: gauge(
                "forebay_spool_bytes",
                "Bytes of the segments that hold undelivered records",
            ),
            bytes_max: gauge(
                "forebay_spool_bytes_max",
                "FOREBAY_SPOOL_BYTES_MAX; 0 without a spool",
            ),
            records: gauge(
                "forebay_spool_records",
                "Records in the spool that have not been delivered",
            ),
            dead_letter_bytes: gauge(
                "forebay_spool_dead_letter_bytes",
                "Bytes of the segments that hold dead letters",
            ),
            dead_letter_records: gauge(
                "forebay_spool_dead_letter_records",
                "Records that their stream refused for good and that wait for forebay spool replay",
            ),
            disk_failures: counter(
                "forebay_spool_disk_failures_total",
                "Segments that could not be created, written or synced",
            ),
            damaged_frames: counter(
                "forebay_spool_damaged_frames_total",
                "Frames that could not be read back",
            ),
            dropped_records: counter(
                "forebay_spool_dropped_records_total",
                "Undelivered records dropped to make room",
            ),
        }
    }

    /// Handles that count for nobody: for a folder of which nobody asks.
    pub fn unseen() -> Self {
        Self {
            up: Gauge::noop(),
            bytes: Gauge::noop(),
            bytes_max: Gauge::noop(),
            records: Gauge::noop(),
            dead_letter_bytes: Gauge::noop(),
            dead_letter_records: Gauge::noop(),
            disk_failures: Counter::noop(),
            damaged_frames: Counter::noop(),
            dropped_records: Counter::noop(),
        }
    }

    /// Handles for the dead letters: what waits is told as theirs, their state for nobody, and what
    /// goes wrong counts into the same counters.
    pub fn of_dead_letters(&self) -> Self {
        Self {
            up: Gauge::noop(),
            bytes: self.dead_letter_bytes.clone(),
            records: self.dead_letter_records.clone(),
            ..self.clone()
        }
    }

    /// Says whether the spool takes records.
    pub fn set_up(&self, is_up: bool) {
        self.up.set(f64::from(u8::from(is_up)));
    }

    /// Says what waits for delivery.
    pub fn set_backlog(&self, bytes: u64, records: u64) {
        self.bytes.set(bytes as f64);
        self.records.set(records as f64);
    }

    /// Says how many bytes the spool may take.
    pub fn set_bytes_max(&self, bytes_max: u64) {
        self.bytes_max.set(bytes_max as f64);
    }

    pub fn disk_failed(&self) {
        self.disk_failures.increment(1);
    }

    pub fn frames_damaged(&self, frames: u64) {
        self.damaged_frames.increment(frames);
    }

    pub fn records_dropped(&self, records: u64) {
        self.dropped_records.increment(records);
    }
}
