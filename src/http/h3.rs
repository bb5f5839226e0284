//! HTTP/3 by h3 over quinn.
//!
//! `accept` hands over each connection, and [`serve`] owns it to its end, with all of its requests in one task, and GOAWAY before it.
//! h3 reads and writes by the adapter in `quic`, which keeps from it what no client has reason to send (`frames`); its own
//! errors are those of RFC 9114 section 8.1. A request has the bounds of every protocol, and a connection no more than
//! [`UNANSWERED_MAX`] requests that come to nothing: their streams cost no token of a limit.

mod frames;
mod quic;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::{Method, Response, StatusCode};
use tokio::time::timeout;

use super::cut::until_cut;
use super::discard::discard;
use super::{Connection, HEAD_BYTES_MAX, Service, request_head};
use crate::ingest::{Body, BrokenBody};
use crate::telemetry::metrics::Protocol;

type Resolver = RequestResolver<quic::Connection, Bytes>;
type Stream<S> = RequestStream<S, Bytes>;

/// Requests that one connection may have open: what RFC 9114 section 6.1 asks for at least. quinn keeps a place for each from the
/// start, in tables that double for a few more.
pub const STREAMS_MAX: u32 = 100;

/// Requests of a connection that ended without an answer, less those that were answered: a device may well give up all that
/// it has open, but not again and again.
const UNANSWERED_MAX: u32 = 2 * STREAMS_MAX;

/// The last answers get this long to arrive before their connection is closed, beside three round trips.
const LAST_ANSWER_GRACE: Duration = Duration::from_millis(100);

/// Serves an h3 connection until it ends.
pub async fn serve(quic: quinn::Connection, connection: Connection, service: Rc<Service>) {
    let connection = Rc::new(connection);
    let mut serving = pin!(serve_requests(&quic, &connection, &service));
    until_cut(serving.as_mut(), &connection, &service).await;
    close(&quic, Code::H3_NO_ERROR);
}

async fn serve_requests(quic: &quinn::Connection, connection: &Rc<Connection>, service: &Service) {
    let mut builder = h3::server::builder();
    builder
        .max_field_section_size(HEAD_BYTES_MAX as u64)
        .send_grease(false);
    let is_leaving = Rc::new(Cell::new(false));
    let adapted = quic::Connection::new(quic.clone(), is_leaving.clone());
    // Boxed, so that what only the beginning needs is given back.
    let Ok(mut h3) = Box::pin(builder.build(adapted)).await else {
        return;
    };
    // Each in a box: room for one is kept from the start.
    let mut requests = FuturesUnordered::new();
    let (mut is_closing, mut unanswered) = (false, 0_u32);
    while !(is_closing && requests.is_empty()) {
        tokio::select! {
            accepted = h3.accept() => match accepted {
                Ok(Some(resolver)) => requests.push(Box::pin(answer(resolver, connection, service))),
                Ok(None) | Err(_) => break,
            },
            Some(is_answered) = requests.next() => {
                unanswered = if is_answered { unanswered.saturating_sub(1) } else { unanswered + 1 };
                if unanswered > UNANSWERED_MAX {
                    return close(quic, Code::H3_EXCESSIVE_LOAD);
                }
            }
            () = over(connection, service), if !is_closing => {
                is_closing = true;
                is_leaving.set(true);
                // GOAWAY names the first request that is rejected (RFC 9114 section 5.2); h3 counts from the last accepted.
                if !connection.is_closing() && h3.shutdown(1).await.is_err() { break }
            }
        }
    }
    while requests.next().await.is_some() {}
    if is_closing {
        let _ = timeout(3 * quic.rtt() + LAST_ANSWER_GRACE, quic.closed()).await;
    }
    close(quic, Code::H3_NO_ERROR);
}

/// To be called while h3 has the connection: when it lets go, it gives a reason of its own.
fn close(connection: &quinn::Connection, code: Code) {
    connection.close(quic::varint(code.value()), b"");
}

/// Returns when no further request is wanted. Looks whenever the connection's task is polled, which the end of each
/// request and the bell see to.
async fn over(connection: &Connection, service: &Service) {
    poll_fn(|_| {
        if service.is_over(connection) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Whether there was an answer that the client took.
async fn answer(resolver: Resolver, connection: &Rc<Connection>, service: &Service) -> bool {
    let (request, stream) = match timeout(service.header_timeout, resolver.resolve_request()).await
    {
        Ok(Ok(request)) => request,
        Ok(Err(StreamError::HeaderTooBig { .. })) => {
            // h3 has answered by itself.
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16();
            service
                .metrics
                .request(Protocol::H3, status, Duration::ZERO);
            return true;
        }
        Ok(Err(_)) | Err(_) => return false,
    };
    let (head, ()) = request.into_parts();
    let (mut send, receive) = stream.split();
    let mut body = QuicBody {
        stream: receive,
        has_ended: false,
        is_broken: false,
    };
    let response = service
        .answer(connection, &request_head(&head), &mut body)
        .await;
    let is_refused = response.status() != StatusCode::NO_CONTENT;
    // A client that does not take its answer is bounded by the connection's idle time-out.
    let responding = respond(&mut send, response, head.method == Method::HEAD);
    let Ok(Ok(())) = timeout(service.idle_timeout, responding).await else {
        return false;
    };
    if is_refused {
        discard(&mut body).await;
    }
    body.stop();
    true
}

async fn respond<S>(
    stream: &mut Stream<S>,
    response: Response<Bytes>,
    omits_body: bool,
) -> Result<(), StreamError>
where
    S: h3::quic::SendStream<Bytes>,
{
    let (head, body) = response.into_parts();
    stream.send_response(Response::from_parts(head, ())).await?;
    if !body.is_empty() && !omits_body {
        stream.send_data(body).await?;
    }
    stream.finish().await
}

/// h3's body, as ingest reads it.
struct QuicBody<S> {
    stream: Stream<S>,
    /// There is no more DATA: trailers may follow, which are read to see that nothing comes after them.
    has_ended: bool,
    /// It failed: h3 panics if it is read on.
    is_broken: bool,
}

impl<S: h3::quic::RecvStream> QuicBody<S> {
    /// Wants no more of a request that has been answered, which is no error (RFC 9114 section 4.1).
    fn stop(&mut self) {
        self.stream.stop_sending(Code::H3_NO_ERROR);
    }

    fn poll_data(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        if !self.has_ended {
            if let Some(mut piece) = ready!(self.stream.poll_recv_data(context))? {
                // h3 hands out its own bytes: this takes a reference to them, it does not copy.
                return Poll::Ready(Ok(Some(piece.copy_to_bytes(piece.remaining()))));
            }
            self.has_ended = true;
        }
        ready!(self.stream.poll_recv_trailers(context))?;
        Poll::Ready(Ok(None))
    }
}

impl<S: h3::quic::RecvStream> Body for QuicBody<S> {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        if self.is_broken {
            return Poll::Ready(None);
        }
        let piece = ready!(self.poll_data(context));
        self.is_broken = piece.is_err();
        Poll::Ready(piece.map_err(|_| BrokenBody).transpose())
    }
}
