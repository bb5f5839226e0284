//! The devices with records on disk, or on their way there.
//!
//! A device is let go when each of its records is done with, in whatever order that comes about:
//! within a wave, or while in doubt, the last one may be done with before the others. Records that
//! were dropped or damaged are not reported; so a device is let go as well when everything up to
//! its last record is done with.
//!
//! Records of a device whose last one on disk is in flight may follow it in memory, in a line that
//! nothing overtakes.
//!
//! Bounded by the records in the spool: the table is indexed by the place of each device's last
//! record.

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

/// The next step of records that follow others of their device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Nothing is before them.
    Go,
    /// The records before them are in flight.
    Wait,
    /// Some records before them are on disk and not in flight, and will stay there for a while.
    Stay,
}

/// Devices that spool.
#[derive(Debug, Default)]
pub(super) struct SpooledDevices {
    spooled: HashMap<DeviceId, Spooled>,
    /// The devices by the place of their last record.
    by_last: BTreeMap<u64, DeviceId>,
}

/// Records of one device that are on disk, on their way there, or in line behind those.
#[derive(Debug, Default)]
struct Spooled {
    /// Records on their way to disk.
    appending: usize,
    stretch: Option<Stretch>,
    /// Place of the last record that is in flight to the sink.
    sent: Option<u64>,
    /// Records in memory that follow those on disk, oldest first.
    followers: VecDeque<Ticket>,
}

/// The records of a device that are on disk.
#[derive(Debug)]
struct Stretch {
    /// The places of the first and the last of them.
    first: u64,
    last: u64,
    /// Number of them that were not reported as done with.
    waiting: u64,
}

impl Spooled {
    /// Whether nothing is on disk, or on its way there.
    fn is_off_disk(&self) -> bool {
        self.appending == 0 && self.stretch.is_none()
    }

    /// Whether all that is on disk is in flight: a device's records go in their order.
    fn is_in_flight(&self) -> bool {
        let last = self.stretch.as_ref().map(|stretch| stretch.last);
        self.appending == 0 && last.is_some() && last == self.sent
    }
}

impl SpooledDevices {
    pub(super) fn is_empty(&self) -> bool {
        self.spooled.is_empty()
    }

    /// Whether something of the device is on disk, or on its way there.
    pub(super) fn has(&self, device: &DeviceId) -> bool {
        self.spooled.contains_key(device)
    }

    /// Whether all that the device has on disk is in flight, or records of it wait for that
    /// already.
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

    /// Returns the next step of the device's records with this ticket.
    pub(super) fn step(&self, device: &DeviceId, ticket: Ticket) -> Step {
        let spooled = self.spooled.get(device);
        let spooled = spooled.expect("a device is known while records follow");
        if spooled.followers.front() != Some(&ticket) || spooled.is_in_flight() {
            return Step::Wait;
        }
        match spooled.is_off_disk() {
            true => Step::Go,
            false => Step::Stay,
        }
    }

    /// Takes the device's records with this ticket out of the line.
    pub(super) fn unfollow(&mut self, device: &DeviceId, ticket: Ticket) {
        if let Some(spooled) = self.spooled.get_mut(device) {
            spooled.followers.retain(|other| *other != ticket);
            self.forget_if_without(device);
        }
    }

    /// Notes that the device's record at this place is in flight.
    pub(super) fn sent(&mut self, device: &DeviceId, place: u64) {
        if let Some(spooled) = self.spooled.get_mut(device) {
            spooled.sent = spooled.sent.max(Some(place));
        }
    }

    /// Notes that a record of the device did not arrive.
    pub(super) fn came_back(&mut self, device: &DeviceId) {
        if let Some(spooled) = self.spooled.get_mut(device) {
            spooled.sent = None;
        }
    }

    /// Notes that a record of the device is on its way to disk.
    pub(super) fn append_begun(&mut self, device: &DeviceId) {
        self.spooled.entry(device.clone()).or_default().appending += 1;
    }

    /// Notes that the record is on disk, at this place.
    pub(super) fn appended(&mut self, device: &DeviceId, place: u64) {
        self.add(device, place);
        self.append_ended(device);
    }

