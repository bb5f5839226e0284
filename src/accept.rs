//! Accepting connections: a permit first, then a handshake within its deadline, then HTTP.
//!
//! One [`Acceptor`] a worker, for its TCP listener and its QUIC endpoint. A connection permit is taken before a
//! connection is accepted, so that the process never runs out of file descriptors; a source address must have a
//! handshake token. What fails before a certificate is verified is counted and closed, never answered. When the
//! gateway drains, the listeners close and `run` returns once every connection has ended.

mod quic;
mod steer;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::server::TlsStream;

use crate::http::{self, Connection, Service};
use crate::identity::{Identity, Link};
use crate::ingest::{Caller, KnownDevice};
use crate::limits::{AddressLimits, Clock, Limits};
use crate::record::Timestamp;
use crate::telemetry::metrics::{Handshake, Protocol, Scope, WorkerMetrics};
use crate::tls::{self, Status, Tls};
pub use quic::Quic;
pub use steer::{WorkerConnectionIds, steer_to_workers};

/// How long accepting pauses when the system has no file descriptor or memory to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a client that failed its handshake may take to read the alert and go.
const ALERT_GRACE: Duration = Duration::from_secs(1);

/// A connection being served.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// Accepts for one worker.
pub struct Acceptor {
    pub service: Rc<Service>,
    pub tls: Tls,
    pub identity: Arc<Identity>,
    pub limits: Arc<Limits>,
    pub clock: Clock,
    /// One for each connection that the gateway may have, TCP and QUIC together.
    pub permits: Arc<Semaphore>,
    pub metrics: Arc<WorkerMetrics>,
    pub handshake_timeout: Duration,
    pub draining: watch::Receiver<bool>,
}

impl Acceptor {
    /// Accepts TCP connections until the gateway drains, then waits for them to end.
    pub async fn run_tcp(self: Rc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        let mut draining = self.draining.clone();
        loop {
            tokio::select! {
                _ = draining.wait_for(|draining| *draining) => break,
                Some(_) = connections.join_next() => {}
                (permit, accepted) = self.accept(&listener) => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn_local(self.clone().serve_tcp(stream, peer, permit));
                    }
                    Err(error) => pause(&error).await,
                },
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> (Option<OwnedSemaphorePermit>, io::Result<(TcpStream, SocketAddr)>) {
        // The semaphore is never closed.
        let permit = self.permits.clone().acquire_owned().await.ok();
        (permit, listener.accept().await)
    }

    async fn serve_tcp(self: Rc<Self>, stream: TcpStream, peer: SocketAddr, _permit: Option<OwnedSemaphorePermit>) {
        let Some(address_limits) = self.admit(peer.ip()) else { return };
        // Small answers leave at once: without this, a first answer can wait 40 ms for a delayed ACK.
        let _ = stream.set_nodelay(true);
        // Boxed, so that what only a handshake needs is given back when it is over.
        if let Some(serving) = Box::pin(self.connect(stream, address_limits)).await {
            serving.await;
        }
    }

    /// Shakes hands; what is left to do then is to serve the connection.
    async fn connect(&self, stream: TcpStream, address_limits: AddressLimits) -> Option<Serving> {
        let (stream, links) = self.shake_hands(stream).await?;
        let (_, tls) = stream.get_ref();
        let is_h2 = tls.alpn_protocol() == Some(b"h2");
        let protocol = if is_h2 { Protocol::H2 } else { Protocol::H1 };
        let caller = self.caller(tls.peer_certificates(), links, address_limits);
        let connection = Connection::new(protocol, caller, self.metrics.clone());
        let service = self.service.clone();
        Some(if is_h2 {
            Box::pin(http::h2::serve(stream, connection, service))
        } else {
            Box::pin(http::h1::serve(stream, connection, service))
        })
    }

    /// A handshake token of the source address.
    fn admit(&self, address: IpAddr) -> Option<AddressLimits> {
        let now = self.clock.now();
        let limits = self.limits.address(address, now).ok();
        let admitted = limits.filter(|limits| limits.take_handshake(now).is_ok());
        if admitted.is_none() {
            self.metrics.refused(Scope::Handshake);
            self.metrics.handshake(Handshake::RateLimited);
        }
        admitted
    }

    async fn shake_hands(&self, stream: TcpStream) -> Option<(TlsStream<TcpStream>, Vec<Link>)> {
        let acceptor = TlsAcceptor::from(self.tls.configs.load().tcp.clone());
        let result = match timeout(self.handshake_timeout, acceptor.accept(stream).into_fallible()).await {
            Ok(Ok(stream)) => {
                let is_resumed = stream.get_ref().1.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
                match self.vet(stream.get_ref().1.peer_certificates()) {
                    Ok(links) => {
                        self.metrics.handshake(if is_resumed { Handshake::Resumed } else { Handshake::Accepted });
                        return Some((stream, links));
                    }
                    Err(result) => {
                        deliver_alert(stream).await;
                        result
                    }
                }
            }
            Ok(Err((error, stream))) => {
                deliver_alert(stream).await;
                failure(&error)
            }
            Err(_) => Handshake::Timeout,
        };
        self.metrics.handshake(result);
        None
    }

    /// What is to be asked about the chain from now on. A resumed session has not been verified: it ends here when
    /// nobody knows whether it is revoked. When it is known to be, the device is told so in answer to its request.
    fn vet(&self, chain: Option<&[CertificateDer]>) -> Result<Vec<Link>, Handshake> {
        let revocation = self.tls.revocation.borrow();
        let chain = chain.unwrap_or_default().iter().map(|certificate| certificate.as_ref());
        let links = revocation.links(chain).map_err(|_| Handshake::BadCertificate)?;
        match revocation.status(&links, Timestamp::now()) {
            Status::Good | Status::Revoked => Ok(links),
            Status::Unknown => Err(Handshake::UnknownIssuer),
        }
    }

    /// Who has connected. Without a usable identity each request is refused, and none has buckets.
    fn caller(&self, chain: Option<&[CertificateDer]>, links: Vec<Link>, address_limits: AddressLimits) -> Caller {
        let leaf = chain.and_then(|chain| chain.first()).map_or(&[][..], |leaf| leaf.as_ref());
        let device = self.identity.device(leaf).map(|device| {
            let limits = self.limits.device(&device.id, self.clock.now());
            KnownDevice { device, limits }
        });
        let (is_revoked, content_types) = Default::default();
        Caller { device, chain: links, is_revoked, content_types, address_limits }
    }
}

/// Closes a connection whose last bytes are an alert. Closed with the client's bytes unread, it would be reset, and the
/// alert lost on its way: in TLS 1.3 a refused client has sent its first request already.
async fn deliver_alert(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut unread = [0; 4096];
    let _ = stream.shutdown().await;
    let _ = timeout(ALERT_GRACE, async { while matches!(stream.read(&mut unread).await, Ok(1..)) {} }).await;
}

/// A connection that broke before it was accepted is nothing to wait for; anything else would fail again at once.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
        sleep(ACCEPT_PAUSE).await;
    }
}

fn failure(error: &io::Error) -> Handshake {
    let tls_error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    tls_error.map_or(Handshake::Io, tls::failure)
}
