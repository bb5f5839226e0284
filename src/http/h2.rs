//! HTTP/2 by hyper.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::supervise::{Drains, answer, supervise};
use super::{Connection, HEAD_BYTES_MAX, STREAMS_MAX, Service};

/// What one stream may send before its body is read, in bytes: most readings fit, and a connection's streams together
/// stay within [`CONNECTION_WINDOW_BYTES`].
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// What one connection may send before its bodies are read, in bytes.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Runs h2's streams on the worker's own thread.
#[derive(Clone, Copy)]
struct OnThisWorker;

impl<F> hyper::rt::Executor<F> for OnThisWorker
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// Serves an h2 connection until it ends.
pub async fn serve<T>(stream: T, connection: Connection, service: Rc<Service>)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let connection = Rc::new(connection);
    let on_request = {
        let (connection, service) = (connection.clone(), service.clone());
        service_fn(move |request: hyper::Request<_>| {
            let (connection, service) = (connection.clone(), service.clone());
            async move { Ok::<_, Infallible>(answer(&service, &connection, request).await) }
        })
    };
    let mut builder = http2::Builder::new(OnThisWorker);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    supervise(builder.serve_connection(TokioIo::new(stream), on_request), &connection, &service).await;
}

impl<I, S, E> Drains for http2::Connection<I, S, E>
where
    Self: Future<Output = hyper::Result<()>>,
    S: hyper::service::HttpService<hyper::body::Incoming>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S::ResBody: 'static,
    <S::ResBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, S::ResBody>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
