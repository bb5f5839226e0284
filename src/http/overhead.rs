//! What a connection sends beside its requests: one bound for every flood of frames.
//!
//! HTTP/2 has a dozen ways to keep a server busy without asking anything: PING, SETTINGS, WINDOW_UPDATE, PRIORITY, empty
//! DATA, CONTINUATION without end, streams reset as soon as they are opened. All of them are bytes that have arrived and
//! do not become part of a request. A connection may have [`BURST_BYTES`] of these, and [`BYTES_PER_SECOND`] in the long
//! run; then reading it fails, which ends it. Requests that a bucket refuses are overhead too, so that a device that
//! never heeds its 429 is cut off in the end.
//!
//! A connection that always has more to say gives way to the others of its worker after [`AT_ONCE_BYTES`]: parsing a
//! megabyte of frames in one go would hold them up for milliseconds.
//!
//! An honest client stays far below: it sends a few frames for each request, and is paid back for its heads and bodies.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// More than what a connection may send before its bodies are read.
const BURST_BYTES: i64 = 2 * 1024 * 1024;

const BYTES_PER_SECOND: f64 = 64.0 * 1024.0;

const AT_ONCE_BYTES: usize = 8 * 1024;

/// One connection's.
pub struct Overhead {
    /// Below 0, too much has come since `since`.
    left_bytes: Cell<i64>,
    since: Cell<Instant>,
    is_spent: Cell<bool>,
}

impl Overhead {
    pub fn new() -> Rc<Self> {
        let since = Cell::new(Instant::now());
        Rc::new(Self {
            left_bytes: BURST_BYTES.into(),
            since,
            is_spent: false.into(),
        })
    }

    /// Bytes that have arrived were part of a request.
    pub fn pay_back(&self, bytes: usize) {
        self.left_bytes
            .set((self.left_bytes.get() + bytes as i64).min(BURST_BYTES));
    }

    /// More has come than may: the connection is at its end.
    pub fn is_spent(&self) -> bool {
        self.is_spent.get()
    }

    /// Bytes have arrived; an error when they are too many.
    pub fn take(&self, bytes: usize) -> io::Result<()> {
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

/// A stream whose reads are overhead, until they are paid back.
pub struct Metered<T> {
    stream: T,
    overhead: Rc<Overhead>,
    /// Bytes since there were none, or since it gave way.
    at_once_bytes: usize,
}

impl<T> Metered<T> {
    pub fn new(stream: T, overhead: Rc<Overhead>) -> Self {
        Self {
            stream,
            overhead,
            at_once_bytes: 0,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at_once_bytes >= AT_ONCE_BYTES {
            self.at_once_bytes = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        let bytes = into.filled().len() - before;
        self.at_once_bytes = if read.is_pending() {
            0
        } else {
            self.at_once_bytes + bytes
        };
        match read {
            Poll::Ready(Ok(())) => Poll::Ready(self.overhead.take(bytes)),
            other => other,
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const BURST: usize = BURST_BYTES as usize;

    #[tokio::test(start_paused = true)]
    async fn what_is_paid_back_costs_nothing() {
        let overhead = Overhead::new();
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

    #[tokio::test]
    async fn who_always_has_more_gives_way() {
        let mut stream = Metered::new(tokio::io::repeat(b'x'), Overhead::new());
        let mut bytes = vec![0; AT_ONCE_BYTES / 2];
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut poll = || {
            Pin::new(&mut stream)
                .poll_read(&mut context, &mut ReadBuf::new(&mut bytes))
                .is_ready()
        };
        assert_eq!(
            [(); 6].map(|()| poll()),
            [true, true, false, true, true, false]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_long_run_has_a_rate() {
        let overhead = Overhead::new();
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
