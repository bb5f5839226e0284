//! HTTP/3 by h3 over quinn.
//!
//! `accept` hands over each connection, and [`serve`] owns it to its end, with all of its requests
//! in one task, and GOAWAY before it. h3 reads and writes by the adapter in `quic`, which keeps
//! from it all frames that no client has reason to send (`frames`, `fields`, `instructions`);
//! errors are those of RFC 9114 section 8.1. A request has the bounds of every protocol, bytes
//! beside requests have those of `link`, and a connection has no more than [`UNANSWERED_MAX`]
//! requests that come to nothing: their streams cost no token of a limit. When the gateway drains,
//! streams that are not in flight have [`leave::GRACE`] to end.

mod body;
mod fault;
pub(crate) mod fields;
pub(crate) mod frames;
pub(crate) mod instructions;
mod leave;
mod link;
mod quic;
pub(crate) mod room;
mod wire;

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use h3::error::{Code, StreamError};
use h3::server::{RequestResolver, RequestStream};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tokio::time::timeout;

use super::cut::until_cut;
use super::discard::discard;
use super::fields::{request_head, waits_to_be_asked};
use super::overhead::{is_rest_paid, paid_head_bytes};
use super::reply::{go_on, problem};
use super::{Connection, HEAD_BYTES_MAX, Service};
use crate::ingest::{Field, Refusal, RequestHead, length};
use crate::words::{Disconnect, Protocol};
use body::{QuicBody, Reading};
use leave::Leave;
use link::Link;
use room::{Room, STREAMS_MAX};

type H3 = h3::server::Connection<quic::Connection, Bytes>;
type Resolver = RequestResolver<quic::Connection, Bytes>;
type Whole = RequestStream<quic::BidiStream, Bytes>;
type Sending = RequestStream<quic::SendStream, Bytes>;

/// Requests of a connection that ended without an answer, less those that were answered: a device
/// may well give up all of its open ones, but not again and again.
const UNANSWERED_MAX: u32 = 2 * STREAMS_MAX;

/// The last answers get this long to arrive before their connection is closed, beside three round
/// trips.
const LAST_ANSWER_GRACE: Duration = Duration::from_millis(100);

/// The most that the last answers get: a connection that was busy, or never quiet, knows its round
/// trip badly.
const LAST_ANSWER_MAX: Duration = Duration::from_millis(400);

const _: () = assert!(LAST_ANSWER_GRACE.as_millis() < LAST_ANSWER_MAX.as_millis());

/// Serves an h3 connection until it ends.
pub fn serve(
    quic: quinn::Connection,
    connection: Connection,
    service: Rc<Service>,
) -> impl Future<Output = ()> {
    // Not in the future, which would have room for them twice.
    let (link, connection) = (Link::new(quic), Rc::new(connection));
    serve_shared(link, connection, service)
}

async fn serve_shared(link: Rc<Link>, connection: Rc<Connection>, service: Rc<Service>) {
    let served = Served {
        link,
        leave: Rc::default(),
        connection,
        service: &service,
    };
    let mut serving = pin!(served.serve_requests());
    until_cut(serving.as_mut(), &served.connection, &service).await;
    if let Some(end) = served.link.end() {
        served.connection.note_end(end);
    }
    served.link.close(Code::H3_NO_ERROR);
    if served.link.is_flood() {
        service.end_flood(&served.connection);
    }
    service.end(&served.connection);
}

/// A connection that is being served.
struct Served<'s> {
    link: Rc<Link>,
    leave: Rc<Leave>,
    connection: Rc<Connection>,
    service: &'s Service,
}

const _: () = assert!(
    UNANSWERED_MAX >= STREAMS_MAX,
    "a device may give up all that it has open"
);

/// Counts the requests of a connection that end without an answer, less those that are answered.
#[derive(Default)]
struct Unanswered(u32);

