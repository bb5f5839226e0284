//! The cell of every count on the hot path: a number that one thread writes and any thread reads.
//!
//! Counters and histograms of a worker are made of it. A second writer would lose counts, nothing
//! worse.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter with one writer: its thread loads and stores, others only load.
///
/// A `fetch_add` would lock the cache line for some twenty cycles to exclude writers that do not
/// exist. Relaxed is enough: no other memory is published by a count, and a scrape may be a few
/// requests late.
#[derive(Debug, Default)]
pub(crate) struct Local(AtomicU64);

impl Local {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A duration as the histograms take it.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
