//! What h3 asks of QUIC, by quinn.
//!
//! [`Connection`] is made by the adapter above for each connection, and h3 drives it. A read is a fresh future each time,
//! which quinn allows, so that a stream is always at hand and can be stopped in the middle of one; only what waits for
//! streams is kept, as the waker is in it. Whatever is let go before its end says why with a code of HTTP/3 (RFC 9114
//! section 8.1), where quinn would say 0, which is none: the rest of a request that nobody answers is
//! H3_REQUEST_CANCELLED, and so is an answer that was not sent whole. What comes in passes [`Frames`]: excess is
//! H3_EXCESSIVE_LOAD, of its stream where that is a request, else of the connection.

use std::cell::Cell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

use super::frames::{Excess, Frames};

type Incoming<T> = LocalBoxStream<'static, Result<T, ConnectionError>>;

/// Streams of one direction that a client may open, one after the other: it needs three.
const UNI_STREAMS_MAX: u32 = 64;

/// A connection whose streams h3 reads and writes.
pub struct Connection {
    quic: quinn::Connection,
    requests: Incoming<(quinn::SendStream, quinn::RecvStream)>,
    incoming: Incoming<quinn::RecvStream>,
    incoming_left: u32,
    opening: Incoming<quinn::SendStream>,
    /// The client has been told to go.
    is_leaving: Rc<Cell<bool>>,
}

impl Connection {
    /// Requests that come once `is_leaving` is true are rejected.
    pub fn new(quic: quinn::Connection, is_leaving: Rc<Cell<bool>>) -> Self {
        let (accept_bi, accept_uni, open_uni) = (quic.clone(), quic.clone(), quic.clone());
        Self {
            quic,
            requests: stream::unfold(accept_bi, |quic| async {
                Some((quic.accept_bi().await, quic))
            })
            .boxed_local(),
            incoming: stream::unfold(accept_uni, |quic| async {
                Some((quic.accept_uni().await, quic))
            })
            .boxed_local(),
            incoming_left: UNI_STREAMS_MAX,
            opening: stream::unfold(open_uni, |quic| async {
                Some((quic.open_uni().await, quic))
            })
            .boxed_local(),
            is_leaving,
        }
    }
}

