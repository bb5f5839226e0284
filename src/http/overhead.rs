//! Overhead of a connection, its bytes beside requests: one bound for every flood that comes to
//! nothing.
//!
//! HTTP/2 has a dozen ways to keep a server busy without asking anything: PING, SETTINGS,
//! WINDOW_UPDATE, PRIORITY, empty DATA, CONTINUATION without end, streams reset as soon as they are
//! opened. HTTP/1 has empty lines. All of them are bytes that have arrived and do not become part
//! of a request. A connection may have [`BURST_BYTES`] of these, and [`BYTES_PER_SECOND`] in the
//! long run; then reading it fails, which ends it. Requests that a bucket refuses are overhead too,
//! and so is the rest of a body that was refused through its client's fault: a device that never
//! heeds its 429 is cut off in the end, on every protocol that calls this.
//!
//! An honest client stays far below: it sends a few frames for each request, and is paid back for
//! its heads and bodies.

use std::cell::Cell;
use std::io;

use http::StatusCode;
use http::request::Parts;
use tokio::time::Instant;

use super::fields::wire_bytes;

/// Bytes that may come to nothing at once: more than a connection may send before its bodies are
/// read.
pub(crate) const BURST_BYTES: i64 = 2 * 1024 * 1024;

/// Bytes that may come to nothing in each second of the long run.
const BYTES_PER_SECOND: f64 = 64.0 * 1024.0;

/// The bytes that one connection has left.
pub(crate) struct Overhead {
    /// Below 0, too much has come since `since`.
    left_bytes: Cell<i64>,
    since: Cell<Instant>,
    is_spent: Cell<bool>,
}

impl Overhead {
    pub(crate) fn since(now: Instant) -> Self {
        Self {
            left_bytes: BURST_BYTES.into(),
            since: now.into(),
            is_spent: false.into(),
        }
    }

    /// Takes back counted bytes, which were part of a request.
    pub(crate) fn pay_back(&self, bytes: usize) {
        let left_bytes = self.left_bytes.get() + bytes as i64;
        self.left_bytes.set(left_bytes.min(BURST_BYTES));
    }

    /// Whether more has come than may: the connection is at its end.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent.get()
    }

    /// Counts bytes that have arrived. From the error on, nothing more is to be read.
    pub(crate) fn take(&self, bytes: usize) -> io::Result<()> {
        self.left_bytes.set(self.left_bytes.get() - bytes as i64);
        if self.left_bytes.get() >= 0 {
            Ok(())
        } else {
            self.refill(bytes as i64)
        }
    }

    /// Adds the bytes that time has earned, before these came. The clock is read only here: an
    /// honest connection rarely comes by.
    #[cold]
    fn refill(&self, taken_bytes: i64) -> io::Result<()> {
        let before = self.left_bytes.get() + taken_bytes + self.earned_bytes();
        let left_bytes = before.min(BURST_BYTES) - taken_bytes;
        debug_assert!(
            left_bytes <= BURST_BYTES,
            "nothing is saved up beyond the burst"
        );
        self.left_bytes.set(left_bytes);
        self.is_spent.set(left_bytes < 0);
        if self.is_spent.get() {
            Err(io::ErrorKind::QuotaExceeded.into())
        } else {
            Ok(())
        }
    }

    /// Returns the bytes that were earned since the last call.
    fn earned_bytes(&self) -> i64 {
        let now = Instant::now();
        let passed = now.duration_since(self.since.replace(now));
        (passed.as_secs_f64() * BYTES_PER_SECOND) as i64
    }
}

/// Whether the head of a request with this answer has cost a token. A bucket's refusal has not: it
/// is overhead of its connection.
#[inline]
pub(crate) fn is_head_paid(status: StatusCode) -> bool {
    status != StatusCode::TOO_MANY_REQUESTS
}

/// Returns the bytes that an h2 or h3 connection is paid back for a head, which could be read, or
/// not.
pub(crate) fn paid_head_bytes(head: &Parts, can_be_read: bool, status: StatusCode) -> usize {
    if can_be_read && is_head_paid(status) {
        wire_bytes(head)
    } else {
        0
    }
}

/// Whether a device is let off the rest of a request with this answer: it is not its fault that the
/// gateway cannot take more. Otherwise it is overhead of its connection.
pub(crate) fn is_rest_paid(status: StatusCode) -> bool {
    status.is_server_error()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BURST: usize = BURST_BYTES as usize;

    #[tokio::test(start_paused = true)]
    async fn what_is_paid_back_costs_nothing() {
        let overhead = Overhead::since(Instant::now());
        for _ in 0..100 {
            overhead.take(BURST).unwrap();
            overhead.pay_back(BURST);
        }
        assert!(!overhead.is_spent());
        overhead.pay_back(BURST);
        assert!(
            overhead.take(BURST + 1).is_err(),
            "nothing is saved up beyond the burst"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_long_run_has_a_rate() {
        let overhead = Overhead::since(Instant::now());
        overhead.take(BURST).unwrap();
        for _ in 0..100 {
            tokio::time::advance(Duration::from_secs(1)).await;
            overhead.take(65_536).unwrap();
        }
        // A day's silence earns no more than the burst.
        tokio::time::advance(Duration::from_secs(86_400)).await;
        overhead.take(BURST).unwrap();
        assert!(overhead.take(1).is_err() && overhead.is_spent());
    }
}
