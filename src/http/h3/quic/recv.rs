//! The client's side of a stream: its bytes, counted and put into frames.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h3::error::Code;
use h3::quic::{self, StreamErrorIncoming, StreamId};

use super::error::read_error;
use super::stream_id;
use crate::http::h3::fault::Fault;
use crate::http::h3::frames::Frames;
use crate::http::h3::link::{Link, varint};

/// Bytes of a stream, `None` at its end.
pub(crate) type Read = Result<Option<Bytes>, StreamErrorIncoming>;

/// The client's side of a request or of the control stream. Dropped before its end, it is stopped
/// with a code of its own. Boxed: h3 has room for six of them in each connection, and uses one.
pub(crate) struct RecvStream(Box<Framed>);

/// A stream, and the place in its frames.
struct Framed {
    stream: quinn::RecvStream,
    link: Rc<Link>,
    frames: Frames,
    /// Bytes for h3 before all that `frames` gives: the type of the stream, if it has one.
    start: Bytes,
    /// Bytes from quinn that have not gone on to h3.
    unread: Bytes,
    code_when_dropped: Code,
    /// Whether it has ended, or has been stopped.
    is_over: bool,
    /// A fault of it ends it alone, where it does not end the connection.
    is_request: bool,
}

impl RecvStream {
    pub(crate) fn of_request(stream: quinn::RecvStream, link: Rc<Link>) -> Self {
        Self(Box::new(Framed {
            stream,
            link,
            frames: Frames::of_request(),
            start: Bytes::new(),
            unread: Bytes::new(),
            code_when_dropped: Code::H3_REQUEST_CANCELLED,
            is_over: false,
            is_request: true,
        }))
    }

    /// Makes the control stream, of which the type and `unread` have been read.
    pub(crate) fn of_control(
        stream: quinn::RecvStream,
        link: Rc<Link>,
        stream_type: Bytes,
        unread: Bytes,
    ) -> Self {
        Self(Box::new(Framed {
            stream,
            link,
            frames: Frames::of_control(),
            start: stream_type,
            unread,
            code_when_dropped: Code::H3_STREAM_CREATION_ERROR,
            is_over: false,
            is_request: false,
        }))
    }

    /// Says with which code it is stopped when it is dropped before its end.
    pub(crate) fn end_with(&mut self, code: Code) {
        self.0.code_when_dropped = code;
    }
}

impl Framed {
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Read> {
        if !self.start.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.start))));
        }
        loop {
            let piece = self.next_piece()?;
            if piece.is_some() {
                return Poll::Ready(Ok(piece));
            }
            debug_assert!(self.unread.is_empty(), "without a piece, all is used up");
            match ready!(self.poll_read(context))? {
                Some(read) => self.unread = read,
                None => return Poll::Ready(self.end()),
            }
        }
    }

    /// Reads the next bytes, `None` at the stream's end. An error that is no news of QUIC's is a
    /// flood, which has ended the connection.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Read> {
        let reading = pin!(self.stream.read_chunk(usize::MAX, true));
        let read = ready!(reading.poll(context)).map_err(read_error);
        self.is_over |= !matches!(read, Ok(Some(_)));
        let Some(chunk) = read? else {
            return Poll::Ready(Ok(None));
        };
        if self.link.charge(chunk.bytes.len()) {
            Poll::Ready(Ok(Some(chunk.bytes)))
        } else {
            Poll::Ready(Err(StreamErrorIncoming::Unknown("a flood".into())))
        }
    }

    /// Returns the next piece for h3 of the bytes read; `None` if more have to be read.
    fn next_piece(&mut self) -> Read {
        let piece = self.frames.next(&mut self.unread);
        piece.map_err(|fault| self.refuse(fault))
    }

    /// Returns the stream's end, if its frames may end there.
    fn end(&mut self) -> Read {
        match self.frames.end() {
            Ok(()) => Ok(None),
            Err(fault) => Err(self.refuse(fault)),
        }
    }

    /// Ends the request, or the connection, for a fault.
    #[cold]
    fn refuse(&mut self, fault: Fault) -> StreamErrorIncoming {
        self.stop(fault.code().value());
        let is_of_connection = fault.ends_connection() || !self.is_request;
        if is_of_connection && fault.code() == Code::H3_EXCESSIVE_LOAD {
            self.link.end_flood();
        } else if is_of_connection {
            self.link.close(fault.code());
        }
        StreamErrorIncoming::Unknown(Box::new(fault))
    }

    fn stop(&mut self, code: u64) {
        if !self.is_over {
            self.is_over = true;
            // An error is a stream that the connection's end has closed.
            let _ = self.stream.stop(varint(code));
        }
    }
}

impl Drop for Framed {
    fn drop(&mut self) {
        self.stop(self.code_when_dropped.value());
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Read> {
        self.0.poll_data(context)
    }

    fn stop_sending(&mut self, code: u64) {
        self.0.stop(code);
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.0.stream.id())
    }
}