/// The next of a stream that ends with the connection only, by its error.
fn poll_stream<T>(
    incoming: &mut Incoming<T>,
    context: &mut Context<'_>,
) -> Poll<Result<T, ConnectionErrorIncoming>> {
    let stream =
        ready!(incoming.poll_next_unpin(context)).unwrap_or(Err(ConnectionError::LocallyClosed));
    Poll::Ready(stream.map_err(connection_error))
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Self;

    fn poll_accept_recv(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let stream = ready!(poll_stream(&mut self.incoming, context))?;
        match self.incoming_left.checked_sub(1) {
            Some(left) => self.incoming_left = left,
            None => close_excessive(&self.quic),
        }
        Poll::Ready(Ok(RecvStream::of_connection(stream, self.quic.clone())))
    }

    fn poll_accept_bidi(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let (send, recv) = loop {
            let (mut send, mut recv) = ready!(poll_stream(&mut self.requests, context))?;
            if !self.is_leaving.get() {
                break (send, recv);
            }
            // An error is a stream that is closed already.
            let _ = send.reset(varint(Code::H3_REQUEST_REJECTED.value()));
            let _ = recv.stop(varint(Code::H3_REQUEST_REJECTED.value()));
        };
        Poll::Ready(Ok(BidiStream {
            send: SendStream::new(send),
            recv: RecvStream::of_request(recv),
        }))
    }

    fn opener(&self) -> Self {
        Self::new(self.quic.clone(), self.is_leaving.clone())
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    /// Only clients open them (RFC 9114 section 6.1).
    fn poll_open_bidi(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        Poll::Ready(Err(StreamErrorIncoming::Unknown(
            "a server opens no requests".into(),
        )))
    }

    fn poll_open_send(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let stream = ready!(poll_stream(&mut self.opening, context)).map_err(of_connection)?;
        Poll::Ready(Ok(SendStream::new(stream)))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quic.close(varint(code.value()), reason);
    }
}

/// A request and its answer.
pub struct BidiStream {
    send: SendStream,
    recv: RecvStream,
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for BidiStream {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(context)
    }

    /// h3 answers by itself what is too large: what is left of such a request is not wanted, which is no error.
    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        self.recv.code_when_dropped = Code::H3_NO_ERROR;
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(context)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl quic::RecvStream for BidiStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let polled = self.recv.poll_data(context);
        // No answer to a head that is excessive: quinn's own errors are of streams that are closed already.
        if matches!(polled, Poll::Ready(Err(StreamErrorIncoming::Unknown(_)))) {
            self.send.abort(Code::H3_EXCESSIVE_LOAD.value());
        }
        polled
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

/// What the gateway sends. Dropped while it is not whole, it is reset; else it ends there.
pub struct SendStream {
    stream: quinn::SendStream,
    /// A frame under way.
    frame: Option<WriteBuf<Bytes>>,
    /// There has been a frame, and each has been written to its end.
    is_whole: bool,
}

impl SendStream {
    fn new(stream: quinn::SendStream) -> Self {
        Self {
            stream,
            frame: None,
            is_whole: false,
        }
    }

    fn abort(&mut self, code: u64) {
        // A stream that is over has nothing to reset.
        let _ = self.stream.reset(varint(code));
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.is_whole {
            self.abort(Code::H3_REQUEST_CANCELLED.value());
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(frame) = &mut self.frame {
            while frame.has_remaining() {
                let written = Pin::new(&mut self.stream).poll_write(context, frame.chunk());
                frame.advance(ready!(written).map_err(write_error)?);
            }
            (self.frame, self.is_whole) = (None, true);
        }
        Poll::Ready(Ok(()))
    }

    /// To be called when the frame before this one has been written, see `poll_ready`.
    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        if self.frame.is_some() {
            return Err(StreamErrorIncoming::Unknown("a frame is under way".into()));
        }
        (self.frame, self.is_whole) = (Some(data.into()), false);
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        Poll::Ready(
            self.stream
                .finish()
                .map_err(|closed| StreamErrorIncoming::Unknown(Box::new(closed))),
        )
    }

    fn reset(&mut self, code: u64) {
        self.abort(code);
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

/// What the peer sends. Dropped before its end, it is stopped with a code of its own.
pub struct RecvStream {
    stream: quinn::RecvStream,
    frames: Frames,
    /// Of what quinn has given, what has not gone on to h3.
    unread: Bytes,
    code_when_dropped: Code,
    /// It has ended, or has been stopped.
    is_over: bool,
    /// The connection, where excess is its end.
    connection: Option<quinn::Connection>,
}

impl RecvStream {
    fn of_request(stream: quinn::RecvStream) -> Self {
        Self::new(
            stream,
            Frames::of_request(),
            Code::H3_REQUEST_CANCELLED,
            None,
        )
    }

    fn of_connection(stream: quinn::RecvStream, connection: quinn::Connection) -> Self {
        Self::new(
            stream,
            Frames::of_uni_stream(),
            Code::H3_STREAM_CREATION_ERROR,
            Some(connection),
        )
    }

    fn new(
        stream: quinn::RecvStream,
        frames: Frames,
        code_when_dropped: Code,
        connection: Option<quinn::Connection>,
    ) -> Self {
        Self {
            stream,
            frames,
            unread: Bytes::new(),
            code_when_dropped,
            is_over: false,
            connection,
        }
    }

    /// What came, `None` at the stream's end.
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let reading = pin!(self.stream.read_chunk(usize::MAX, true));
        let read = ready!(reading.poll(context)).map_err(read_error);
        self.is_over |= !matches!(read, Ok(Some(_)));
        Poll::Ready(read.map(|chunk| chunk.map(|chunk| chunk.bytes)))
    }

    #[cold]
    fn refuse(&mut self, excess: Excess) -> StreamErrorIncoming {
        quic::RecvStream::stop_sending(self, Code::H3_EXCESSIVE_LOAD.value());
        self.connection
            .as_ref()
            .inspect(|connection| close_excessive(connection));
        StreamErrorIncoming::Unknown(Box::new(excess))
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        quic::RecvStream::stop_sending(self, self.code_when_dropped.value());
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            let piece = self
                .frames
                .next(&mut self.unread)
                .map_err(|excess| self.refuse(excess))?;
            if piece.is_some() {
                return Poll::Ready(Ok(piece));
            }
            match ready!(self.poll_read(context))? {
                Some(read) => self.unread = read,
                None => return Poll::Ready(Ok(self.frames.at_end())),
            }
        }
    }

    fn stop_sending(&mut self, code: u64) {
        if !self.is_over {
            self.is_over = true;
            // A stream that the connection's end has closed has nobody to tell.
            let _ = self.stream.stop(varint(code));
        }
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

#[cold]
fn close_excessive(quic: &quinn::Connection) {
    quic.close(varint(Code::H3_EXCESSIVE_LOAD.value()), b"");
}

/// Codes of h3 are variable-length integers by themselves.
pub fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

/// Both are numbers below 2^62.
fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("a stream's number is a variable-length integer")
}

fn of_connection(connection_error: ConnectionErrorIncoming) -> StreamErrorIncoming {
    StreamErrorIncoming::ConnectionErrorIncoming { connection_error }
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        error => ConnectionErrorIncoming::Undefined(Arc::new(error)),
    }
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into(),
        },
        ReadError::ConnectionLost(error) => of_connection(connection_error(error)),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
            error_code: code.into(),
        },
        WriteError::ConnectionLost(error) => of_connection(connection_error(error)),
        error => StreamErrorIncoming::Unknown(Box::new(error)),
    }
}
