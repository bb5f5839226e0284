//! Whose records are on disk, or on their way there.
//!
//! Bounded by the records in the spool: the table is indexed by the place of each device's last
//! record, and what is before the first place that is not done with is let go.

use std::collections::{BTreeMap, HashMap};

use crate::record::DeviceId;

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
        let has_some = spooled.appending > 0 || spooled.last.is_some_and(|last| !is_done(last));
        if !has_some {
            self.forget(device);
        }
        has_some
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
        if spooled.appending == 0 {
            self.spooled.remove(device);
        }
    }

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
