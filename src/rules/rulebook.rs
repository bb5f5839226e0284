//! The rules of all streams, as workers ask for them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::{Fault, Rules, Verdict};
use crate::record::{DeviceId, StreamIndex};
use crate::telemetry::metrics::RejectedRecords;
use crate::words::Rejection;

/// The rules in force, by stream. Clones share them; [`Files`](super::Files) replaces them while
/// requests are judged, and no request waits for that.
#[derive(Clone, Default)]
pub struct Rulebook(Option<Arc<Book>>);

struct Book {
    streams: Vec<Option<ArcSwap<Rules>>>,
    /// The longest record that an edit may make.
    bytes_max: usize,
    rejected: RejectedRecords,
}

impl Rulebook {
    /// The rules of each stream that has some, in the order of the streams.
    pub(super) fn new(
        streams: Vec<Option<Arc<Rules>>>,
        bytes_max: usize,
        rejected: RejectedRecords,
    ) -> Self {
        if streams.iter().all(Option::is_none) {
            return Self(None);
        }
        assert!(
            bytes_max > 0,
            "a bound of 0 is an error of the configuration"
        );
        let streams = streams.into_iter().map(|rules| rules.map(ArcSwap::new));
        Self(Some(Arc::new(Book {
            streams: streams.collect(),
            bytes_max,
            rejected,
        })))
    }

    /// The rules of one stream alone, of any number, for tests and benches.
    pub fn of_one(rules: Rules, bytes_max: usize) -> Self {
        let rejected = RejectedRecords::unseen();
        Self::new(vec![Some(Arc::new(rules))], bytes_max, rejected)
    }

    /// Judges a record by the rules of its stream; `None` where it has none.
    #[inline]
    pub(crate) fn judge(
        &self,
        stream: StreamIndex,
        payload: &Bytes,
        device: &DeviceId,
    ) -> Option<Result<Verdict, Fault>> {
        let book = self.0.as_deref()?;
        let rules = book.streams.get(stream.get())?.as_ref()?;
        Some(book.judge(stream, rules, payload.clone(), device))
    }

    /// Puts other rules of a stream in force.
    pub(super) fn replace(&self, stream: StreamIndex, rules: Rules) {
        let book = self.0.as_deref();
        let place = book.and_then(|book| book.streams[stream.get()].as_ref());
        let place = place.expect("a stream with a rules file has had rules since the start");
        place.store(Arc::new(rules));
    }
}

impl Book {
    /// Judges the record, and counts it where it is at fault, also where it passes all the same.
    fn judge(
        &self,
        stream: StreamIndex,
        rules: &ArcSwap<Rules>,
        payload: Bytes,
        device: &DeviceId,
    ) -> Result<Verdict, Fault> {
        let verdict = rules.load().judge(payload, device, self.bytes_max);
        match &verdict {
            Ok(verdict) if verdict.violation.is_none() => {}
            Ok(_) => self.rejected.count(stream, Rejection::SchemaViolation),
            Err(fault) => self.rejected.count(stream, fault.rejection()),
        }
        verdict
    }
}
