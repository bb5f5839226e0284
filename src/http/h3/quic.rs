//! The QUIC interface of h3, over quinn.
//!
//! [`Connection`] is made by the adapter above for each connection, and h3 drives it. A read is a
//! fresh future each time, which quinn allows, so that a stream is always at hand and can be
//! stopped in the middle of one; only the wait for new streams is kept, as the waker is in it. A
//! stream that is dropped before its end says why with a code of HTTP/3 (RFC 9114 section 8.1),
//! where quinn would say 0, which is none: the rest of a request without an answer is
//! H3_REQUEST_CANCELLED, and so is an answer that was not sent whole. Incoming bytes pass `frames`,
//! whose faults end their request, or the connection, before h3 sees them.

mod error;
mod recv;
mod send;
mod uni;

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::{self, LocalBoxStream, StreamExt};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::ConnectionError;

use super::fault::Fault;
use super::leave::Leave;
use super::link::{Link, varint};
use error::{connection_error, of_connection};
use recv::Read;
pub(crate) use recv::RecvStream;
pub(crate) use send::SendStream;
use uni::UniStreams;

type Incoming<T> = LocalBoxStream<'static, Result<T, ConnectionError>>;

/// A connection whose streams h3 reads and writes.
pub(crate) struct Connection {
    link: Rc<Link>,
    leave: Rc<Leave>,
    requests: Incoming<(quinn::SendStream, quinn::RecvStream)>,
    incoming: Incoming<quinn::RecvStream>,
    opening: Incoming<quinn::SendStream>,
    uni_streams: UniStreams,
}

impl Connection {
    /// Requests that come once it is leaving are rejected.
    pub(crate) fn new(link: Rc<Link>, leave: Rc<Leave>) -> Self {
        Self {
            requests: incoming(link.quic(), async |quic| quic.accept_bi().await),
            incoming: incoming(link.quic(), async |quic| quic.accept_uni().await),
            opening: incoming(link.quic(), async |quic| quic.open_uni().await),
            uni_streams: UniStreams::new(link.clone()),
            link,
            leave,
        }
    }
}

/// Returns a stream of all items that `next` gives, one after the other.
fn incoming<T: 'static>(
    quic: &quinn::Connection,
    next: impl AsyncFn(&quinn::Connection) -> Result<T, ConnectionError> + Copy + 'static,
) -> Incoming<T> {
    let each = move |quic: quinn::Connection| async move { Some((next(&quic).await, quic)) };
    stream::unfold(quic.clone(), each).boxed_local()
}

/// Polls for the next item of a stream that ends with the connection only, by its error.
fn poll_stream<T>(
    incoming: &mut Incoming<T>,
    context: &mut Context<'_>,
) -> Poll<Result<T, ConnectionErrorIncoming>> {
    let stream =
        ready!(incoming.poll_next_unpin(context)).unwrap_or(Err(ConnectionError::LocallyClosed));
    Poll::Ready(stream.map_err(connection_error))
}

/// Tells the client that the request has not been looked at: it may send it elsewhere.
fn reject(mut send: quinn::SendStream, mut recv: quinn::RecvStream) {
    // An error is a stream that is closed already.
    let _ = send.reset(varint(Code::H3_REQUEST_REJECTED.value()));
    let _ = recv.stop(varint(Code::H3_REQUEST_REJECTED.value()));
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Self;

    /// Only the control stream is for h3.
    fn poll_accept_recv(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        while let Poll::Ready(stream) = poll_stream(&mut self.incoming, context) {
            self.uni_streams.attend(stream?);
        }
        self.uni_streams.poll_control(context).map(Ok)
    }

    fn poll_accept_bidi(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        loop {
            let (send, recv) = ready!(poll_stream(&mut self.requests, context))?;
            if self.leave.has_begun() {
                reject(send, recv);
                continue;
            }
            return Poll::Ready(Ok(BidiStream {
                send: SendStream::new(send),
                recv: RecvStream::of_request(recv, self.link.clone()),
            }));
        }
    }

    fn opener(&self) -> Self {
        Self::new(self.link.clone(), self.leave.clone())
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
        self.uni_streams.keep_open(&stream);
        Poll::Ready(Ok(SendStream::new(stream)))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.link.close_saying(code, reason);
    }
}

/// A request and its answer.
pub(crate) struct BidiStream {
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

    /// h3 itself answers a request that is too large: its rest is not wanted, which is no error.
    fn send_data<D: Into<WriteBuf<Bytes>>>(&mut self, data: D) -> Result<(), StreamErrorIncoming> {
        self.recv.end_with(Code::H3_NO_ERROR);
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

    /// A head with a fault gets no answer.
    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Read> {
        let polled = self.recv.poll_data(context);
        if let Poll::Ready(Err(StreamErrorIncoming::Unknown(error))) = &polled
            && let Some(fault) = error.downcast_ref::<Fault>()
        {
            self.send.abort(fault.code().value());
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

/// Returns a stream's number as h3 takes it: both are below 2^62.
fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("a stream's number is a variable-length integer")
}