    /// Notes that the record was refused.
    pub(super) fn not_appended(&mut self, device: &DeviceId) {
        self.append_ended(device);
        self.forget_if_without(device);
    }

    fn append_ended(&mut self, device: &DeviceId) {
        let spooled = self.spooled.get_mut(device);
        let spooled = spooled.expect("a device is known while a record of it is on its way");
        debug_assert!(spooled.appending > 0, "an append ends once");
        spooled.appending -= 1;
    }

    /// Adds the device's record at this place.
    pub(super) fn add(&mut self, device: &DeviceId, place: u64) {
        let spooled = self.spooled.entry(device.clone()).or_default();
        let stretch = spooled.stretch.get_or_insert(Stretch {
            first: place,
            last: place,
            waiting: 0,
        });
        stretch.waiting += 1;
        stretch.first = stretch.first.min(place);
        if place >= stretch.last {
            self.by_last.remove(&stretch.last);
            stretch.last = place;
            let before = self.by_last.insert(place, device.clone());
            debug_assert!(before.is_none(), "a place has one device");
        }
    }

    /// Notes that the record at this place is done with.
    pub(super) fn done(&mut self, place: u64, device: &DeviceId) {
        let spooled = self.spooled.get_mut(device);
        let Some(stretch) = spooled.and_then(|spooled| spooled.stretch.as_mut()) else {
            return; // let go before, as everything was done with
        };
        if !(stretch.first..=stretch.last).contains(&place) {
            return; // likewise, and it has come back since
        }
        debug_assert!(stretch.waiting > 0, "a record is done with once");
        stretch.waiting -= 1;
        if stretch.waiting == 0 {
            let last = stretch.last;
            self.by_last.remove(&last);
            self.without_records(device);
        }
    }

    /// Lets go of devices whose last record is before this place: all up to it is done with.
    pub(super) fn release_before(&mut self, low: u64) {
        while let Some(oldest) = self.by_last.first_entry()
            && *oldest.key() < low
        {
            let device = oldest.remove();
            self.without_records(&device);
        }
    }

    /// Notes that the device has no record on disk, though some may be on their way there.
    fn without_records(&mut self, device: &DeviceId) {
        if let Some(spooled) = self.spooled.get_mut(device) {
            spooled.stretch = None;
        }
        self.forget_if_without(device);
    }

    fn forget_if_without(&mut self, device: &DeviceId) {
        let spooled = self.spooled.get(device);
        debug_assert!(
            spooled.is_some(),
            "a device that has a last record is known"
        );
        let is_without = |spooled: &Spooled| spooled.is_off_disk() && spooled.followers.is_empty();
        if spooled.is_some_and(is_without) {
            self.spooled.remove(device);
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
            devices.appended(&device(place % 100), place);
        }
        devices.append_begun(&device(7));
        assert_eq!((devices.spooled.len(), devices.by_last.len()), (100, 100));
        devices.release_before(950);
        assert_eq!((devices.spooled.len(), devices.by_last.len()), (51, 50));
        assert!(
            devices.spooled[&device(7)].stretch.is_none(),
            "one is on its way"
        );
        // Of the ten that it had, nine were dropped.
        devices.done(960, &device(60));
        devices.release_before(961);
        assert_eq!((devices.spooled.len(), devices.by_last.len()), (40, 39));
        devices.release_before(1000);
        assert_eq!((devices.spooled.len(), devices.by_last.len()), (1, 0));
    }

    /// The last one of two records that travel together may be done with first.
    #[test]
    fn a_device_is_let_go_when_all_of_its_records_are_done_with() {
        let mut devices = SpooledDevices::default();
        for place in [3, 4, 7] {
            devices.add(&device(1), place);
        }
        devices.done(7, &device(1));
        devices.done(3, &device(1));
        assert!(devices.has(&device(1)));
        devices.done(4, &device(1));
        assert!(!devices.has(&device(1)) && devices.by_last.is_empty());
        devices.add(&device(1), 9);
        devices.done(4, &device(1));
        assert!(devices.has(&device(1)), "that was another one");
    }
}
