//! The outcomes of records in the sink: a counter for each stream and outcome.
//!
//! The table of metrics registers them, and counts by the place of an outcome.

use metrics::Counter;

use super::register::counters;
use crate::record::Outcome;

pub(super) const OUTCOMES: [&str; 5] = ["delivered", "retryable", "barred", "permanent", "unknown"];

/// The counters of each stream, in the order of [`OUTCOMES`].
pub(super) fn sink_records(streams: &[String]) -> Vec<[Counter; OUTCOMES.len()]> {
    let of_stream = |stream: &String| {
        OUTCOMES.map(|outcome| [("stream", stream.clone()), ("outcome", outcome.to_owned())])
    };
    let series = counters(
        "forebay_sink_records_total",
        "Records that the sink answered for, by outcome",
        streams.iter().flat_map(of_stream),
    );
    let (streams, rest) = series.as_chunks();
    assert!(rest.is_empty(), "each stream has one counter an outcome");
    streams.to_vec()
}

/// The place of an outcome in [`OUTCOMES`].
pub(super) fn place(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Delivered => 0,
        Outcome::Retryable(_) => 1,
        Outcome::Barred(_) => 2,
        Outcome::Permanent(_) => 3,
        Outcome::Unknown => 4,
    }
}
