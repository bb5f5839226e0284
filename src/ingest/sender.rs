//! Where records come from, and how they are made.

use bytes::Bytes;

use super::head::Head;
use crate::identity::Device;
use crate::record::{Headers, Permit, Record, RecordId, SCHEMA_VIOLATION, StreamIndex, Timestamp};
use crate::rules::Verdict;

/// Where records come from, and what is said of all records of their request.
pub(super) struct Sender<'c> {
    pub device: &'c Device,
    pub stream: StreamIndex,
    pub head: Head,
    pub received_at: Timestamp,
}

/// What of a record its stream's rules may change.
pub(super) struct Content {
    pub payload: Bytes,
    pub headers: Headers,
}

impl Content {
    /// As it was sent.
    pub(super) fn of(payload: Bytes) -> Self {
        let headers = Headers::default();
        Self { payload, headers }
    }

    /// As the rules let it go on.
    pub(super) fn judged(verdict: Verdict) -> Self {
        let mut content = Self::of(verdict.payload);
        if let Some(place) = &verdict.violation {
            content.headers.add(SCHEMA_VIOLATION, place);
        }
        content
    }
}

impl Sender<'_> {
    /// The one record of the request, which takes along what the head says of it.
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

    /// One of the request's many records.
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
