//! Accepting connections: a permit first, then a handshake within its deadline, then HTTP.
//!
//! One [`Acceptor`] a worker, for its TCP listener and its QUIC endpoint. Permits are taken before a connection is
//! accepted, so that the process never runs out of file descriptors; a source address must have a handshake token, and
//! not too many connections ([`Capacity`]); the steps of handshakes take [`Turns`]. What fails before a certificate is
//! verified is counted and closed, never answered. When the gateway closes its listeners, what the kernel has accepted is
//! served still; `run_tcp` and `run_quic` return once every connection has ended.

mod capacity;
mod quic;
mod steer;
mod turn;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, TryFutureExt};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::http::{self, Connection, Service};
use crate::identity::{self, Identity, Link};
use crate::ingest::{Caller, KnownDevice};
use crate::limits::{AddressLimits, Clock, Limits};
use crate::record::Timestamp;
use crate::telemetry::audit::{Audit, Event};
use crate::telemetry::metrics::{Handshake, Protocol, Scope, WorkerMetrics};
use crate::tls::{self, Buffers, Status, Tls, TlsStream};
pub use capacity::Capacity;
use capacity::{ConnectionPermit, Guest, HandshakePermit};
pub use quic::{Place, Quic};
pub use steer::{WorkerConnectionIds, steer_to_workers};
pub use turn::Turns;

/// How long accepting pauses when the system has no file descriptor or memory to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are taken from a listener which closes: as many as the kernel may hold.
const QUEUE_MAX: usize = 4096;

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
    pub capacity: Arc<Capacity>,
    pub turns: Turns,
    pub buffers: Buffers,
    pub metrics: Arc<WorkerMetrics>,
    pub audit: Audit,
    pub handshake_timeout: Duration,
    pub draining: watch::Receiver<bool>,
}

