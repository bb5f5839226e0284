//! HTTP/2 by h2.
//!
//! `accept` calls [`serve`] with a connection whose handshake chose h2. One task drives the
//! connection and all of its requests, so that the answers of a batch leave together. The open
//! requests of a connection, its buffers and its overhead are bounded here, with each bound written
//! out, even if the library's default is the same: a default is no promise. A peer that breaks a
//! rule of the protocol gets a GOAWAY from the library; one whose head does not end gets one from
//! here; one that floods the connection with frames is cut off ([`metered`]).

mod heads;
mod metered;
mod vigil;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, server};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use super::cut::until_cut;
use super::discard::discard;
use super::overhead::{BURST_BYTES, is_rest_paid, paid_head_bytes};
use super::reply::go_on;
use super::{Connection, HEAD_BYTES_MAX, Service, fields};
use crate::ingest::{Body, BrokenBody};
use crate::words::Disconnect;
use metered::{Meter, Metered};
use vigil::{Over, Stage, Vigil};

/// Requests that one connection may have open.
const STREAMS_MAX: u32 = 128;

/// Requests of one connection that are being answered, those whose streams the client has reset
/// among them: with so many, none is begun until others end.
const REQUESTS_MAX: usize = 2 * STREAMS_MAX as usize;

const _: () = assert!(
    REQUESTS_MAX > STREAMS_MAX as usize,
    "each stream has its request"
);

/// Bytes that one stream may send before its body is read: most readings fit, and a connection's
/// streams together stay within [`CONNECTION_WINDOW_BYTES`].
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Bytes that one connection may send before its bodies are read.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);
const _: () = assert!(
    BURST_BYTES > CONNECTION_WINDOW_BYTES as i64,
    "bodies that nobody has read yet are no flood"
);

/// Streams that a client has reset before they were begun (rapid reset, CVE-2023-44487); with more
/// waiting, GOAWAY.
const PENDING_RESETS_MAX: usize = 32;

/// Streams that this side had to reset for a fault of the client's (MadeYouReset, CVE-2025-8671);
/// with more, GOAWAY.
const ERROR_RESETS_MAX: usize = 128;

/// Bytes that are buffered of one stream's answers: they are a few hundred.
const SEND_BUFFER_BYTES: usize = 16 * 1024;

/// The largest frame that is taken, in bytes: the least that a server may say (RFC 9113 section
/// 4.2).
const FRAME_BYTES_MAX: u32 = 16 * 1024;

/// The largest list of fields that the library takes in, in bytes: far more than a head may have,
/// so that a head which is too large is answered, and its connection goes on. A list that is too
/// large for the library itself ends the connection.
const HEAD_LIST_BYTES: u32 = 4 * HEAD_BYTES_MAX as u32;

const _: () = assert!(HEAD_LIST_BYTES as usize > HEAD_BYTES_MAX);

/// Bytes that a client may keep in the table of HPACK (RFC 7541 section 4.2).
const HPACK_TABLE_BYTES: u32 = 4096;

/// Serves an h2 connection until it ends.
pub fn serve<T>(stream: T, connection: Connection, service: Rc<Service>) -> impl Future<Output = ()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let connection = Rc::new(connection);
    let meter = Meter::new();
    // Boxed: it is large, and moved into the future that is returned.
    let handshake = Box::pin(builder().handshake(Metered::new(stream, meter.clone())));
    async move {
        let served = Served {
            connection: &connection,
            service: &service,
            meter: &meter,
        };
        let mut serving = pin!(async {
            match timeout(service.idle_timeout, handshake).await {
                Ok(Ok(h2)) => served.serve_requests(Box::new(h2)).await,
                Ok(Err(error)) => served.note_failure(&error),
                Err(_) => connection.note_end(Disconnect::Idle),
            }
        });
        until_cut(serving.as_mut(), &connection, &service).await;
        if meter.overhead.is_spent() {
            service.end_flood(&connection);
        }
        service.end(&connection);
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_LIST_BYTES)
        .header_table_size(HPACK_TABLE_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(Some(ERROR_RESETS_MAX))
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

/// A connection that is being served.
#[derive(Clone, Copy)]
struct Served<'c> {
    connection: &'c Rc<Connection>,
    service: &'c Service,
    meter: &'c Meter,
}

