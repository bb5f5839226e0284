//! Schedule of the probes of a disk that failed: after 100 ms, then less and less often, every 5 s
//! at least.
//!
//! Time is an argument.

use std::time::{Duration, Instant};

const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(5);

const _: () = assert!(INTERVAL_MIN.as_nanos() < INTERVAL_MAX.as_nanos());

pub(crate) struct Probe {
    due: Option<Instant>,
    /// Time from the next failure to the probe after it.
    interval: Duration,
}

impl Probe {
    pub(crate) fn new() -> Self {
        Self {
            due: None,
            interval: INTERVAL_MIN,
        }
    }

    /// Notes that the disk has failed: it is tried again after a while, which doubles with each
    /// failure.
    pub(crate) fn note_failure(&mut self, now: Instant) {
        debug_assert!((INTERVAL_MIN..=INTERVAL_MAX).contains(&self.interval));
        self.due = Some(now + self.interval);
        self.interval = (self.interval * 2).min(INTERVAL_MAX);
    }

    /// Notes that the disk has taken records.
    pub(crate) fn note_success(&mut self) {
        self.interval = INTERVAL_MIN;
    }

    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the disk is to be tried now; says so once.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| now >= due);
        if is_due {
            self.due = None;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fails_is_tried_less_and_less_often() {
        let (mut probe, begun_at) = (Probe::new(), Instant::now());
        let mut now = begun_at;
        let mut waits_millis = Vec::new();
        for _ in 0..8 {
            probe.note_failure(now);
            let due = probe.due().unwrap();
            waits_millis.push((due - now).as_millis());
            assert!(!probe.take(due - Duration::from_millis(1)));
            assert!(probe.take(due) && !probe.take(due));
            now = due;
        }
        assert_eq!(waits_millis, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        probe.note_success();
        probe.note_failure(now);
        assert_eq!(probe.due(), Some(now + INTERVAL_MIN));
    }
}
