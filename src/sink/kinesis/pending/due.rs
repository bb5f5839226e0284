//! The index of the times at which devices are looked at: a rest is over, or a first record's time.
//!
//! A device has at most one valid place in the index, at or before the time when it has something
//! due; places of devices that are gone, or were looked at since, are passed over. The index has no
//! more places than records came in the time that one may wait.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use tokio::time::Instant;

use super::Pending;
use super::device::Device;

/// Notes that a device has a record that the index does not know. One in the index is known with its
/// first record, which is due before this one.
pub(super) fn note_new(new: &mut Vec<u128>, device: &mut Device, key: u128) {
    if device.due_at.is_none() && !device.is_new {
        device.is_new = true;
        new.push(key);
    }
}

impl Pending {
    /// Forgets all devices: none is left, and no tick passes meanwhile.
    pub(super) fn forget_gone(&mut self) {
        self.new.clear();
        self.due.clear();
    }

    /// Has the device looked at when there is something to do for it.
    pub(super) fn index(&mut self, key: u128) {
        let Some(device) = self.devices.get_mut(&key) else {
            return;
        };
        if let Some(at) = device.next_due()
            && device.due_at.is_none_or(|due_at| at < due_at)
        {
            device.due_at = Some(at);
            self.due.push(Reverse((at, key)));
        }
    }

    /// Whether something is to be looked at with time.
    pub(crate) fn needs_ticks(&self) -> bool {
        !self.is_empty() || self.overload.is_needed()
    }

    /// Makes devices ready whose rest is over, gives up overdue records, and lets shards try that
    /// were held by their pace. Costs a look at each due device and each new one, and returns their
    /// number.
    pub(crate) fn tick(&mut self, now: Instant) -> usize {
        self.turns.extend(self.paced.drain(..));
        let new = std::mem::take(&mut self.new);
        for key in &new {
            if let Some(device) = self.devices.get_mut(key) {
                device.is_new = false;
                self.index(*key);
            }
        }
        let mut looked_at = new.len();
        let mut left = BTreeSet::new();
        while let Some(Reverse((at, key))) = self.next_due(now) {
            looked_at += 1;
            left.extend(self.look_at(key, at, now));
        }
        for shard in left {
            let ready = &mut self.queues[shard].ready;
            ready.retain(|key| self.devices.contains_key(key));
        }
        let queues = &self.queues;
        self.overload
            .review(now, |shard| queues[shard].load.records > 0);
        looked_at
    }

    fn next_due(&mut self, now: Instant) -> Option<Reverse<(Instant, u128)>> {
        let Reverse((at, _)) = self.due.peek()?;
        if *at <= now { self.due.pop() } else { None }
    }

    /// Looks at a device. Returns the shard that it has left, if it is gone.
    fn look_at(&mut self, key: u128, at: Instant, now: Instant) -> Option<usize> {
        let device = self.devices.get_mut(&key)?;
        device.due_at.take_if(|due_at| *due_at == at)?;
        let (shard, dropped) = (device.shard, device.drop_overdue(now));
        let (is_needed, has_rested) = (device.is_needed(), device.has_rested(now));
        self.discount(shard, dropped);
        if !is_needed {
            self.devices.remove(&key);
            return Some(shard);
        }
        if has_rested {
            self.make_ready(key, shard);
        }
        self.index(key);
        None
    }
}
