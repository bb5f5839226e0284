//! The queue in front of the commit thread, bounded in items and in bytes.
//!
//! Whoever pushes never waits: a full queue gives the item back. The one that takes gets everything that has gathered, up
//! to a round's bytes, so that all of it shares one sync. A nudge wakes it without an item: there is other work. After
//! `close` nothing is taken in, and what is there is still given out.
//!
//! `tests/loom_spool.rs` walks every interleaving: no item and no nudge is left with the taker asleep.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard};

/// What the queue holds at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub items: usize,
    pub bytes: usize,
}

/// Why an item was not taken in; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken<T> {
    Full(T),
    Closed(T),
}

/// What the taker is to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken<T> {
    pub items: Vec<T>,
    /// No more will come.
    pub closed: bool,
}

pub(crate) struct Queue<T> {
    bounds: Bounds,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    nudged: bool,
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        let state = State {
            items: VecDeque::new(),
            bytes: 0,
            nudged: false,
            closed: false,
        };
        Self {
            bounds,
            state: Mutex::new(state),
            changed: Condvar::new(),
        }
    }

    /// Takes in an item of so many bytes. An empty queue takes any one item.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), NotTaken<T>> {
        let mut state = self.lock();
        if state.closed {
            return Err(NotTaken::Closed(item));
        }
        let fits = state.items.len() < self.bounds.items
            && state.bytes.saturating_add(bytes) <= self.bounds.bytes;
        if !fits && !state.items.is_empty() {
            return Err(NotTaken::Full(item));
        }
        state.items.push_back((item, bytes));
        state.bytes += bytes;
        self.changed.notify_one();
        Ok(())
    }

    /// Wakes the taker.
    pub(crate) fn nudge(&self) {
        let mut state = self.lock();
        if !state.nudged {
            state.nudged = true;
            self.changed.notify_one();
        }
    }

    /// Lets the taker finish.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for items, a nudge, the close or, when there is one, the time-out. Gives items until they have
    /// `round_bytes` together, one at least if there is one.
    pub(crate) fn take(&self, round_bytes: usize, timeout: Option<Duration>) -> Taken<T> {
        let mut state = self.lock();
        while state.items.is_empty() && !state.nudged && !state.closed {
            state = match timeout {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(timeout) => {
                    let waited = self.changed.wait_timeout(state, timeout);
                    let (state, waited) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
                    if waited.timed_out() {
                        return take_round(state, round_bytes);
                    }
                    state
                }
            };
        }
        take_round(state, round_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn take_round<T>(mut state: MutexGuard<'_, State<T>>, round_bytes: usize) -> Taken<T> {
    let mut items = Vec::new();
    let mut taken_bytes = 0;
    while taken_bytes < round_bytes
        && let Some((item, bytes)) = state.items.pop_front()
    {
        items.push(item);
        taken_bytes += bytes;
    }
    state.bytes -= taken_bytes;
    state.nudged = false;
    Taken {
        items,
        closed: state.closed && state.items.is_empty(),
    }
}
