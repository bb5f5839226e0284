//! The devices of one shard with a record ready, the load that waits for the shard, and the shard's
//! pace.
//!
//! `pending` has one for each shard, and adds and takes; the loads are sums over the records of its
//! devices.

use std::collections::VecDeque;
use std::iter::Sum;
use std::ops::{AddAssign, SubAssign};

use tokio::time::Instant;

use super::entry::Entry;
use super::pace::{Load, Pace};
use super::shards::ShardId;

/// The queue of one shard.
#[derive(Debug)]
pub(super) struct Queue {
    pub shard: ShardId,
    /// The ready devices, by their places among the shards' keys, in the order of their turns.
    pub ready: VecDeque<u128>,
    /// Whether it stands among the shards with ready devices.
    pub has_turn: bool,
    /// Records of the shard's devices that wait; those in a call do not count.
    pub load: Load,
    pub pace: Pace,
}

impl Queue {
    pub(crate) fn new(shard: ShardId, now: Instant) -> Self {
        Self {
            shard,
            ready: VecDeque::new(),
            has_turn: false,
            load: Load::default(),
            pace: Pace::new(now),
        }
    }

    /// Lets its devices leave, in their order; the pace stays.
    pub(crate) fn clear(&mut self) -> VecDeque<u128> {
        self.load = Load::default();
        self.has_turn = false;
        std::mem::take(&mut self.ready)
    }

    /// Whether the shard gets to this record by its turn. Packed records hardly count as such, only
    /// by their bytes.
    pub(crate) fn is_in_time(&mut self, entry: &Entry, packed: bool, now: Instant) -> bool {
        self.pace.admits(now);
        let records = if packed { 0 } else { self.load.records };
        now + self.pace.wait(Load {
            records,
            ..self.load
        }) <= entry.deadlines.turn
    }
}

impl Load {
    pub(crate) fn of(entry: &Entry) -> Self {
        Self {
            records: 1,
            bytes: entry.bytes(),
        }
    }
}

impl AddAssign for Load {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

impl SubAssign for Load {
    fn sub_assign(&mut self, other: Self) {
        debug_assert!(self.records >= other.records && self.bytes >= other.bytes);
        self.records -= other.records;
        self.bytes -= other.bytes;
    }
}

impl Sum for Load {
    fn sum<I: Iterator<Item = Self>>(loads: I) -> Self {
        let mut sum = Self::default();
        loads.for_each(|load| sum += load);
        sum
    }
}
