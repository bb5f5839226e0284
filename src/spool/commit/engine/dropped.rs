//! Tells the log of records that were dropped to make room: at once, then once a minute, and none
//! is left out.
//!
//! The metric counts them as they are dropped. Time is an argument.

use std::mem;
use std::time::{Duration, Instant};

const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The records that were dropped and that the log does not know of yet.
#[derive(Default)]
pub(crate) struct Dropped {
    records: u64,
    told_at: Option<Instant>,
}

impl Dropped {
    pub(crate) fn add(&mut self, records: u64) {
        self.records += records;
    }

    /// Returns the time of the next line; `None` if there is nothing to tell, or the first line is
    /// due.
    pub(crate) fn due(&self) -> Option<Instant> {
        if self.records == 0 {
            return None;
        }
        self.told_at.map(|at| at + LOG_INTERVAL)
    }

    /// Returns the number of records to log now, if it is time; they count as told.
    pub(crate) fn take(&mut self, now: Instant) -> Option<u64> {
        let is_time = self.records > 0 && self.due().is_none_or(|due| now >= due);
        if !is_time {
            return None;
        }
        self.told_at = Some(now);
        Some(mem::take(&mut self.records))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_told_of_once_a_minute_and_none_is_left_out() {
        let mut dropped = Dropped::default();
        let begun_at = Instant::now();
        let told: Vec<_> = (0..150)
            .map(|second| {
                dropped.add(second);
                dropped
                    .take(begun_at + Duration::from_secs(second))
                    .map(|records| (second, records))
            })
            .collect();
        let sum = |seconds: std::ops::RangeInclusive<u64>| seconds.sum();
        let expected = [(1, 1), (61, sum(2..=61)), (121, sum(62..=121))];
        assert_eq!(told.into_iter().flatten().collect::<Vec<_>>(), expected);
        assert_eq!(dropped.due(), Some(begun_at + Duration::from_secs(181)));
        assert_eq!(
            dropped.take(begun_at + Duration::from_secs(181)),
            Some(sum(122..=149))
        );
        assert_eq!(
            (
                dropped.due(),
                dropped.take(begun_at + Duration::from_secs(999))
            ),
            (None, None)
        );
    }
}
