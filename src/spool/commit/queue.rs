//! The queue in front of the commit thread, bounded in items and in bytes.
//!
//! A push never waits: a full queue gives the item back. The taker gets all items that have
//! gathered, up to a round's bytes, so that they share one sync. A nudge wakes it without an item:
//! there is other work. After `close` no item is taken in, and the waiting ones are still given
//! out.
//!
//! `tests/loom_spool.rs` walks every interleaving: no item and no nudge is left with the taker
//! asleep.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sync::{Condvar, Mutex, MutexGuard};

/// The bounds of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub items: usize,
    pub bytes: usize,
}

/// The reason why an item was not taken in; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotTaken<T> {
    Full(T),
    Closed(T),
}

/// One round of the taker's work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken<T> {
    pub items: Vec<T>,
    /// Whether no more will come.
    pub closed: bool,
}

/// A queue of items on their way to one taker.
pub(crate) struct Queue<T> {
    bounds: Bounds,
    waiting: Mutex<Waiting<T>>,
    changed: Condvar,
}

/// The items that wait for the taker.
struct Waiting<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
    nudged: bool,
    closed: bool,
}

impl<T> Queue<T> {
    pub(crate) fn new(bounds: Bounds) -> Self {
        assert!(bounds.items > 0, "an empty queue takes any one item");
        let waiting = Waiting {
            items: VecDeque::new(),
            bytes: 0,
            nudged: false,
            closed: false,
        };
        Self {
            bounds,
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
        }
    }

    /// Takes in an item of so many bytes. An empty queue takes any one item.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), NotTaken<T>> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(NotTaken::Closed(item));
        }
        if !waiting.has_room(self.bounds, bytes) {
            return Err(NotTaken::Full(item));
        }
        debug_assert!(waiting.items.len() < self.bounds.items);
        waiting.items.push_back((item, bytes));
        waiting.bytes += bytes;
        self.changed.notify_one();
        Ok(())
    }

    /// Wakes the taker.
    pub(crate) fn nudge(&self) {
        let mut waiting = self.lock();
        if !waiting.nudged {
            waiting.nudged = true;
            self.changed.notify_one();
        }
    }

    /// Lets the taker finish.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// Waits for items, a nudge, the close or, when there is one, the time-out. Gives items until
    /// they have `round_bytes` together, one at least if there is one.
    pub(crate) fn take(&self, round_bytes: usize, timeout: Option<Duration>) -> Taken<T> {
        let mut waiting = self.lock();
        while !waiting.has_work() {
            let Some(timeout) = timeout else {
                let woken = self.changed.wait(waiting);
                waiting = woken.unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            };
            let woken = self.changed.wait_timeout(waiting, timeout);
            let (locked, waited) = woken.unwrap_or_else(|poisoned| poisoned.into_inner());
            waiting = locked;
            if waited.timed_out() {
                break;
            }
        }
        waiting.take_round(round_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        let locked = self.waiting.lock();
        locked.unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T> Waiting<T> {
    /// Whether another item of so many bytes fits; any item fits an empty queue.
    fn has_room(&self, bounds: Bounds, bytes: usize) -> bool {
        let fits = self.bytes.saturating_add(bytes) <= bounds.bytes;
        self.items.is_empty() || fits && self.items.len() < bounds.items
    }

    fn has_work(&self) -> bool {
        !self.items.is_empty() || self.nudged || self.closed
    }

    fn take_round(&mut self, round_bytes: usize) -> Taken<T> {
        let mut items = Vec::new();
        let mut taken_bytes = 0;
        while taken_bytes < round_bytes
            && let Some((item, bytes)) = self.items.pop_front()
        {
            items.push(item);
            taken_bytes += bytes;
        }
        debug_assert!(taken_bytes <= self.bytes, "what is taken was counted");
        self.bytes -= taken_bytes;
        debug_assert!(!self.items.is_empty() || self.bytes == 0);
        self.nudged = false;
        Taken {
            items,
            closed: self.closed && self.items.is_empty(),
        }
    }
}
