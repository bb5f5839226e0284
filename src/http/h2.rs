//! HTTP/2 by h2.
//!
//! `accept` calls [`serve`] with a connection whose handshake chose h2. One task drives the connection and all of its requests, so
//! that the answers of a batch leave together. What one connection may have open, hold in buffers or send beside its
//! requests is bounded here, with each bound written out, also where the library's default is the same one: a default is
//! nobody's promise. A peer that breaks a rule of the protocol gets a GOAWAY from the library; one that floods the
//! connection with frames is cut off by [`Overhead`].

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, server};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::cut::until_cut;
use super::discard::discard;
use super::overhead::{Metered, Overhead};
use super::{Connection, HEAD_BYTES_MAX, Service, request_head};
use crate::ingest::{Body, BrokenBody};

/// Requests that one connection may have open.
const STREAMS_MAX: u32 = 128;

/// Requests of one connection that are being answered, those among them whose streams the client has reset: with more, none is
/// begun until others end.
const REQUESTS_MAX: usize = 2 * STREAMS_MAX as usize;

/// What one stream may send before its body is read, in bytes: most readings fit, and a connection's streams together
/// stay within [`CONNECTION_WINDOW_BYTES`].
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// What one connection may send before its bodies are read, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Streams that a client has reset before they were begun (rapid reset, CVE-2023-44487); with more waiting, GOAWAY.
const PENDING_RESETS_MAX: usize = 32;

/// Streams that this side had to reset for a fault of the client's (MadeYouReset, CVE-2025-8671); with more, GOAWAY.
const ERROR_RESETS_MAX: usize = 128;

/// What is buffered of one stream's answers, in bytes: they are a few hundred.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// The largest frame that is taken, in bytes: the least that a server may say (RFC 9113 section 4.2).
const FRAME_BYTES_MAX: u32 = 16 * 1024;

/// What a client may keep in the table of HPACK, in bytes (RFC 7541 section 4.2).
const HPACK_TABLE_BYTES: u32 = 4096;

/// Serves an h2 connection until it ends.
pub fn serve<T>(stream: T, connection: Connection, service: Rc<Service>) -> impl Future<Output = ()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connection = Rc::new(connection);
    let overhead = Overhead::new();
    // Boxed: it is large, and moved into the future that is returned.
    let handshake = Box::pin(builder().handshake(Metered::new(stream, overhead.clone())));
    async move {
        let mut serving = pin!(async {
            if let Ok(Ok(h2)) = timeout(service.idle_timeout, handshake).await {
                serve_requests(h2, &connection, &service, &overhead).await;
            }
        });
        until_cut(serving.as_mut(), &connection, &service).await;
        if overhead.is_spent() {
            service.end_flood(&connection);
        }
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .header_table_size(HPACK_TABLE_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

/// Drives a connection until it ends, has been idle for too long, or has been drained.
async fn serve_requests<T: AsyncRead + AsyncWrite + Unpin>(
    mut h2: server::Connection<T, Bytes>,
    connection: &Rc<Connection>,
    service: &Service,
    overhead: &Overhead,
) {
    let mut requests = FuturesUnordered::new();
    let mut is_drained = false;
    let mut idle = pin!(sleep(service.idle_timeout));
    poll_fn(|context| {
        loop {
            while let Poll::Ready(request) =
                poll_accept(&mut h2, requests.len() < REQUESTS_MAX, context)
            {
                let Some((request, respond)) = request else {
                    return Poll::Ready(());
                };
                requests.push(answer(service, connection, overhead, request, respond));
            }
            let mut has_answered = false;
            while let Poll::Ready(Some(())) = requests.poll_next_unpin(context) {
                has_answered = true;
            }
            if !is_drained && service.is_over(connection) {
                is_drained = true;
                h2.graceful_shutdown();
            } else if !has_answered {
                return poll_idle(idle.as_mut(), connection, service, context);
            }
        }
    })
    .await;
}

/// The next request, if one more `may` begin; `None` when the connection is at its end. Also sends what there is to send.
fn poll_accept<T: AsyncRead + AsyncWrite + Unpin>(
    h2: &mut server::Connection<T, Bytes>,
    may: bool,
    context: &mut Context<'_>,
) -> Poll<Option<(Request<RecvStream>, SendResponse<Bytes>)>> {
    // An error has been told to the peer, if there still is one.
    if may {
        h2.poll_accept(context).map(|accepted| accepted?.ok())
    } else {
        h2.poll_closed(context).map(|_| None)
    }
}

/// Ready once the connection has been idle for too long.
fn poll_idle(
    mut timer: Pin<&mut Sleep>,
    connection: &Connection,
    service: &Service,
    context: &mut Context<'_>,
) -> Poll<()> {
    loop {
        ready!(timer.as_mut().poll(context));
        let idle_until = connection.idle_since() + service.idle_timeout;
        if idle_until <= Instant::now() {
            return Poll::Ready(());
        }
        timer.as_mut().reset(idle_until);
    }
}

/// Answers one request; what is left of its body is discarded while the answer is on its way.
async fn answer(
    service: &Service,
    connection: &Rc<Connection>,
    overhead: &Overhead,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, stream) = request.into_parts();
    let mut body = H2Body { stream, overhead };
    let response = service
        .answer(connection, &request_head(&head), &mut body)
        .await;
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        overhead.pay_back(head_bytes(&head));
    }
    send(&mut respond, response, head.method == Method::HEAD);
    if !body.stream.is_end_stream() {
        discard(body).await;
    }
}

/// Hands the answer to the library. What fails is a stream that the client has reset.
fn send(respond: &mut SendResponse<Bytes>, response: Response<Bytes>, omits_body: bool) {
    let (head, body) = response.into_parts();
    let mut head = Response::from_parts(head, ());
    if !body.is_empty() {
        head.headers_mut().insert(CONTENT_LENGTH, body.len().into());
    }
    let is_whole = omits_body || body.is_empty();
    if let Ok(mut stream) = respond.send_response(head, is_whole)
        && !is_whole
    {
        let _ = stream.send_data(body, true);
    }
}

/// What a head may have cost on the wire: hardly more than its text, however it was encoded.
pub(super) fn head_bytes(head: &Parts) -> usize {
    const FRAME_BYTES: usize = 64;
    const FIELD_BYTES: usize = 4;
    let field = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + value.len() + FIELD_BYTES
    };
    FRAME_BYTES + head.uri.path().len() + head.headers.iter().map(field).sum::<usize>()
}

/// h2's body, as ingest reads it.
struct H2Body<'o> {
    stream: RecvStream,
    overhead: &'o Overhead,
}

impl Body for H2Body<'_> {
    /// Trailers are not part of a reading.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        let piece = ready!(self.stream.poll_data(context));
        let piece = piece.map(|piece| piece.map_err(|_| BrokenBody));
        if let Some(Ok(piece)) = &piece {
            self.overhead.pay_back(piece.len());
            // It fails where the client has closed the stream.
            let _ = self.stream.flow_control().release_capacity(piece.len());
        }
        Poll::Ready(piece)
    }
}
