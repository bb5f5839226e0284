//! The counters that a worker writes itself, on the hot path.
//!
//! `accept`, `http` and `batcher` call [`WorkerMetrics`] from the worker's own thread; a scrape reads it from another.
//! Every label is that of a word, of which there are so many, so the number of series is fixed at start.
//!
//! Invariant: one thread writes, as a [`Local`] asks. A gauge counts up and down modulo 2^64; it is the sum over workers that
//! is read.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::cell::{Local, micros};
use super::histogram::{BATCH_AGE, BATCH_BYTES, BATCH_RECORDS, Histogram, REQUEST_DURATION};
use crate::words::{Handshake, Protocol, Scope, SealReason};

/// The statuses of the wire contract; any other is counted as `other`, which is the last.
const STATUSES: [u16; 16] = [
    200, 204, 400, 403, 404, 405, 408, 413, 415, 421, 429, 431, 502, 503, 504, 0,
];

/// The codes of the wire contract, as problems name them; any other is counted as `other`, which is
/// the last.
const CODES: [&str; 33] = [
    "malformed-request",
    "head-too-large",
    "empty-body",
    "malformed-encoding",
    "malformed-records",
    "invalid-idempotency-key",
    "invalid-identity",
    "certificate-revoked",
    "device-denied",
    "certificate-expired",
    "stream-forbidden",
    "not-found",
    "method-not-allowed",
    "body-timeout",
    "body-too-large",
    "too-many-records",
    "record-too-large",
    "unsupported-encoding",
    "unsupported-media-type",
    "misdirected",
    "not-json",
    "schema-violation",
    "device-mismatch",
    "rate-limited",
    "sink-refused",
    "overloaded",
    "device-overloaded",
    "sink-unavailable",
    "draining",
    "device-table-full",
    "gateway-rate-limited",
    "ack-timeout",
    "other",
];

/// The counters of one worker. Only its own thread writes them.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Read by whoever renders.
    pub(super) cells: CachePadded<Cells>,
}

/// A counter for each of [`CODES`].
#[derive(Debug)]
pub(super) struct Refusals(pub [Local; CODES.len()]);

impl Default for Refusals {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Local::default()))
    }
}

#[derive(Debug, Default)]
pub(super) struct Cells {
    requests: [[Local; STATUSES.len()]; Protocol::LABELS.len()],
    pub refusals: Refusals,
    pub durations: [Histogram; Protocol::LABELS.len()],
    pub connections: [Local; Protocol::LABELS.len()],
    pub handshakes: [Local; Handshake::LABELS.len()],
    pub refused: [Local; Scope::LABELS.len()],
    pub sealed: [Local; SealReason::LABELS.len()],
    pub certificates_expiring: Local,
    pub devices_denied: Local,
    pub floods_ended: Local,
    pub queued_batches: Local,
    pub batch_records: Histogram,
    pub batch_bytes: Histogram,
    pub batch_age: Histogram,
}

impl WorkerMetrics {
    /// A request was answered.
    pub(crate) fn request(&self, protocol: Protocol, status: u16, duration: Duration) {
        let place = STATUSES
            .iter()
            .position(|known| *known == status)
            .unwrap_or(STATUSES.len() - 1);
        self.cells.requests[protocol.index()][place].add(1);
        self.cells.durations[protocol.index()].observe(&REQUEST_DURATION, micros(duration));
    }

    /// A request was refused, for the reason that has this code.
    pub(crate) fn refusal(&self, code: &str) {
        let place = CODES.iter().position(|known| *known == code);
        self.cells.refusals.0[place.unwrap_or(CODES.len() - 1)].add(1);
    }

    /// A handshake has succeeded.
    pub(crate) fn connection_opened(&self, protocol: Protocol) {
        self.cells.connections[protocol.index()].add(1);
    }

    /// Counts the end of a connection, once for each `connection_opened`.
    pub(crate) fn connection_closed(&self, protocol: Protocol) {
        self.cells.connections[protocol.index()].add(u64::MAX);
    }

    /// A handshake has ended, this way or that.
    pub(crate) fn handshake(&self, result: Handshake) {
        self.cells.handshakes[result.index()].add(1);
    }

    /// A device was told, for the first time on its connection, that its certificate expires.
    pub(crate) fn certificate_expiring(&self) {
        self.cells.certificates_expiring.add(1);
    }

    /// A request was refused because the devices file denies its device.
    pub(crate) fn device_denied(&self) {
        self.cells.devices_denied.add(1);
    }

    /// A connection was ended because of what it sent beside its requests.
    pub(crate) fn flood_ended(&self) {
        self.cells.floods_ended.add(1);
    }

    /// A bucket refused a request, its bytes or a connection.
    pub(crate) fn refused(&self, scope: Scope) {
        self.cells.refused[scope.index()].add(1);
    }

    /// A batch was sealed; `bytes` are those of its payloads, `age` is that of its oldest record.
    pub(crate) fn batch_sealed(
        &self,
        reason: SealReason,
        records: usize,
        bytes: usize,
        age: Duration,
    ) {
        self.cells.sealed[reason.index()].add(1);
        self.cells
            .batch_records
            .observe(&BATCH_RECORDS, records as u64);
        self.cells.batch_bytes.observe(&BATCH_BYTES, bytes as u64);
        self.cells.batch_age.observe(&BATCH_AGE, micros(age));
    }

    /// A sealed batch waits until its lane may send it.
    pub(crate) fn batch_queued(&self) {
        self.cells.queued_batches.add(1);
    }

    /// Counts a batch out of the queue, once for each `batch_queued`.
    pub(crate) fn batch_unqueued(&self) {
        self.cells.queued_batches.add(u64::MAX);
    }

    /// Returns the counters of requests in the order of [`request_labels`].
    pub(crate) fn requests(&self) -> impl Iterator<Item = &Local> {
        self.cells.requests.iter().flatten()
    }
}

/// Protocol and status of each request counter.
pub(crate) fn request_labels() -> impl Iterator<Item = (&'static str, String)> {
    let status = |status: u16| {
        if status == 0 {
            "other".to_owned()
        } else {
            status.to_string()
        }
    };
    Protocol::LABELS
        .into_iter()
        .flat_map(move |protocol| STATUSES.map(|code| (protocol, status(code))))
}

/// The code of each counter of refusals.
pub(crate) fn refusal_codes() -> &'static [&'static str] {
    &CODES
}

/// The sum over all workers of each of their cells.
pub(crate) fn sums<'a, I: Iterator<Item = &'a Local>>(
    workers: &'a [Arc<WorkerMetrics>],
    cells: impl Fn(&'a WorkerMetrics) -> I,
) -> Vec<u64> {
    let mut sums = Vec::new();
    for worker in workers {
        for (place, cell) in cells(worker).enumerate() {
            if place == sums.len() {
                sums.push(0_u64);
            }
            sums[place] = sums[place].wrapping_add(cell.get());
        }
    }
    sums
}
