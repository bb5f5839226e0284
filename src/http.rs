//! HTTP: thin adapters of three protocols over one service.
//!
//! `accept` hands over a connection that has finished its handshake, with who is at its other end. h1 and h2 are served
//! by hyper, as ALPN said, h3 by h3 over quinn. Each adapter turns a request into a head and a body for
//! [`Service::answer`], and ends its connection when the service or the gateway says so.

mod discard;
pub mod h1;
pub mod h2;
pub mod h3;
mod reply;
mod revoked;
mod supervise;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALT_SVC, CONNECTION, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::Full;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::ingest::{Body, Caller, Ingest, Refusal};
use crate::record::Timestamp;
use crate::telemetry::metrics::{Protocol, WorkerMetrics};
use crate::tls::Revocation;

/// Largest head of a request, in bytes, names, values and framing together.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Header fields in one request.
pub const HEADER_FIELDS_MAX: usize = 64;

/// Requests that one h2 or h3 connection may have open.
pub const STREAMS_MAX: u32 = 128;

/// Serves the connections of one worker.
pub struct Service {
    pub ingest: Ingest,
    pub metrics: Arc<WorkerMetrics>,
    /// Tells TCP clients of h3, when it is served.
    pub alt_svc: Option<HeaderValue>,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    /// Turns true when the gateway drains.
    pub draining: watch::Receiver<bool>,
    /// Who is revoked now.
    pub revocation: watch::Receiver<Arc<Revocation>>,
}

/// One connection: who calls, and whether a request is under way.
pub struct Connection {
    protocol: Protocol,
    caller: Caller,
    requests: Cell<u32>,
    /// Bytes have come in that belong to no request yet.
    head_started: Cell<bool>,
    idle_since: Cell<Instant>,
    /// No further request is wanted.
    closing: Cell<bool>,
    /// A request has begun, be it over or not.
    has_asked: Cell<bool>,
    /// The device has been told that its certificate expires.
    is_noticed: Cell<bool>,
}

impl Connection {
    pub fn new(protocol: Protocol, caller: Caller) -> Self {
        Self {
            protocol,
            caller,
            requests: Cell::default(),
            head_started: Cell::default(),
            idle_since: Cell::new(Instant::now()),
            closing: Cell::default(),
            has_asked: Cell::default(),
            is_noticed: Cell::default(),
        }
    }

    fn begin(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        self.head_started.set(false);
        self.has_asked.set(true);
        Busy { connection: self.clone(), started_at: Instant::now() }
    }
}

/// A request is under way until this is dropped, also when its client went away.
struct Busy {
    connection: Rc<Connection>,
    started_at: Instant,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.connection.requests.set(self.connection.requests.get() - 1);
        self.connection.idle_since.set(Instant::now());
    }
}

impl Service {
    /// Answers one request, whatever its protocol.
    pub async fn answer(
        &self,
        connection: &Rc<Connection>,
        head: &Parts,
        body: &mut impl Body,
    ) -> Response<Full<Bytes>> {
        let busy = connection.begin();
        let taken = self.ingest.take(&connection.caller, head, body).await;
        let mut response = match &taken {
            Ok(()) => reply::accepted(self.expiry_notice(connection)),
            Err(refusal) => self.refuse(refusal),
        };
        self.close_after(connection, head, taken.as_ref().err(), &mut response);
        if let Some(alt_svc) = self.alt_svc.as_ref().filter(|_| connection.protocol != Protocol::H3) {
            response.headers_mut().insert(ALT_SVC, alt_svc.clone());
        }
        self.metrics.request(connection.protocol, response.status().as_u16(), busy.started_at.elapsed());
        response
    }

    /// What the device is to be told of its certificate's end; counted once a connection.
    fn expiry_notice<'a>(&self, connection: &'a Connection) -> Option<&'a HeaderValue> {
        let notice = connection.caller.expiry_notice(Timestamp::now())?;
        if !connection.is_noticed.replace(true) {
            self.metrics.certificate_expiring();
        }
        Some(notice)
    }

    #[cold]
    fn refuse(&self, refusal: &Refusal) -> Response<Full<Bytes>> {
        if let Some(scope) = refusal.limit() {
            self.metrics.refused(scope);
        }
        reply::refused(refusal)
    }

    /// Ends the connection with this answer where it must. An h1 body without a declared length may have been framed
    /// in a way that another reader would understand otherwise.
    fn close_after(
        &self,
        connection: &Connection,
        head: &Parts,
        refusal: Option<&Refusal>,
        response: &mut Response<Full<Bytes>>,
    ) {
        let ends = refusal.is_some_and(reply::ends_connection);
        if connection.protocol != Protocol::H1 {
            connection.closing.set(connection.closing.get() || ends);
        } else if ends || refusal.is_some_and(reply::leaves_h1_unframed) || head.headers.contains_key(TRANSFER_ENCODING)
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Counts an answer that the HTTP codec gave by itself. Those of h2's codec cannot be seen.
    fn codec_answered(&self, connection: &Connection, status: StatusCode) {
        self.metrics.request(connection.protocol, status.as_u16(), Duration::ZERO);
    }
}
