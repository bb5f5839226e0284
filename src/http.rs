//! HTTP: thin adapters of three protocols over one service.
//!
//! `accept` hands over a connection that has finished its handshake, with who is at its other end.
//! ALPN has said whether it is h1, which is parsed here with httparse, or h2, which the crate of
//! that name serves; h3 is served by h3 over quinn. Each adapter turns a request into a head and a
//! body for [`Service`], and ends its connection when the service or the gateway says so.

mod attend;
pub(crate) mod bell;
mod cut;
mod date;
mod deadline;
mod discard;
mod fields;
pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod h3;
mod overhead;
mod standing;

pub(crate) mod reply;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALT_SVC, DATE, HeaderValue};
use http::{Response, StatusCode};
use tokio::time::Instant;

use crate::config::HttpConfig;
use crate::events::{Presence, Reporter};
use crate::ingest::doors::Door;
use crate::ingest::{Admitted, Body, Caller, Ingest, Moment, Refusal, RequestHead};
use crate::record::{HEADERS_BYTES_MAX, TraceParent};
use crate::telemetry::access::{AccessLog, Exchange};
use crate::telemetry::audit::Audit;
use crate::telemetry::expiring::Expiring;
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::observers::WorkerObservers;
use crate::telemetry::spans::Spans;
use crate::telemetry::top::{Tally, Top};
use crate::words::{Disconnect, Protocol};
use bell::Bell;
use date::Date;
use reply::doors::Visit;
pub(crate) use reply::openapi;

/// Largest head of a request, in bytes, names, values and framing together.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Header fields in one request.
pub(crate) const HEADER_FIELDS_MAX: usize = 64;

const _: () = assert!(
    HEAD_BYTES_MAX + 2 * HEADER_FIELDS_MAX <= HEADERS_BYTES_MAX,
    "what a door passes on of a head, values of one name joined, is what a record may have"
);
const _: () = assert!(
    HEADER_FIELDS_MAX < u8::MAX as usize,
    "the spool counts them in a byte"
);

/// Time that an h1 connection waits for one more request after its last answer, when the gateway
/// drains.
const NEXT_REQUEST_GRACE: Duration = Duration::from_secs(1);

/// Serves the connections of one worker.
pub struct Service {
    pub ingest: Ingest,
    pub(crate) metrics: Arc<WorkerMetrics>,
    pub(crate) audit: Audit,
    access: AccessLog,
    spans: Spans,
    top: Top,
    expiring: Expiring,
    /// Tells TCP clients of h3, when it is served.
    alt_svc: Option<HeaderValue>,
    header_timeout: Duration,
    idle_timeout: Duration,
    bell: Rc<Bell>,
    date: Date,
    /// The answer that most h1 requests get.
    h1_accepted: h1::Accepted,
    /// Tells of connections, where anything does.
    pub(crate) reporter: Option<Rc<Reporter>>,
}

/// Fate of a connection once nothing is in flight on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    GoesOn,
    /// It closes: its certificate is at fault, or it has no buckets.
    Closes,
}

/// A connection: who calls, and how many requests are in flight. Counted as open while it lives.
pub struct Connection {
    protocol: Protocol,
    metrics: Arc<WorkerMetrics>,
    caller: Caller,
    tally: Tally,
    requests: Cell<u32>,
    idle_since: Cell<Instant>,
    fate: Cell<Fate>,
    /// A request has begun, and may have been answered.
    has_asked: Cell<bool>,
    /// The device has been told that its certificate expires.
    is_noticed: Cell<bool>,
    /// The reporter of the device's fleet events, if they are on.
    presence: Option<Presence>,
    /// Cause of its end, once one is known.
    end: Cell<Option<Disconnect>>,
}

impl Connection {
    pub fn new(protocol: Protocol, caller: Caller, service: &Service) -> Self {
        service.metrics.connection_opened(protocol);
        let known = caller.device.as_ref().ok();
        let device = known.map(|known| known.device.id.clone());
        service.note_certificate(&caller);
        Self {
            protocol,
            metrics: service.metrics.clone(),
            tally: Tally::new(service.top.clone(), device),
            caller,
            requests: Cell::default(),
            idle_since: Cell::new(Instant::now()),
            fate: Cell::default(),
            has_asked: Cell::default(),
            is_noticed: Cell::default(),
            presence: None,
            end: Cell::default(),
        }
    }

