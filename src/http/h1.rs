//! HTTP/1.1: one request after another on one connection.
//!
//! Heads are parsed by httparse where they lie; what a head means for its connection is decided in [`head`], strictly.
//! A request is answered before the next one is read, so requests that are sent ahead wait in the stream. Bounds: a
//! connection is idle for the idle time-out at most, a head arrives within the header time-out, an answer is taken within
//! the idle time-out. A connection that ends after an answer is read on for a while, so that the answer arrives. What comes
//! to nothing is bounded ([`Overhead`](super::overhead::Overhead)): who goes on although it is refused is cut off.

mod answer;
pub(crate) mod chunked;
pub(crate) mod head;
mod wire;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::Instant;

use super::cut::until_cut;
use super::discard::{discard, discard_pieces};
use super::{Answer, Busy, Connection, Service, is_head_paid, is_rest_paid};
use crate::ingest::{Admitted, Body, BrokenBody, Refusal};
use crate::record::Timestamp;
use crate::words::Protocol;
pub use answer::Accepted;
use chunked::Chunked;
use head::Framing;
use wire::Wire;

/// Serves an h1 connection until it ends. What is moved into the future is there once: idle connections are many.
pub fn serve<S>(stream: S, connection: Connection, service: Rc<Service>) -> impl Future<Output = ()>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let now = connection.idle_since.get();
    let mut wire = Wire::new(stream, now, now + service.idle_timeout);
    let connection = Rc::new(connection);
    async move {
        {
            let mut serving = pin!(async {
                if answer_requests(&mut wire, &connection, &service)
                    .await
                    .is_ok()
                {
                    leave(&mut wire, &connection).await;
                }
            });
            until_cut(serving.as_mut(), &connection, &service).await;
        }
        if wire.overhead.is_spent() {
            service.end_flood(&connection);
        }
    }
}

/// Answers requests until none is wanted any more. An error is a client that is gone.
async fn answer_requests<S>(
    wire: &mut Wire<S>,
    connection: &Rc<Connection>,
    service: &Service,
) -> io::Result<()>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    while let Some(request) = next_request(wire, connection, service).await {
        exchange(wire, request, connection, service).await?;
        if service.is_over(connection) {
            break;
        }
    }
    Ok(())
}

/// A request whose head has been read.
struct Request<'c> {
    busy: Busy,
    /// Of its head, as far as that is understood.
    head_bytes: usize,
    admitted: Result<Admitted<'c>, Refusal>,
    framing: Framing,
    expects_continue: bool,
    /// Its answer has no body, whatever it says.
    is_head: bool,
}

impl<'c> Request<'c> {
    /// Reads and judges a head.
    fn begin(bytes: &[u8], connection: &'c Rc<Connection>, service: &Service) -> Self {
        let mut busy = connection.begin();
        match head::parse(bytes) {
            Ok(parsed) => {
                service.note_trace(&mut busy, &parsed.head);
                if !parsed.keeps_alive {
                    connection.close();
                }
                let admitted = service.admit(connection, &parsed.head, busy.since);
                let is_head = parsed.head.method == "HEAD";
                let (framing, expects_continue) = (parsed.framing, parsed.expects_continue);
                Self {
                    busy,
                    head_bytes: bytes.len(),
                    admitted,
                    framing,
                    expects_continue,
                    is_head,
                }
            }
            Err(refusal) => Self::unread(busy, refusal),
        }
    }

    /// A head that cannot be read.
    fn unread(busy: Busy, refusal: Refusal) -> Self {
        Self {
            busy,
            head_bytes: 0,
            admitted: Err(refusal),
            framing: Framing::Length(0),
            expects_continue: false,
            is_head: false,
        }
    }
}

/// Waits for a request; `None` when the client has gone, time is out, or no request is wanted any more.
async fn next_request<'c, S>(
    wire: &mut Wire<S>,
    connection: &'c Rc<Connection>,
    service: &Service,
) -> Option<Request<'c>>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let mut has_begun = false;
    poll_fn(|context| {
        if let Poll::Ready(head) =
            wire.poll_head(context, |bytes| Request::begin(bytes, connection, service))
        {
            return Poll::Ready(head.map(|head| {
                head.unwrap_or_else(|fault| Request::unread(connection.begin(), fault))
            }));
        }
        if !wire.has_gathered() && service.is_over(connection) {
            match service.lingers(connection) {
                Some(until) => wire.set_deadline(until),
                None => return Poll::Ready(None),
            }
        }
        if wire.has_gathered() && !std::mem::replace(&mut has_begun, true) {
            wire.set_deadline(Instant::now() + service.header_timeout);
        }
        wire.poll_passed(context).map(|()| None)
    })
    .await
}

