//! The time that brokers take to acknowledge: a moving average, and the least of late.
//!
//! Each batch tells when half of its records were acknowledged: one partition that is slow, or away,
//! says nothing of the others. That is the average, which has in it what records wait for on this
//! side. When the first one was acknowledged tells of the brokers alone: the least of that is their
//! own time, as some record always finds nothing in its way. The threads of librdkafka's reports write it, delivery reads it; a
//! sample that two of them write at once may be lost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A batch counts for so much at most, and as one of so many.
const SAMPLE_MAX: Duration = Duration::from_secs(1);
const SAMPLES: u64 = 4;

const _: () = assert!(SAMPLES > 1, "an average is of several");

/// The acknowledgement time of late, in microseconds; 0 while it is not known.
#[derive(Debug, Default)]
pub(crate) struct AckTime {
    average: AtomicU64,
    least: AtomicU64,
}

impl AckTime {
    /// Takes a sample: half of a batch's records were acknowledged after this time.
    pub(crate) fn note(&self, after: Duration) {
        // 0 stands for what is not known.
        let sample = (after.min(SAMPLE_MAX).as_micros() as u64).max(1);
        let average = match self.average.load(Ordering::Relaxed) {
            0 => sample,
            known => (known * (SAMPLES - 1) + sample) / SAMPLES,
        };
        debug_assert!(u128::from(average) <= SAMPLE_MAX.as_micros());
        self.average.store(average, Ordering::Relaxed);
    }

    /// Takes a sample: the first of a batch's records was acknowledged after this time.
    pub(crate) fn note_first(&self, after: Duration) {
        let sample = (after.as_micros() as u64).max(1);
        let least = self.least.load(Ordering::Relaxed);
        if least == 0 || sample < least {
            self.least.store(sample, Ordering::Relaxed);
        }
    }

    /// Returns the average; 0 while nothing is known.
    pub(crate) fn get(&self) -> Duration {
        Duration::from_micros(self.average.load(Ordering::Relaxed))
    }

    /// Returns the least time of a first record since the last call; `None` if there was none.
    pub(crate) fn take_least(&self) -> Option<Duration> {
        let least = self.least.swap(0, Ordering::Relaxed);
        (least > 0).then(|| Duration::from_micros(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_the_brokers_and_one_batch_does_not_make_it() {
        let (ack_time, millis) = (AckTime::default(), Duration::from_millis);
        assert_eq!(ack_time.get(), Duration::ZERO);
        ack_time.note(Duration::ZERO);
        assert_eq!(ack_time.get(), Duration::from_micros(1), "it is known");
        let ack_time = AckTime::default();
        ack_time.note(millis(4));
        ack_time.note(millis(60_000));
        assert_eq!(ack_time.get(), millis(253), "a sample has its most");
        assert_eq!(ack_time.take_least(), None, "of a first one");
        ack_time.note_first(millis(4));
        ack_time.note_first(millis(3));
        ack_time.note_first(millis(60_000));
        assert_eq!(ack_time.take_least(), Some(millis(3)));
        assert_eq!(ack_time.take_least(), None);
        for _ in 0..40 {
            ack_time.note(millis(400));
        }
        assert!(ack_time.get().abs_diff(millis(400)) < millis(1));
    }
}