impl Acceptor {
    /// Accepts TCP connections until listeners close, then waits for the connections to end. `closing` is dropped with
    /// the listener.
    pub async fn run_tcp(
        self: Rc<Self>,
        listener: TcpListener,
        mut closing: watch::Receiver<bool>,
    ) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => break,
                Some(_) = connections.join_next() => {}
                (permits, accepted) = self.accept(&listener) => match accepted {
                    Ok((stream, peer)) => {
                        connections.spawn_local(self.clone().serve_tcp(stream, peer.ip(), permits));
                        // Behind those in line: more than can get on at a time wait in the kernel, which costs less.
                        self.turns.take(|| ()).await;
                    }
                    Err(error) => pause(&error).await,
                },
            }
        }
        // The error is that nothing waits any more, or what accepting would have paused for.
        let _ = self.empty(listener, &mut connections);
        drop(closing);
        while connections.join_next().await.is_some() {}
    }

    /// Takes what waits in the kernel's queue, as far as there is room, and closes the listener: what is left in the
    /// queue is reset.
    fn empty(
        self: &Rc<Self>,
        listener: TcpListener,
        connections: &mut JoinSet<()>,
    ) -> io::Result<()> {
        // Not tokio's: it would ask the kernel only when that has had the time to say that something waits.
        let listener = listener.into_std()?;
        for permits in (0..QUEUE_MAX).map_while(|_| self.capacity.wait_for_tcp().now_or_never()) {
            let (stream, peer) = listener.accept()?;
            stream.set_nonblocking(true)?;
            connections.spawn_local(self.clone().serve_tcp(
                TcpStream::from_std(stream)?,
                peer.ip(),
                permits,
            ));
        }
        Ok(())
    }

    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> (
        Option<(ConnectionPermit, HandshakePermit)>,
        io::Result<(TcpStream, SocketAddr)>,
    ) {
        let permits = self.capacity.wait_for_tcp().await;
        (permits, listener.accept().await)
    }

    async fn serve_tcp(
        self: Rc<Self>,
        stream: TcpStream,
        address: IpAddr,
        permits: Option<(ConnectionPermit, HandshakePermit)>,
    ) {
        let (_connection, handshake) = permits.unzip();
        let (mut guest, address_limits) = match self.admit(address) {
            Ok(admitted) => admitted,
            Err(result) => return self.end_handshake(result, address, "tcp", None),
        };
        // Small answers leave at once: without this, a first answer can wait 40 ms for a delayed ACK.
        let _ = stream.set_nodelay(true);
        // Boxed, so that what only a handshake needs is given back when it is over.
        let serving = Box::pin(self.connect(stream, address, address_limits)).await;
        drop(handshake);
        guest.settle();
        if let Some(serving) = serving {
            serving.await;
        }
    }

    /// Shakes hands; what is left to do then is to serve the connection.
    async fn connect(
        &self,
        stream: TcpStream,
        address: IpAddr,
        address_limits: AddressLimits,
    ) -> Option<Serving> {
        let (stream, links) = self.shake_hands(stream, address).await?;
        let is_h2 = stream.alpn_protocol() == Some(b"h2");
        let protocol = if is_h2 { Protocol::H2 } else { Protocol::H1 };
        let caller = self.caller(stream.peer_certificates(), links, address, address_limits);
        let connection = Connection::new(protocol, caller, &self.service);
        let service = self.service.clone();
        Some(if is_h2 {
            Box::pin(http::h2::serve(stream, connection, service))
        } else {
            Box::pin(http::h1::serve(stream, connection, service))
        })
    }

    /// A place and a handshake token of the source address.
    fn admit(&self, address: IpAddr) -> Result<(Guest, AddressLimits), Handshake> {
        let guest = self.capacity.admit(address).ok_or(Handshake::AddressFull)?;
        let now = self.clock.now();
        let limits = self.limits.address(address, now).ok();
        let limits = limits
            .filter(|limits| limits.take_handshake(now).is_ok())
            .ok_or_else(|| {
                self.metrics.refused(Scope::Handshake);
                Handshake::RateLimited
            })?;
        Ok((guest, limits))
    }

    /// Counts a handshake that came to nothing, and writes it down.
    fn end_handshake(
        &self,
        result: Handshake,
        address: IpAddr,
        transport: &'static str,
        serial: Option<&[u8]>,
    ) {
        self.metrics.handshake(result);
        self.audit.record(Event::HandshakeRefused {
            address,
            transport,
            reason: result.label(),
            serial,
        });
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        address: IpAddr,
    ) -> Option<(TlsStream<TcpStream>, Vec<Link>)> {
        let handshake = TlsStream::accept(
            stream,
            self.tls.configs.load().tcp.clone(),
            self.buffers.clone(),
        );
        let handshake = handshake.map_err(|(error, stream)| (failure(&error), stream));
        let (result, serial) =
            match timeout(self.handshake_timeout, self.turns.drive(handshake)).await {
                Ok(Ok(stream)) => match self.vet(stream.peer_certificates()) {
                    Ok(links) => {
                        self.metrics.handshake(if stream.is_resumed() {
                            Handshake::Resumed
                        } else {
                            Handshake::Accepted
                        });
                        return Some((stream, links));
                    }
                    Err(result) => {
                        let serial = leaf_serial(stream.peer_certificates());
                        deliver_alert(stream).await;
                        (result, serial)
                    }
                },
                Ok(Err((failed, stream))) => {
                    deliver_alert(stream).await;
                    failed
                }
                Err(_) => (Handshake::Timeout, None),
            };
        self.end_handshake(result, address, "tcp", serial.as_deref());
        None
    }

    /// What is to be asked about the chain from now on. A resumed session has not been verified: it ends here when
    /// nobody knows whether it is revoked. When it is known to be, the device is told so in answer to its request.
    fn vet(&self, chain: Option<&[CertificateDer]>) -> Result<Vec<Link>, Handshake> {
        let revocation = self.tls.revocation.borrow();
        let chain = chain
            .unwrap_or_default()
            .iter()
            .map(|certificate| certificate.as_ref());
        let links = revocation
            .links(chain)
            .map_err(|_| Handshake::BadCertificate)?;
        match revocation.status(&links, Timestamp::now()) {
            Status::Good | Status::Revoked => Ok(links),
            Status::Unknown => Err(Handshake::UnknownIssuer),
        }
    }

    /// Who has connected. Without a usable identity each request is refused, and none has buckets.
    fn caller(
        &self,
        chain: Option<&[CertificateDer]>,
        links: Vec<Link>,
        address: IpAddr,
        address_limits: AddressLimits,
    ) -> Caller {
        let leaf = chain
            .and_then(|chain| chain.first())
            .map_or(&[][..], |leaf| leaf.as_ref());
        let device = self.identity.device(leaf).map(|device| {
            let limits = self.limits.device(&device.id, self.clock.now());
            KnownDevice { device, limits }
        });
        let (is_revoked, content_types) = Default::default();
        Caller {
            device,
            chain: links,
            is_revoked,
            content_types,
            address,
            address_limits,
        }
    }
}

/// Closes a connection whose last bytes are an alert. Closed with the client's bytes unread, it would be reset, and the
/// alert lost on its way: in TLS 1.3 a refused client has sent its first request already.
async fn deliver_alert(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut unread = [0; 4096];
    let _ = stream.shutdown().await;
    let _ = timeout(ALERT_GRACE, async {
        while matches!(stream.read(&mut unread).await, Ok(1..)) {}
    })
    .await;
}

/// A connection that broke before it was accepted is nothing to wait for; anything else would fail again at once.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    ) {
        sleep(ACCEPT_PAUSE).await;
    }
}

/// Why it failed, and the serial number of the certificate that was refused, if one was. To be called before anything
/// else is awaited: another handshake may fail on this thread.
fn failure(error: &io::Error) -> (Handshake, Option<Box<[u8]>>) {
    let tls_error = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    tls_error.map_or((Handshake::Io, None), |error| {
        (tls::failure(error), tls::take_refused_serial(error))
    })
}

fn leaf_serial(chain: Option<&[CertificateDer]>) -> Option<Box<[u8]>> {
    identity::serial(chain?.first()?)
}
