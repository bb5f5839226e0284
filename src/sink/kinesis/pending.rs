//! The records on their way to one stream, and the choice of the next call's puts.
//!
//! The dispatcher owns it and passes the time in; nothing here waits. A device is ready, resting
//! after a failure, or on the wire with one put: a record, or as many of its records as one
//! aggregate has room for. The others queue behind it, and failed ones go back to the front.
//!
//! The ready devices of each shard are a queue of their own, with its pace, and the queues take
//! turns: a shard that can take no more holds up its own devices only. A record that would wait too
//! long for its shard is not taken in.
//!
//! If nothing is due it costs nothing: shards without a ready device have no turn, and devices are
//! looked at when their rest or their time is over, by an index. A device that does not wait until
//! the next tick never enters it.
//!
//! Each entry is reported exactly once: when it is settled, or when its deadline passes while it
//! waits.

mod device;
mod due;
mod reshard;

use std::cmp::Reverse;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::{Answer, CALL_BYTES_MAX, CALL_RECORDS_MAX};
use super::entry::{Entry, Put, Verdict};
use super::overload::Overload;
use super::pace::Load;
use super::queue::Queue;
use super::shards::{ShardId, Shards};
use crate::jitter;
use crate::record::{Outcome, Reason};
use device::Device;
use due::note_new;

/// The bounds of the pause after a failure, which doubles with each further one, up to the time in
/// which a shard's budget is renewed.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Records that wait for a call, for each shard of the stream; further batches stay in the
/// hand-over.
const RECORDS_WAITING_MAX: usize = 8192;

#[derive(Debug)]
pub(super) struct Pending {
    /// Every device with a record, by its place among the shards' keys; each is either in a call,
    /// or ready, or resting. Two with the same place would wait for each other, and go to the same
    /// shard in any case.
    devices: HashMap<u128, Device>,
    shards: Arc<Shards>,
    /// The queue of each shard, in the order of the shards.
    queues: Vec<Queue>,
    /// The shards with ready devices, the next one first; those whose pace holds them stand in
    /// `paced` until the next tick.
    turns: VecDeque<usize>,
    paced: Vec<usize>,
    /// Records that wait; those in a call do not count.
    waiting: usize,
    /// Devices with a record that has come since the last tick.
    new: Vec<u128>,
    /// The times at which devices are looked at. A device that was looked at since, or is gone, is
    /// passed over.
    due: BinaryHeap<Reverse<(Instant, u128)>>,
    overload: Overload,
    packed: bool,
}

impl Pending {
    /// Begins without records. With `packed` they go as aggregates, as soon as the shards are
    /// known.
    pub(crate) fn new(shards: Arc<Shards>, packed: bool, now: Instant) -> Self {
        let queues = shards.ids().map(|id| Queue::new(id.clone(), now)).collect();
        Self {
            devices: HashMap::new(),
            shards,
            queues,
            turns: VecDeque::new(),
            paced: Vec::new(),
            waiting: 0,
            new: Vec::new(),
            due: BinaryHeap::new(),
            overload: Overload::default(),
            packed,
        }
    }

    pub(crate) fn shards(&self) -> &Arc<Shards> {
        &self.shards
    }

    /// Returns the shards that have more to do than they get done, by their positions.
    pub(crate) fn overloaded(&self) -> &BTreeSet<u32> {
        self.overload.shards()
    }

    pub(crate) fn has_room(&self) -> bool {
        self.waiting < RECORDS_WAITING_MAX * self.queues.len()
    }

    /// Counts records that wait for the shard from now on.
    fn count(&mut self, shard: usize, load: Load) {
        self.queues[shard].load += load;
        self.waiting += load.records;
    }

    /// Counts records that wait for the shard no more.
    fn discount(&mut self, shard: usize, load: Load) {
        debug_assert!(self.waiting >= load.records, "what leaves was counted");
        self.queues[shard].load -= load;
        self.waiting -= load.records;
    }

