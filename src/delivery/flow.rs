//! The records of one stream that wait, and how many waves of them may be on their way.
//!
//! Waves of devices whose records arrive are on their way beside each other. As soon as something
//! fails of them, one at a time is, with one record of a device, until a wave has arrived whole.
//! Devices whose own records failed travel apart from the others, one wave at a time, with a
//! back-off of their own: a part of a stream that takes nothing holds up its own devices and no
//! others.

use tokio::time::Instant;

use super::back_off::BackOff;
use super::window::{Limits, Placed, Size, Standing, Turn, Wave, Window};
use crate::record::DeviceId;

/// Records of one stream that wait, and the waves of it that are in flight.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    window: Window,
    well: Course,
    failing: Course,
}

/// The waves of devices of one standing.
#[derive(Debug, Default)]
struct Course {
    in_flight: usize,
    back_off: BackOff,
}

/// Verdict on a wave, by its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fared {
    /// The stream has taken, or judged, each of its records.
    Well,
    /// Some of its records are to go again, and others are not.
    Partly,
    /// All of its records are to go again.
    Badly,
}

impl Fared {
    /// `settled`: some records are done with; `again`: some are to go again.
    pub(crate) fn of(settled: bool, again: bool) -> Self {
        match (settled, again) {
            (_, false) => Self::Well,
            (true, true) => Self::Partly,
            (false, true) => Self::Badly,
        }
    }
}

impl Flow {
    /// Returns the records that wait, those in flight aside.
    pub(crate) fn size(&self) -> Size {
        self.window.size()
    }

