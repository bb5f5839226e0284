//! The records of one stream and one worker, from the first that gathers to the last batch that comes
//! home.

use std::collections::VecDeque;

use super::IN_FLIGHT_BATCHES_MAX;
use super::accumulator::{Accumulator, Sealed};
use super::agenda::Standing;
use crate::config::BatchConfig;
use crate::record::StreamIndex;

/// Sealed batches of a lane that wait for credit are many in a burst; room for more is given back.
pub(super) const READY_KEPT_MAX: usize = 4 * IN_FLIGHT_BATCHES_MAX;

/// The records of one stream on their way to delivery: gathering, sealed, and in flight.
pub(super) struct Lane {
    pub stream: StreamIndex,
    pub accumulator: Accumulator,
    /// Batches that are sealed while the lane is out of credit.
    pub ready: VecDeque<Sealed>,
    pub in_flight_batches: usize,
    pub in_flight_records: usize,
}

impl Lane {
    pub(super) fn new(stream: StreamIndex, limits: BatchConfig) -> Self {
        Self {
            stream,
            accumulator: Accumulator::new(limits),
            ready: VecDeque::new(),
            in_flight_batches: 0,
            in_flight_records: 0,
        }
    }

    pub(super) fn has_credit(&self) -> bool {
        debug_assert!(self.in_flight_batches <= IN_FLIGHT_BATCHES_MAX);
        self.in_flight_batches < IN_FLIGHT_BATCHES_MAX
    }

    pub(super) fn standing(&self) -> Standing {
        match self.accumulator.due_at() {
            Some(due_at) if self.in_flight_batches == 0 => Standing::Unsent {
                due_at,
                records: self.accumulator.len(),
            },
            Some(due_at) if self.has_credit() => Standing::Gathering { due_at },
            _ => Standing::Resting,
        }
    }

    /// One batch, of so many records, is in flight no longer.
    pub(super) fn come_home(&mut self, records: usize) {
        debug_assert!(self.in_flight_batches > 0, "a batch comes home once");
        debug_assert!(self.in_flight_records >= records, "and its records with it");
        self.in_flight_batches -= 1;
        self.in_flight_records -= records;
        debug_assert!(self.in_flight_batches > 0 || self.in_flight_records == 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.in_flight_batches == 0 && self.accumulator.is_empty() && self.ready.is_empty()
    }

    /// Records that have not come home.
    pub(super) fn records(&self) -> usize {
        let ready = self.ready.iter().map(|sealed| sealed.records.len());
        self.accumulator.len() + self.in_flight_records + ready.sum::<usize>()
    }

    /// Nothing is ready: what a burst needed is not kept.
    pub(super) fn give_back_room(&mut self) {
        debug_assert!(self.ready.is_empty());
        if self.ready.capacity() > READY_KEPT_MAX {
            self.ready = VecDeque::new();
        }
    }
}
