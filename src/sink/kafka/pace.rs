//! The pace of the brokers: whether they are slow to acknowledge.
//!
//! Looked at once a second, by the least time that an acknowledgement took meanwhile: that is the
//! brokers' own, however busy the gateway is, but for the time that the producer lingers.

use std::time::Duration;

/// Acknowledgements are slow from the first on, and quick below the second.
pub(super) const SLOW: Duration = Duration::from_millis(20);
const QUICK: Duration = Duration::from_millis(10);

const _: () = assert!(QUICK.as_millis() < SLOW.as_millis(), "there is a gap");

pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks in a row after which brokers are slow: a pause or an election is not as long.
const SLOW_LOOKS: u32 = 3;

/// What the looks have shown.
#[derive(Debug, Default)]
pub(super) struct Pace {
    slow_looks: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speed {
    Slow,
    Quick,
}

impl Pace {
    /// Judges by the brokers' least time since the last look, if they acknowledged anything; `None`
    /// while it cannot be said.
    pub(super) fn look(&mut self, least: Option<Duration>) -> Option<Speed> {
        let least = least?;
        if least < SLOW {
            self.slow_looks = 0;
            return (least < QUICK).then_some(Speed::Quick);
        }
        self.slow_looks = SLOW_LOOKS.min(self.slow_looks + 1);
        (self.slow_looks == SLOW_LOOKS).then_some(Speed::Slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_slow_when_that_lasts_and_quick_at_once() {
        let mut pace = Pace::default();
        let mut look = |millis: u64| pace.look(Some(Duration::from_millis(millis)));
        assert_eq!([400, 400].map(&mut look), [None; 2]);
        assert_eq!(look(1), Some(Speed::Quick), "it was an election");
        assert_eq!([400, 20].map(&mut look), [None; 2]);
        assert_eq!([400, 20].map(&mut look), [Some(Speed::Slow); 2]);
        assert_eq!(look(15), None, "neither slow nor quick");
        assert_eq!(pace.look(None), None, "nothing was sent");
    }
}
