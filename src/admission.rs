//! May this record come in? The memory budget over all records that are not yet safe, and whether its stream is there.
//!
//! Ingest asks before it reads a body. What it gets is a [`Permit`] that travels with the record and gives its bytes
//! back when the record is dropped, wherever that is. The sum of all permits never exceeds the budget.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::delivery::Health;
use crate::record::{Permit, StreamIndex};

/// What a record is reckoned to cost beside its payload: itself, its headers, and its share of the buffers that its
/// payload pins and that the sink's client makes. In bytes.
pub const RECORD_OVERHEAD_BYTES: usize = 1024;

/// Why nothing can come in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    MemoryBudget,
    SinkAway,
    Draining,
}

/// Shared by all workers.
pub struct Admission {
    /// Leaked once a process: permits outlive everything that could own it.
    reserved_bytes: &'static AtomicUsize,
    bytes_max: usize,
    sink: Arc<Health>,
    closed: AtomicBool,
}

impl Admission {
    pub fn new(bytes_max: usize, sink: Arc<Health>) -> Self {
        let reserved_bytes = Box::leak(Box::new(AtomicUsize::new(0)));
        Self {
            reserved_bytes,
            bytes_max,
            sink,
            closed: AtomicBool::new(false),
        }
    }

    /// A permit for a payload of at most `payload_bytes` for the stream.
    pub fn reserve(&self, stream: StreamIndex, payload_bytes: usize) -> Result<Permit, Shed> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Shed::Draining);
        }
        if !self.sink.admits(stream) {
            return Err(Shed::SinkAway);
        }
        let bytes = payload_bytes + RECORD_OVERHEAD_BYTES;
        let before = self.reserved_bytes.fetch_add(bytes, Ordering::Relaxed);
        let permit = Permit::holding(self.reserved_bytes, bytes);
        if before + bytes > self.bytes_max {
            Err(Shed::MemoryBudget)
        } else {
            Ok(permit)
        }
    }

    /// From now on nothing comes in.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Bytes of all records that are not yet safe.
    pub fn reserved_bytes(&self) -> usize {
        self.reserved_bytes.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamIndex = StreamIndex(0);

    #[test]
    fn the_budget_holds_and_a_dropped_permit_comes_back() {
        let admission = Admission::new(3 * RECORD_OVERHEAD_BYTES, Arc::new(Health::up(1)));
        let mut large = admission.reserve(STREAM, RECORD_OVERHEAD_BYTES).unwrap();
        assert_eq!(
            admission.reserve(STREAM, 1).unwrap_err(),
            Shed::MemoryBudget
        );
        let small = admission.reserve(STREAM, 0).unwrap();
        drop(small);
        large.shrink_to(RECORD_OVERHEAD_BYTES);
        assert_eq!(admission.reserved_bytes(), RECORD_OVERHEAD_BYTES);
        drop(large);
        assert_eq!(admission.reserved_bytes(), 0);
    }

    #[test]
    fn a_sink_that_is_away_and_a_closed_door_shed() {
        let health = Arc::new(Health::up(1));
        let admission = Admission::new(1 << 20, health.clone());
        health.set_down(STREAM, "gone".into());
        assert_eq!(admission.reserve(STREAM, 1).unwrap_err(), Shed::SinkAway);
        health.set_up(STREAM, None);
        assert!(admission.reserve(STREAM, 1).is_ok());
        admission.close();
        assert_eq!(admission.reserve(STREAM, 1).unwrap_err(), Shed::Draining);
    }
}
