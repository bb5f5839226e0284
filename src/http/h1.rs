//! HTTP/1.1: one request after another on one connection.
//!
//! Heads are parsed by httparse where they lie; their meaning for the connection is decided in
//! [`head`], strictly. A request is answered before the next one is read, so requests that are sent
//! ahead wait in the stream. Bounds: a connection is idle for the idle time-out at most, a head
//! arrives within the header time-out, an answer is taken within the idle time-out. A connection
//! that ends after an answer is read on for a while, so that the answer arrives. Bytes that come to
//! nothing are bounded ([`Overhead`](super::overhead::Overhead)): a client that goes on although it
//! is refused is cut off.

mod answer;
mod body;
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
use http::{Response, StatusCode};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::time::Instant;

use super::cut::until_cut;
use super::discard::{discard, discard_pieces};
use super::overhead::{is_head_paid, is_rest_paid};
use super::reply::doors::Visit;
use super::{Answer, Busy, Connection, Service, reply};
use crate::ingest::{Admitted, Refusal};
use crate::words::{Disconnect, Protocol};
pub(crate) use answer::Accepted;
use body::{Unread, WireBody};
use head::{Framing, Parsed};
use wire::{Stream, Wire};

/// Serves an h1 connection until it ends. The future has a single copy of its arguments: idle
/// connections are many.
pub fn serve<S>(stream: S, connection: Connection, service: Rc<Service>) -> impl Future<Output = ()>
where
    S: AsyncBufRead + AsyncWrite + Unpin,
{
    let now = connection.idle_since.get();
    let mut wire = Wire::new(stream, now, now + service.idle_timeout);
    let connection = Rc::new(connection);
    async move {
        {
            let served = Served {
                wire: &mut wire,
                connection: &connection,
                service: &service,
            };
            let mut serving = pin!(served.serve_requests());
            until_cut(serving.as_mut(), &connection, &service).await;
        }
        if wire.overhead.is_spent() {
            service.end_flood(&connection);
        }
        service.end(&connection);
    }
}

/// The bytes that may follow an answered request on its connection. Decided in one place,
/// [`Shape::after`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// Another request, from the next byte on.
    Request,
    /// No more are read: the connection closes, as the client asked, or as the next request's start
    /// is unknown.
    End,
}

/// A connection that is being served.
struct Served<'s, S> {
    wire: &'s mut Wire<S>,
    connection: &'s Rc<Connection>,
    service: &'s Service,
}

impl<'s, S: Stream> Served<'s, S> {
    /// Answers requests until none is wanted any more, and closes the connection. One whose client
    /// takes no answer is let go.
    async fn serve_requests(mut self) {
        // A request stays in its place: it is large.
        let mut place = None;
        loop {
            self.next_request(&mut place).await;
            let Some(request) = &mut place else { break };
            let mut unread = Unread::from(request.shape.framing);
            let taken = self.take(request, &mut unread).await;
            let answer = taken.map(|taken| self.answer(request, taken, &unread));
            // It is answered: a gateway that drains does not wait for the client to take the answer.
            place = None;
            match self.send(answer, unread).await {
                Ok(After::Request) if !self.service.is_over(self.connection) => {}
                Ok(After::Request) => break,
                Ok(After::End) => {
                    self.note_end();
                    return self.leave_unread().await;
                }
                Err(_) => return self.connection.note_end(Disconnect::Lost),
            }
        }
        self.note_end();
        self.wire.shutdown().await;
    }

    /// Notes whether the client is there still, when nothing more is read.
    fn note_end(&self) {
        if self.wire.is_lost {
            self.connection.note_end(Disconnect::Lost);
        }
    }

    /// Waits for a request and puts it into its place; leaves it empty when the client has gone, time
    /// is out, or no request is wanted any more.
    async fn next_request(&mut self, place: &mut Option<Request<'s>>) {
        debug_assert!(place.is_none(), "one request after another");
        let mut has_begun = false;
        poll_fn(|context| self.poll_request(place, &mut has_begun, context)).await;
    }