impl Served<'_> {
    /// Drives the connection until it ends, has been idle for too long, or has been drained. It is
    /// boxed: this future would have room for it twice.
    async fn serve_requests<T: AsyncRead + AsyncWrite + Unpin>(
        self,
        mut h2: Box<server::Connection<T, Bytes>>,
    ) {
        let mut requests = FuturesUnordered::new();
        let mut vigil = Vigil::new(self);
        poll_fn(|context| {
            loop {
                let begin = |(request, respond)| self.answer(request, respond);
                let takes_more = vigil.stage != Stage::Leaving;
                let begun = poll_begin(&mut h2, &mut requests, takes_more, begin, context);
                if let Poll::Ready(ended) = begun {
                    self.note_end(ended, !requests.is_empty());
                    return Poll::Ready(());
                }
                if poll_answers(&mut requests, context) {
                    continue;
                }
                // What was answered has gone out by now.
                if let Some(stage) = self.next_stage(vigil.stage, requests.is_empty()) {
                    tell(&mut h2, stage);
                    vigil.stage = stage;
                    continue;
                }
                match ready!(vigil.poll(context)) {
                    Over::Head => {
                        debug_assert!(!vigil.is_ending(), "the end is told once");
                        vigil.stage = Stage::Ending(Instant::now());
                        h2.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                    }
                    Over::Connection => {
                        if vigil.stage == Stage::Open {
                            self.connection.note_end(Disconnect::Idle);
                        }
                        return Poll::Ready(());
                    }
                }
            }
        })
        .await;
    }

    /// Returns the stage that the connection goes on to, if it is time.
    fn next_stage(self, stage: Stage, is_quiet: bool) -> Option<Stage> {
        match stage {
            Stage::Open if self.service.bell.is_draining() => Some(Stage::Draining),
            Stage::Open if self.service.is_over(self.connection) => Some(Stage::Leaving),
            Stage::Leaving if is_quiet => Some(Stage::Ending(Instant::now())),
            _ => None,
        }
    }

    /// Notes how a connection has ended on which requests are in flight still, or none.
    fn note_end(&self, ended: Result<(), h2::Error>, has_requests: bool) {
        if let Err(error) = ended {
            self.note_failure(&error);
        }
        if has_requests {
            self.connection.note_end(Disconnect::Lost);
        }
    }

    /// Notes that a connection broke. One that a client closes without a word of TLS did not.
    fn note_failure(&self, error: &h2::Error) {
        use std::io::ErrorKind::UnexpectedEof;
        if error
            .get_io()
            .is_some_and(|error| error.kind() != UnexpectedEof)
        {
            self.connection.note_end(Disconnect::Lost);
        }
    }

    /// Answers one request; the rest of its body is discarded while the answer is on its way.
    async fn answer(self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let (head, stream) = request.into_parts();
        let mut body = H2Body {
            stream,
            respond,
            meter: self.meter,
            is_to_be_asked_for: fields::waits_to_be_asked(&head.headers),
            is_paid: true,
        };
        let keeps_properties = self.service.ingest.keeps_properties();
        let request = fields::request_head(&head, keeps_properties);
        let path = head.uri.path();
        let answering = self
            .service
            .answer(self.connection, path, &request, &mut body);
        let response = answering.await;
        let status = response.status();
        let paid_bytes = paid_head_bytes(&head, request.is_ok(), status);
        self.meter.overhead.pay_back(paid_bytes);
        send(&mut body.respond, response, head.method == Method::HEAD);
        if !body.stream.is_end_stream() {
            body.is_paid = is_rest_paid(status);
            body.is_to_be_asked_for = false;
            discard(body).await;
        }
    }
}