    /// Begins a request, which is in flight from now on.
    fn begin(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        self.has_asked.set(true);
        Busy {
            connection: self.clone(),
            since: Moment::now(),
            trace: None,
            visit: Visit::default(),
        }
    }

    /// Wants no further request.
    fn close(&self) {
        self.fate.set(Fate::Closes);
    }

    fn is_closing(&self) -> bool {
        self.fate.get() == Fate::Closes
    }

    /// Returns the instant since which nothing is in flight; `now` while a request is, so that the
    /// idle time-out never cuts one.
    fn idle_since(&self) -> Instant {
        if self.requests.get() > 0 {
            Instant::now()
        } else {
            self.idle_since.get()
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        debug_assert_eq!(self.requests.get(), 0, "each of them holds its connection");
        self.metrics.connection_closed(self.protocol);
        if let Some(presence) = self.presence.take() {
            // The gateway has no time left for a task that has not come to its end.
            presence.close(self.end.get().unwrap_or(Disconnect::Drain));
        }
    }
}

/// A request that is in flight until this is dropped, also when its client has gone.
struct Busy {
    connection: Rc<Connection>,
    since: Moment,
    /// The trace that it belongs to, where spans are made.
    trace: Option<TraceParent>,
    visit: Visit,
}

impl Drop for Busy {
    fn drop(&mut self) {
        let requests = &self.connection.requests;
        debug_assert!(requests.get() > 0, "`begin` has counted it");
        requests.set(requests.get() - 1);
    }
}

/// The answer to a request: a 204, which may tell when the device's certificate expires, or a
/// response of its own, a refusal or a front door's, which is boxed as it is rare.
enum Answer {
    Accepted(Option<HeaderValue>),
    Written(Box<Response<Bytes>>),
}

impl Answer {
    fn status(&self) -> StatusCode {
        match self {
            Self::Accepted(_) => StatusCode::NO_CONTENT,
            Self::Written(response) => response.status(),
        }
    }
}

impl Service {
    pub fn new(
        config: &HttpConfig,
        ingest: Ingest,
        observers: WorkerObservers,
        bell: Rc<Bell>,
        alt_svc: Option<HeaderValue>,
    ) -> Self {
        Self {
            ingest,
            metrics: observers.metrics,
            audit: observers.audit,
            access: observers.access,
            spans: observers.spans,
            top: observers.top,
            expiring: observers.expiring,
            alt_svc,
            header_timeout: config.header_timeout,
            idle_timeout: config.idle_timeout,
            bell,
            date: Date::default(),
            h1_accepted: h1::Accepted::default(),
            reporter: None,
        }
    }

    /// Has the fleet's stream told of its connections.
    pub fn telling(self, reporter: Option<Rc<Reporter>>) -> Self {
        Self { reporter, ..self }
    }

    /// Answers one request of h2 or h3, to this path.
    async fn answer(
        &self,
        connection: &Rc<Connection>,
        path: &str,
        head: &Result<RequestHead<'_>, Refusal>,
        body: &mut impl Body,
    ) -> Response<Bytes> {
        debug_assert_ne!(
            connection.protocol,
            Protocol::H1,
            "h1 writes its answers itself"
        );
        let mut busy = connection.begin();
        let mut admitted = match head {
            Ok(head) => self.admit(connection, head, &mut busy),
            Err(refusal) => {
                // It is refused in its door's form all the same.
                busy.visit = Visit::through(self.ingest.door_of(path));
                Err(refusal.clone())
            }
        };
        let taken = match &mut admitted {
            Ok(admitted) => self.ingest.take(admitted, body).await,
            Err(refusal) => Err(refusal.clone()),
        };
        let taken = busy.visit.verdict(taken);
        let mut response = self.response(connection.protocol, self.conclude(&busy, taken));
        if connection.protocol == Protocol::H2 {
            let date = self.date.at(busy.since.wall);
            response.headers_mut().insert(DATE, date);
        }
        response
    }

