//! The records on their way to one stream, and what goes into the next call.
//!
//! The dispatcher owns it and passes the time in; nothing here waits. A device is ready, resting after a failure, or
//! on the wire with one put: a record, or those of its records that one aggregate has room for. The others queue behind
//! it, and what failed stands again before them.
//!
//! The ready devices of each shard are a queue of their own, with its pace, and the queues take turns: a shard that can
//! take no more holds up its own devices only. A record that would wait too long for its shard is not taken in.
//!
//! Each entry is reported exactly once: when it is settled, or when its deadline passes while it waits.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::call::{Answer, CALL_BYTES_MAX, CALL_RECORDS_MAX};
use super::entry::{Entry, Put, Verdict};
use super::pace::Load;
use super::queue::Queue;
use super::shards::Shards;
use crate::record::{DeviceId, Outcome, Reason};

/// The bounds of the pause after a failure: doubled with each further one, up to what renews a shard's budget.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Records that wait for a call, for each shard of the stream; further batches stay in the hand-over.
const RECORDS_WAITING_MAX: usize = 8192;

#[derive(Debug)]
struct Device {
    /// The records that wait; those in a call are not among them.
    entries: VecDeque<Entry>,
    in_call: usize,
    /// Its rest, once the last one in the call is back.
    rests_until: Option<Instant>,
    /// The position of its shard.
    shard: usize,
}

impl Device {
    /// Gives up on its records once the first one's time is over, and says how much that was. The later ones go with
    /// it: whoever tries again starts from the first. Records that nobody waits for any more are dropped.
    fn drop_overdue(&mut self, now: Instant) -> Load {
        let mut dropped = Load::default();
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.is_unwanted()) {
            dropped += Load::of(&entry);
        }
        if self
            .entries
            .front()
            .is_some_and(|entry| entry.deadlines.last_call <= now)
        {
            dropped += self.load();
            give_up(self.entries.drain(..));
        }
        dropped
    }

    fn load(&self) -> Load {
        self.entries.iter().map(Load::of).sum()
    }

    fn is_needed(&self) -> bool {
        self.in_call > 0 || !self.entries.is_empty()
    }
}

/// Reports a device's records, the first one with its reason, as not delivered in time.
fn give_up(entries: impl Iterator<Item = Entry>) {
    let mut reason = None;
    for entry in entries {
        let why = entry
            .reason
            .clone()
            .or(reason)
            .unwrap_or_else(|| "too many records wait".into());
        entry.give_up(Outcome::Retryable(why.clone()));
        reason = Some(why);
    }
}

#[derive(Debug)]
pub(super) struct Pending {
    /// Every device with a record; each is either in a call, or ready, or resting.
    devices: HashMap<DeviceId, Device>,
    shards: Arc<Shards>,
    /// One for each shard, in the order of the shards.
    queues: Vec<Queue>,
    /// The shard that has the first turn in the next call.
    turn: usize,
    resting: Vec<(Instant, DeviceId)>,
    packed: bool,
}

impl Pending {
    /// With `packed` the records go as aggregates, as soon as the shards are known.
    pub fn new(shards: Arc<Shards>, packed: bool, now: Instant) -> Self {
        let queues = shards.ids().map(|id| Queue::new(id.clone(), now)).collect();
        Self {
            devices: HashMap::new(),
            shards,
            queues,
            turn: 0,
            resting: Vec::new(),
            packed,
        }
    }

    pub fn has_room(&self) -> bool {
        self.waiting() < RECORDS_WAITING_MAX * self.queues.len()
    }

    /// Records that wait; those in a call do not count.
    fn waiting(&self) -> usize {
        self.queues.iter().map(|queue| queue.load.records).sum()
    }