/// Tells the client of the stage that its connection enters.
fn tell<T: AsyncRead + AsyncWrite + Unpin>(h2: &mut server::Connection<T, Bytes>, stage: Stage) {
    match stage {
        Stage::Draining => h2.graceful_shutdown(),
        Stage::Ending(_) => h2.abrupt_shutdown(Reason::NO_ERROR),
        Stage::Open | Stage::Leaving => {}
    }
}

/// Begins the requests that have come, if the connection takes any and there is room. Ready when it
/// is at its end, with the cause.
fn poll_begin<T: AsyncRead + AsyncWrite + Unpin, F: Future>(
    h2: &mut server::Connection<T, Bytes>,
    requests: &mut FuturesUnordered<F>,
    takes_more: bool,
    begin: impl Fn(Begun) -> F,
    context: &mut Context<'_>,
) -> Poll<Result<(), h2::Error>> {
    loop {
        debug_assert!(requests.len() <= REQUESTS_MAX);
        let has_room = takes_more && requests.len() < REQUESTS_MAX;
        match ready!(poll_accept(h2, has_room, context)) {
            Ok(Some(begun)) => requests.push(begin(begun)),
            Ok(None) => return Poll::Ready(Ok(())),
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// Drives the answers. Returns whether a request has ended.
fn poll_answers<F: Future>(requests: &mut FuturesUnordered<F>, context: &mut Context<'_>) -> bool {
    let mut has_answered = false;
    while let Poll::Ready(Some(_)) = requests.poll_next_unpin(context) {
        has_answered = true;
    }
    has_answered
}

/// A request that has come, and where its answer goes.
type Begun = (Request<RecvStream>, SendResponse<Bytes>);

/// Returns the next request, if there is room for one more; `None` when the connection is at its
/// end. Also sends the frames that are ready.
fn poll_accept<T: AsyncRead + AsyncWrite + Unpin>(
    h2: &mut server::Connection<T, Bytes>,
    has_room: bool,
    context: &mut Context<'_>,
) -> Poll<Result<Option<Begun>, h2::Error>> {
    // An error has been told to the peer, if there still is one.
    if has_room {
        h2.poll_accept(context).map(Option::transpose)
    } else {
        h2.poll_closed(context).map_ok(|()| None)
    }
}

/// Hands the answer to the library. It fails only on a stream that the client has reset.
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

/// The body of a request on h2, as ingest reads it once it has been admitted.
struct H2Body<'m> {
    stream: RecvStream,
    respond: SendResponse<Bytes>,
    meter: &'m Meter,
    /// The client waits for `100 Continue` before it sends the body.
    is_to_be_asked_for: bool,
    /// Whether its bytes are paid for, and no overhead.
    is_paid: bool,
}

impl H2Body<'_> {
    /// Asks for the body if it does not come by itself.
    fn ask(&mut self) {
        if std::mem::take(&mut self.is_to_be_asked_for) {
            // It fails where the client has reset the stream.
            let _ = self.respond.send_informational(go_on());
        }
    }

    /// Counts a piece as read, so that the client may send as much again.
    fn take(&mut self, piece: Bytes) -> Bytes {
        if self.is_paid {
            self.meter.overhead.pay_back(piece.len());
        }
        // It fails where the client has closed the stream.
        let _ = self.stream.flow_control().release_capacity(piece.len());
        piece
    }

    /// Waits for the end. Trailers are not part of a reading, but of its message: it is whole when
    /// they are.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        let is_whole = match ready!(self.stream.poll_trailers(context)) {
            Ok(trailers) => trailers.is_none_or(|fields| fields::check_values(&fields).is_ok()),
            Err(_) => false,
        };
        Poll::Ready((!is_whole).then_some(Err(BrokenBody)))
    }
}

impl Body for H2Body<'_> {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        match self.stream.poll_data(context) {
            Poll::Ready(Some(Ok(piece))) => Poll::Ready(Some(Ok(self.take(piece)))),
            Poll::Ready(Some(Err(_))) => Poll::Ready(Some(Err(BrokenBody))),
            Poll::Ready(None) => self.poll_end(context),
            Poll::Pending => {
                self.ask();
                Poll::Pending
            }
        }
    }
}
