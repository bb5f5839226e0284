//! The stream below an h2 connection, whose bytes are measured before the library reads them.
//!
//! All of them are overhead until they are paid back ([`Overhead`]), and the heads among them are
//! watched ([`Head`]). The findings are in a [`Meter`], which the connection's task looks at each
//! time it is polled. A head that is too large is kept from the library.
//!
//! A connection that always has more to say gives way to the others of its worker after
//! [`AT_ONCE_BYTES`]: parsing a megabyte of frames in one go would hold them up for milliseconds.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::heads::{Frames, Head};
use crate::http::overhead::Overhead;

/// Bytes that a connection reads before it gives way.
const AT_ONCE_BYTES: usize = 8 * 1024;

/// The measures of the bytes that one connection has sent.
pub(crate) struct Meter {
    pub overhead: Overhead,
    head: Cell<Head>,
}

impl Meter {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            overhead: Overhead::since(Instant::now()),
            head: Cell::default(),
        })
    }

    /// Returns the head that is arriving.
    pub(crate) fn head(&self) -> Head {
        self.head.get()
    }
}

/// A stream whose reads are measured.
pub(crate) struct Metered<T> {
    stream: T,
    meter: Rc<Meter>,
    frames: Frames,
    /// Bytes that have arrived since there were none, or since it gave way.
    at_once_bytes: usize,
}

impl<T> Metered<T> {
    pub(crate) fn new(stream: T, meter: Rc<Meter>) -> Self {
        Self {
            stream,
            meter,
            frames: Frames::default(),
            at_once_bytes: 0,
        }
    }

    /// Whether it is the turn of others.
    fn gives_way(&mut self) -> bool {
        let gives_way = self.at_once_bytes >= AT_ONCE_BYTES;
        if gives_way {
            self.at_once_bytes = 0;
        }
        gives_way
    }

    /// Measures the bytes that have arrived. `Pending` if the library must not have them, in which
    /// case the connection's task knows.
    fn measure(&mut self, bytes: &[u8]) -> Poll<io::Result<()>> {
        self.at_once_bytes += bytes.len();
        self.meter.overhead.take(bytes.len())?;
        let head = self.frames.pass(bytes);
        self.meter.head.set(head);
        if head == Head::TooLarge {
            Poll::Pending
        } else {
            Poll::Ready(Ok(()))
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gives_way() {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if read.is_pending() {
            self.at_once_bytes = 0;
        }
        ready!(read)?;
        debug_assert!(into.filled().len() >= before, "reading takes nothing away");
        let measured = self.measure(&into.filled()[before..]);
        if measured.is_pending() {
            into.set_filled(before);
        }
        measured
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
    use super::*;

    #[tokio::test]
    async fn who_always_has_more_gives_way() {
        let mut stream = Metered::new(tokio::io::repeat(b'x'), Meter::new());
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
}
