//! Keeps one hyper connection within its time: idle, waiting for a head, draining, revoked.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

use super::discard::discard;
use super::revoked::{CUT_AFTER, revoked};
use super::{Connection, Service};
use crate::ingest::{Body, BrokenBody};

/// A hyper connection of either protocol.
pub trait Drains: Future<Output = hyper::Result<()>> {
    /// Finishes what is under way, then closes.
    fn drain(self: Pin<&mut Self>);
}

/// Drives a connection until it ends, runs out of time, or has been drained.
pub async fn supervise<C: Drains>(hyper: C, connection: &Connection, service: &Service) {
    let mut hyper = pin!(hyper);
    let mut draining = service.draining.clone();
    let mut drain = pin!(draining.wait_for(|draining| *draining));
    let mut revoked = pin!(revoked(service.revocation.clone(), connection));
    let mut cut_at = None;
    let mut drained = false;
    let mut head_since = None;
    let mut timer = pin!(sleep_until(Instant::now() + service.idle_timeout));
    poll_fn(|context| {
        loop {
            if cut_at.is_none() && revoked.as_mut().poll(context).is_ready() {
                cut_at = Some(Instant::now() + CUT_AFTER);
            }
            if let Poll::Ready(ended) = hyper.as_mut().poll(context) {
                ended
                    .err()
                    .and_then(|error| answered(&error))
                    .inspect(|status| service.codec_answered(connection, *status));
                return Poll::Ready(());
            }
            let is_over = connection.closing.get() || (cut_at.is_some() && connection.has_asked.get());
            if !drained && (is_over || drain.as_mut().poll(context).is_ready()) {
                drained = true;
                hyper.as_mut().drain();
                continue;
            }
            let deadline = deadline(connection, service, &mut head_since);
            let deadline = cut_at.map_or(deadline, |cut_at| deadline.min(cut_at));
            if deadline < timer.deadline() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    })
    .await;
}

/// What hyper has answered to a head that it could not parse, before it gave the connection up.
fn answered(error: &hyper::Error) -> Option<StatusCode> {
    if error.is_parse_too_large() {
        Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    } else {
        (error.is_parse() && !error.is_parse_version_h2()).then_some(StatusCode::BAD_REQUEST)
    }
}

/// When the connection is out of time, unless something happens. A request under way has bounds of its own.
fn deadline(connection: &Connection, service: &Service, head_since: &mut Option<Instant>) -> Instant {
    if connection.requests.get() > 0 {
        *head_since = None;
        Instant::now() + service.idle_timeout
    } else if connection.head_started.get() {
        *head_since.get_or_insert_with(Instant::now) + service.header_timeout
    } else {
        *head_since = None;
        connection.idle_since.get() + service.idle_timeout
    }
}

/// Notes when bytes come in that no request has asked for: the beginning of a head.
pub struct Watched<T> {
    pub stream: T,
    pub connection: Rc<Connection>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let poll = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.connection.head_started.set(true);
        }
        poll
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
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

/// Answers one request; what is left of its body is discarded while the answer is on its way.
pub async fn answer(
    service: &Service,
    connection: &Rc<Connection>,
    request: hyper::Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let mut body = HyperBody(body);
    let response = service.answer(connection, &head, &mut body).await;
    if !body.0.is_end_stream() {
        tokio::task::spawn_local(discard(body));
    }
    response
}

/// hyper's body, as ingest reads it.
struct HyperBody(Incoming);

impl Body for HyperBody {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        if self.0.is_end_stream() {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(Pin::new(&mut self.0).poll_frame(context));
        // Trailers are not part of a reading.
        let piece = |frame: hyper::body::Frame<Bytes>| frame.into_data().unwrap_or_default();
        Poll::Ready(frame.map(|frame| frame.map(piece).map_err(|_| BrokenBody)))
    }
}
