//! Usage of connections that have ended while there was no room to tell of it.
//!
//! Kept by device, so that one which comes and goes takes one place, and bounded: beyond
//! [`DEVICES_CARRIED_MAX`] devices of a worker, what others have sent is added up without their
//! names. So the sum over all events stays exact, whatever happens.

use std::collections::BTreeMap;

use super::usage::Usage;
use crate::record::DeviceId;

/// Devices of one worker whose usage waits to be told, at most: some 4 MiB.
pub(super) const DEVICES_CARRIED_MAX: usize = 16_384;

/// Usage that waits for room to be told.
#[derive(Debug, Default)]
pub(super) struct Carried {
    of_devices: BTreeMap<DeviceId, Usage>,
    /// That of all devices for which there was no place.
    of_others: Option<Usage>,
}

impl Carried {
    pub(super) fn is_empty(&self) -> bool {
        self.of_devices.is_empty() && self.of_others.is_none()
    }

    /// Keeps what a device has sent.
    pub(super) fn add(&mut self, device: &DeviceId, usage: Usage) {
        if let Some(known) = self.of_devices.get_mut(device) {
            *known = known.plus(&usage);
        } else if self.of_devices.len() < DEVICES_CARRIED_MAX {
            self.of_devices.insert(device.clone(), usage);
        } else {
            self.add_to_others(usage);
        }
        debug_assert!(self.of_devices.len() <= DEVICES_CARRIED_MAX);
    }

    fn add_to_others(&mut self, usage: Usage) {
        let others = self.of_others.take();
        self.of_others = Some(others.map_or(usage, |others| others.plus(&usage)));
    }

    /// The usage that is told next, and whose it is, where that is known.
    pub(super) fn take(&mut self) -> Option<(Option<DeviceId>, Usage)> {
        if let Some((device, usage)) = self.of_devices.pop_first() {
            return Some((Some(device), usage));
        }
        self.of_others.take().map(|usage| (None, usage))
    }

    /// Keeps what was taken, as it could not be told.
    pub(super) fn put_back(&mut self, device: Option<DeviceId>, usage: Usage) {
        match device {
            Some(device) => self.add(&device, usage),
            None => self.add_to_others(usage),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::usage::Counts;
    use crate::record::Timestamp;

    fn usage(at: u64, accepted: u64) -> Usage {
        Usage {
            from: Timestamp(at),
            to: Timestamp(at + 1),
            counts: Counts {
                accepted,
                ..Counts::default()
            },
        }
    }

    fn id(number: usize) -> DeviceId {
        DeviceId::parse(&format!("meter-{number:06}")).unwrap()
    }

    #[test]
    fn a_device_that_comes_and_goes_takes_one_place() {
        let mut carried = Carried::default();
        for at in [5, 3, 9] {
            carried.add(&id(1), usage(at, at));
        }
        let (device, both) = carried.take().unwrap();
        assert_eq!((device, both.counts.accepted), (Some(id(1)), 17));
        assert_eq!((both.from, both.to), (Timestamp(3), Timestamp(10)));
        assert!(carried.is_empty());
        carried.put_back(Some(id(1)), both);
        assert_eq!(carried.take(), Some((Some(id(1)), both)));
    }

    #[test]
    fn more_devices_than_there_are_places_for_are_added_up() {
        let mut carried = Carried::default();
        for number in 0..2 * DEVICES_CARRIED_MAX {
            carried.add(&id(number), usage(0, 1));
        }
        assert_eq!(carried.of_devices.len(), DEVICES_CARRIED_MAX);
        let (mut sum, mut nameless) = (0, 0);
        while let Some((device, usage)) = carried.take() {
            sum += usage.counts.accepted;
            nameless += u64::from(device.is_none());
        }
        assert_eq!((sum, nameless), (2 * DEVICES_CARRIED_MAX as u64, 1));
    }
}
