//! The records of one stream and one worker, from the first that gathers to the last batch that
//! comes home.

use std::collections::VecDeque;

use super::accumulator::{Accumulator, Sealed};
use super::agenda::Standing;
use super::company::Company;
use super::credit::{Credit, OWN_BATCHES_MAX, SharedCredit};
use crate::config::BatchConfig;
use crate::record::StreamIndex;
use tokio::time::Instant;

/// Sealed batches of a lane that wait for credit are many in a burst; room for more is given back.
pub(super) const READY_KEPT_MAX: usize = 4 * OWN_BATCHES_MAX;

/// A quiet lane sends at once while it has no more batches in flight than these: acknowledgements
/// may take half a second.
const QUIET_BATCHES_MAX: usize = OWN_BATCHES_MAX / 2;

/// The records of one stream on their way to delivery: gathering, sealed, and in flight.
pub(super) struct Lane {
    pub stream: StreamIndex,
    pub accumulator: Accumulator,
    pub company: Company,
    /// Time until which the batch that gathers is held for company, if that is worth it.
    pub held_until: Option<Instant>,
    /// Batches that are sealed while the lane is out of credit.
    pub ready: VecDeque<Sealed>,
    pub credit: Credit,
    pub in_flight_records: usize,
}

impl Lane {
    pub(super) fn new(stream: StreamIndex, limits: BatchConfig, shared: &SharedCredit) -> Self {
        Self {
            stream,
            accumulator: Accumulator::new(limits),
            company: Company::new(limits.linger),
            held_until: None,
            ready: VecDeque::new(),
            credit: Credit::of(shared),
            in_flight_records: 0,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let Some(due_at) = self.accumulator.due_at() else {
            return Standing::Resting;
        };
        if !self.credit.is_left() {
            return Standing::Resting;
        }
        if let Some(due_at) = self.held_until {
            return Standing::Gathering { due_at };
        }
        if self.gathers() {
            return Standing::Gathering { due_at };
        }
        Standing::Unsent {
            due_at,
            records: self.accumulator.len(),
        }
    }

    /// Whether gathered records wait for more although the worker may be idle.
    fn gathers(&self) -> bool {
        let is_quiet = self.company.is_quiet() && self.credit.in_flight() <= QUIET_BATCHES_MAX;
        self.credit.in_flight() > 0 && !is_quiet
    }

    /// Opens a batch in the lane of a stream with so many partitions.
    pub(super) fn open(&mut self, now: Instant, partitions: u32) {
        debug_assert!(
            self.accumulator.is_empty(),
            "a batch opens with its first record"
        );
        let hold = self.company.hold(now, partitions);
        self.held_until = hold.map(|hold| now + hold);
    }

    /// Notes that one batch, of so many records, is in flight no longer.
    pub(super) fn come_home(&mut self, records: usize) {
        debug_assert!(self.in_flight_records >= records, "a batch comes home once");
        self.credit.give_back();
        self.in_flight_records -= records;
        debug_assert!(self.credit.in_flight() > 0 || self.in_flight_records == 0);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.credit.in_flight() == 0 && self.accumulator.is_empty() && self.ready.is_empty()
    }

    /// Records that have not come home.
    pub(super) fn records(&self) -> usize {
        let ready = self.ready.iter().map(|sealed| sealed.records.len());
        self.accumulator.len() + self.in_flight_records + ready.sum::<usize>()
    }

    /// Gives back the room that a burst needed. Nothing is ready.
    pub(super) fn give_back_room(&mut self) {
        debug_assert!(self.ready.is_empty());
        if self.ready.capacity() > READY_KEPT_MAX {
            self.ready = VecDeque::new();
        }
    }
}
