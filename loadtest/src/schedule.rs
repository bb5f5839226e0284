//! When a device means to send: an endless list of times from the start of the run, made without a
//! clock.
//!
//! Open loop: the list does not know how the server fares. A device begins at a phase of its own
//! within its interval and then sends once an interval, a little earlier or later each time, as
//! real clocks do. Invariant: times never go backward, and each lies within `jitter` of an interval
//! around its place.

use std::time::Duration;

use crate::random::Random;

/// The part of an interval by which a sending may be early or late.
pub(crate) const JITTER: f64 = 0.1;

const _: () = assert!(JITTER < 0.5, "the order of sendings holds");

/// The intended times of one device.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    joins_at: Duration,
    interval: Duration,
    /// The place within an interval, in intervals, from 0 up to 1.
    phase: f64,
    next: u32,
    random: Random,
}

impl Schedule {
    pub(crate) fn new(joins_at: Duration, interval: Duration, mut random: Random) -> Self {
        Self {
            joins_at,
            interval,
            phase: random.fraction(),
            next: 0,
            random,
        }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        loop {
            let intervals =
                f64::from(self.next) + self.phase + self.random.between(-JITTER, JITTER);
            self.next = self.next.checked_add(1)?;
            // One whose first time is before the start has missed it: all of these would otherwise
            // begin at once.
            if intervals >= 0.0 {
                return Some(self.joins_at + self.interval.mul_f64(intervals));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_rise_and_keep_to_their_places(seed: u64, joins_ms in 0_u64..10_000, interval_ms in 1_u64..100_000) {
            let (joins_at, interval) = (Duration::from_millis(joins_ms), Duration::from_millis(interval_ms));
            let schedule = Schedule::new(joins_at, interval, Random::new(seed));
            let phase = schedule.phase;
            let intervals = |at: Duration| (at - joins_at).as_secs_f64() / interval.as_secs_f64();
            let (mut last, mut missed) = (Duration::ZERO, None);
            for (number, at) in schedule.take(50).enumerate() {
                prop_assert!(at >= last && at >= joins_at);
                let place = intervals(at) - phase - number as f64;
                let missed = *missed.get_or_insert(place.round());
                prop_assert!((place - missed).abs() <= JITTER + 1e-6 && (0.0..=1.0).contains(&missed));
                last = at;
            }
        }
    }

    #[test]
    fn a_fleet_is_spread_over_the_interval() {
        const DEVICES: u32 = 10_000;
        let interval = Duration::from_secs(5);
        let mut tenths = [0_u32; 10];
        for device in 0..DEVICES {
            let at = Schedule::new(Duration::ZERO, interval, Random::of(7, device))
                .next()
                .unwrap();
            tenths[(at.as_secs_f64() / 0.5).clamp(0.0, 9.0) as usize] += 1;
        }
        assert!(
            tenths[1..9].iter().all(|count| (800..1200).contains(count)),
            "{tenths:?}"
        );
        assert!(
            tenths[0] < 1000,
            "a few begin later, nobody at once: {tenths:?}"
        );
    }

    #[test]
    fn a_fleet_does_not_begin_at_once() {
        const DEVICES: u32 = 10_000;
        let first = |device| {
            Schedule::new(
                Duration::ZERO,
                Duration::from_secs(5),
                Random::of(7, device),
            )
            .next()
        };
        let at_once = (0..DEVICES)
            .filter(|device| first(*device) < Some(Duration::from_millis(50)))
            .count();
        assert!(
            at_once < 100,
            "{at_once} of {DEVICES} in a hundredth of the interval"
        );
    }

    #[test]
    fn the_rate_holds_over_time() {
        let schedule = Schedule::new(Duration::ZERO, Duration::from_millis(200), Random::new(1));
        let sent = schedule
            .take_while(|at| *at < Duration::from_secs(60))
            .count();
        assert!((299..=301).contains(&sent), "{sent}");
    }
}
