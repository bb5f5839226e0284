//! HTTP/1.1 and HTTP/2 by hyper over rustls.
//!
//! Each connection is driven by a task of its own on the thread's `LocalSet`, which ends with the
//! connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::upload::{Pace, Upload};
use super::{ANSWER_BYTES_MAX, Answer, Connection, Dialer};
use crate::target::Target;

/// The buffer of an HTTP/1.1 connection: hyper takes no less, and answers are small.
const H1_BUFFER_BYTES: usize = 8192;

/// An HTTP/1.1 connection.
pub(crate) struct H1 {
    sender: http1::SendRequest<Upload>,
    target: Arc<Target>,
}

/// An HTTP/2 connection; clones are the same.
#[derive(Clone)]
pub(crate) struct H2 {
    sender: http2::SendRequest<Upload>,
    target: Arc<Target>,
}

pub(crate) async fn connect_h1(
    dialer: &Dialer,
    source: Option<SocketAddr>,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Connection> {
    let stream = connect(&dialer.target, source, tls).await?;
    let (sender, driver) = http1::Builder::new()
        .max_buf_size(H1_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    // A connection's requests see what ends it.
    tokio::task::spawn_local(async move { drop(driver.await) });
    Ok(Connection::H1(H1 {
        sender,
        target: dialer.target.clone(),
    }))
}

pub(crate) async fn connect_h2(
    dialer: &Dialer,
    source: Option<SocketAddr>,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<Connection> {
    let stream = connect(&dialer.target, source, tls).await?;
    ensure!(
        stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        "the server does not speak HTTP/2"
    );
    let mut builder = http2::Builder::new(LocalTasks);
    builder.timer(TokioTimer::new());
    let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(async move { drop(driver.await) });
    Ok(Connection::H2(H2 {
        sender,
        target: dialer.target.clone(),
    }))
}

async fn connect(
    target: &Target,
    source: Option<SocketAddr>,
    tls: &Arc<rustls::ClientConfig>,
) -> Result<TlsStream<TcpStream>> {
    let stream = match source {
        Some(source) => connect_from(source, target.address).await?,
        None => TcpStream::connect(target.address).await?,
    };
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(target.host.clone())?;
    let connector = TlsConnector::from(tls.clone());
    Ok(connector.connect(name, stream).await?)
}

async fn connect_from(source: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    debug_assert!(source.is_ipv4(), "sources are of 127.0.0.0/8");
    let socket = TcpSocket::new_v4()?;
    socket.bind(source)?;
    socket.connect(target).await
}

impl H1 {
    pub(crate) async fn send(&mut self, body: Bytes, pace: Option<Pace>) -> Result<Answer> {
        let mut request = request(&self.target, self.target.path.parse()?, body, pace)?;
        let host = HeaderValue::from_str(&self.target.authority)?;
        request.headers_mut().insert(header::HOST, host);
        self.sender.ready().await?;
        finish(self.sender.send_request(request).await?).await
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

impl H2 {
    pub(crate) async fn send(&mut self, body: Bytes, pace: Option<Pace>) -> Result<Answer> {
        let request = request(&self.target, self.target.uri.clone(), body, pace)?;
        self.sender.ready().await?;
        finish(self.sender.send_request(request).await?).await
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }
}

fn request(
    target: &Target,
    uri: http::Uri,
    body: Bytes,
    pace: Option<Pace>,
) -> Result<Request<Upload>> {
    let mut request = Request::builder().method(target.method.clone()).uri(uri);
    request = request.header(header::CONTENT_TYPE, target.envelope.content_type());
    if let Some(encoding) = target.envelope.encoding {
        request = request.header(header::CONTENT_ENCODING, encoding.name());
    }
    Ok(request.body(Upload::new(body, pace))?)
}

/// Reads the answer to its end, so that the connection can be used again.
async fn finish(response: Response<Incoming>) -> Result<Answer> {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes.extend_from_slice(&data);
        }
        ensure!(
            bytes.len() <= ANSWER_BYTES_MAX,
            "the answer's body is too long"
        );
    }
    Ok(Answer {
        status: head.status.as_u16(),
        body: bytes.into(),
    })
}

/// Runs hyper's tasks on their own thread.
#[derive(Clone, Copy)]
struct LocalTasks;

impl<F: Future<Output: 'static> + 'static> Executor<F> for LocalTasks {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
