//! The last events, for whoever looks at the live page.
//!
//! Whoever records an event puts its line into a bounded lock-free queue, in the place of the oldest
//! where it is full; whoever looks takes the lines over. So nobody waits, and a gateway at which
//! nobody looks pays for one line an event. Limits: [`RECENT_MAX`] lines, each within the bounds of
//! the audit log. Failure: none; a line that nobody has looked at in time is forgotten.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crossbeam_queue::ArrayQueue;

use crate::telemetry::gather::waiting;

/// The most events that are kept.
const RECENT_MAX: usize = 50;

/// Keeps the newest [`RECENT_MAX`] lines.
pub(super) struct Recent {
    arrived: ArrayQueue<String>,
    /// Lines that readers have taken over, the newest first. Only readers take the lock.
    seen: Mutex<VecDeque<String>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            arrived: ArrayQueue::new(RECENT_MAX),
            seen: Mutex::default(),
        }
    }
}

impl Recent {
    pub(super) fn push(&self, line: String) {
        // The line that it displaces is older.
        drop(self.arrived.force_push(line));
    }

    /// Returns all lines that are kept, the newest first.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for line in waiting(&self.arrived) {
            seen.push_front(line);
        }
        seen.truncate(RECENT_MAX);
        debug_assert!(seen.len() <= RECENT_MAX, "the oldest are forgotten");
        seen.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_however_many_there_are() {
        let recent = Recent::default();
        let push = |events: std::ops::Range<usize>| {
            events.for_each(|event| recent.push(event.to_string()));
        };
        push(0..2);
        assert_eq!(recent.lines(), ["1", "0"]);
        push(2..3);
        assert_eq!(recent.lines(), ["2", "1", "0"], "also what was looked at");
        push(3..RECENT_MAX * 3);
        let lines = recent.lines();
        assert_eq!(lines.len(), RECENT_MAX);
        assert_eq!(lines[0], (RECENT_MAX * 3 - 1).to_string());
        assert_eq!(lines[RECENT_MAX - 1], (RECENT_MAX * 2).to_string());
    }
}
