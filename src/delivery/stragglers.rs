//! Stragglers: batches that take much longer than is usual for their stream, and their bound.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Most stragglers at once: about as many as one partition of ten makes in the second until it is
/// known to be away.
pub(crate) const STRAGGLERS_MAX: usize = 1024;

/// A batch takes much longer than others after so many times as long...
const STRAGGLES_AFTER: u32 = 3;

/// ...sooner if the answers so far show that the rest waits for another try...
const PART_STRAGGLES_SOONER: u32 = 2;

/// ...but not sooner than this, nor later.
const STRAGGLES_AFTER_MIN: Duration = Duration::from_millis(4);
const STRAGGLES_AFTER_MAX: Duration = Duration::from_secs(2);

const _: () = assert!(STRAGGLES_AFTER_MIN.as_millis() < STRAGGLES_AFTER_MAX.as_millis());

/// Usual ack time of the batches of one stream, as a moving average.
#[derive(Debug, Default)]
pub(crate) struct Usual(Cell<Duration>);

impl Usual {
    pub(crate) fn note(&self, took: Duration) {
        let usual = self.0.get();
        let usual = if usual.is_zero() {
            took
        } else {
            (usual * 7 + took) / 8
        };
        self.0.set(usual);
    }

    pub(crate) fn straggles_after(&self) -> Duration {
        let after = self.0.get() * STRAGGLES_AFTER;
        after.clamp(STRAGGLES_AFTER_MIN, STRAGGLES_AFTER_MAX)
    }

    /// Returns the time after which a batch of which some has arrived is late, for a sink that
    /// answers together all records that do not wait for another try.
    pub(crate) fn part_straggles_after(&self) -> Duration {
        self.straggles_after() / PART_STRAGGLES_SOONER
    }
}

/// Number of batches that straggle.
#[derive(Debug, Default)]
pub(crate) struct Stragglers(Rc<Cell<usize>>);

/// A place among the stragglers; given back on drop.
#[derive(Debug)]
pub(crate) struct Straggler(Rc<Cell<usize>>);

impl Stragglers {
    /// Takes a place among the stragglers; `None` while there are too many.
    pub(crate) fn place(&self) -> Option<Straggler> {
        let others = self.0.get();
        if others >= STRAGGLERS_MAX {
            return None;
        }
        self.0.set(others + 1);
        Some(Straggler(self.0.clone()))
    }
}

impl Drop for Straggler {
    fn drop(&mut self) {
        debug_assert!(self.0.get() > 0, "each has its place");
        self.0.set(self.0.get() - 1);
    }
}
