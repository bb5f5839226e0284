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

    /// The rules of a stream that are in force now; `None` where it has none.
    #[inline]
    pub(crate) fn in_force(&self, stream: StreamIndex) -> Option<InForce<'_>> {
        let book = self.0.as_deref()?;
        let rules = book.streams.get(stream.get())?.as_ref()?;
        Some(InForce {
            book,
            stream,
            rules: rules.load_full(),
        })
    }

    /// Puts other rules of a stream in force.
    pub(super) fn replace(&self, stream: StreamIndex, rules: Rules) {
        let book = self.0.as_deref();
        let place = book.and_then(|book| book.streams[stream.get()].as_ref());
        let place = place.expect("a stream with a rules file has had rules since the start");
        place.store(Arc::new(rules));
    }
}

/// The rules of a stream, as they were in force when a request asked for them: the same ones for
/// each of its records, whatever replaces them meanwhile.
pub(crate) struct InForce<'b> {
    book: &'b Book,
    stream: StreamIndex,
    rules: Arc<Rules>,
}

impl InForce<'_> {
    /// Judges a record, and counts it where it is at fault, also where it passes all the same.
    pub(crate) fn judge(&self, payload: Bytes, device: &DeviceId) -> Result<Verdict, Fault> {
        let Book {
            bytes_max,
            rejected,
            ..
        } = self.book;
        let verdict = self.rules.judge(payload, device, *bytes_max);
        match &verdict {
            Ok(verdict) if verdict.violation.is_none() => {}
            Ok(_) => rejected.count(self.stream, Rejection::SchemaViolation),
            Err(fault) => rejected.count(self.stream, fault.rejection()),
        }
        verdict
    }
}