impl Unanswered {
    /// Counts a request that has ended; whether there are still no more unanswered ones than there
    /// may be.
    fn note(&mut self, is_answered: bool) -> bool {
        self.0 = if is_answered {
            self.0.saturating_sub(1)
        } else {
            self.0 + 1
        };
        self.0 <= UNANSWERED_MAX
    }
}

impl Served<'_> {
    async fn serve_requests(&self) {
        let Some(mut h3) = self.begin().await else {
            return;
        };
        // Each in a box: room for one is kept from the start.
        let mut requests = FuturesUnordered::new();
        let mut unanswered = Unanswered::default();
        let mut room = Room::new(self.link.quic());
        while !(self.leave.has_begun() && requests.is_empty()) {
            tokio::select! {
                accepted = h3.accept() => match accepted {
                    Ok(Some(resolver)) => {
                        requests.push(Box::pin(self.answer(resolver)));
                        room.note_open(requests.len());
                    }
                    Ok(None) | Err(_) => {
                        self.note_left_behind(!requests.is_empty());
                        break;
                    }
                },
                Some(is_answered) = requests.next() => {
                    if !unanswered.note(is_answered) {
                        return self.link.end_flood();
                    }
                    room.note_ended();
                }
                () = self.over(), if !self.leave.has_begun() => {
                    if !self.begin_to_leave(&mut h3).await {
                        break;
                    }
                }
            }
        }
        while requests.next().await.is_some() {}
        if self.leave.has_begun() {
            self.wait_for_last_answers().await;
        }
        self.link.close(Code::H3_NO_ERROR);
    }

    /// Notes that the client has gone and left requests behind that are in flight.
    fn note_left_behind(&self, has_requests: bool) {
        if has_requests && !self.leave.has_begun() {
            self.connection.note_end(Disconnect::Lost);
        }
    }

    /// Tells the client to go. Returns whether the requests that it has begun can still be
    /// answered. A connection that closes for a fault needs no words for it: its answers tell.
    async fn begin_to_leave(&self, h3: &mut H3) -> bool {
        debug_assert!(!self.leave.has_begun(), "a client is told once");
        self.leave.begin();
        if self.connection.is_closing() {
            return true;
        }
        // GOAWAY names the first request that is rejected (RFC 9114 section 5.2); h3 counts from
        // the last accepted.
        let told = self.leave.bound(h3.shutdown(1)).await;
        matches!(told, Some(Ok(())))
    }

    /// Opens this side's streams, for which the client may have left no room.
    async fn begin(&self) -> Option<H3> {
        let mut builder = h3::server::builder();
        builder
            .max_field_section_size(HEAD_BYTES_MAX as u64)
            .send_grease(false);
        let adapted = quic::Connection::new(self.link.clone(), self.leave.clone());
        // Boxed, so that the memory of the beginning is given back.
        let building = Box::pin(builder.build(adapted));
        tokio::select! {
            biased;
            built = timeout(self.service.header_timeout, building) => built.ok()?.ok(),
            () = self.over() => None,
        }
    }

    /// Waits until the client, which has been told to leave and has its answers, closes the
    /// connection.
    async fn wait_for_last_answers(&self) {
        let quic = self.link.quic();
        let grace = (3 * quic.rtt() + LAST_ANSWER_GRACE).min(LAST_ANSWER_MAX);
        let _ = timeout(grace, quic.closed()).await;
    }

    /// Returns when no further request is wanted. Looks whenever the connection's task is polled,
    /// which the end of each request and the bell see to.
    async fn over(&self) {
        poll_fn(|_| {
            if self.service.is_over(&self.connection) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Waits for the head of a request and answers it; whether there was an answer that the client
    /// took.
    async fn answer(&self, resolver: Resolver) -> bool {
        let resolving = timeout(self.service.header_timeout, resolver.resolve_request());
        let Some(Ok(resolved)) = self.leave.bound(resolving).await else {
            return false;
        };
        match resolved {
            Ok((request, stream)) if fields::is_proper(&request) => {
                self.exchange(request, stream).await
            }
            Ok((_, stream)) => {
                reject(stream);
                false
            }
            Err(StreamError::HeaderTooBig { .. }) => {
                self.count_answer_of_h3();
                true
            }
            Err(_) => false,
        }
    }

    /// Counts an answer of h3, which answers a head that is too large by itself.
    fn count_answer_of_h3(&self) {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16();
        let metrics = &self.service.metrics;
        metrics.request(Protocol::H3, status, Duration::ZERO);
        metrics.refusal(problem(&Refusal::HeadTooLarge).code);
        self.connection.count_answer(false);
    }

    /// Takes a request in whose head has come, and answers it.
    async fn exchange(&self, request: Request<()>, stream: Whole) -> bool {
        let (head, ()) = request.into_parts();
        let request = request_head(&head, self.service.ingest.keeps_properties());
        let (mut send, receive) = stream.split();
        let mut body = QuicBody::new(receive, declared_bytes(request.as_ref().ok()));
        let mut reading = Reading {
            body: &mut body,
            link: &self.link,
            asking: waits_to_be_asked(&head.headers).then(|| ask(&mut send).boxed_local()),
        };
        let response = self.take(&head, &request, &mut reading).await;
        let is_still_waiting = reading.asking.is_some();
        drop(reading);
        let status = response.status();
        let omits_body = head.method == Method::HEAD;
        if !self.respond(&mut send, response, omits_body).await {
            return false;
        }
        if !status.is_success() && !is_still_waiting {
            self.leave.bound(self.discard(&mut body, status)).await;
        }
        body.stop();
        true
    }

    /// Returns the service's answer; pays back the cost of the head.
    async fn take(
        &self,
        head: &Parts,
        request: &Result<RequestHead<'_>, Refusal>,
        body: &mut Reading<'_>,
    ) -> Response<Bytes> {
        let path = head.uri.path();
        let answering = self.service.answer(&self.connection, path, request, body);
        let response = answering.await;
        let paid_bytes = paid_head_bytes(head, request.is_ok(), response.status());
        self.link.pay_back(paid_bytes);
        response
    }

    /// Sends the answer, whole. A client that does not take it is bounded by the connection's idle
    /// time-out.
    async fn respond(
        &self,
        stream: &mut Sending,
        response: Response<Bytes>,
        omits_body: bool,
    ) -> bool {
        let sending = timeout(
            self.service.idle_timeout,
            send(stream, response, omits_body),
        );
        matches!(self.leave.bound(sending).await, Some(Ok(Ok(()))))
    }

    /// Discards the rest of a refused body, as overhead unless the refusal is the gateway's own
    /// matter.
    async fn discard(&self, body: &mut QuicBody, status: StatusCode) {
        if is_rest_paid(status) {
            let link = &self.link;
            let asking = None;
            discard(Reading { body, link, asking }).await;
        } else {
            discard(body).await;
        }
    }
}

/// Ends a request that is malformed, and of which nothing is read.
fn reject(mut stream: Whole) {
    stream.stop_stream(Code::H3_MESSAGE_ERROR);
    stream.stop_sending(Code::H3_MESSAGE_ERROR);
}

/// Returns the value of the one `Content-Length`. Any other is refused with the head.
fn declared_bytes(head: Option<&RequestHead<'_>>) -> Option<u64> {
    match head?.content_length() {
        Field::Once(digits) => length(digits).ok(),
        Field::Absent | Field::Repeated(_) => None,
    }
}

/// Asks the client for its body.
async fn ask(stream: &mut Sending) {
    // A client that cannot be asked cannot be answered either, which the answer finds.
    let _ = stream.send_response(go_on()).await;
}

async fn send(
    stream: &mut Sending,
    response: Response<Bytes>,
    omits_body: bool,
) -> Result<(), StreamError> {
    let (head, body) = response.into_parts();
    stream.send_response(Response::from_parts(head, ())).await?;
    if !body.is_empty() && !omits_body {
        stream.send_data(body).await?;
    }
    stream.finish().await
}
