//! The index of the times at which devices are looked at: a rest is over, or a first record's time.
//!
//! A device has at most one valid place in the index, at or before the time when it has something
//! due; places of devices that are gone, or were looked at since, are passed over. The index has no
//! more places than records came in the time that one may wait.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use tokio::time::Instant;

use super::Pending;
use crate::record::DeviceId;

impl Pending {
    /// Notes that the device has a new record, unless the index has the device: its first record is
    /// due before this one.
    pub(super) fn note_new(&mut self, name: DeviceId) {
        if let Some(device) = self.devices.get_mut(&name)
            && device.due_at.is_none()
            && !device.is_new
        {
            device.is_new = true;
            self.new.push(name);
        }
    }

    /// Forgets all devices: none is left, and no tick passes meanwhile.
    pub(super) fn forget_gone(&mut self) {
        self.new.clear();
        self.due.clear();
    }

    /// Has the device looked at when there is something to do for it.
    pub(super) fn index(&mut self, name: &DeviceId) {
        let Some(device) = self.devices.get_mut(name) else {
            return;
        };
        if let Some(at) = device.next_due()
            && device.due_at.is_none_or(|due_at| at < due_at)
        {
            device.due_at = Some(at);
            self.due.push(Reverse((at, name.clone())));
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
        for name in &new {
            if let Some(device) = self.devices.get_mut(name) {
                device.is_new = false;
            }
            self.index(name);
        }
        let mut looked_at = new.len();
        let mut left = BTreeSet::new();
        while let Some(Reverse((at, name))) = self.next_due(now) {
            looked_at += 1;
            left.extend(self.look_at(&name, at, now));
        }
        for shard in left {
            let ready = &mut self.queues[shard].ready;
            ready.retain(|name| self.devices.contains_key(name));
        }
        let queues = &self.queues;
        self.overload
            .review(now, |shard| queues[shard].load.records > 0);
        looked_at
    }

    fn next_due(&mut self, now: Instant) -> Option<Reverse<(Instant, DeviceId)>> {
        let Reverse((at, _)) = self.due.peek()?;
        if *at <= now { self.due.pop() } else { None }
    }

    /// Looks at a device. Returns the shard that it has left, if it is gone.
    fn look_at(&mut self, name: &DeviceId, at: Instant, now: Instant) -> Option<usize> {
        let device = self.devices.get_mut(name)?;
        device.due_at.take_if(|due_at| *due_at == at)?;
        let (shard, dropped) = (device.shard, device.drop_overdue(now));
        let (is_needed, has_rested) = (device.is_needed(), device.has_rested(now));
        self.discount(shard, dropped);
        if !is_needed {
            self.devices.remove(name);
            return Some(shard);
        }
        if has_rested {
            self.make_ready(name.clone());
        }
        self.index(name);
        None
    }
}
