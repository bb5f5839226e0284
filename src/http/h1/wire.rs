//! The bytes of an HTTP/1.1 connection: those that have arrived and were not read yet, and those to
//! send.
//!
//! Reads from the buffer that decryption writes. Only a head that arrives in several pieces is
//! gathered in a buffer of the connection's own, which is given back when it has been read: a
//! connection that waits holds no buffer.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::Instant;

use super::head;
use crate::http::deadline::Deadline;
use crate::http::overhead::Overhead;
use crate::ingest::Refusal;

/// The stream below an HTTP/1.1 connection.
pub(crate) trait Stream: AsyncBufRead + AsyncWrite + Unpin {}

impl<S: AsyncBufRead + AsyncWrite + Unpin> Stream for S {}

/// The bytes of one connection.
pub(crate) struct Wire<S> {
    stream: S,
    /// Bytes that have been taken from the stream, and come before those still in it.
    gathered: Vec<u8>,
    /// Number of bytes of `gathered` that have no end of a head.
    searched: usize,
    deadline: Deadline,
    /// Overhead of the connection: all bytes that are read, until they are paid back.
    pub overhead: Overhead,
    /// Whether the connection broke, or ended in the middle of a request.
    pub is_lost: bool,
}

impl<S: Stream> Wire<S> {
    pub(crate) fn new(stream: S, now: Instant, deadline: Instant) -> Self {
        Self {
            stream,
            gathered: Vec::new(),
            searched: 0,
            deadline: Deadline::until(deadline),
            overhead: Overhead::since(now),
            is_lost: false,
        }
    }

    /// Sets the time at which waiting ends from now on.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline.reset(deadline);
    }

    /// Returns the bytes that have arrived; `None` if the stream has ended, or if the connection's
    /// overhead is spent.
    pub(crate) fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<&[u8]>> {
        if self.overhead.is_spent() {
            Poll::Ready(None)
        } else if self.gathered.is_empty() {
            self.poll_stream(context)
        } else {
            Poll::Ready(Some(&self.gathered))
        }
    }

    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<Option<&[u8]>> {
        let filled = ready!(Pin::new(&mut self.stream).poll_fill_buf(context));
        self.is_lost |= filled.as_ref().is_err_and(is_loss);
        Poll::Ready(filled.ok().filter(|bytes| !bytes.is_empty()))
    }

    /// Notes that the first `bytes` of those that have arrived were read.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.searched = 0;
        // An error is reported by the next call of `poll_bytes`.
        let _ = self.overhead.take(bytes);
        if self.gathered.is_empty() {
            Pin::new(&mut self.stream).consume(bytes);
            return;
        }
        debug_assert!(bytes <= self.gathered.len(), "they have been looked at");
        if bytes == self.gathered.len() {
            self.gathered = Vec::new();
        } else {
            self.gathered.drain(..bytes);
        }
    }

    /// Waits for a whole head and gives it to `read`, or bytes with the fault by which they are
    /// none. `None` when the client has gone.
    pub(crate) fn poll_head<T>(
        &mut self,
        context: &mut Context<'_>,
        read: impl FnOnce(&[u8], Result<(), Refusal>) -> T,
    ) -> Poll<Option<T>> {
        loop {
            let searched = self.searched;
            let Some(bytes) = ready!(self.poll_bytes(context)) else {
                return Poll::Ready(None);
            };
            // RFC 9112 section 2.2: an empty line before a request is no harm.
            if bytes.starts_with(b"\r\n") {
                self.consume(2);
                continue;
            }
            match head::end(bytes, searched) {
                Ok(Some(end)) => {
                    let value = read(&bytes[..end], Ok(()));
                    self.consume(end);
                    return Poll::Ready(Some(value));
                }
                Ok(None) => {}
                Err(refusal) => return Poll::Ready(Some(read(bytes, Err(refusal)))),
            }
            if ready!(self.poll_gather(context)).is_none() {
                return Poll::Ready(None);
            }
        }
    }

    /// Whether a head has begun to arrive.
    pub(crate) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Takes the bytes that are in the stream, or come next; `None` when it has ended.
    fn poll_gather(&mut self, context: &mut Context<'_>) -> Poll<Option<()>> {
        debug_assert!(self.searched <= self.gathered.len());
        self.searched = self.gathered.len();
        let filled = ready!(Pin::new(&mut self.stream).poll_fill_buf(context));
        let bytes = filled.unwrap_or_default();
        if bytes.is_empty() {
            self.is_lost = true;
            return Poll::Ready(None);
        }
        let count = bytes.len();
        self.gathered.extend_from_slice(bytes);
        Pin::new(&mut self.stream).consume(count);
        Poll::Ready(Some(()))
    }

    /// Waits until the deadline has passed.
    pub(crate) fn poll_passed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_passed(context)
    }

    /// Sends all of `bytes` before the deadline.
    pub(crate) async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        poll_fn(|context| self.poll_send(&mut bytes, context)).await
    }

    /// Sends the rest, and then flushes.
    #[inline]
    fn poll_send(&mut self, unsent: &mut &[u8], context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !unsent.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, unsent)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => *unsent = &unsent[count..],
                Poll::Pending => return self.poll_late(context),
            }
        }
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Pending => self.poll_late(context),
            flushed => flushed,
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn shutdown(&mut self) {
        // A client that does not hear it is gone, or is cut off.
        let _ = poll_fn(|context| self.poll_shutdown(context)).await;
    }

    fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Pending => self.poll_late(context),
            shut => shut,
        }
    }

    /// Waits for the deadline, which is an error.
    fn poll_late(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.deadline.poll_passed(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Whether a connection broke that can be read no more: a client that is through may close it
/// without a word of TLS.
fn is_loss(error: &io::Error) -> bool {
    error.kind() != io::ErrorKind::UnexpectedEof
}
