//! Credit: the number of batches that the lanes of one worker may have in flight.
//!
//! Each lane has [`OWN_BATCHES_MAX`] of its own, whatever the others do: enough where
//! acknowledgements take milliseconds. The lanes share further ones, for busy streams whose
//! acknowledgements take half a second; the memory budget bounds their bytes. A lane takes no more
//! of these than it leaves free, so that a stream that stands still leaves others half of them.

use std::cell::Cell;
use std::rc::Rc;

/// Batches that a lane may have in flight whatever the others have.
pub(crate) const OWN_BATCHES_MAX: usize = 16;

const _: () = assert!(OWN_BATCHES_MAX > 0, "a lane may send a batch");

/// Further batches that the lanes of a worker share. A lane alone gets half of them, which lets it
/// send one every two milliseconds for half a second.
pub(crate) const SHARED_BATCHES_MAX: usize = 512;

/// Returns the batches that a worker of so many lanes may have in flight.
pub const fn in_flight_batches_max(lanes: usize) -> usize {
    lanes * OWN_BATCHES_MAX + SHARED_BATCHES_MAX
}

/// The batches that the lanes of a worker share and that none has taken. Clones are the same.
#[derive(Clone)]
pub(super) struct SharedCredit(Rc<Cell<usize>>);

/// Credit of one lane.
pub(super) struct Credit {
    in_flight: usize,
    free: SharedCredit,
}

impl Default for SharedCredit {
    fn default() -> Self {
        Self(Rc::new(Cell::new(SHARED_BATCHES_MAX)))
    }
}

impl Credit {
    pub(super) fn of(shared: &SharedCredit) -> Self {
        Self {
            in_flight: 0,
            free: shared.clone(),
        }
    }

    /// Returns the number of batches in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether another batch may be in flight.
    pub(super) fn is_left(&self) -> bool {
        self.in_flight < OWN_BATCHES_MAX || self.shared() < self.free.0.get()
    }

    pub(super) fn take(&mut self) {
        debug_assert!(self.is_left(), "a lane sends within its credit");
        let shared = self.shared();
        self.in_flight += 1;
        self.note(shared);
    }

    pub(super) fn give_back(&mut self) {
        debug_assert!(self.in_flight > 0, "a batch comes home once");
        let shared = self.shared();
        self.in_flight -= 1;
        self.note(shared);
    }

    /// Returns the number of shared batches that the lane has taken.
    fn shared(&self) -> usize {
        self.in_flight.saturating_sub(OWN_BATCHES_MAX)
    }

    fn note(&self, shared_before: usize) {
        let free = self.free.0.get() + shared_before - self.shared();
        debug_assert!(free <= SHARED_BATCHES_MAX, "each is given back once");
        self.free.0.set(free);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_lane_that_stands_still_leaves_half_of_what_is_shared_to_others() {
        let shared = SharedCredit::default();
        let [mut still, mut other] = [&shared, &shared].map(Credit::of);
        let fill = |lane: &mut Credit| {
            while lane.is_left() {
                lane.take();
            }
            lane.in_flight()
        };
        assert_eq!(fill(&mut still), OWN_BATCHES_MAX + SHARED_BATCHES_MAX / 2);
        assert_eq!(fill(&mut other), OWN_BATCHES_MAX + SHARED_BATCHES_MAX / 4);
        assert!(!still.is_left());
    }

    proptest! {
        /// Whatever is sent and comes home: all of it has its place in the queues, and a lane may
        /// always have its own.
        #[test]
        fn lanes_stay_within_their_places(
            steps in prop::collection::vec((0..4_usize, any::<bool>(), 1..300_usize), 1..100),
        ) {
            let shared = SharedCredit::default();
            let mut lanes: Vec<_> = (0..4).map(|_| Credit::of(&shared)).collect();
            for (lane, sends, times) in steps {
                for _ in 0..times {
                    match sends {
                        true if lanes[lane].is_left() => lanes[lane].take(),
                        false if lanes[lane].in_flight() > 0 => lanes[lane].give_back(),
                        _ => break,
                    }
                }
                let in_flight: usize = lanes.iter().map(Credit::in_flight).sum();
                prop_assert!(in_flight <= in_flight_batches_max(lanes.len()));
                let has_own = |lane: &Credit| lane.is_left() || lane.in_flight() >= OWN_BATCHES_MAX;
                prop_assert!(lanes.iter().all(has_own));
            }
        }
    }
}