    /// Nothing waits and nothing is in a call.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    /// Sorts what waits by these shards. A shard that was there before keeps its pace.
    pub fn reshard(&mut self, shards: Arc<Shards>, now: Instant) {
        if Arc::ptr_eq(&shards, &self.shards) {
            return;
        }
        let mut before: HashMap<_, _> = self
            .queues
            .drain(..)
            .map(|queue| (queue.shard.clone(), queue))
            .collect();
        let ready: Vec<_> = before.values_mut().flat_map(Queue::clear).collect();
        let queue = |id| {
            before
                .remove(id)
                .unwrap_or_else(|| Queue::new(Arc::clone(id), now))
        };
        self.queues = shards.ids().map(queue).collect();
        for (name, device) in &mut self.devices {
            device.shard = shards.find(super::shards::hash_key(name.as_str()));
            self.queues[device.shard].load += device.load();
        }
        self.shards = shards;
        ready.into_iter().for_each(|name| self.make_ready(name));
    }

    pub fn take_in(&mut self, batch: Vec<Entry>, now: Instant) {
        batch.into_iter().for_each(|entry| self.push(entry, now));
    }

    fn push(&mut self, entry: Entry, now: Instant) {
        let shard = self.shards.find(entry.hash_key);
        let queue = &mut self.queues[shard];
        if self.shards.are_known() && !queue.is_in_time(&entry, self.packed, now) {
            return entry.report(Outcome::Retryable("the shard is over its limit".into()));
        }
        queue.load += Load::of(&entry);
        if let Some(device) = self.devices.get_mut(&entry.device) {
            return device.entries.push_back(entry);
        }
        queue.ready.push_back(entry.device.clone());
        let name = entry.device.clone();
        self.devices.insert(
            name,
            Device {
                entries: [entry].into(),
                in_call: 0,
                rests_until: None,
                shard,
            },
        );
    }

    /// What goes into the next call: at most one put of a device, within the limits of a call; empty when none is ready.
    /// A single record larger than a call's limit goes alone: the stream may have raised it.
    pub fn next_call(&mut self, now: Instant) -> Vec<Put> {
        let mut call = Vec::new();
        let mut room = usize::MAX;
        self.turn = (self.turn + 1) % self.queues.len();
        let (before, after) = (0..self.turn, self.turn..self.queues.len());
        let mut turns: VecDeque<usize> = after
            .chain(before)
            .filter(|shard| !self.queues[*shard].ready.is_empty())
            .collect();
        while call.len() < CALL_RECORDS_MAX
            && let Some(shard) = turns.pop_front()
        {
            let Some(put) = self.next_put(shard, room, now) else {
                continue;
            };
            room = CALL_BYTES_MAX.min(room).saturating_sub(put.load().bytes);
            call.push(put);
            turns.push_back(shard);
        }
        call
    }

    fn next_put(&mut self, shard: usize, room: usize, now: Instant) -> Option<Put> {
        if self.shards.are_known() && !self.queues[shard].pace.admits(now) {
            return None;
        }
        let packed = self.packed && self.shards.are_known();
        let entry = self.take(shard, now)?;
        let mut put = Put::new(entry, self.queues[shard].shard.clone(), packed);
        if put.load().bytes > room {
            put.entries.drain(..).for_each(|entry| self.put_back(entry));
            return None;
        }
        while packed && let Some(entry) = self.take_more(&put, now) {
            if let Some(entry) = put.push(entry, room) {
                self.put_back(entry);
                break;
            }
        }
        self.queues[shard].pace.take(put.load());
        Some(put)
    }

    /// The record of the next device that is ready.
    fn take(&mut self, shard: usize, now: Instant) -> Option<Entry> {
        while let Some(name) = self.queues[shard].ready.pop_front() {
            if let Some(entry) = self.take_of(&name, now) {
                return Some(entry);
            }
            self.devices.remove(&name);
        }
        None
    }

    /// The next record of the device that the put ends with, or else of another one of its shard.
    fn take_more(&mut self, put: &Put, now: Instant) -> Option<Entry> {
        let last = put.entries.last()?;
        self.take_of(&last.device, now)
            .or_else(|| self.take(self.shards.find(last.hash_key), now))
    }

