//! The admin address, plain HTTP for probes, people and Prometheus: `/livez`, `/servez`, `/readyz`,
//! `/metrics`, `/openapi.json`, and below `/debug` the devices that send most, the settings in force
//! and the log's filter, which is changed by PUT from this machine only.
//!
//! `gateway` binds it and runs it on a runtime that no worker uses, so that a busy worker never
//! makes the gateway look dead. It accepts at once whoever comes: the room for connections is
//! bounded, and a newcomer takes the place of the one that has waited longest ([`connections`]), so
//! idle clients never stop a probe. A connection carries one request. Request bodies are not read.
//! No TLS and no secrets: the address is loopback unless an operator says otherwise.
//!
//! Failure: a request that is wrong is 404 or 405; a gateway that cannot take records is 503 with
//! its reason on `/readyz`, and one that drains on `/servez`.

mod connections;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::log::{self, one_line};
use super::metrics::Metrics;
use super::top::Top;
use crate::health::Health;
use crate::lifecycle::{Phase, Phases};
use connections::{Asks, Connections};

/// What may be asked for.
const PATHS: [&str; 8] = [
    "/livez",
    "/servez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/debug/settings",
    "/debug/log",
    "/debug/top",
];

/// Where the log's filter is told, and changed.
const LOG: &str = "/debug/log";

/// The largest head of a request, in bytes; hyper takes no smaller bound.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The time from accepting a connection to the end of its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The time from accepting a connection to its end: request, answer and all. Prometheus gives up
/// after ten seconds by default.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long accepting pauses when the system has no file descriptor or memory to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin address tells about.
pub(crate) struct Status {
    pub health: Arc<Health>,
    pub phases: Phases,
    /// Writes the contract of the wire, OpenAPI as JSON.
    pub openapi: fn() -> String,
    pub metrics: Arc<Metrics>,
    pub top: Top,
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
    let mut connections = Connections::default();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                let status = status.clone();
                connections.open(|asks| answer_connection(stream, peer, status, asks));
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

async fn answer_connection(stream: TcpStream, peer: SocketAddr, status: Arc<Status>, asks: Asks) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        asks.has_asked();
        let response = match *request.method() {
            Method::PUT if request.uri().path() == LOG => change_log(request.uri().query(), peer),
            ref method => answer(method, request.uri().path(), &status),
        };
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder
        .keep_alive(false)
        .title_case_headers(true)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    // A connection that broke or ran out of time is the client's to notice.
    let _ = timeout(CONNECTION_TIMEOUT, served).await;
}

fn answer(method: &Method, path: &str, status: &Status) -> Response<Full<Bytes>> {
    if !PATHS.contains(&path) {
        let (last, others) = PATHS.split_last().expect("there are some");
        let known = format!("there are {} and {last}\n", others.join(", "));
        return text(StatusCode::NOT_FOUND, known);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let allowed = if path == LOG {
            "GET, HEAD, PUT"
        } else {
            "GET, HEAD"
        };
        return method_not_allowed(HeaderValue::from_static(allowed));
    }
    page(path, status)
}

fn page(path: &str, status: &Status) -> Response<Full<Bytes>> {
    match path {
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/servez" if status.is_leaving() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into())
        }
        "/servez" => text(StatusCode::OK, "serving\n".into()),
        "/readyz" => match status.spell() {
            Ok(ready) => text(StatusCode::OK, ready + "\n"),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
        },
        "/debug/settings" => text(StatusCode::OK, status.settings.clone()),
        LOG => text(StatusCode::OK, log::filter() + "\n"),
        "/openapi.json" => json((status.openapi)()),
        "/debug/top" => json(status.top.report()),
        _ => text(StatusCode::OK, status.metrics.render()),
    }
}

/// Puts the filter in force that the query is. Whoever asks from elsewhere might drown the log, or
/// silence it.
fn change_log(filter: Option<&str>, peer: SocketAddr) -> Response<Full<Bytes>> {
    if !peer.ip().to_canonical().is_loopback() {
        let why = "the filter of the log is changed from this machine only\n";
        return text(StatusCode::FORBIDDEN, why.into());
    }
    match log::change_filter(filter.unwrap_or_default()) {
        Ok(()) => text(StatusCode::OK, log::filter() + "\n"),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn method_not_allowed(allowed: HeaderValue) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, String::new());
    response.headers_mut().insert(ALLOW, allowed);
    response
}

fn json(body: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    let content_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

#[cfg(test)]
mod tests;