    /// Notes the facts that the answer and the trace need, and judges the head.
    fn admit<'c>(
        &'c self,
        connection: &'c Connection,
        head: &RequestHead<'_>,
        busy: &mut Busy,
    ) -> Result<Admitted<'c>, Refusal> {
        if self.spans.are_on() {
            busy.trace = head.trace();
        }
        let door = self.ingest.door_of(head.path);
        if door != Door::Own {
            busy.visit = Visit::new(door, head);
        }
        let mut admitted = self.ingest.admit(&connection.caller, head, busy.since);
        if let Ok(admitted) = &mut admitted {
            busy.visit.note(admitted);
        }
        admitted
    }

    /// Returns the answer to a request that was taken or refused; counts and logs it.
    fn conclude(&self, busy: &Busy, taken: Result<(), Refusal>) -> Answer {
        let connection = &busy.connection;
        debug_assert!(connection.requests.get() > 0, "the request is in flight");
        let now = Instant::now();
        let duration = now - busy.since.instant;
        connection.idle_since.set(now);
        connection.tally.count(taken.is_ok());
        connection.count_answer(taken.is_ok());
        let (code, answer) = match taken {
            Ok(()) if busy.visit.is_plain() => (None, Answer::Accepted(self.expiry_notice(busy))),
            Ok(()) => {
                let expires = self.expiry_notice(busy);
                let response = busy.visit.accepted(expires, busy.since.wall);
                (None, Answer::Written(response.into()))
            }
            Err(refusal) => {
                let (code, response) = self.refuse(busy, &refusal);
                (Some(code), Answer::Written(response.into()))
            }
        };
        let status = answer.status().as_u16();
        self.tell(busy, status, code, duration);
        self.metrics.request(connection.protocol, status, duration);
        answer
    }

    /// Tells the access log, which picks some requests, and the trace.
    fn tell(&self, busy: &Busy, status: u16, code: Option<&'static str>, duration: Duration) {
        let has_line = self.access.picks();
        if !has_line && !self.spans.are_on() {
            return;
        }
        let connection = &busy.connection;
        let exchange = Exchange {
            address: connection.caller.address,
            protocol: connection.protocol.label(),
            device: connection.caller.id(),
            status,
            code,
            duration,
        };
        if has_line {
            self.access.record(&exchange);
        }
        self.spans.record(&exchange, busy.trace.as_ref());
    }

    fn response(&self, protocol: Protocol, answer: Answer) -> Response<Bytes> {
        let mut response = match answer {
            Answer::Accepted(expires) => reply::accepted(expires),
            Answer::Written(response) => *response,
        };
        if let Some(alt_svc) = self.alt_svc.as_ref().filter(|_| protocol != Protocol::H3) {
            response.headers_mut().insert(ALT_SVC, alt_svc.clone());
        }
        response
    }

    /// Returns the time at which the device's certificate expires, if the device is to be told;
    /// counted once a connection.
    fn expiry_notice(&self, busy: &Busy) -> Option<HeaderValue> {
        let connection = &busy.connection;
        let notice = connection.caller.expiry_notice(busy.since.wall)?;
        if !connection.is_noticed.replace(true) {
            self.metrics.certificate_expiring();
            connection.note_expiry();
            self.note_certificate(&connection.caller);
        }
        Some(notice.clone())
    }

    /// Returns the code of a refusal's problem and the answer; counts it, and writes it to the
    /// audit log if it is a forbidden one.
    #[cold]
    fn refuse(&self, busy: &Busy, refusal: &Refusal) -> (&'static str, Response<Bytes>) {
        let connection = &busy.connection;
        if let Some(scope) = refusal.limit() {
            self.metrics.refused(scope);
            connection.count_limited(self, scope);
        }
        if matches!(refusal, Refusal::CertificateExpired) {
            connection.note_end(Disconnect::Expired);
        }
        if reply::ends_connection(refusal) {
            connection.close();
        }
        let problem = reply::problem(refusal);
        self.metrics.refusal(problem.code);
        standing::write_down_refusal(connection, self, refusal, &problem);
        let response = busy.visit.refused(refusal, &problem, busy.since.wall);
        (problem.code, response)
    }
}
