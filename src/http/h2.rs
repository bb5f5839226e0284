//! HTTP/2 by hyper.
//!
//! `accept` calls [`serve`] with a connection whose handshake chose h2. What one connection may have open, hold in buffers
//! or send beside its requests is bounded here, with each bound written out, also where hyper's default is the same one:
//! a default is nobody's promise. A peer that breaks a rule of the protocol gets a GOAWAY from the library; one that
//! floods the connection with frames is cut off by [`Overhead`].

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use super::cut::until_cut;
use super::discard::discard;
use super::overhead::{Metered, Overhead};
use super::{Connection, HEAD_BYTES_MAX, STREAMS_MAX, Service, request_head};
use crate::ingest::{Body, BrokenBody};

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

/// Runs h2's streams on the worker's own thread.
#[derive(Clone, Copy)]
struct OnThisWorker;

impl<F> hyper::rt::Executor<F> for OnThisWorker
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves an h2 connection until it ends.
pub fn serve<T>(stream: T, connection: Connection, service: Rc<Service>) -> impl Future<Output = ()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connection = Rc::new(connection);
    let overhead = Overhead::new();
    let stream = Metered::new(stream, overhead.clone());
    let on_request = {
        let (connection, service, overhead) = (connection.clone(), service.clone(), overhead.clone());
        service_fn(move |request: hyper::Request<_>| {
            let (connection, service, overhead) = (connection.clone(), service.clone(), overhead.clone());
            // Boxed: on its way into its task hyper moves it many times.
            Box::pin(async move { Ok::<_, Infallible>(answer(&service, &connection, &overhead, request).await) })
        })
    };
    let mut builder = http2::Builder::new(OnThisWorker);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .header_table_size(HPACK_TABLE_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(ERROR_RESETS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        // A connection that is silent ends by its idle time-out: it is not asked whether it is there.
        .keep_alive_interval(None)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    let mut hyper = Box::pin(builder.serve_connection(TokioIo::new(stream), on_request));
    async move {
        let mut serving = pin!(supervise(hyper.as_mut(), &connection, &service));
        until_cut(serving.as_mut(), &connection, &service).await;
        if overhead.is_spent() {
            service.end_flood(&connection);
        }
    }
}

/// Drives a connection until it ends, has been idle for too long, or has been drained.
async fn supervise<I, S>(
    mut hyper: Pin<&mut http2::Connection<I, S, OnThisWorker>>,
    connection: &Connection,
    service: &Service,
) where
    http2::Connection<I, S, OnThisWorker>: Future,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = Full<Bytes>>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    OnThisWorker: hyper::rt::bounds::Http2ServerConnExec<S::Future, S::ResBody>,
{
    let mut is_drained = false;
    let mut timer = pin!(sleep(service.idle_timeout));
    poll_fn(|context| {
        loop {
            if hyper.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            if !is_drained && service.is_over(connection) {
                is_drained = true;
                hyper.as_mut().graceful_shutdown();
                continue;
            }
            ready!(timer.as_mut().poll(context));
            let idle_until = connection.idle_since() + service.idle_timeout;
            if idle_until <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(idle_until);
        }
    })
    .await;
}

/// Answers one request; what is left of its body is discarded while the answer is on its way.
async fn answer(
    service: &Service,
    connection: &Rc<Connection>,
    overhead: &Rc<Overhead>,
    request: hyper::Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let mut body = HyperBody { incoming: body, overhead: overhead.clone() };
    let response = service.answer(connection, &request_head(&head), &mut body).await;
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        overhead.pay_back(head_bytes(&head));
    }
    if !body.incoming.is_end_stream() {
        tokio::task::spawn_local(discard(body));
    }
    response.map(Full::new)
}

/// What a head may have cost on the wire: hardly more than its text, however it was encoded.
fn head_bytes(head: &Parts) -> usize {
    const FRAME_BYTES: usize = 64;
    const FIELD_BYTES: usize = 4;
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + FIELD_BYTES;
    FRAME_BYTES + head.uri.path().len() + head.headers.iter().map(field).sum::<usize>()
}

/// hyper's body, as ingest reads it.
struct HyperBody {
    incoming: Incoming,
    overhead: Rc<Overhead>,
}

impl Body for HyperBody {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        if self.incoming.is_end_stream() {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(context));
        // Trailers are not part of a reading.
        let piece = |frame: hyper::body::Frame<Bytes>| frame.into_data().unwrap_or_default();
        let piece = frame.map(|frame| frame.map(piece).map_err(|_| BrokenBody));
        if let Some(Ok(piece)) = &piece {
            self.overhead.pay_back(piece.len());
        }
        Poll::Ready(piece)
    }
}
