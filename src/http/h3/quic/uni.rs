//! Streams of one direction: those that a client has opened, and the critical ones, which stay
//! open.
//!
//! h3 would look at a stream's type and never again at any but the control stream. So
//! [`UniStreams`] reads the types: the control stream goes on to h3, QPACK's are read here
//! ([`Instructions`]), and all others are stopped. A second one of a kind, a push, an instruction
//! that has no place, and the end of a critical stream on either side are errors of the connection
//! (RFC 9114 section 6.2, RFC 9204 section 4.2). Each stream is looked at only when it has woken
//! the connection.

use std::cell::Cell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use h3::error::Code;
use quinn::{ConnectionError, ReadError};

use super::recv::RecvStream;
use crate::http::h3::instructions::{Instructions, Side};
use crate::http::h3::link::Link;
use crate::http::h3::link::varint as code_of;
use crate::http::h3::wire::varint;

/// Streams that a client may open, one after the other: it needs three.
const STREAMS_MAX: u32 = 64;

const _: () = assert!(STREAMS_MAX >= 3);

/// Types of RFC 9114 section 6.2 and RFC 9204 section 4.2.
const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;

/// The control stream, once it is known; nothing of any other.
type Attending = LocalBoxFuture<'static, Option<RecvStream>>;

/// The streams of one direction of one connection.
pub(crate) struct UniStreams {
    link: Rc<Link>,
    streams_left: u32,
    attended: FuturesUnordered<Attending>,
    kinds: Rc<Kinds>,
}

/// The kinds of stream that a client may open once, and whether it has.
#[derive(Default)]
struct Kinds {
    control: Cell<bool>,
    encoder: Cell<bool>,
    decoder: Cell<bool>,
}

impl UniStreams {
    pub(crate) fn new(link: Rc<Link>) -> Self {
        Self {
            link,
            streams_left: STREAMS_MAX,
            attended: FuturesUnordered::new(),
            kinds: Rc::default(),
        }
    }

    /// Looks after a stream that the client has opened.
    pub(crate) fn attend(&mut self, stream: quinn::RecvStream) {
        match self.streams_left.checked_sub(1) {
            Some(left) => self.streams_left = left,
            None => return self.link.end_flood(),
        }
        let (link, kinds) = (self.link.clone(), self.kinds.clone());
        self.attended.push(Box::pin(attend(stream, link, kinds)));
    }

    /// Sees to it that the client does not have this side close one of its own, all of which are
    /// critical.
    pub(crate) fn keep_open(&mut self, stream: &quinn::SendStream) {
        let (stopped, link) = (stream.stopped(), self.link.clone());
        self.attended.push(Box::pin(async move {
            // It is never finished here, and lost only with the connection.
            if let Ok(Some(_)) = stopped.await {
                link.close(Code::H3_CLOSED_CRITICAL_STREAM);
            }
            None
        }));
    }

    /// Polls for the control stream, which is ready when its type has come.
    pub(crate) fn poll_control(&mut self, context: &mut Context<'_>) -> Poll<RecvStream> {
        while let Poll::Ready(Some(attended)) = self.attended.poll_next_unpin(context) {
            if let Some(control) = attended {
                return Poll::Ready(control);
            }
        }
        Poll::Pending
    }
}

impl Kinds {
    /// Notes a stream of this type; whether there may be one.
    fn note(&self, kind: u64) -> bool {
        match kind {
            CONTROL => !self.control.replace(true),
            ENCODER => !self.encoder.replace(true),
            DECODER => !self.decoder.replace(true),
            PUSH => false,
            _ => true,
        }
    }
}

/// Reads the type of a stream, and then its bytes, unless it is for h3.
async fn attend(
    mut stream: quinn::RecvStream,
    link: Rc<Link>,
    kinds: Rc<Kinds>,
) -> Option<RecvStream> {
    let (kind, stream_type, rest) = read_type(&mut stream, &link).await?;
    if !kinds.note(kind) {
        link.close(Code::H3_STREAM_CREATION_ERROR);
        return None;
    }
    match kind {
        CONTROL => return Some(RecvStream::of_control(stream, link, stream_type, rest)),
        ENCODER => read_instructions(stream, rest, &link, Side::Encoder).await,
        DECODER => read_instructions(stream, rest, &link, Side::Decoder).await,
        _ => {
            // An error is a stream that has ended already.
            let _ = stream.stop(code_of(Code::H3_STREAM_CREATION_ERROR.value()));
        }
    }
    None
}

/// Reads the type of a stream; returns it with its bytes and those behind them. A stream may end
/// before it (RFC 9114 section 6.2).
async fn read_type(stream: &mut quinn::RecvStream, link: &Link) -> Option<(u64, Bytes, Bytes)> {
    let mut start = BytesMut::new();
    loop {
        start.extend_from_slice(&read(stream, link).await.ok()??);
        if let Some((kind, bytes)) = varint(&start) {
            let stream_type = start.split_to(bytes);
            return Some((kind, stream_type.freeze(), start.freeze()));
        }
    }
}

/// Reads the instructions on a stream of QPACK. Returns when the connection has been closed, or is
/// lost.
async fn read_instructions(
    mut stream: quinn::RecvStream,
    mut received: Bytes,
    link: &Link,
    side: Side,
) {
    let mut instructions = Instructions::of(side);
    loop {
        if let Err(misplaced) = instructions.take(&received) {
            return link.close(misplaced.code());
        }
        received = match read(&mut stream, link).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(ReadError::Reset(_)) => {
                return link.close(Code::H3_CLOSED_CRITICAL_STREAM);
            }
            Err(_) => return,
        };
    }
}

/// Reads the next bytes, and counts them; `None` at the end.
async fn read(stream: &mut quinn::RecvStream, link: &Link) -> Result<Option<Bytes>, ReadError> {
    let Some(chunk) = stream.read_chunk(usize::MAX, true).await? else {
        return Ok(None);
    };
    if link.charge(chunk.bytes.len()) {
        Ok(Some(chunk.bytes))
    } else {
        Err(ReadError::ConnectionLost(ConnectionError::LocallyClosed))
    }
}
