//! Records that were answered before they were safe, counted until they are.
//!
//! Delivery counts, on its own thread; the gateway reads the count when delivery has ended, however
//! that came about, and the exit code tells of it. A record counts from the moment that delivery
//! has it until the sink, the spool or the dead letters have it. One that is dropped counts for
//! ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Clones count together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Promised(Arc<AtomicUsize>);

impl Promised {
    /// Counts so many records that were answered and are in memory only.
    pub(crate) fn made(&self, records: usize) {
        self.0.fetch_add(records, Ordering::Relaxed);
    }

    /// Discounts so many of them, which are safe.
    pub(crate) fn kept(&self, records: usize) {
        let before = self.0.fetch_sub(records, Ordering::Relaxed);
        debug_assert!(before >= records, "a promise is kept once");
    }

    /// Returns the number of records that were answered and are not safe: in memory, or dropped.
    pub(crate) fn unsafe_records(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}