    /// Is ready with a request in its place, or with none.
    #[inline]
    fn poll_request(
        &mut self,
        place: &mut Option<Request<'s>>,
        has_begun: &mut bool,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let (connection, service) = (self.connection, self.service);
        let begin = |bytes: &[u8], found| {
            *place = Some(Request::begin(bytes, found, connection, service));
        };
        if self.wire.poll_head(context, begin).is_ready() {
            return Poll::Ready(());
        }
        if self.wire.has_gathered() {
            if !std::mem::replace(has_begun, true) {
                self.wire
                    .set_deadline(Instant::now() + service.header_timeout);
            }
        } else if service.is_over(connection) {
            match service.lingers(connection) {
                Some(until) => self.wire.set_deadline(until),
                None => return Poll::Ready(()),
            }
        }
        ready!(self.wire.poll_passed(context));
        connection.note_end(match self.wire.has_gathered() {
            true => Disconnect::Lost,
            false => Disconnect::Idle,
        });
        Poll::Ready(())
    }

    /// Takes in an admitted request, and asks for its body if the client waits to be asked.
    async fn take(
        &mut self,
        request: &mut Request<'_>,
        unread: &mut Unread,
    ) -> io::Result<Result<(), Refusal>> {
        let admitted = match &mut request.admitted {
            Ok(admitted) => admitted,
            Err(refusal) => return Ok(Err(refusal.clone())),
        };
        if request.shape.expects_continue {
            self.wire.send(answer::CONTINUE).await?;
        }
        let body = WireBody {
            wire: self.wire,
            unread,
            is_paid: true,
        };
        Ok(self.service.ingest.take(admitted, body).await)
    }

    /// Makes the answer to a request with this verdict. The client has the idle time-out to take it.
    #[inline]
    fn answer(
        &mut self,
        request: &Request<'_>,
        taken: Result<(), Refusal>,
        unread: &Unread,
    ) -> Written {
        let (connection, service) = (self.connection, self.service);
        let Request { busy, shape, .. } = request;
        let taken = busy.visit.verdict(taken);
        let is_refused = taken.is_err();
        let after = shape.after(unread, taken.as_ref().err());
        let answer = service.conclude(busy, taken);
        let status = answer.status();
        if is_head_paid(status) {
            self.wire.overhead.pay_back(shape.head_bytes);
        }
        let closes = after == After::End || service.is_over(connection);
        let bytes = encode(service, answer, busy, closes, shape.is_head);
        let deadline = connection.idle_since.get() + service.idle_timeout;
        self.wire.set_deadline(deadline);
        Written {
            bytes,
            status,
            is_refused,
            after,
        }
    }

    /// Sends an answer. The rest of a refused body is read on if another request may follow.
    async fn send(&mut self, answer: io::Result<Written>, unread: Unread) -> io::Result<After> {
        let answer = answer?;
        self.wire.send(&answer.bytes).await?;
        if answer.is_refused && answer.after == After::Request {
            return Ok(self.pass_over(unread, is_rest_paid(answer.status)).await);
        }
        Ok(answer.after)
    }

    /// Reads the rest of a refused body, up to the next request, if there may be one.
    async fn pass_over(&mut self, mut unread: Unread, is_paid: bool) -> After {
        discard(WireBody {
            wire: self.wire,
            unread: &mut unread,
            is_paid,
        })
        .await;
        if unread.is_ended() && !unread.is_odd() {
            After::Request
        } else {
            After::End
        }
    }

    /// Closes the connection while more may be under way than has been read: that is read on, as
    /// the connection would be reset if it were closed with bytes unread, and the last answer lost
    /// on its way.
    async fn leave_unread(self) {
        self.wire.shutdown().await;
        discard_pieces(|context| {
            let Some(bytes) = ready!(self.wire.poll_bytes(context)) else {
                return Poll::Ready(None);
            };
            let count = bytes.len();
            self.wire.consume(count);
            Poll::Ready(Some(count))
        })
        .await;
    }
}

