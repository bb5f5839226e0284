//! Histograms with fixed buckets and one writer, and their text.
//!
//! The exporter keeps every observation in memory until somebody scrapes, so it would hold more
//! than any bound where nobody does. Here an observation is two additions into an array that is
//! there from the start.
//!
//! Values are whole numbers of the family's small unit (microseconds, bytes, records); the text is
//! in base units. Failure: none. A sum wraps after 2^64 of its small unit: half a million years of
//! microseconds.

use std::fmt::Write;

use super::cell::Local;

/// The bounds that every family has.
const BOUNDS: usize = 14;

/// A metric by its name: what it is and where its buckets end.
pub(crate) struct Family {
    pub name: &'static str,
    pub help: &'static str,
    /// The largest value of each bucket, ascending, in the small unit.
    pub bounds: [u64; BOUNDS],
    /// The small units of one base unit.
    pub per_base_unit: f64,
}

/// The bounds of durations in microseconds, 0.5 ms to 10 s.
const DURATION_BOUNDS: [u64; BOUNDS] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

pub(crate) static REQUEST_DURATION: Family = Family {
    name: "forebay_http_request_duration_seconds",
    help: "Time from the head of a request to its answer",
    bounds: DURATION_BOUNDS,
    per_base_unit: 1e6,
};
pub(crate) static SINK_DURATION: Family = Family {
    name: "forebay_sink_duration_seconds",
    help: "Time that the sink took for a batch",
    bounds: DURATION_BOUNDS,
    per_base_unit: 1e6,
};
pub(crate) static BATCH_AGE: Family = Family {
    name: "forebay_batcher_batch_age_seconds",
    help: "Age of the oldest record of a batch when it was sealed",
    bounds: DURATION_BOUNDS,
    per_base_unit: 1e6,
};
pub(crate) static BATCH_RECORDS: Family = Family {
    name: "forebay_batcher_batch_records",
    help: "Records in a sealed batch",
    bounds: [
        1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000,
    ],
    per_base_unit: 1.0,
};
pub(crate) static BATCH_BYTES: Family = Family {
    name: "forebay_batcher_batch_bytes",
    help: "Payload bytes in a sealed batch",
    bounds: [
        64, 256, 1_024, 4_096, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576,
        2_097_152, 4_194_304, 16_777_216,
    ],
    per_base_unit: 1.0,
};

/// The observations of one thread.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// A count for each bound, and one for what is larger.
    buckets: [Local; BOUNDS + 1],
    sum: Local,
}

impl Histogram {
    /// Counts a value, which is in the family's small unit.
    pub(crate) fn observe(&self, family: &Family, value: u64) {
        self.buckets[family.bounds.partition_point(|bound| *bound < value)].add(1);
        self.sum.add(value);
    }
}

impl Family {
    /// Starts the family's text.
    pub(crate) fn write_head(&self, text: &mut String) {
        let Self { name, help, .. } = self;
        // Writing to a String cannot fail, here and below.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
    }

    /// Writes one series, the sum of `histograms`; `label` is empty or like `protocol="h1"`.
    pub(crate) fn write<'a>(
        &self,
        text: &mut String,
        label: &str,
        histograms: impl Iterator<Item = &'a Histogram>,
    ) {
        let Sum { counts, sum } = Sum::of(histograms);
        let name = self.name;
        let (labels, more) = match label {
            "" => (String::new(), String::new()),
            label => (format!("{{{label}}}"), format!("{label},")),
        };
        let mut count = 0;
        for (bucket, bound) in counts.iter().zip(self.bounds) {
            count += bucket;
            let bound = bound as f64 / self.per_base_unit;
            let _ = writeln!(text, "{name}_bucket{{{more}le=\"{bound}\"}} {count}");
        }
        // The count is that of the buckets, so that a scrape never contradicts itself.
        count += counts[BOUNDS];
        let sum = sum as f64 / self.per_base_unit;
        let _ = writeln!(
            text,
            "{name}_bucket{{{more}le=\"+Inf\"}} {count}\n\
             {name}_sum{labels} {sum}\n{name}_count{labels} {count}"
        );
    }
}

/// Sum of several histograms.
struct Sum {
    counts: [u64; BOUNDS + 1],
    sum: u64,
}

impl Sum {
    fn of<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Self {
        let mut counts = [0_u64; BOUNDS + 1];
        let mut sum = 0_u64;
        for histogram in histograms {
            sum = sum.wrapping_add(histogram.sum.get());
            for (count, bucket) in counts.iter_mut().zip(&histogram.buckets) {
                *count += bucket.get();
            }
        }
        Self { counts, sum }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value_of(text: &str, series: &str) -> f64 {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series))
            .unwrap_or_else(|| panic!("{series}: {text}"));
        line.trim().parse().unwrap()
    }

    proptest! {
        #[test]
        fn each_bucket_counts_what_is_not_larger_than_its_bound(
            values in proptest::collection::vec(prop_oneof![0..40_000_u64, Just(1), Just(500), Just(501)], 0..50),
            split in 0..50_usize,
        ) {
            let threads = [Histogram::default(), Histogram::default()];
            for (at, value) in values.iter().enumerate() {
                threads[usize::from(at < split)].observe(&BATCH_RECORDS, *value);
            }
            let mut text = String::new();
            BATCH_RECORDS.write(&mut text, "of=\"x\"", threads.iter());
            for bound in BATCH_RECORDS.bounds {
                let expected = values.iter().filter(|value| **value <= bound).count();
                let series = format!("forebay_batcher_batch_records_bucket{{of=\"x\",le=\"{bound}\"}}");
                prop_assert_eq!(value_of(&text, &series), expected as f64);
            }
            prop_assert_eq!(value_of(&text, "forebay_batcher_batch_records_sum{of=\"x\"}"), values.iter().sum::<u64>() as f64);
            for total in ["bucket{of=\"x\",le=\"+Inf\"}", "count{of=\"x\"}"] {
                prop_assert_eq!(value_of(&text, &format!("forebay_batcher_batch_records_{total}")), values.len() as f64);
            }
        }
    }

    #[test]
    fn bounds_ascend() {
        for family in [
            &REQUEST_DURATION,
            &SINK_DURATION,
            &BATCH_AGE,
            &BATCH_RECORDS,
            &BATCH_BYTES,
        ] {
            assert!(
                family.bounds.is_sorted_by(|low, high| low < high),
                "{}",
                family.name
            );
        }
    }
}
