//! Measurements: counts and histograms that can be merged, and their form on the pipe between
//! processes.
//!
//! Every thread of a worker fills a [`Tally`] and hands it over once a second; the conductor merges
//! them. Times are in microseconds, exact to 1 %, from 1 µs to an hour; what is longer counts as an
//! hour. Invariant: merging loses nothing: a tally merged from parts equals the tally of the whole,
//! through JSON as well.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ledger::Status;

const MICROSECONDS_MAX: u64 = 3_600_000_000;

/// Times in microseconds. As JSON a list of pairs: a time, and how often it was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub(crate) struct Times(hdrhistogram::Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        let histogram = hdrhistogram::Histogram::new_with_bounds(1, MICROSECONDS_MAX, 2);
        Self(histogram.expect("the bounds are constants, and they are good"))
    }
}

impl Times {
    pub(crate) fn record(&mut self, time: Duration) {
        self.record_n(time.as_micros().try_into().unwrap_or(u64::MAX), 1);
    }

    fn record_n(&mut self, microseconds: u64, count: u64) {
        self.0
            .saturating_record_n(microseconds.clamp(1, MICROSECONDS_MAX), count);
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (microseconds, count) in other.buckets() {
            self.record_n(microseconds, count);
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// The value that this part of all (0 to 1) does not exceed, in microseconds.
    pub(crate) fn quantile(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile).min(self.max())
    }

    pub(crate) fn max(&self) -> u64 {
        if self.0.is_empty() { 0 } else { self.0.max() }
    }

    /// Values in microseconds with their counts, rising.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.0.iter_recorded();
        recorded.map(|bucket| (bucket.value_iterated_to(), bucket.count_at_value()))
    }

    /// The figures that a reader wants.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            count: self.count(),
            mean: self.0.mean().round(),
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p99_9: self.quantile(0.999),
            p99_99: self.quantile(0.9999),
            max: self.max(),
        }
    }
}

impl From<Vec<(u64, u64)>> for Times {
    fn from(buckets: Vec<(u64, u64)>) -> Self {
        let mut times = Self::default();
        for (microseconds, count) in buckets {
            times.record_n(microseconds, count);
        }
        times
    }
}

impl From<Times> for Vec<(u64, u64)> {
    fn from(times: Times) -> Self {
        times.buckets().collect()
    }
}

/// The figures of [`Times`], in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Summary {
    pub count: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub p99_99: u64,
    pub max: u64,
}

/// Counts of a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub statuses: BTreeMap<Status, u64>,
    /// The time from the intended one to the answer, or to when it was given up.
    pub latency: Times,
    /// The time from the sending to the answer.
    pub service: Times,
    /// The time from the intended one to the sending, where the device was idle: the generator's own
    /// fault.
    pub lateness: Times,
    /// The time from the first packet to a connection that can be used.
    pub handshakes: Times,
    pub handshakes_failed: u64,
    /// Sendings that began late because the device still waited for its last answer or its
    /// connection.
    pub behind: u64,
    /// Readings that were intended within the run, and not sent before its end.
    pub missed: u64,
}

impl Tally {
    pub(crate) fn merge(&mut self, other: &Self) {
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.latency.merge(&other.latency);
        self.service.merge(&other.service);
        self.lateness.merge(&other.lateness);
        self.handshakes.merge(&other.handshakes);
        self.handshakes_failed += other.handshakes_failed;
        self.behind += other.behind;
        self.missed += other.missed;
    }

    /// Requests that have ended, however.
    pub(crate) fn ended(&self) -> u64 {
        self.statuses.values().sum()
    }

    pub(crate) fn count(&self, status: Status) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// The statuses by their names.
    pub(crate) fn statuses_by_name(&self) -> BTreeMap<String, u64> {
        let mut named = BTreeMap::new();
        for (status, count) in &self.statuses {
            named.insert(status.to_string(), *count);
        }
        named
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tally(samples: &[(u16, u32)]) -> Tally {
        let mut tally = Tally::default();
        for (status, microseconds) in samples {
            let time = Duration::from_micros((*microseconds).into());
            *tally.statuses.entry(Status(*status)).or_default() += 1;
            tally.latency.record(time);
            tally.service.record(time / 2);
            tally.lateness.record(time / 3);
            tally.handshakes.record(time / 4);
            tally.behind += 1;
            tally.missed += 2;
        }
        tally
    }

    proptest! {
        #[test]
        fn parts_merge_to_the_whole_through_json(
            samples in prop::collection::vec((200_u16..510, any::<u32>()), 0..200), cut in 0..200_usize,
        ) {
            let (first, second) = samples.split_at(cut.min(samples.len()));
            let mut merged = Tally::default();
            for part in [first, second] {
                let text = serde_json::to_string(&tally(part)).unwrap();
                merged.merge(&serde_json::from_str(&text).unwrap());
            }
            let whole = tally(&samples);
            prop_assert_eq!(&merged, &whole);
            prop_assert_eq!(merged.ended(), samples.len() as u64);
        }

        #[test]
        fn quantiles_are_exact_to_one_percent(mut samples in prop::collection::vec(1_u32..100_000_000, 1..300)) {
            let mut times = Times::default();
            samples.iter().for_each(|sample| times.record(Duration::from_micros((*sample).into())));
            samples.sort_unstable();
            for quantile in [0.5, 0.9, 0.99, 1.0] {
                let rank = (quantile * samples.len() as f64).ceil().max(1.0) as usize;
                let exact = f64::from(samples[rank - 1]);
                let found = times.quantile(quantile) as f64;
                prop_assert!((found - exact).abs() <= exact * 0.01 + 1.0, "{quantile}: {found} for {exact}");
            }
        }
    }

    #[test]
    fn nothing_measured_is_no_time_at_all() {
        let times = Times::default();
        assert_eq!(
            (times.count(), times.quantile(0.99), times.max()),
            (0, 0, 0)
        );
        assert!(serde_json::from_str::<Times>(r#"{"a": 1}"#).is_err());
        assert!(serde_json::from_str::<Tally>("{}").is_err());
    }
}
