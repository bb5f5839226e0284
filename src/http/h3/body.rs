//! A request's body on HTTP/3: as long as declared, and with an end.
//!
//! h3 hands out DATA and does not count it. So the last piece of a declared length is held back
//! until the stream has ended there: a longer body must not pass for the reading that it begins
//! with. [`Reading`] is the body while ingest reads it, and asks a client that waits for 100
//! Continue to go on.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use futures_util::future::LocalBoxFuture;
use h3::error::{Code, StreamError};
use h3::server::RequestStream;

use super::fields;
use super::link::Link;
use super::quic::RecvStream;
use crate::ingest::{Body, BrokenBody};

/// The half of a request's stream that the client sends.
type Receiving = RequestStream<RecvStream, Bytes>;

/// A piece of a body, `None` at its end.
type Piece = Result<Option<Bytes>, BrokenBody>;

/// The body of a request on h3, as ingest reads it.
pub(crate) struct QuicBody {
    stream: Receiving,
    place: Place,
    /// Bytes of the declared length that have not come.
    declared_left: Option<u64>,
    /// The last piece, until the end is known to be one.
    held: Option<Bytes>,
}

/// Place of the next piece of a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Data,
    /// There is no more DATA: trailers may follow, which are read to see that nothing comes after
    /// them.
    Trailers,
    /// It has ended, or failed: h3 must not be asked again.
    Over,
}

impl QuicBody {
    pub(crate) fn new(stream: Receiving, declared_bytes: Option<u64>) -> Self {
        Self {
            stream,
            place: Place::Data,
            declared_left: declared_bytes,
            held: None,
        }
    }

    /// Reads no more of a request that has been answered, which is no error (RFC 9114 section 4.1).
    pub(crate) fn stop(&mut self) {
        self.stream.stop_sending(Code::H3_NO_ERROR);
    }

    /// Polls for DATA up to the end, and for the trailers after it.
    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<Piece> {
        debug_assert!(self.place != Place::Over, "h3 must not be asked again");
        if self.place == Place::Data {
            if let Some(piece) = ready!(self.poll_data(context))? {
                return Poll::Ready(Ok(Some(piece)));
            }
            self.place = Place::Trailers;
        }
        let trailers = ready!(self.stream.poll_recv_trailers(context)).map_err(broken)?;
        if trailers.is_some_and(|trailers| !fields::are_proper(&trailers)) {
            return Poll::Ready(Err(BrokenBody));
        }
        self.place = Place::Over;
        Poll::Ready(Ok(None))
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Piece> {
        let data = ready!(self.stream.poll_recv_data(context)).map_err(broken)?;
        // h3 hands out its own bytes: this takes a reference to them, it does not copy.
        Poll::Ready(Ok(
            data.map(|mut piece| piece.copy_to_bytes(piece.remaining()))
        ))
    }

    /// Polls for the next piece that may be handed out.
    fn poll_whole(&mut self, context: &mut Context<'_>) -> Poll<Piece> {
        loop {
            let Some(piece) = ready!(self.poll_stream(context))? else {
                return Poll::Ready(Ok(self.held.take()));
            };
            if !self.is_last_declared(&piece)? {
                return Poll::Ready(Ok(Some(piece)));
            }
            debug_assert!(self.held.is_none() || piece.is_empty());
            self.held.get_or_insert(piece);
        }
    }

    /// Whether nothing more may come after the piece, which is counted; an error where it is too
    /// much already.
    fn is_last_declared(&mut self, piece: &Bytes) -> Result<bool, BrokenBody> {
        let Some(left) = &mut self.declared_left else {
            return Ok(false);
        };
        *left = left.checked_sub(piece.len() as u64).ok_or(BrokenBody)?;
        Ok(*left == 0)
    }
}

fn broken(_: StreamError) -> BrokenBody {
    BrokenBody
}

impl Body for QuicBody {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        if self.place == Place::Over {
            return Poll::Ready(None);
        }
        let piece = ready!(self.poll_whole(context));
        if piece.is_err() {
            self.place = Place::Over;
        }
        Poll::Ready(piece.transpose())
    }
}

/// A body that ingest reads: it is no overhead of its connection, and may have to be asked for.
pub(crate) struct Reading<'r> {
    pub body: &'r mut QuicBody,
    pub link: &'r Link,
    /// Sends 100 Continue, if the client waits for it and has not been sent it.
    pub asking: Option<LocalBoxFuture<'r, ()>>,
}

impl Body for Reading<'_> {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        let piece = self.body.poll_piece(context);
        if let Poll::Ready(Some(Ok(piece))) = &piece {
            self.link.pay_back(piece.len());
        }
        if piece.is_pending()
            && let Some(asking) = &mut self.asking
            && asking.poll_unpin(context).is_ready()
        {
            self.asking = None;
        }
        piece
    }
}