    fn take_of(&mut self, name: &DeviceId, now: Instant) -> Option<Entry> {
        let device = self.devices.get_mut(name)?;
        let queue = &mut self.queues[device.shard];
        queue.load -= device.drop_overdue(now);
        let entry = device.entries.pop_front()?;
        device.in_call += 1;
        queue.load -= Load::of(&entry);
        Some(entry)
    }

    /// The record that has just been taken, for which there is no room.
    fn put_back(&mut self, entry: Entry) {
        if let Some(device) = self.devices.get_mut(&entry.device) {
            device.in_call -= 1;
            let queue = &mut self.queues[device.shard];
            queue.load += Load::of(&entry);
            if device.in_call == 0 {
                queue.ready.push_front(entry.device.clone());
            }
            device.entries.push_front(entry);
        }
    }

    /// Takes back the records of a call, each with what became of it.
    pub fn settle(&mut self, answer: Answer, now: Instant) {
        for queue in self
            .queues
            .iter_mut()
            .filter(|queue| answer.full_shards.contains(&queue.shard))
        {
            queue.pace.cut(now);
        }
        // The last one first: what failed goes back to the front of its device's queue.
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

    fn settle_one(&mut self, entry: Entry, outcome: Outcome) {
        self.come_back(&entry.device);
        entry.report(outcome);
    }

    /// A record is back from its call. With the last one its device is ready, or rests, or is done.
    fn come_back(&mut self, name: &DeviceId) {
        let Some(device) = self.devices.get_mut(name) else {
            return;
        };
        device.in_call -= 1;
        match device.rests_until.take_if(|_| device.in_call == 0) {
            _ if device.in_call > 0 => {}
            Some(until) => self.resting.push((until, name.clone())),
            None if device.is_needed() => self.make_ready(name.clone()),
            None => drop(self.devices.remove(name)),
        }
    }

    fn abandon(&mut self, entry: Entry, outcome: &Outcome) {
        if let Some(device) = self.devices.remove(&entry.device) {
            self.queues[device.shard].load -= device.load();
            device
                .entries
                .into_iter()
                .for_each(|later| later.give_up(outcome.clone()));
        }
        entry.give_up(outcome.clone());
    }

    fn rest(&mut self, mut entry: Entry, reason: Reason, maybe_written: bool, now: Instant) {
        entry.failures += 1;
        entry.maybe_written |= maybe_written;
        let name = entry.device.clone();
        let Some(device) = self.devices.get_mut(&name) else {
            return entry.give_up(Outcome::Retryable(reason));
        };
        entry.reason = Some(reason);
        device.rests_until = device.rests_until.max(Some(now + backoff(entry.failures)));
        self.queues[device.shard].load += Load::of(&entry);
        device.entries.push_front(entry);
        self.come_back(&name);
    }

    fn make_ready(&mut self, name: DeviceId) {
        if let Some(device) = self.devices.get(&name) {
            self.queues[device.shard].ready.push_back(name);
        }
    }

    /// Makes devices ready whose rest is over, and gives up on what is overdue. Costs a look at every device.
    pub fn tick(&mut self, now: Instant) {
        let rested: Vec<_> = self
            .resting
            .extract_if(.., |(until, _)| *until <= now)
            .collect();
        rested
            .into_iter()
            .for_each(|(_, name)| self.make_ready(name));
        self.devices.retain(|_, device| {
            self.queues[device.shard].load -= device.drop_overdue(now);
            device.is_needed()
        });
        for queue in &mut self.queues {
            queue.ready.retain(|name| self.devices.contains_key(name));
        }
        self.resting
            .retain(|(_, name)| self.devices.contains_key(name));
    }
}

/// Anything up to the pause that `failures` call for, at random ("full jitter"), so that failed calls do not meet again:
/// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = BACKOFF_MAX.min(BACKOFF_MIN * 2u32.pow(doublings));
    // The standard library's only source of randomness; its quality is enough here.
    let random = RandomState::new().build_hasher().finish() as u32;
    pause.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