    /// Whether nothing waits or is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    /// Waves that are in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.well.in_flight + self.failing.in_flight
    }

    /// Devices that may send and whose last records arrived.
    pub(crate) fn ready_devices(&self) -> usize {
        self.window.ready_devices()
    }

    /// Adds a record behind those of its device.
    pub(crate) fn push(&mut self, placed: Placed) {
        self.window.push(placed);
    }

    /// Returns the next wave; `None` if nothing may travel now.
    pub(crate) fn next_wave(
        &mut self,
        limits: Limits,
        now: Instant,
        turn: impl Fn(&Placed) -> Turn,
    ) -> Option<Wave> {
        // There is but one of these, so it does not hold up the others.
        let wave = self.next_of(Standing::Failing, limits, now, &turn);
        wave.or_else(|| self.next_of(Standing::Well, limits, now, &turn))
    }

    fn next_of(
        &mut self,
        standing: Standing,
        limits: Limits,
        now: Instant,
        turn: impl Fn(&Placed) -> Turn,
    ) -> Option<Wave> {
        let course = self.course(standing);
        let with_care = standing == Standing::Failing || course.back_off.is_troubled();
        if course.back_off.holds(now) || (with_care && course.in_flight > 0) {
            return None;
        }
        // While records fail, those behind them must not overtake them.
        let run_max = if with_care { 1 } else { limits.run_max };
        let limits = Limits { run_max, ..limits };
        let wave = self.window.take_wave(standing, limits, turn)?;
        self.course(standing).in_flight += 1;
        Some(wave)
    }

    fn course(&mut self, standing: Standing) -> &mut Course {
        match standing {
            Standing::Well => &mut self.well,
            Standing::Failing => &mut self.failing,
        }
    }

    /// Frees the place of a wave of this standing, which is home, or takes too long to be waited
    /// for.
    pub(crate) fn left(&mut self, standing: Standing) {
        let course = self.course(standing);
        debug_assert!(course.in_flight > 0, "a wave leaves once");
        course.in_flight -= 1;
    }

    /// Notes how a wave of this standing fared.
    pub(crate) fn fared(&mut self, standing: Standing, fared: Fared, now: Instant) {
        let course = self.course(standing);
        match fared {
            Fared::Well => course.back_off.passed(),
            Fared::Partly => course.back_off.stumbled(now),
            Fared::Badly => course.back_off.failed(now),
        }
    }

    /// Lets these devices send again, first the records that go again.
    pub(crate) fn put_back(&mut self, devices: Vec<DeviceId>, again: Vec<Placed>) {
        self.window.come_home(devices, again);
    }

    /// Lets go of the waiting records of these devices, and returns the place of the first of each.
    pub(crate) fn let_go(&mut self, are: impl Fn(&DeviceId) -> bool) -> Vec<(DeviceId, u64)> {
        self.window.let_go(are)
    }

    /// Lets devices go on that waited at these places.
    pub(crate) fn wake(&mut self, places: std::ops::Range<u64>) {
        self.window.wake(places);
    }

    /// Forgets failures, so that everything may be tried at once.
    pub(crate) fn forget_failures(&mut self) {
        self.well.back_off.passed();
        self.failing.back_off.passed();
    }

    /// Returns the time at which failed records may be tried again.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let courses = [&self.well, &self.failing];
        let due = courses.map(|course| course.back_off.due(now));
        due.into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::record;

    const LIMITS: Limits = Limits {
        records_max: 2,
        bytes_max: 1000,
        run_max: 2,
    };

    fn flow(devices: &[u8]) -> Flow {
        let mut flow = Flow::default();
        for (place, device) in (0..).zip(devices) {
            let record = record(*device, place);
            flow.push(Placed { place, record });
        }
        flow
    }

    fn next(flow: &mut Flow, now: Instant) -> Option<Wave> {
        flow.next_wave(LIMITS, now, |_| Turn::Go)
    }

    fn places(wave: &Wave) -> Vec<u64> {
        wave.records.iter().map(|placed| placed.place).collect()
    }

    fn come_home(flow: &mut Flow, wave: Wave, fails: bool, now: Instant) {
        let again = if fails { wave.records } else { Vec::new() };
        flow.left(wave.standing);
        flow.fared(wave.standing, Fared::of(!fails, fails), now);
        flow.put_back(wave.devices, again);
    }

    #[test]
    fn waves_of_other_devices_are_on_their_way_until_something_fails() {
        let now = Instant::now();
        let mut flow = flow(&[1, 1, 2, 2, 3, 3]);
        let mut take = || next(&mut flow, now).unwrap();
        let (first, second, third) = (take(), take(), take());
        let taken = [&first, &second, &third].map(places);
        assert_eq!(taken, [[0, 1], [2, 3], [4, 5]]);
        come_home(&mut flow, first, true, now);
        assert!(next(&mut flow, now).is_some(), "1 has a course of its own");
        come_home(&mut flow, second, true, now);
        assert!(flow.due(now).is_some() && next(&mut flow, now).is_none());
        come_home(&mut flow, third, false, now);
        assert!(flow.due(now).is_none() && flow.in_flight() == 1);
    }

    /// A wave that failed as a whole does not keep other devices from going at once.
    #[test]
    fn devices_that_fail_have_a_back_off_of_their_own() {
        let now = Instant::now();
        let mut flow = flow(&[1, 2, 1, 2, 1]);
        let wave = next(&mut flow, now).unwrap();
        assert_eq!(places(&wave), [0, 2]);
        flow.left(wave.standing);
        flow.fared(wave.standing, Fared::Badly, now);
        flow.put_back(wave.devices, wave.records);
        let failing = next(&mut flow, now).unwrap();
        assert_eq!(
            (places(&failing), failing.standing),
            (vec![0], Standing::Failing)
        );
        assert!(next(&mut flow, now).is_none(), "2 waits for the pause");
        come_home(&mut flow, failing, true, now);
        let later = flow.due(now).unwrap() + std::time::Duration::from_secs(1);
        let failing = next(&mut flow, later).unwrap();
        let with_care = next(&mut flow, later).unwrap();
        assert_eq!((places(&failing), places(&with_care)), (vec![0], vec![1]));
        assert!(next(&mut flow, later).is_none(), "one at a time");
        come_home(&mut flow, with_care, false, later);
        assert_eq!(places(&next(&mut flow, later).unwrap()), [3]);
    }
}
