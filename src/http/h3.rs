//! HTTP/3 by h3 over quinn.

mod quic;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::{Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::cut::until_cut;
use super::discard::discard;
use super::{Connection, HEAD_BYTES_MAX, Service, request_head};
use crate::ingest::{Body, BrokenBody};
use crate::telemetry::metrics::Protocol;

type Resolver = RequestResolver<quic::Connection, Bytes>;
type Stream<S> = RequestStream<S, Bytes>;

/// RFC 9114 section 8.1: H3_NO_ERROR.
const NO_ERROR: quinn::VarInt = quinn::VarInt::from_u32(0x100);

/// The last answers get this long to arrive before their connection is closed, beside three round trips.
const LAST_ANSWER_GRACE: Duration = Duration::from_millis(100);

/// Serves an h3 connection until it ends.
pub async fn serve(quic: quinn::Connection, connection: Connection, service: Rc<Service>) {
    let connection = Rc::new(connection);
    let mut serving = pin!(serve_requests(&quic, &connection, &service));
    until_cut(serving.as_mut(), &connection, &service).await;
    close(&quic);
}

async fn serve_requests(quic: &quinn::Connection, connection: &Rc<Connection>, service: &Rc<Service>) {
    let mut builder = h3::server::builder();
    builder.max_field_section_size(HEAD_BYTES_MAX as u64).send_grease(false);
    let Ok(mut h3) = builder.build(quic::Connection::new(quic.clone())).await else { return };
    let mut requests = JoinSet::new();
    let mut is_closing = false;
    while !(is_closing && requests.is_empty()) {
        tokio::select! {
            accepted = h3.accept() => match accepted {
                Ok(Some(resolver)) => drop(requests.spawn_local(answer(resolver, connection.clone(), service.clone()))),
                Ok(None) | Err(_) => break,
            },
            Some(_) = requests.join_next() => {}
            () = over(connection, service), if !is_closing => {
                is_closing = true;
                if !connection.closing.get() && h3.shutdown(0).await.is_err() { break }
            }
        }
    }
    while requests.join_next().await.is_some() {}
    if is_closing {
        let _ = timeout(3 * quic.rtt() + LAST_ANSWER_GRACE, quic.closed()).await;
    }
    close(quic);
}

/// To be called while h3 has the connection: when it lets go, it gives a reason of its own.
fn close(quic: &quinn::Connection) {
    quic.close(NO_ERROR, b"");
}

/// Returns when no further request is wanted. Looks whenever the connection's task is polled, which the end of each
/// request and the bell see to.
async fn over(connection: &Connection, service: &Service) {
    poll_fn(|_| if service.is_over(connection) { Poll::Ready(()) } else { Poll::Pending }).await;
}

async fn answer(resolver: Resolver, connection: Rc<Connection>, service: Rc<Service>) {
    let resolved = timeout(service.header_timeout, resolver.resolve_request()).await;
    let (request, stream) = match resolved {
        Ok(Ok(request)) => request,
        Ok(Err(StreamError::HeaderTooBig { .. })) => {
            // h3 has answered by itself.
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16();
            return service.metrics.request(Protocol::H3, status, Duration::ZERO);
        }
        Ok(Err(_)) | Err(_) => return,
    };
    let (head, ()) = request.into_parts();
    let (mut send, receive) = stream.split();
    let mut body = QuicBody { stream: receive };
    let response = service.answer(&connection, &request_head(&head), &mut body).await;
    let is_refused = response.status() != StatusCode::NO_CONTENT;
    // A client that does not take its answer is bounded by the connection's idle time-out.
    let Ok(Ok(())) = timeout(service.idle_timeout, respond(&mut send, response)).await else { return };
    if is_refused {
        discard(&mut body).await;
    }
    body.stop();
}

async fn respond<S>(stream: &mut Stream<S>, response: Response<Bytes>) -> Result<(), StreamError>
where
    S: h3::quic::SendStream<Bytes>,
{
    let (head, body) = response.into_parts();
    stream.send_response(Response::from_parts(head, ())).await?;
    if !body.is_empty() {
        stream.send_data(body).await?;
    }
    stream.finish().await
}

/// h3's body, as ingest reads it.
struct QuicBody<S> {
    stream: Stream<S>,
}

impl<S: h3::quic::RecvStream> QuicBody<S> {
    /// Wants no more of a request that has been answered, which is no error (RFC 9114 section 4.1).
    fn stop(&mut self) {
        self.stream.stop_sending(Code::H3_NO_ERROR);
    }
}

impl<S: h3::quic::RecvStream> Body for QuicBody<S> {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        // h3 hands out its own bytes: this takes a reference to them, it does not copy.
        let piece = ready!(self.stream.poll_recv_data(context)).transpose();
        Poll::Ready(
            piece.map(|piece| piece.map(|mut piece| piece.copy_to_bytes(piece.remaining())).map_err(|_| BrokenBody)),
        )
    }
}