/// Takes the request in and answers it. What is left of a refused body is read on.
async fn exchange<S>(
    wire: &mut Wire<S>,
    request: Request<'_>,
    connection: &Connection,
    service: &Service,
) -> io::Result<()>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let Request {
        busy,
        head_bytes,
        admitted,
        framing,
        expects_continue,
        is_head,
    } = request;
    let mut body = WireBody {
        wire,
        unread: framing.into(),
        is_paid: true,
    };
    let taken = take(&mut body, admitted, expects_continue, service).await?;
    let is_refused = taken.is_err();
    // A client that was not told to go on may send its body or another request: nobody can tell which.
    if body.unread.is_odd() || (is_refused && expects_continue) {
        connection.close();
    }
    let answer = service.conclude(&busy, taken);
    let status = answer.status();
    if is_head_paid(status) {
        body.wire.overhead.pay_back(head_bytes);
    }
    let closes = service.is_over(connection);
    let bytes = encode(service, answer, busy.since.wall, closes, is_head);
    // It is answered: whether the client takes the answer is not waited for when the gateway drains.
    drop(busy);
    body.wire
        .set_deadline(connection.idle_since.get() + service.idle_timeout);
    body.wire.send(&bytes).await?;
    if is_refused && !connection.is_closing() {
        body.is_paid = is_rest_paid(status);
        body.pass_over(connection).await;
    }
    Ok(())
}

/// Takes in what has been admitted, asking for its body where the client waits to be asked.
async fn take<S>(
    body: &mut WireBody<'_, S>,
    admitted: Result<Admitted<'_>, Refusal>,
    expects_continue: bool,
    service: &Service,
) -> io::Result<Result<(), Refusal>>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let admitted = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if expects_continue {
        body.wire.send(answer::CONTINUE).await?;
    }
    Ok(service.ingest.take(admitted, body).await)
}

fn encode(
    service: &Service,
    answer: Answer,
    at: Timestamp,
    closes: bool,
    omits_body: bool,
) -> Bytes {
    if let (Answer::Accepted(expires), false) = (&answer, closes) {
        let plain = || service.response(Protocol::H1, Answer::Accepted(None));
        return service.h1_accepted.bytes(at, expires.as_ref(), plain);
    }
    let mut response = service.response(Protocol::H1, answer);
    if closes {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer::encode(&response, at, omits_body).into()
}

/// Closes the connection. Where more may be under way than has been read, it is read on: closed with bytes unread, the
/// connection would be reset, and the last answer lost on its way.
async fn leave<S: AsyncBufRead + AsyncWrite + Unpin>(wire: &mut Wire<S>, connection: &Connection) {
    wire.shutdown().await;
    if connection.is_closing() {
        discard_pieces(|context| {
            let count = ready!(wire.poll_bytes(context)).map_or(0, <[u8]>::len);
            wire.consume(count);
            Poll::Ready((count > 0).then_some(count))
        })
        .await;
    }
}

/// What is still to come of a body.
enum Unread {
    Length(u64),
    Chunked(Chunked),
}

impl From<Framing> for Unread {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::Length(bytes) => Self::Length(bytes),
            Framing::Chunked => Self::Chunked(Chunked::default()),
        }
    }
}

/// A body in the stream, as ingest reads it.
struct WireBody<'w, S> {
    wire: &'w mut Wire<S>,
    unread: Unread,
    /// What is read of it is no overhead.
    is_paid: bool,
}

impl<S: AsyncBufRead + AsyncWrite + Unpin> WireBody<'_, S> {
    /// Reads up to the next request, if there may be one.
    async fn pass_over(&mut self, connection: &Connection) {
        discard(&mut *self).await;
        if !self.unread.is_ended() || self.unread.is_odd() {
            connection.close();
        }
    }
}

impl<S: AsyncBufRead + AsyncWrite + Unpin> Body for WireBody<'_, S> {
    const OWNS_PIECES: bool = true;

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        while !self.unread.is_ended() {
            let bytes = match ready!(self.wire.poll_bytes(context)) {
                Ok(bytes) if !bytes.is_empty() => bytes,
                _ => return Poll::Ready(Some(Err(BrokenBody))),
            };
            let Ok((consumed, data)) = self.unread.read(bytes) else {
                return Poll::Ready(Some(Err(BrokenBody)));
            };
            let piece = Bytes::copy_from_slice(data);
            self.wire.consume(consumed);
            if self.is_paid {
                self.wire.overhead.pay_back(consumed);
            }
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(piece)));
            }
        }
        Poll::Ready(None)
    }
}

impl Unread {
    fn is_ended(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.is_ended(),
        }
    }

    /// There was more in it than data: nobody may be sure that another reader finds its end where this one does.
    fn is_odd(&self) -> bool {
        matches!(self, Self::Chunked(chunked) if chunked.is_odd())
    }

    /// How many of the bytes are the body's, and the data in them.
    fn read<'b>(&mut self, bytes: &'b [u8]) -> Result<(usize, &'b [u8]), BrokenBody> {
        match self {
            Self::Length(left) => {
                let count =
                    usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= count as u64;
                Ok((count, &bytes[..count]))
            }
            Self::Chunked(chunked) => {
                let step = chunked.decode(bytes).map_err(|_| BrokenBody)?;
                Ok((step.consumed_bytes, &bytes[step.data]))
            }
        }
    }
}
