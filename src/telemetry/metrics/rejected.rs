//! Records that are not what their stream takes.
//!
//! Counted where a record is judged, through the exporter's handles: a device's fault is rare, or
//! one of a flood that its own buckets bound.

use std::sync::Arc;

use metrics::Counter;

use super::register::counters;
use crate::record::StreamIndex;
use crate::words::Rejection;

/// The counters of one stream, in the order of the word.
type OfStream = [Counter; Rejection::LABELS.len()];

/// Handles of each stream's counters; clones count into the same ones.
#[derive(Clone)]
pub(crate) struct RejectedRecords(Arc<[OfStream]>);

impl RejectedRecords {
    pub(super) fn register(streams: &[String]) -> Self {
        let of_stream = |stream: &String| {
            Rejection::LABELS.map(|code| [("stream", stream.clone()), ("code", code.to_owned())])
        };
        let series = counters(
            "forebay_ingest_rejected_total",
            "Records that are not what their stream takes, by code; with on_violation = \"tag\" they passed",
            streams.iter().flat_map(of_stream),
        );
        let (streams, rest) = series.as_chunks();
        assert!(rest.is_empty(), "each stream has one counter a code");
        Self(streams.into())
    }

    /// Handles that count for nobody.
    pub(crate) fn unseen() -> Self {
        Self(Arc::new([]))
    }

    /// Counts a record, refused or tagged.
    pub(crate) fn count(&self, stream: StreamIndex, rejection: Rejection) {
        if let Some(counters) = self.0.get(stream.get()) {
            counters[rejection.index()].increment(1);
        }
    }
}
