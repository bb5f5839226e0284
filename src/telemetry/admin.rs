//! The admin address: `/livez`, `/readyz` and `/metrics` over plain HTTP, for probes and Prometheus, `/openapi.json`, and
//! `/debug/top`, the devices that send most.
//!
//! `gateway` binds it and runs it on a runtime that no worker uses, so that a busy worker never makes the gateway look
//! dead. It owns its connections: each carries one request, for at most [`CONNECTION_TIMEOUT`], and there are at most
//! [`CONNECTIONS_MAX`], so a client that dawdles holds a place for seconds only and cannot lock the probes out for
//! good. Request bodies are not read. No TLS and no secrets: the address is loopback unless an operator says otherwise.
//!
//! Failure: a request that is wrong is 404 or 405; a gateway that cannot take records is 503 with its reason.

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
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::top::Top;
use crate::http::openapi;

/// Connections at once; further ones wait in the listener's backlog.
const CONNECTIONS_MAX: usize = 64;

/// Largest head of a request, in bytes; hyper takes no smaller bound.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// From accepting a connection to its end: request, answer and all. Prometheus gives up after ten seconds by default.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// How long accepting pauses when the system has no file descriptor or memory to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin address tells about.
pub struct Status {
    /// `Err` says why the gateway is not ready.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Metrics in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    pub top: Top,
}

/// Serves the admin address until it is dropped. Runs on a local runtime. An error is a listener that cannot be used.
pub async fn serve(listener: std::net::TcpListener, status: Arc<Status>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return Ok(());
        };
        // Most likely out of file descriptors: accepting would fail again at once.
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

/// Binds the admin address; port 0 picks a free one.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address)
}

async fn answer_connection(stream: TcpStream, status: Arc<Status>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(request.method(), request.uri().path(), &status);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder
        .keep_alive(false)
        .title_case_headers(true)
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX);
    // A connection that broke or ran out of time is the client's to notice.
    let _ = timeout(
        CONNECTION_TIMEOUT,
        builder.serve_connection(TokioIo::new(stream), service),
    )
    .await;
}

fn answer(method: &Method, path: &str, status: &Status) -> Response<Full<Bytes>> {
    if !matches!(
        path,
        "/livez" | "/readyz" | "/metrics" | "/openapi.json" | "/debug/top"
    ) {
        let known = "there are /livez, /readyz, /metrics, /openapi.json and /debug/top\n";
        return text(StatusCode::NOT_FOUND, known.into());
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, String::new());
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => text(StatusCode::OK, "alive\n".into()),
        "/readyz" => match (status.ready)() {
            Ok(()) => text(StatusCode::OK, "ready\n".into()),
            Err(reason) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {}\n", reason.escape_debug()),
            ),
        },
        "/openapi.json" => json(openapi::document()),
        "/debug/top" => json(status.top.report()),
        _ => text(StatusCode::OK, (status.metrics)()),
    }
}

fn json(body: String) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, body);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
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
mod tests {
    use std::future::Future;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;

    /// Runs `test` beside an admin address that is ready when told so.
    fn with_admin<F: Future<Output = ()>>(
        paused: bool,
        test: impl FnOnce(SocketAddr, Arc<AtomicBool>) -> F,
    ) {
        let is_ready = Arc::new(AtomicBool::new(true));
        let asked = is_ready.clone();
        let ready = move || {
            if asked.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("the sink is\r\naway".to_owned())
            }
        };
        let status = Arc::new(Status {
            ready: Box::new(ready),
            metrics: Box::new(|| "a_total 1\n".to_owned()),
            top: Top::default(),
        });
        let listener = bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(paused)
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async {
            tokio::select! {
                served = serve(listener, status) => panic!("serving ended: {served:?}"),
                () = test(address, is_ready) => {}
            }
        });
    }

    /// The whole answer; the connection must end after it.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await
    }

    #[test]
    fn each_path_has_its_answer() {
        with_admin(false, |address, _| async move {
            assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
            assert!(
                get(address, "/readyz?verbose")
                    .await
                    .starts_with("HTTP/1.1 200 ")
            );
            assert!(
                get(address, "/metrics")
                    .await
                    .ends_with("\r\n\r\na_total 1\n")
            );
            let openapi = get(address, "/openapi.json").await;
            assert!(
                openapi.contains("Content-Type: application/json\r\n") && openapi.contains("3.1.0"),
                "{openapi}"
            );
            assert!(
                get(address, "/debug/top")
                    .await
                    .ends_with("\"window_seconds_max\":600}")
            );
            for path in ["/", "/v1/telemetry", "/metrics/", "/livez%00"] {
                assert!(
                    get(address, path).await.starts_with("HTTP/1.1 404 "),
                    "{path}"
                );
            }
            let posted = ask(
                address,
                "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n",
            )
            .await;
            assert!(
                posted.starts_with("HTTP/1.1 405 ") && posted.contains("Allow: GET, HEAD\r\n"),
                "{posted}"
            );
        });
    }

    #[test]
    fn not_ready_is_503_and_says_why_in_one_line() {
        with_admin(false, |address, is_ready| async move {
            is_ready.store(false, Ordering::Relaxed);
            let answer = get(address, "/readyz").await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            assert!(
                answer.ends_with("\r\n\r\nnot ready: the sink is\\r\\naway\n"),
                "{answer}"
            );
            assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
        });
    }

    /// Every place is taken by a client that never ends its head: the probe gets its turn when their time is up.
    #[test]
    fn clients_that_dawdle_do_not_lock_the_probes_out() {
        with_admin(true, |address, _| async move {
            let begun = Instant::now();
            let mut dawdlers = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(b"GET /livez HTTP/1.1\r\n").await.unwrap();
                dawdlers.push(stream);
            }
            assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200 "));
            assert!(
                begun.elapsed() >= CONNECTION_TIMEOUT,
                "a further connection was served at once"
            );
        });
    }
}
