//! HTTP/1.1 by hyper.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::supervise::{Drains, Watched, answer, supervise};
use super::{Connection, HEAD_BYTES_MAX, HEADER_FIELDS_MAX, Service};

/// Serves an h1 connection until it ends.
pub async fn serve<T: AsyncRead + AsyncWrite + Unpin>(stream: T, connection: Connection, service: Rc<Service>) {
    let connection = Rc::new(connection);
    let io = TokioIo::new(Watched { stream, connection: connection.clone() });
    let on_request = service_fn(|request: hyper::Request<_>| {
        let (connection, service) = (connection.clone(), service.clone());
        async move { Ok::<_, Infallible>(answer(&service, &connection, request).await) }
    });
    let mut builder = http1::Builder::new();
    // The supervisor keeps the time: hyper's own head time-out is also its keep-alive time-out.
    builder.header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX).max_headers(HEADER_FIELDS_MAX).half_close(false);
    let hyper = builder.serve_connection(io, on_request);
    supervise(hyper, &connection, &service).await;
}

impl<I, S> Drains for http1::Connection<I, S>
where
    Self: Future<Output = hyper::Result<()>>,
    S: hyper::service::HttpService<hyper::body::Incoming>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S::ResBody: 'static,
    <S::ResBody as hyper::body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn drain(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
