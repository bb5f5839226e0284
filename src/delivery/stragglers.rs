//! How long batches take, which of them takes much longer, and how many do at once.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

/// Stragglers at once: about what one partition of ten makes in the second until it is known to be
/// away.
pub(crate) const STRAGGLERS_MAX: usize = 1024;

/// A batch takes much longer than others after so many times as long...
const STRAGGLES_AFTER: u32 = 3;

/// ...sooner where what has arrived shows that the rest waits for another try...
const PART_STRAGGLES_SOONER: u32 = 2;

/// ...but not sooner than this, nor later.
const STRAGGLES_AFTER_MIN: Duration = Duration::from_millis(4);
const STRAGGLES_AFTER_MAX: Duration = Duration::from_secs(2);

const _: () = assert!(STRAGGLES_AFTER_MIN.as_millis() < STRAGGLES_AFTER_MAX.as_millis());

/// How long the batches of one stream take, as a moving average.
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

    /// When a batch is late of which some has arrived, where the sink answers together what does not
    /// wait for another try.
    pub(crate) fn part_straggles_after(&self) -> Duration {
        self.straggles_after() / PART_STRAGGLES_SOONER
    }
}

/// How many batches straggle.
#[derive(Debug, Default)]
pub(crate) struct Stragglers(Rc<Cell<usize>>);

/// A place among the stragglers; given back on drop.
#[derive(Debug)]
pub(crate) struct Straggler(Rc<Cell<usize>>);

impl Stragglers {
    /// `None` while there are too many.
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
