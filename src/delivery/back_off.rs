//! Back-off of a stream that takes nothing, and the time for which it has refused everything.
//!
//! A [`BackOff`] holds back records that have failed: first for [`BACK_OFF_MIN`], then twice as
//! long each time, for [`BACK_OFF_MAX`] at most, with jitter. A [`Refusal`] tells for how long a
//! stream has been closed without a break. Time is an argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::jitter;

const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// Longest gap between two refusals that still count as one: beyond it, nothing was asked in
/// between.
const REFUSAL_GAP_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(BACK_OFF_MIN.as_millis() < BACK_OFF_MAX.as_millis());
const _: () = assert!(REFUSAL_GAP_MAX.as_secs() > 2 * BACK_OFF_MAX.as_secs());

/// Whether to go on, and with how much care.
#[derive(Debug, Default)]
pub(crate) enum BackOff {
    /// Nothing has failed of late.
    #[default]
    None,
    /// Something has failed since everything last passed.
    Pause {
        until: Instant,
        /// Length of the next pause.
        next: Duration,
    },
}

impl BackOff {
    pub(crate) fn holds(&self, now: Instant) -> bool {
        self.due(now).is_some()
    }

    /// Whether something has failed since everything last passed, be it that it may be tried again
    /// by now.
    pub(crate) fn is_troubled(&self) -> bool {
        matches!(self, Self::Pause { .. })
    }

    /// Returns the time of the next try; `None` if that is now.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Pause { until, .. } if *until > now => Some(*until),
            Self::Pause { .. } | Self::None => None,
        }
    }

    /// Ends the pause: everything passed.
    pub(crate) fn passed(&mut self) {
        *self = Self::None;
    }

    /// Lets the rest go again at once, with care: some of it passed.
    pub(crate) fn stumbled(&mut self, now: Instant) {
        *self = Self::Pause {
            until: now,
            next: BACK_OFF_MIN,
        };
    }

    /// Notes that nothing passed. Failures of one time count once.
    pub(crate) fn failed(&mut self, now: Instant) {
        let pause = match self {
            Self::None => BACK_OFF_MIN,
            Self::Pause { until, .. } if *until > now => return,
            Self::Pause { next, .. } => *next,
        };
        debug_assert!((BACK_OFF_MIN..=BACK_OFF_MAX).contains(&pause));
        *self = Self::Pause {
            until: now + jitter::equal(pause),
            next: (2 * pause).min(BACK_OFF_MAX),
        };
    }
}

/// A stream is gone, or closed to this gateway, and has said so each time that it was asked.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refusal(Option<Refused>);

#[derive(Clone, Copy, Debug)]
struct Refused {
    since: Instant,
    latest: Instant,
}

impl Refusal {
    /// Notes that the stream has said so now.
    pub(crate) fn confirm(&mut self, now: Instant) {
        let since = self.unbroken(now).map_or(now, |refused| refused.since);
        debug_assert!(since <= now);
        self.0 = Some(Refused { since, latest: now });
    }

    /// Ends it: something else happened.
    pub(crate) fn end(&mut self) {
        self.0 = None;
    }

    /// Returns the time for which the stream has been so without a break.
    pub(crate) fn lasts(&self, now: Instant) -> Duration {
        let refused = self.unbroken(now);
        refused.map_or(Duration::ZERO, |refused| now - refused.since)
    }

    fn unbroken(&self, now: Instant) -> Option<Refused> {
        self.0
            .filter(|refused| now - refused.latest <= REFUSAL_GAP_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_less_and_less_often_until_it_passes() {
        let (mut back_off, mut now) = (BackOff::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..10 {
            back_off.failed(now);
            back_off.failed(now);
            assert!(back_off.holds(now));
            let due = back_off.due(now).unwrap();
            waits.push(due - now);
            assert!(!back_off.holds(due) && back_off.is_troubled());
            now = due;
        }
        assert!(waits[0] <= BACK_OFF_MIN && waits[9] >= BACK_OFF_MAX / 2);
        assert!(waits[9] <= BACK_OFF_MAX);
        back_off.stumbled(now);
        assert!(!back_off.holds(now) && back_off.is_troubled());
        back_off.passed();
        assert!(!back_off.is_troubled() && back_off.due(now).is_none());
    }

    #[test]
    fn a_refusal_lasts_until_something_else_happens_or_nobody_asks() {
        let (mut refusal, mut now) = (Refusal::default(), Instant::now());
        refusal.confirm(now);
        assert_eq!(refusal.lasts(now), Duration::ZERO);
        for second in 1..100 {
            now += Duration::from_secs(1);
            refusal.confirm(now);
            assert_eq!(refusal.lasts(now), Duration::from_secs(second));
        }
        refusal.end();
        assert_eq!(refusal.lasts(now), Duration::ZERO);
        refusal.confirm(now);
        now += REFUSAL_GAP_MAX + Duration::from_secs(1);
        assert_eq!(refusal.lasts(now), Duration::ZERO);
        refusal.confirm(now);
        assert_eq!(refusal.lasts(now), Duration::ZERO);
    }
}