    /// Whether nothing waits and nothing is in a call.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    pub(crate) fn take_in(&mut self, batch: Vec<Entry>, now: Instant) {
        if self.is_empty() {
            self.forget_gone();
        }
        batch.into_iter().for_each(|entry| self.push(entry, now));
    }

    fn push(&mut self, entry: Entry, now: Instant) {
        let shard = self.shards.find(entry.hash_key);
        if self.shards.are_known() {
            let queue = &mut self.queues[shard];
            if !queue.is_in_time(&entry, self.packed, now) {
                self.overload.turned_away(shard);
                return entry.report(Outcome::Retryable("the shard is over its limit".into()));
            }
        }
        self.count(shard, Load::of(&entry));
        let key = entry.hash_key;
        match self.devices.entry(key) {
            Occupied(mut device) => {
                let device = device.get_mut();
                device.entries.push_back(entry);
                note_new(&mut self.new, device, key);
            }
            Vacant(place) => {
                let device = place.insert(Device::new(entry, shard));
                note_new(&mut self.new, device, key);
                self.make_ready(key, shard);
            }
        }
    }

    /// Takes the puts of the next call: at most one of a device, within the limits of a call; empty
    /// when none is ready. A single record larger than a call's limit goes alone: the stream may
    /// have raised it.
    pub(crate) fn next_call(&mut self, now: Instant) -> Vec<Put> {
        let (mut call, mut passed) = (Vec::new(), Vec::new());
        let mut room = usize::MAX;
        while call.len() < CALL_RECORDS_MAX
            && let Some(shard) = self.turns.pop_front()
        {
            if self.shards.are_known() && !self.queues[shard].pace.admits(now) {
                self.paced.push(shard);
                continue;
            }
            match self.next_put(shard, room, now) {
                Next::Put(put) => {
                    room = CALL_BYTES_MAX.min(room).saturating_sub(put.load().bytes);
                    call.push(put);
                    self.turns.push_back(shard);
                }
                Next::TooLarge => passed.push(shard),
                Next::None => self.queues[shard].has_turn = false,
            }
        }
        // Shards whose put had no room in this call have the first turns in the next one.
        for shard in passed.into_iter().rev() {
            self.turns.push_front(shard);
        }
        debug_assert!(call.len() <= CALL_RECORDS_MAX, "the service takes no more");
        call
    }

    fn next_put(&mut self, shard: usize, room: usize, now: Instant) -> Next {
        let packed = self.packed && self.shards.are_known();
        let Some(entry) = self.take(shard, now) else {
            return Next::None;
        };
        let mut put = Put::new(entry, self.queues[shard].shard.clone(), packed);
        if put.load().bytes > room {
            put.entries.drain(..).for_each(|entry| self.put_back(entry));
            return Next::TooLarge;
        }
        while packed && let Some(entry) = self.take_more(&put, now) {
            if let Some(entry) = put.push(entry, room) {
                self.put_back(entry);
                break;
            }
        }
        self.queues[shard].pace.take(put.load());
        Next::Put(put)
    }

    /// Takes the record of the next device that is ready.
    fn take(&mut self, shard: usize, now: Instant) -> Option<Entry> {
        while let Some(key) = self.queues[shard].ready.pop_front() {
            if let Some(entry) = self.take_of(key, now) {
                return Some(entry);
            }
            self.devices.remove(&key);
        }
        None
    }

    /// Takes the next record of the device that the put ends with, or else of another one of its
    /// shard.
    fn take_more(&mut self, put: &Put, now: Instant) -> Option<Entry> {
        let last = put.entries.last()?;
        self.take_of(last.hash_key, now)
            .or_else(|| self.take(self.shards.find(last.hash_key), now))
    }

    fn take_of(&mut self, key: u128, now: Instant) -> Option<Entry> {
        let device = self.devices.get_mut(&key)?;
        let shard = device.shard;
        let mut left = device.drop_overdue(now);
        let entry = device.entries.pop_front();
        if let Some(entry) = &entry {
            device.in_call += 1;
            left += Load::of(entry);
        }
        self.discount(shard, left);
        entry
    }

    /// Puts back the record that has just been taken, for which there is no room.
    fn put_back(&mut self, entry: Entry) {
        let key = entry.hash_key;
        let Some(device) = self.devices.get_mut(&key) else {
            debug_assert!(false, "a device with a record in a call is known");
            return;
        };
        debug_assert!(device.in_call > 0, "it was taken for a call");
        device.in_call -= 1;
        let (shard, load) = (device.shard, Load::of(&entry));
        device.entries.push_front(entry);
        note_new(&mut self.new, device, key);
        if device.in_call == 0 {
            self.queues[shard].ready.push_front(key);
            self.give_turn(shard);
        }
        self.count(shard, load);
    }

    /// Takes back the records of a call, each with its verdict.
    pub(crate) fn settle(&mut self, answer: Answer, now: Instant) {
        self.slow_down(&answer.full_shards, now);
        self.note_written(&answer.settled);
        // The last one first: failed records go back to the front of their device's queue.
        for (entry, verdict) in answer.settled.into_iter().rev() {
            match verdict {
                Verdict::Written => self.settle_one(entry, Outcome::Delivered),
                Verdict::Refused(reason) => self.settle_one(entry, Outcome::Permanent(reason)),
                Verdict::Hopeless(outcome) => self.abandon(entry, &outcome),
                Verdict::Failed {
                    reason,
                    maybe_written,
                } => self.rest(entry, reason, maybe_written, now),
            }
        }
    }

    fn slow_down(&mut self, full_shards: &HashSet<ShardId>, now: Instant) {
        if full_shards.is_empty() {
            return;
        }
        for (shard, queue) in self.queues.iter_mut().enumerate() {
            if full_shards.contains(&queue.shard) {
                queue.pace.cut(now);
                self.overload.refused(shard, now);
            }
        }
    }

    /// Notes the shards that have written records: they refuse them no more.
    fn note_written(&mut self, settled: &[(Entry, Verdict)]) {
        if !self.overload.any_refusing() {
            return;
        }
        for (entry, verdict) in settled {
            if *verdict == Verdict::Written {
                self.overload.wrote(self.shards.find(entry.hash_key));
            }
        }
    }

    fn settle_one(&mut self, entry: Entry, outcome: Outcome) {
        self.come_back(entry.hash_key);
        entry.report(outcome);
    }

    /// Counts that a record is back from its call. With the last one its device is ready, or rests,
    /// or is done.
    fn come_back(&mut self, key: u128) {
        let Occupied(mut place) = self.devices.entry(key) else {
            return;
        };
        let device = place.get_mut();
        debug_assert!(device.in_call > 0, "it comes back from a call");
        device.in_call -= 1;
        match device.rests_until {
            _ if device.in_call > 0 => {}
            Some(_) => self.index(key),
            None if device.is_needed() => {
                let shard = device.shard;
                self.make_ready(key, shard);
            }
            None => drop(place.remove()),
        }
    }

    fn abandon(&mut self, entry: Entry, outcome: &Outcome) {
        if let Some(device) = self.devices.remove(&entry.hash_key) {
            self.discount(device.shard, device.load());
            for later in device.entries {
                later.give_up(outcome.clone());
            }
        }
        entry.give_up(outcome.clone());
    }

    fn rest(&mut self, mut entry: Entry, reason: Reason, maybe_written: bool, now: Instant) {
        entry.failures += 1;
        entry.maybe_written |= maybe_written;
        let key = entry.hash_key;
        let Some(device) = self.devices.get_mut(&key) else {
            return entry.give_up(Outcome::Retryable(reason));
        };
        entry.reason = Some(reason);
        device.rests_until = device.rests_until.max(Some(now + backoff(entry.failures)));
        let (shard, load) = (device.shard, Load::of(&entry));
        device.entries.push_front(entry);
        self.count(shard, load);
        self.index(key);
        self.come_back(key);
    }

    /// The device is known, and belongs to this shard.
    fn make_ready(&mut self, key: u128, shard: usize) {
        self.queues[shard].ready.push_back(key);
        self.give_turn(shard);
    }

    fn give_turn(&mut self, shard: usize) {
        if !std::mem::replace(&mut self.queues[shard].has_turn, true) {
            self.turns.push_back(shard);
        }
    }
}

/// A shard's put for the next call.
enum Next {
    Put(Put),
    /// The call has no room for it.
    TooLarge,
    /// No device is ready.
    None,
}

/// Returns how long a device rests after so many failures in a row, so that failed calls do not
/// meet again.
fn backoff(failures: u32) -> Duration {
    debug_assert!(failures > 0, "a rest follows a failure");
    let doublings = (failures - 1).min(16);
    jitter::full(BACKOFF_MAX.min(BACKOFF_MIN * 2u32.pow(doublings)))
}

#[cfg(test)]
mod tests;
