//! Streams that take nothing now, and when each is tried again.
//!
//! The drain and [`queued`](super::queued) keep one each. A stream whose wave has failed is held back, first for
//! [`BACK_OFF_MIN`], then twice as long each time, for [`BACK_OFF_MAX`] at most, with jitter; other streams go on. It also tells
//! for how long a stream has refused everything without a break. Time is an argument.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::jitter;

const BACK_OFF_MIN: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// Refusals that are further apart were not without a break: nobody asked in between.
const REFUSAL_GAP_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(REFUSAL_GAP_MAX.as_secs() > 2 * BACK_OFF_MAX.as_secs());

/// As many as there are streams, at most.
#[derive(Debug, Default)]
pub(crate) struct Holds(HashMap<Arc<str>, Hold>);

#[derive(Debug)]
struct Hold {
    until: Instant,
    back_off: Duration,
    refusal: Option<Refusal>,
}

/// The stream has said that it is gone, or closed, each time that it was asked.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    since: Instant,
    latest: Instant,
}

impl Holds {
    pub(crate) fn holds(&self, stream: &str, now: Instant) -> bool {
        self.0.get(stream).is_some_and(|hold| now < hold.until)
    }

    /// Whether the last wave of the stream has failed, be it that it may be tried again by now.
    pub(crate) fn is_troubled(&self, stream: &str) -> bool {
        self.0.contains_key(stream)
    }

    /// Whether the stream has failed so often that others should not wait for it.
    pub(crate) fn is_stalled(&self, stream: &str) -> bool {
        self.0
            .get(stream)
            .is_some_and(|hold| hold.back_off > 8 * BACK_OFF_MIN)
    }

    /// When the next stream is to be tried again.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let held = self.0.values().map(|hold| hold.until);
        held.filter(|until| *until > now).min()
    }

    /// The stream took something.
    pub(crate) fn passed(&mut self, stream: &str) {
        self.0.remove(stream);
    }

    /// The stream took some of what it was given: it is tried again at once, with care.
    pub(crate) fn stumbled(&mut self, stream: &Arc<str>, now: Instant) {
        let hold = Hold {
            until: now,
            back_off: BACK_OFF_MIN,
            refusal: None,
        };
        self.0.insert(stream.clone(), hold);
    }

    /// What the stream refuses is set aside from now on: nothing waits for it.
    pub(crate) fn gave_way(&mut self, stream: &str, now: Instant) {
        if let Some(hold) = self.0.get_mut(stream) {
            (hold.until, hold.back_off) = (now, BACK_OFF_MIN);
        }
    }

    /// The stream took nothing now.
    pub(crate) fn failed(&mut self, stream: &Arc<str>, now: Instant) {
        self.hold_back(stream, now).refusal = None;
    }

    /// The stream is gone, or closed to this gateway. Says for how long it has been without a break.
    pub(crate) fn refused(&mut self, stream: &Arc<str>, now: Instant) -> Duration {
        let hold = self.hold_back(stream, now);
        let unbroken = hold
            .refusal
            .filter(|refusal| now - refusal.latest <= REFUSAL_GAP_MAX);
        let since = unbroken.map_or(now, |refusal| refusal.since);
        hold.refusal = Some(Refusal { since, latest: now });
        now - since
    }

    /// Waves that fail together count once.
    fn hold_back(&mut self, stream: &Arc<str>, now: Instant) -> &mut Hold {
        let hold = self.0.entry(stream.clone()).or_insert(Hold {
            until: now,
            back_off: BACK_OFF_MIN,
            refusal: None,
        });
        if hold.until <= now {
            hold.until = now + jitter::equal(hold.back_off);
            hold.back_off = (2 * hold.back_off).min(BACK_OFF_MAX);
        }
        hold
    }

    /// Nothing is held back any more.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_tried_less_and_less_often_until_it_takes_something() {
        let (mut holds, mut now) = (Holds::default(), Instant::now());
        let stream: Arc<str> = "a".into();
        let mut waits = Vec::new();
        for _ in 0..10 {
            holds.failed(&stream, now);
            assert!(holds.holds("a", now) && !holds.holds("b", now));
            let due = holds.due(now).unwrap();
            waits.push(due - now);
            assert!(!holds.holds("a", due) && holds.is_troubled("a"));
            now = due;
        }
        assert!(waits[0] <= BACK_OFF_MIN && waits[9] >= BACK_OFF_MAX / 2);
        assert!(waits[9] <= BACK_OFF_MAX && holds.is_stalled("a"));
        holds.passed("a");
        assert!(!holds.is_troubled("a") && holds.due(now).is_none());
    }

    #[test]
    fn a_refusal_lasts_until_something_else_happens_or_nobody_asks() {
        let (mut holds, mut now) = (Holds::default(), Instant::now());
        let stream: Arc<str> = "a".into();
        assert_eq!(holds.refused(&stream, now), Duration::ZERO);
        for second in 1..100 {
            now += Duration::from_secs(1);
            assert_eq!(holds.refused(&stream, now), Duration::from_secs(second));
        }
        holds.failed(&stream, now);
        assert_eq!(holds.refused(&stream, now), Duration::ZERO);
        now += REFUSAL_GAP_MAX + Duration::from_secs(1);
        assert_eq!(holds.refused(&stream, now), Duration::ZERO);
    }
}