/// An answer as it is sent, and its consequences for the connection.
struct Written {
    bytes: Bytes,
    status: StatusCode,
    is_refused: bool,
    after: After,
}

/// A request whose head has been read.
struct Request<'c> {
    busy: Busy,
    shape: Shape,
    admitted: Result<Admitted<'c>, Refusal>,
}

impl<'c> Request<'c> {
    /// Reads and judges a head, if one was `found` in these bytes.
    fn begin(
        bytes: &[u8],
        found: Result<(), Refusal>,
        connection: &'c Rc<Connection>,
        service: &'c Service,
    ) -> Self {
        let mut busy = connection.begin();
        debug_assert_eq!(connection.requests.get(), 1, "the last one is answered");
        let keeps_properties = service.ingest.keeps_properties();
        match found.and_then(|()| head::parse(bytes, keeps_properties)) {
            Ok(parsed) => Self {
                shape: Shape::of(&parsed, bytes.len()),
                admitted: service.admit(connection, &parsed.head, &mut busy),
                busy,
            },
            Err(refusal) => {
                let door = service.ingest.door_of(head::path_of(bytes));
                busy.visit = Visit::through(door);
                Self::unread(busy, refusal)
            }
        }
    }

    /// Begins a request whose head cannot be read.
    fn unread(busy: Busy, refusal: Refusal) -> Self {
        debug_assert!(
            reply::leaves_h1_unframed(&refusal),
            "nobody knows where the next request begins"
        );
        Self {
            busy,
            shape: Shape::UNREAD,
            admitted: Err(refusal),
        }
    }
}

/// The meaning of a head for its connection.
struct Shape {
    /// Bytes of the head; 0 if it cannot be read.
    head_bytes: usize,
    framing: Framing,
    /// Whether another request may follow, by the head.
    keeps_alive: bool,
    expects_continue: bool,
    /// Its answer has no body, whatever it says.
    is_head: bool,
}

impl Shape {
    const UNREAD: Self = Self {
        head_bytes: 0,
        framing: Framing::Length(0),
        keeps_alive: false,
        expects_continue: false,
        is_head: false,
    };

    fn of(parsed: &Parsed<'_>, head_bytes: usize) -> Self {
        Self {
            head_bytes,
            framing: parsed.framing,
            keeps_alive: parsed.keeps_alive,
            expects_continue: parsed.expects_continue,
            is_head: parsed.head.method == "HEAD",
        }
    }

    /// Returns the bytes that may follow the request, of whose body this is unread.
    #[inline]
    fn after(&self, unread: &Unread, refusal: Option<&Refusal>) -> After {
        // A client that was not told to go on may send its body or another request: the two cannot
        // be told apart.
        let ends = |refusal| {
            self.expects_continue
                || reply::ends_connection(refusal)
                || reply::leaves_h1_unframed(refusal)
        };
        if !self.keeps_alive || unread.is_odd() || refusal.is_some_and(ends) {
            After::End
        } else {
            After::Request
        }
    }
}

/// Returns the bytes of an answer.
fn encode(service: &Service, answer: Answer, busy: &Busy, closes: bool, omits_body: bool) -> Bytes {
    let at = busy.since.wall;
    if let (Answer::Accepted(expires), false) = (&answer, closes) {
        let plain = || service.response(Protocol::H1, Answer::Accepted(None));
        return service.h1_accepted.bytes(at, expires.as_ref(), plain);
    }
    let mut response = service.response(Protocol::H1, answer);
    if closes {
        say_close(&mut response);
    }
    answer::encode(&response, at, omits_body).into()
}

fn say_close(response: &mut Response<Bytes>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}
