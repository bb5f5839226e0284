//! What a connection sends beside its requests: one bound for every flood of bytes that come to nothing.
//!
//! HTTP/2 has a dozen ways to keep a server busy without asking anything: PING, SETTINGS, WINDOW_UPDATE, PRIORITY, empty
//! DATA, CONTINUATION without end, streams reset as soon as they are opened. HTTP/1 has empty lines. All of them are bytes
//! that have arrived and do not become part of a request. A connection may have [`BURST_BYTES`] of these, and
//! [`BYTES_PER_SECOND`] in the long run; then reading it fails, which ends it. Requests that a bucket refuses are overhead
//! too, and so is what a client goes on sending of a body that was refused through its own fault: a device that never
//! heeds its 429 is cut off in the end, on every protocol that calls this.
//!
//! An honest client stays far below: it sends a few frames for each request, and is paid back for its heads and bodies.

use std::cell::Cell;
use std::io;

use tokio::time::Instant;

/// More than what a connection may send before its bodies are read.
const BURST_BYTES: i64 = 2 * 1024 * 1024;

const BYTES_PER_SECOND: f64 = 64.0 * 1024.0;

/// What one connection has left.
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

    /// Bytes that have arrived were part of a request.
    pub(crate) fn pay_back(&self, bytes: usize) {
        self.left_bytes
            .set((self.left_bytes.get() + bytes as i64).min(BURST_BYTES));
    }

    /// More has come than may: the connection is at its end.
    pub(crate) fn is_spent(&self) -> bool {
        self.is_spent.get()
    }

    /// So many bytes have arrived. From the error on, nothing more is to be read.
    pub(crate) fn take(&self, bytes: usize) -> io::Result<()> {
        self.left_bytes.set(self.left_bytes.get() - bytes as i64);
        if self.left_bytes.get() >= 0 {
            Ok(())
        } else {
            self.refill(bytes as i64)
        }
    }

    /// The clock is read only here: an honest connection rarely comes by.
    #[cold]
    fn refill(&self, taken_bytes: i64) -> io::Result<()> {
        let now = Instant::now();
        let earned = now.duration_since(self.since.replace(now)).as_secs_f64() * BYTES_PER_SECOND;
        let before = (self.left_bytes.get() + taken_bytes + earned as i64).min(BURST_BYTES);
        self.left_bytes.set(before - taken_bytes);
        self.is_spent.set(self.left_bytes.get() < 0);
        if self.is_spent.get() {
            Err(io::ErrorKind::QuotaExceeded.into())
        } else {
            Ok(())
        }
    }
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
