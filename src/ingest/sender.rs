//! The sender of records, and how they are made of its requests.

use bytes::Bytes;

use super::head::Head;
use crate::identity::Device;
use crate::record::{Headers, Permit, Record, RecordId, SCHEMA_VIOLATION, StreamIndex, Timestamp};
use crate::rules::Verdict;

/// The sender of a request's records, and the facts that all of them share.
pub(super) struct Sender<'c> {
    pub device: &'c Device,
    pub stream: StreamIndex,
    pub head: Head,
    pub received_at: Timestamp,
}

/// The parts of a record that its stream's rules may change.
pub(super) struct Content {
    pub payload: Bytes,
    pub headers: Headers,
}

impl Content {
    /// Returns the content as it was sent.
    pub(super) fn of(payload: Bytes) -> Self {
        let headers = Headers::default();
        Self { payload, headers }
    }

    /// Returns the content as the rules let it go on.
    pub(super) fn judged(verdict: Verdict) -> Self {
        let mut content = Self::of(verdict.payload);
        if let Some(place) = &verdict.violation {
            content.headers.add(SCHEMA_VIOLATION, place);
        }
        content
    }
}

impl Sender<'_> {
    /// Makes the one record of the request.
    #[inline]
    pub(super) fn take_record(&mut self, content: Content, permit: Permit) -> Record {
        let (head, received_at) = (&mut self.head, self.received_at);
        let headers = std::mem::take(&mut head.headers);
        let named = head.idempotency_key.take();
        Record {
            device: self.device.id.clone(),
            payload: content.payload,
            headers: headers.joined(&content.headers),
            content_type: head.content_type.take(),
            id: named.unwrap_or_else(|| RecordId::new(received_at)),
            trace: head.trace.take(),
            received_at,
            permit,
        }
    }

    /// Makes one of the request's many records.
    pub(super) fn record(&self, index: usize, content: Content, permit: Permit) -> Record {
        let id = match &self.head.idempotency_key {
            Some(key) => key.of_part(index),
            None => RecordId::new(self.received_at),
        };
        debug_assert!(self.head.headers.len() == 0, "no door has many records");
        Record {
            device: self.device.id.clone(),
            payload: content.payload,
            headers: content.headers,
            content_type: self.head.content_type.clone(),
            id,
            trace: self.head.trace.clone(),
            received_at: self.received_at,
            permit,
        }
    }
}
