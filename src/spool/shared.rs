//! What the commit thread, the readers and delivery know in common of one log: its index and its state.
//!
//! Nobody holds a lock of this room during disk work. Whoever retires records marks the cursor dirty; the engine clears
//! the mark when it writes the cursor.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::index::Index;

/// Whether a log takes records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    Up,
    /// The quota is used up.
    Full,
    /// The disk fails, and how. The engine keeps trying.
    Down(Arc<str>),
}

#[derive(Debug)]
pub struct Shared {
    index: Mutex<Index>,
    state: Mutex<State>,
    dirty: AtomicBool,
}

impl Shared {
    pub fn new(index: Index) -> Self {
        Self {
            index: Mutex::new(index),
            state: Mutex::new(State::Up),
            dirty: AtomicBool::new(false),
        }
    }

    pub fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These records are done with. Says whether they are the first ones since the cursor was written.
    pub fn retire(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> bool {
        let mut index = self.index();
        let retired: u64 = ranges.into_iter().map(|range| index.retire(range)).sum();
        retired > 0 && !self.dirty.swap(true, Ordering::AcqRel)
    }

    pub fn state(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    pub(super) fn set_dirty(&self, dirty: bool) {
        self.dirty.store(dirty, Ordering::Release);
    }
}
