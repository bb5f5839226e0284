//! The admin address, plain HTTP for probes, people and Prometheus: `/livez`, `/servez`, `/readyz`,
//! `/metrics`, `/openapi.json`; at `/` a page for people, told once a second by `/live`; and below
//! `/debug` the devices that send most, the settings in force and the log's filter, which is changed
//! by PUT from this machine only.
//!
//! `gateway` binds it and runs it on a runtime that no worker uses, so that a busy worker never
//! makes the gateway look dead. It accepts at once whoever comes: the room for connections is
//! bounded, and a newcomer takes the place of the one that has waited longest ([`connections`]), so
//! idle clients never stop a probe. A connection carries one request. Request bodies are not read.
//! No TLS and no secrets: the address is loopback unless an operator says otherwise. What is not for
//! probes is answered to whoever asks by an IP address or as localhost only ([`host`]), so that no
//! page from elsewhere reads it through a name of its own.
//!
//! Failure: a request that is wrong is 404, 405 or 421; a gateway that cannot take records is 503
//! with its reason on `/readyz`, and one that drains on `/servez`. Who takes no answer is cut off.

mod answers;
mod connections;
mod files;
mod host;
mod live;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::audit::Audit;
use super::expiring::Expiring;
use super::log::one_line;
use super::metrics::Metrics;
use super::top::Top;
use crate::health::Health;
use crate::lifecycle::{Phase, Phases};
use answers::Desk;
use connections::{Connections, Seat};

/// The largest head of a request, in bytes; hyper takes no smaller bound.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The time from accepting a connection to the end of its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The time from accepting a connection to its end: request, answer and all. Prometheus gives up
/// after ten seconds by default. Who watches has as long for each second's news.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause of accepting when the system has no file descriptor or memory to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Asked of the kernel for what each connection has been sent and has not taken, in bytes: so many
/// seconds of the live page that a watcher who takes nothing is soon found out.
pub(crate) const SEND_BYTES: usize = 16 * 1024;

/// State of the gateway that the admin address tells.
pub(crate) struct Status {
    pub health: Arc<Health>,
    pub phases: Phases,
    /// Writes the contract of the wire, OpenAPI as JSON.
    pub openapi: fn() -> String,
    pub metrics: Arc<Metrics>,
    pub top: Top,
    pub expiring: Expiring,
    pub audit: Audit,
    /// Every setting with its value and source, a line each; secrets are not shown.
    pub settings: String,
}

impl Status {
    /// Says in one line whether the gateway is ready; `Err` where it is not.
    pub(crate) fn spell(&self) -> Result<String, String> {
        match self.readiness() {
            Ok(away) if away.is_empty() => Ok("ready".into()),
            Ok(away) => Ok(format!("ready, but {}", one_line(&away).trim_end())),
            Err(reason) => Err(format!("not ready: {}", one_line(&reason).trim_end())),
        }
    }

    /// `Err` says why the gateway is not ready, `Ok` which streams are away all the same, if any.
    pub(crate) fn readiness(&self) -> Result<String, String> {
        if self.is_leaving() {
            return Err("draining".into());
        }
        self.health.report()
    }

    /// Whether connections are told to go: a balancer sends nobody new.
    fn is_leaving(&self) -> bool {
        self.phases.has_reached(Phase::Draining)
    }
}

/// Serves the admin address until it is dropped. Runs on a local runtime. An error is a listener
/// that cannot be used.
pub(crate) async fn serve(listener: std::net::TcpListener, status: Arc<Status>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let desk = Rc::new(Desk::new(status));
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let desk = desk.clone();
                connections.open(|seat| answer_connection(stream, peer, desk, seat));
                // It is answered before a crowd behind it can take its place.
                yield_now().await;
            }
            // Most likely out of file descriptors: accepting would fail again at once.
            Err(_) => {
                connections.evict();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Binds the admin address; port 0 picks a free one.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address)
}

async fn answer_connection(stream: TcpStream, peer: SocketAddr, desk: Rc<Desk>, seat: Rc<Seat>) {
    let service = service_fn(|request: http::Request<Incoming>| {
        seat.has_asked();
        let (head, _) = request.into_parts();
        let response = desk.answer(&head, peer, &seat);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder
        .keep_alive(false)
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX);
    tokio::select! {
        // A connection that broke is the client's to notice.
        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
        () = seat.is_out_of_time() => desk.has_run_out(&seat),
    }
}

#[cfg(test)]
mod tests;
