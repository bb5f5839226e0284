//! The records on their way to one stream, and what goes into the next call.
//!
//! The dispatcher owns it and passes the time in; nothing here waits. A device is ready, resting after a failure, or
//! has a record in a call; its other records queue behind that one. So no device is twice on the wire, and a record
//! that failed stands again before the device's later ones.
//!
//! Each entry is reported exactly once: when it is settled, or when its deadline passes while it waits.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::call::{CALL_BYTES_MAX, CALL_RECORDS_MAX};
use crate::record::{DeviceId, Outcome, Reason};

/// The first pause after a failure, doubled with each further one.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest pause: a shard's budget is renewed every second.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Where an outcome goes: the position in a batch, and whoever waits for it.
#[derive(Debug)]
pub(super) struct Reply {
    index: u32,
    outcomes: mpsc::Sender<(u32, Outcome)>,
}

impl Reply {
    /// `outcomes` has room for every record of the batch.
    pub fn new(index: u32, outcomes: mpsc::Sender<(u32, Outcome)>) -> Self {
        Self { index, outcomes }
    }

    fn send(self, outcome: Outcome) {
        // Nobody waits any more: the batch was cancelled.
        let _ = self.outcomes.try_send((self.index, outcome));
    }
}

/// Until when a record's outcome must be known, and what follows from it. The gaps are there so that a call which
/// begins late still has time for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// No call with the record begins after it.
    pub last_call: Instant,
    /// A call with the record is lost when it has no answer by then.
    pub answer: Instant,
    /// Whoever waits goes on without an outcome.
    pub outcome: Instant,
}

impl Deadlines {
    pub fn from(start: Instant, ack_timeout: Duration) -> Self {
        let after = |percent| start + ack_timeout * percent / 100;
        Self { last_call: after(75), answer: after(95), outcome: after(100) }
    }
}

/// A record on its way.
#[derive(Debug)]
pub(super) struct Entry {
    pub device: DeviceId,
    pub payload: Bytes,
    pub deadlines: Deadlines,
    reply: Reply,
    failures: u32,
    reason: Option<Reason>,
    maybe_written: bool,
}

/// What a call said of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Written,
    Refused(Reason),
    /// Not written, and waiting does not help.
    Hopeless(Reason),
    /// Worth another try; `maybe_written` when the call got no answer.
    Failed {
        reason: Reason,
        maybe_written: bool,
    },
}

impl Entry {
    pub fn new(device: DeviceId, payload: Bytes, deadlines: Deadlines, reply: Reply) -> Self {
        Self { device, payload, deadlines, reply, failures: 0, reason: None, maybe_written: false }
    }

    /// What counts against the stream's limits: data and partition key.
    pub fn bytes(&self) -> usize {
        self.payload.len() + self.device.as_str().len()
    }

    fn report(self, outcome: Outcome) {
        self.reply.send(outcome);
    }
}

#[derive(Debug)]
struct Device {
    /// The records that wait; the one in a call is not among them.
    entries: VecDeque<Entry>,
    in_call: bool,
}

impl Device {
    /// Gives up on its records once the first one's time is over, and says how many. The later ones go with it:
    /// whoever tries again starts from the first. Records that nobody waits for any more are dropped.
    fn drop_overdue(&mut self, now: Instant) -> usize {
        let before = self.entries.len();
        while self.entries.front().is_some_and(|entry| entry.reply.outcomes.is_closed()) {
            self.entries.pop_front();
        }
        if self.entries.front().is_some_and(|entry| entry.deadlines.last_call <= now) {
            give_up(self.entries.drain(..));
        }
        before - self.entries.len()
    }

    fn is_needed(&self) -> bool {
        self.in_call || !self.entries.is_empty()
    }
}

/// Reports a device's records, the first one with its reason, as not delivered in time.
fn give_up(entries: impl Iterator<Item = Entry>) {
    let mut reason = None;
    for entry in entries {
        let why = entry.reason.clone().or(reason).unwrap_or_else(|| "too many records wait".into());
        match entry.maybe_written {
            true => entry.report(Outcome::Unknown),
            false => entry.report(Outcome::Retryable(why.clone())),
        }
        reason = Some(why);
    }
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Every device with a record; each is either in a call, or ready, or resting.
    devices: HashMap<DeviceId, Device>,
    /// In the order of their turns.
    ready: VecDeque<DeviceId>,
    resting: Vec<(Instant, DeviceId)>,
    waiting: usize,
}

impl Pending {
    /// Records that wait; those in a call do not count.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Nothing waits and nothing is in a call.
    pub fn is_empty(&self) -> bool {
        self.devices.is_empty()
    }

