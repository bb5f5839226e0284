//! Whose records are on disk, or on their way there.
//!
//! Bounded by the records in the spool: the table is indexed by the place of each device's last
//! record, and what is before the first place that is not done with is let go.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::record::DeviceId;

/// The place in line of records that follow others of their devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticket(u64);

impl Ticket {
    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What records are to do that follow others of their device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Nothing is before them.
    Go,
    /// What is before them is on its way.
    Wait,
    /// Some of it is not, and will not be soon.
    Stay,
}

/// Devices that spool.
#[derive(Debug, Default)]
pub(super) struct SpooledDevices {
    spooled: HashMap<DeviceId, Spooled>,
    /// The devices by the place of their last record.
    by_last: BTreeMap<u64, DeviceId>,
}

/// What of one device is on disk.
#[derive(Debug, Default)]
struct Spooled {
    /// Records on their way to disk.
    appending: usize,
    /// The place of its last one.
    last: Option<u64>,
    /// The place of the last one that is in flight to the sink.
    sent: Option<u64>,
    /// Records in memory that follow what is on disk, oldest first.
    followers: VecDeque<Ticket>,
}

impl Spooled {
    fn is_nothing(&self) -> bool {
        self.appending == 0 && self.last.is_none() && self.followers.is_empty()
    }

    /// Whether all of it that is on disk is in flight.
    fn is_in_flight(&self) -> bool {
        self.appending == 0 && self.last.is_some() && self.last == self.sent
    }
}

impl SpooledDevices {
    pub(super) fn is_empty(&self) -> bool {
        self.spooled.is_empty()
    }

    /// Whether something of the device is on disk that is not done with, or on its way there.
    pub(super) fn has(&mut self, device: &DeviceId, is_done: impl Fn(u64) -> bool) -> bool {
        let Some(spooled) = self.spooled.get(device) else {
            return false;
        };
        let has_last = spooled.last.is_some_and(|last| !is_done(last));
        let has_some = spooled.appending > 0 || has_last || !spooled.followers.is_empty();
        if !has_some {
            self.forget(device);
        }
        has_some
    }

    /// Whether all that the device has on disk is in flight, or records of it wait for that already.
    pub(super) fn is_leaving(&self, device: &DeviceId) -> bool {
        let spooled = self.spooled.get(device);
        spooled.is_some_and(|spooled| spooled.is_in_flight() || !spooled.followers.is_empty())
    }

    /// Records of the device wait in line.
    pub(super) fn follow(&mut self, device: &DeviceId, ticket: Ticket) {
        let spooled = self.spooled.get_mut(device);
        let spooled = spooled.expect("a device that is leaving is known");
        if spooled.followers.back() != Some(&ticket) {
            spooled.followers.push_back(ticket);
        }
        debug_assert!(spooled.followers.iter().is_sorted(), "tickets count up");
    }

    /// What the device's records with this ticket are to do.
    pub(super) fn step(
        &self,
        device: &DeviceId,
        ticket: Ticket,
        is_done: impl Fn(u64) -> bool,
    ) -> Step {
        let spooled = self.spooled.get(device);
        let spooled = spooled.expect("a device is known while records follow");
        if spooled.followers.front() != Some(&ticket) || spooled.is_in_flight() {
            return Step::Wait;
        }
        let is_free = spooled.appending == 0 && spooled.last.is_none_or(is_done);
        if is_free { Step::Go } else { Step::Stay }
    }

    /// The device's records with this ticket wait no more.
    pub(super) fn unfollow(
        &mut self,
        device: &DeviceId,
        ticket: Ticket,
        is_done: impl Fn(u64) -> bool,
    ) {
        if let Some(spooled) = self.spooled.get_mut(device) {
            spooled.followers.retain(|other| *other != ticket);
            self.has(device, is_done);
        }
    }

    /// The device's record at this place is in flight.
    pub(super) fn sent(&mut self, device: &DeviceId, place: u64) {
        if let Some(spooled) = self.spooled.get_mut(device) {
            spooled.sent = spooled.sent.max(Some(place));
        }
    }

    /// A record of the device did not arrive.
    pub(super) fn came_back(&mut self, device: &DeviceId) {
        if let Some(spooled) = self.spooled.get_mut(device) {
            spooled.sent = None;
        }
    }

    /// A record of the device is on its way to disk.
    pub(super) fn append_begun(&mut self, device: &DeviceId) {
        self.spooled.entry(device.clone()).or_default().appending += 1;
    }

    /// It is there, or was refused.
    pub(super) fn append_ended(&mut self, device: &DeviceId) {
        let spooled = self.spooled.get_mut(device);
        let spooled = spooled.expect("a device is known while a record of it is on its way");
        debug_assert!(spooled.appending > 0, "an append ends once");
        spooled.appending -= 1;
    }

    /// The device has a record at this place.
    pub(super) fn add(&mut self, device: &DeviceId, place: u64) {
        let spooled = self.spooled.entry(device.clone()).or_default();
        if spooled.last.is_some_and(|last| last >= place) {
            return;
        }
        if let Some(last) = spooled.last.replace(place) {
            let before = self.by_last.remove(&last);
            debug_assert_eq!(before.as_ref(), Some(device), "a place has one device");
        }
        self.by_last.insert(place, device.clone());
    }

    /// The record at this place is done with.
    pub(super) fn done(&mut self, place: u64, device: &DeviceId) {
        let is_last = self.by_last.get(&place) == Some(device);
        if is_last {
            self.by_last.remove(&place);
            self.without_records(device);
        }
    }

    /// Everything before this place is done with.
    pub(super) fn release_before(&mut self, low: u64) {
        while let Some(oldest) = self.by_last.first_entry()
            && *oldest.key() < low
        {
            let device = oldest.remove();
            self.without_records(&device);
        }
    }

    /// Nothing of the device is on disk, though something may be on its way there.
    fn without_records(&mut self, device: &DeviceId) {
        let Some(spooled) = self.spooled.get_mut(device) else {
            debug_assert!(false, "a device that has a last record is known");
            return;
        };
        spooled.last = None;
        if spooled.is_nothing() {
            self.spooled.remove(device);
        }
    }

    /// Nothing of the device is left.
    fn forget(&mut self, device: &DeviceId) {
        if let Some(spooled) = self.spooled.remove(device)
            && let Some(last) = spooled.last
        {
            self.by_last.remove(&last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u64) -> DeviceId {
        DeviceId::parse(&format!("device-{number}")).unwrap()
    }

    /// A million devices that each came once, whose records were dropped to make room.
    #[test]
    fn devices_are_let_go_when_what_they_had_is_done_with() {
        let mut devices = SpooledDevices::default();
        for place in 0..1000 {
            devices.append_begun(&device(place % 100));
            devices.append_ended(&device(place % 100));
            devices.add(&device(place % 100), place);
        }
        devices.append_begun(&device(7));
        assert_eq!((devices.spooled.len(), devices.by_last.len()), (100, 100));
        devices.release_before(950);
        assert_eq!((devices.spooled.len(), devices.by_last.len()), (51, 50));
        assert!(
            devices.spooled[&device(7)].last.is_none(),
            "one is on its way"
        );
        devices.done(960, &device(60));
        devices.done(970, &device(60));
        assert_eq!((devices.spooled.len(), devices.by_last.len()), (50, 49));
        devices.release_before(1000);
        assert_eq!((devices.spooled.len(), devices.by_last.len()), (1, 0));
    }
}
