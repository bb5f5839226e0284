//! Devices whose records are left on disk for now, because their partition is away, and where they
//! are read again once it is back.
//!
//! Reading goes on past left records, so that they take up no room of others' records. Later
//! records of such a device are left too. When devices may travel again, a second reading begins at
//! the oldest record that they have left, and takes their records only; when it has caught up with
//! the first reading, there is one again.
//!
//! Bounded by the devices that have records on disk.

use std::collections::HashMap;

use crate::record::DeviceId;

/// Records of one stream that were left on disk.
#[derive(Debug, Default)]
pub(super) struct LeftBehind {
    devices: HashMap<DeviceId, Left>,
    /// Place of the second reading: all left records that may travel again are at it or behind it.
    read_to: Option<u64>,
}

/// Records of one device that were left on disk.
#[derive(Debug)]
struct Left {
    /// Place of the first of them, at the earliest.
    from: u64,
    may_travel: bool,
}

impl LeftBehind {
    /// Returns the place at which left records are read on; `None` if none of them may travel.
    pub(super) fn read_to(&self) -> Option<u64> {
        self.read_to
    }

    /// Leaves the device's records from this place on.
    pub(super) fn leave(&mut self, device: DeviceId, place: u64) {
        let left = self.devices.entry(device).or_insert(Left {
            from: place,
            may_travel: false,
        });
        left.from = left.from.min(place);
        left.may_travel = false;
    }

    /// Looks again which devices may travel.
    pub(super) fn review(&mut self, is_away: impl Fn(&DeviceId) -> bool) {
        let mut again_from = None;
        for (device, left) in &mut self.devices {
            let could_travel = left.may_travel;
            left.may_travel = !is_away(device);
            if left.may_travel {
                // A device that could travel before has no left record before the place of the
                // second reading.
                let from = self.read_to.filter(|_| could_travel).unwrap_or(left.from);
                again_from = again_from.map_or(Some(from), |other: u64| Some(other.min(from)));
            }
        }
        self.read_to = again_from;
    }

    /// Whether the device's record at this place was left and may travel; `None` where nothing of
    /// the device is left.
    pub(super) fn is_due(&self, device: &DeviceId, place: u64) -> Option<bool> {
        let left = self.devices.get(device)?;
        Some(left.may_travel && place >= left.from)
    }

    /// Notes that the device's record at this place was taken in.
    pub(super) fn took(&mut self, device: &DeviceId, place: u64) {
        if let Some(left) = self.devices.get_mut(device) {
            debug_assert!(left.may_travel && left.from <= place, "it was due");
            left.from = place + 1;
        }
    }

    /// Notes that left records before this place were read again. The first reading has come to
    /// `others_read_to`; once the second is there, it ends.
    pub(super) fn read_again_to(&mut self, place: u64, others_read_to: u64) {
        debug_assert!(self.read_to.is_some_and(|read_to| read_to <= place));
        self.read_to = Some(place);
        if place >= others_read_to {
            self.read_to = None;
            self.devices.retain(|_, left| !left.may_travel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u64) -> DeviceId {
        DeviceId::parse(&format!("device-{number}")).unwrap()
    }

    fn has(left: &LeftBehind, number: u64) -> bool {
        left.is_due(&device(number), 0).is_some()
    }

    fn take(left: &mut LeftBehind, number: u64, place: u64) -> bool {
        let is_due = left.is_due(&device(number), place) == Some(true);
        if is_due {
            left.took(&device(number), place);
        }
        is_due
    }

    #[test]
    fn what_was_left_is_read_again_once_and_in_its_order() {
        let mut left = LeftBehind::default();
        left.leave(device(1), 3);
        left.leave(device(1), 5);
        left.leave(device(2), 4);
        left.review(|_| true);
        assert_eq!(left.read_to(), None);
        left.review(|name| *name == device(1));
        assert_eq!(left.read_to(), Some(4));
        assert!(take(&mut left, 2, 4) && !take(&mut left, 1, 5));
        left.read_again_to(6, 9);
        assert!(take(&mut left, 2, 7));
        // The first one may travel as well: the second one's records are not taken again.
        left.review(|_| false);
        assert_eq!(left.read_to(), Some(3));
        assert!(take(&mut left, 1, 3) && !take(&mut left, 2, 4));
        assert!(take(&mut left, 1, 5) && !take(&mut left, 2, 7));
        left.read_again_to(8, 9);
        assert!(take(&mut left, 2, 8));
        left.read_again_to(9, 9);
        assert!(left.read_to().is_none() && !has(&left, 1) && !has(&left, 2));
    }

    /// A device whose partition is away again keeps what it had not read by then.
    #[test]
    fn a_device_may_be_left_again_on_its_way() {
        let mut left = LeftBehind::default();
        left.leave(device(1), 3);
        left.review(|_| false);
        assert!(take(&mut left, 1, 3) && take(&mut left, 1, 5));
        left.leave(device(1), 7);
        left.read_again_to(9, 9);
        assert!(has(&left, 1) && left.read_to().is_none());
        left.review(|_| false);
        assert_eq!(left.read_to(), Some(6));
    }
}
