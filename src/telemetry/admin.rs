//! The admin address: `/livez`, `/readyz` and `/metrics` over plain HTTP, for probes and Prometheus.
//!
//! Runs on a runtime of its own thread, so that a busy worker never makes the gateway look dead. Bounded: so many
//! connections, so long for a head; bodies are not read.

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
use tokio::sync::Semaphore;
use tokio::time::sleep;

const CONNECTIONS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin address tells about.
pub struct Status {
    /// `Err` says why the gateway is not ready.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Metrics in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
}

/// Serves the admin address until the process ends. Runs on a local runtime.
pub async fn serve(listener: std::net::TcpListener, status: Arc<Status>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return Ok(()) };
        // Out of file descriptors: wait until there are some, accepting would fail again at once.
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let status = status.clone();
        tokio::task::spawn_local(async move {
            answer_connection(stream, status).await;
            drop(permit);
        });
    }
}

/// Binds the admin address.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address)
}

async fn answer_connection(stream: TcpStream, status: Arc<Status>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(request.method(), request.uri().path(), &status);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    // A broken connection is the client's to notice.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

fn answer(method: &Method, path: &str, status: &Status) -> Response<Full<Bytes>> {
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        return text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics\n".into());
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, String::new());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" => match (status.ready)() {
            Ok(()) => text(StatusCode::OK, "ready\n".into()),
            Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reason.escape_debug())),
        },
        _ => text(StatusCode::OK, (status.metrics)()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