    pub fn push(&mut self, entry: Entry) {
        self.waiting += 1;
        if let Some(device) = self.devices.get_mut(&entry.device) {
            return device.entries.push_back(entry);
        }
        self.ready.push_back(entry.device.clone());
        let name = entry.device.clone();
        self.devices.insert(name, Device { entries: VecDeque::from([entry]), in_call: false });
    }

    /// The records of the next call: at most one of a device, within the limits of a call; empty when none is ready.
    /// A single record larger than a call's limit goes alone: the stream may have raised it.
    pub fn next_call(&mut self, now: Instant) -> Vec<Entry> {
        let mut call = Vec::new();
        let mut bytes = 0;
        while call.len() < CALL_RECORDS_MAX
            && let Some(name) = self.ready.pop_front()
        {
            let room = if call.is_empty() { usize::MAX } else { CALL_BYTES_MAX - bytes };
            match self.take(&name, room, now) {
                Taken::Entry(entry) => {
                    bytes = CALL_BYTES_MAX.min(bytes + entry.bytes());
                    call.push(entry);
                }
                Taken::TooLarge => {
                    self.ready.push_front(name);
                    break;
                }
                Taken::Nothing => {}
            }
        }
        call
    }

    fn take(&mut self, name: &DeviceId, room: usize, now: Instant) -> Taken {
        let Some(device) = self.devices.get_mut(name) else { return Taken::Nothing };
        self.waiting -= device.drop_overdue(now);
        match device.entries.front().map(Entry::bytes) {
            None => {
                self.devices.remove(name);
                return Taken::Nothing;
            }
            Some(bytes) if bytes > room => return Taken::TooLarge,
            Some(_) => {}
        }
        device.in_call = true;
        self.waiting -= 1;
        device.entries.pop_front().map_or(Taken::Nothing, Taken::Entry)
    }

    /// Takes back the records of a call, each with what became of it.
    pub fn settle(&mut self, call: Vec<(Entry, Verdict)>, now: Instant) {
        for (entry, verdict) in call {
            match verdict {
                Verdict::Written => self.settle_one(entry, Outcome::Delivered),
                Verdict::Refused(reason) => self.settle_one(entry, Outcome::Permanent(reason)),
                Verdict::Hopeless(reason) => self.abandon(entry, reason),
                Verdict::Failed { reason, maybe_written } => self.rest(entry, reason, maybe_written, now),
            }
        }
    }

    fn settle_one(&mut self, entry: Entry, outcome: Outcome) {
        if let Some(device) = self.devices.get_mut(&entry.device) {
            device.in_call = false;
            match device.is_needed() {
                true => self.ready.push_back(entry.device.clone()),
                false => drop(self.devices.remove(&entry.device)),
            }
        }
        entry.report(outcome);
    }

    fn abandon(&mut self, mut entry: Entry, reason: Reason) {
        entry.reason = Some(reason);
        if let Some(device) = self.devices.remove(&entry.device) {
            self.waiting -= device.entries.len();
            give_up(std::iter::once(entry).chain(device.entries));
        }
    }

    fn rest(&mut self, mut entry: Entry, reason: Reason, maybe_written: bool, now: Instant) {
        entry.failures += 1;
        entry.reason = Some(reason);
        entry.maybe_written |= maybe_written;
        self.resting.push((now + backoff(entry.failures), entry.device.clone()));
        if let Some(device) = self.devices.get_mut(&entry.device) {
            device.in_call = false;
            device.entries.push_front(entry);
            self.waiting += 1;
        }
    }

    /// Makes devices ready whose rest is over, and gives up on what is overdue. Costs a look at every device.
    pub fn tick(&mut self, now: Instant) {
        let rested = self.resting.extract_if(.., |(until, _)| *until <= now);
        self.ready.extend(rested.map(|(_, name)| name));
        self.devices.retain(|_, device| {
            self.waiting -= device.drop_overdue(now);
            device.is_needed()
        });
        self.ready.retain(|name| self.devices.contains_key(name));
        self.resting.retain(|(_, name)| self.devices.contains_key(name));
    }
}

enum Taken {
    Entry(Entry),
    TooLarge,
    Nothing,
}

/// Between half and all of the pause that `failures` call for, at random, so that failed calls do not meet again.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = BACKOFF_MAX.min(BACKOFF_MIN * 2u32.pow(doublings));
    // The standard library's only source of randomness; its quality is enough here.
    let random = RandomState::new().build_hasher().finish() as u32;
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
