//! A body in an HTTP/1.1 stream: the part that is still to come, by its framing.
//!
//! [`WireBody`] is made for each request that ingest reads, and once more to read on the rest of a
//! refused one; [`Unread`] stays from one to the other. Every piece is copied out of the buffer
//! that decryption writes.

use std::task::{Context, Poll, ready};

use bytes::Bytes;

use super::chunked::Chunked;
use super::head::Framing;
use super::wire::{Stream, Wire};
use crate::ingest::{Body, BrokenBody};

/// The part of a body that is still to come.
pub(crate) enum Unread {
    /// A body of known length, with so many bytes to come.
    Length(u64),
    Chunked(Chunked),
}

impl From<Framing> for Unread {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Length(bytes) => Self::Length(bytes),
            Framing::Chunked => Self::Chunked(Chunked::default()),
        }
    }
}

impl Unread {
    pub(crate) fn is_ended(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_ended(),
        }
    }

    /// Whether there was more in it than data: another reader may find its end elsewhere.
    pub(crate) fn is_odd(&self) -> bool {
        matches!(self, Self::Chunked(chunked) if chunked.is_odd())
    }

    /// Returns how many of the bytes are the body's, and the data in them.
    #[inline]
    fn read<'b>(&mut self, bytes: &'b [u8]) -> Result<(usize, &'b [u8]), BrokenBody> {
        match self {
            Self::Length(left) => {
                let data = take_up_to(left, bytes);
                Ok((data.len(), data))
            }
            Self::Chunked(chunked) => {
                let step = chunked.decode(bytes).map_err(|_| BrokenBody)?;
                Ok((step.consumed_bytes, &bytes[step.data]))
            }
        }
    }
}

/// Returns the first bytes, at most as many as are left to come.
#[inline]
fn take_up_to<'b>(left: &mut u64, bytes: &'b [u8]) -> &'b [u8] {
    let count = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= count as u64;
    &bytes[..count]
}

/// A body in the stream, as ingest reads it.
pub(crate) struct WireBody<'w, S> {
    pub wire: &'w mut Wire<S>,
    pub unread: &'w mut Unread,
    /// Whether its bytes are paid for, and no overhead.
    pub is_paid: bool,
}

impl<S: Stream> Body for WireBody<'_, S> {
    const OWNS_PIECES: bool = true;

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        while !self.unread.is_ended() {
            let Some(bytes) = ready!(self.wire.poll_bytes(context)) else {
                self.wire.is_lost = true;
                return Poll::Ready(Some(Err(BrokenBody)));
            };
            let Ok((consumed, data)) = self.unread.read(bytes) else {
                return Poll::Ready(Some(Err(BrokenBody)));
            };
            debug_assert!(consumed > 0, "a body that has not ended reads on");
            let piece = Bytes::copy_from_slice(data);
            self.wire.consume(consumed);
            if self.is_paid {
                self.wire.overhead.pay_back(consumed);
            }
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
        Poll::Ready(None)
    }
}
