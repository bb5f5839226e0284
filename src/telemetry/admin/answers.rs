//! The answers of the admin address, by path.
//!
//! Invariant: [`PATHS`] are all that there is, and what [`host`] guards is answered to nobody who
//! asks by a name of his own.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::{Either, Full};

use super::connections::Seat;
use super::live::{Live, Stream, WATCHERS_MAX};
use super::{Status, files, host};
use crate::telemetry::log;

/// The paths that exist beside the [`files`] of the page.
const PATHS: [&str; 10] = [
    "/",
    "/live",
    "/livez",
    "/servez",
    "/readyz",
    "/metrics",
    "/openapi.json",
    "/debug/settings",
    "/debug/log",
    "/debug/top",
];

/// Path of the server-sent events that the live page shows.
const LIVE: &str = "/live";

/// Path that tells the log's filter (GET) and changes it (PUT).
const LOG: &str = "/debug/log";

/// An answer is whole, or goes on for as long as somebody watches.
pub(super) type Answer = Response<Either<Full<Bytes>, Stream>>;

/// The sources that answers are made from.
pub(super) struct Desk {
    status: Arc<Status>,
    live: Rc<Live>,
}

impl Desk {
    pub(super) fn new(status: Arc<Status>) -> Self {
        let live = Live::new(status.clone()).into();
        Self { status, live }
    }

    /// Answers a request; who watches keeps its seat for as long as it takes what it is told.
    pub(super) fn answer(&self, head: &Parts, peer: SocketAddr, seat: &Rc<Seat>) -> Answer {
        let path = head.uri.path();
        if host::is_guarded(path) && !host::is_local(head) {
            return text(StatusCode::MISDIRECTED_REQUEST, host::ADVICE.into());
        }
        match head.method {
            Method::PUT if path == LOG => change_log(head.uri.query(), peer),
            Method::GET if path == LIVE => self.watch(seat),
            ref method => self.look_up(method, path),
        }
    }

    /// Takes note that the time of a connection is over.
    pub(super) fn has_run_out(&self, seat: &Seat) {
        if seat.is_watching() {
            self.status.metrics.watchers().ended_slow();
        }
    }

    fn watch(&self, seat: &Rc<Seat>) -> Answer {
        let Some(frames) = self.live.watch(seat.clone()) else {
            let advice = "watch the live page already: close one of them, or ask for /metrics\n";
            let crowded = format!("{WATCHERS_MAX} {advice}");
            return text(StatusCode::SERVICE_UNAVAILABLE, crowded);
        };
        let mut response = Response::new(Either::Right(frames));
        set_event_stream(&mut response);
        response
    }

    fn look_up(&self, method: &Method, path: &str) -> Answer {
        let file = files::find(path);
        if file.is_none() && !PATHS.contains(&path) {
            return not_found();
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return method_not_allowed(path);
        }
        match file {
            Some(file) => file.answer().map(Either::Left),
            None => self.tell(path),
        }
    }

    /// Answers what is there and is no file.
    fn tell(&self, path: &str) -> Answer {
        debug_assert!(PATHS.contains(&path) && path != "/", "the page is a file");
        let status = &*self.status;
        match path {
            "/livez" => text(StatusCode::OK, "alive\n".into()),
            "/servez" => is_serving(status),
            "/readyz" => is_ready(status),
            "/debug/settings" => text(StatusCode::OK, status.settings.clone()),
            LOG => text(StatusCode::OK, log::filter() + "\n"),
            "/openapi.json" => json((status.openapi)()),
            "/debug/top" => json(status.top.report()),
            LIVE => head_of_stream(),
            _ => text(StatusCode::OK, status.metrics.render()),
        }
    }
}

fn is_serving(status: &Status) -> Answer {
    if status.is_leaving() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".into());
    }
    text(StatusCode::OK, "serving\n".into())
}

fn is_ready(status: &Status) -> Answer {
    match status.spell() {
        Ok(ready) => text(StatusCode::OK, ready + "\n"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

/// Answers a HEAD for the stream of events, which makes no watcher.
fn head_of_stream() -> Answer {
    let mut response = text(StatusCode::OK, String::new());
    set_event_stream(&mut response);
    response
}

/// Puts the filter in force that the query is. Whoever asks from elsewhere might drown the log, or
/// silence it.
fn change_log(filter: Option<&str>, peer: SocketAddr) -> Answer {
    if !peer.ip().to_canonical().is_loopback() {
        let why = "the filter of the log is changed from this machine only\n";
        return text(StatusCode::FORBIDDEN, why.into());
    }
    match log::change_filter(filter.unwrap_or_default()) {
        Ok(()) => text(StatusCode::OK, log::filter() + "\n"),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn not_found() -> Answer {
    let (last, others) = PATHS.split_last().expect("there are some");
    let known = format!("there are {} and {last}\n", others.join(", "));
    text(StatusCode::NOT_FOUND, known)
}

fn method_not_allowed(path: &str) -> Answer {
    let allowed = match path {
        LOG => "GET, HEAD, PUT",
        _ => "GET, HEAD",
    };
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, String::new());
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(ALLOW, allowed);
    response
}

fn json(body: String) -> Answer {
    let mut response = text(StatusCode::OK, body);
    set_content_type(&mut response, "application/json");
    response
}

fn text(status: StatusCode, body: String) -> Answer {
    let mut response = Response::new(Either::Left(Full::from(body)));
    *response.status_mut() = status;
    set_content_type(&mut response, "text/plain; version=0.0.4; charset=utf-8");
    response
}

fn set_event_stream(response: &mut Answer) {
    set_content_type(response, "text/event-stream");
    files::set_guards(response.headers_mut());
}

fn set_content_type(response: &mut Answer, content_type: &'static str) {
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
}
