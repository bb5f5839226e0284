//! The ledger of one log, which the commit thread, the readers and delivery share: its index and
//! its state.
//!
//! No lock of this room is held during disk work. Retiring records marks the cursor dirty; the
//! engine clears the mark when it writes the cursor.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::index::Index;
use super::ranges::Ranges;

/// Ranges that are copied while the index is locked.
const PART_RANGES: usize = 256;

/// Whether a log takes records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Up,
    /// The quota is used up.
    Full,
    /// The disk fails, and how. The engine keeps trying.
    Down(Arc<str>),
}

/// Shared state of one log.
#[derive(Debug)]
pub(crate) struct Ledger {
    index: Mutex<Index>,
    state: Mutex<State>,
    /// Whether records were retired since the cursor was written.
    dirty: AtomicBool,
}

impl Ledger {
    pub(crate) fn new(index: Index) -> Self {
        Self {
            index: Mutex::new(index),
            state: Mutex::new(State::Up),
            dirty: AtomicBool::new(false),
        }
    }

    pub(crate) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Retires these records. Says whether they are the first ones since the cursor was written.
    pub(crate) fn retire(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> bool {
        let retired = self.index().retire(ranges);
        retired > 0 && !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// Returns the first place that is not retired, and at most so many retired ranges beyond it.
    /// They are copied part by part, so that no caller waits for all of them; records that are
    /// retired meanwhile may be missing.
    pub(crate) fn done(&self, ranges_max: usize) -> (u64, Ranges) {
        let mut done = Ranges::default();
        let mut part = Vec::with_capacity(PART_RANGES);
        let mut from = 0;
        loop {
            let wanted = (ranges_max - done.count()).min(PART_RANGES);
            let low = self.copy_part_of_done(from, wanted, &mut part);
            let is_last = part.len() < PART_RANGES;
            from = part.last().map_or(from, |range| range.start + 1);
            for range in part.drain(..) {
                done.insert(range);
            }
            debug_assert!(done.count() <= ranges_max);
            if is_last || done.count() >= ranges_max {
                done.forget_below(low);
                return (low, done);
            }
        }
    }

    /// Adds at most `wanted` retired ranges, from the place `from` on. Returns the first place that
    /// is not retired.
    fn copy_part_of_done(&self, from: u64, wanted: usize, part: &mut Vec<Range<u64>>) -> u64 {
        debug_assert!(
            part.is_empty() && part.capacity() >= wanted,
            "nothing is allocated under the lock"
        );
        let index = self.index();
        part.extend(index.done_from(from).take(wanted));
        index.low()
    }

    pub(crate) fn state(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    pub(crate) fn set_dirty(&self, dirty: bool) {
        self.dirty.store(dirty, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::store::index::Segment;

    /// Every second record is retired: more ranges than are copied at once.
    #[test]
    fn what_is_done_with_is_copied_whole_or_up_to_its_bound() {
        let records = 4 * PART_RANGES as u64 + 10;
        let mut index = Index::default();
        index.add(Segment {
            id: 1,
            base: 0,
            end: records,
            bytes: 1,
            allocated_bytes: 1,
            live: 0,
            active: true,
        });
        let ledger = Ledger::new(index);
        ledger.retire((0..records / 2).map(|at| 2 * at + 1..2 * at + 2));
        let expected: Vec<_> = ledger.index().done_from(0).collect();
        assert_eq!(expected.len() as u64, records / 2);
        for bound in [0, 1, PART_RANGES, PART_RANGES + 1, usize::MAX] {
            let (low, done) = ledger.done(bound);
            let wanted = &expected[..expected.len().min(bound)];
            assert_eq!((low, done.iter().collect::<Vec<_>>()), (0, wanted.to_vec()));
        }
    }
}
