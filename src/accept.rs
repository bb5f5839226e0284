//! Accepting connections: a permit first, then a handshake within its deadline, then HTTP.
//!
//! One [`Acceptor`] a worker, for its TCP listener and its QUIC endpoint. Permits are taken before the next connection
//! is accepted, so that the process never runs out of file descriptors; a source address must have a handshake token, and
//! not too many connections, and neither must the device ([`Capacity`]); the steps of handshakes take [`Turns`], and keep a
//! [`Pace`]. What fails before a certificate is verified is counted and closed, never answered. When the gateway closes its
//! listeners, what the kernel has accepted is served still; `run_tcp` and `run_quic` return once every connection has ended.

mod capacity;
mod pace;
mod quic;
mod steer;
mod turn;

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
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
use capacity::{ConnectionPermit, Guest, HandshakePermit, Seat};
use pace::Pace;
pub use quic::{Place, Quic};
pub use steer::{WorkerConnectionIds, steer_to_workers};
pub use turn::Turns;

/// How long accepting pauses when the system has no file descriptor or memory to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are taken from a listener which closes: as many as the kernel may hold.
const QUEUE_MAX: usize = 4096;

/// A handshake that is under way when the gateway drains gets this long to end.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(750);

/// How long a client that failed its handshake may take to read the alert and go.
const ALERT_GRACE: Duration = Duration::from_secs(1);

/// What a client of HTTP/2 is told whose device has too many connections: SETTINGS, and GOAWAY with ENHANCE_YOUR_CALM (RFC 9113
/// sections 3.4, 6.8 and 7). HTTP/1.1 has no words for it.
const H2_CALM: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b";

/// A connection being served.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// A connection to be served, and its place among those of its device.
type Seated = (Serving, Seat);

type Permits = (ConnectionPermit, HandshakePermit);

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
    /// For one flight of a handshake.
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
                () = is_true(&mut closing) => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let Some(permits) = self.wait_for_room(&mut connections, &mut closing).await else {
                            break;
                        };
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

    /// Room for a connection that is there: a worker for which nobody waits holds no place. `None` when listeners close.
    async fn wait_for_room(
        &self,
        connections: &mut JoinSet<()>,
        closing: &mut watch::Receiver<bool>,
    ) -> Option<Permits> {
        let mut room = pin!(self.capacity.wait_for_tcp());
        loop {
            tokio::select! {
                biased;
                permits = &mut room => return Some(permits),
                () = is_true(closing) => return None,
                Some(_) = connections.join_next() => {}
            }
        }
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

    async fn serve_tcp(
        self: Rc<Self>,
        stream: TcpStream,
        address: IpAddr,
        (_connection, handshake): Permits,
    ) {
        let (mut guest, address_limits) = match self.admit(address) {
            Ok(admitted) => admitted,
            Err(result) => return self.end_handshake(result, address, "tcp", None),
        };
        // Small answers leave at once: without this, a first answer can wait 40 ms for a delayed ACK.
        let _ = stream.set_nodelay(true);
        // Boxed, so that what only a handshake needs is given back when it is over.
        let connecting = self.connect(stream, address, address_limits);
        let serving = Box::pin(self.until_left(connecting, address)).await;
        drop(handshake);
        guest.settle();
        if let Some((serving, _seat)) = serving {
            serving.await;
        }
    }

    /// Shakes hands for as long as the gateway serves, and a moment more: nobody who is silent holds it up.
    async fn until_left(
        &self,
        connecting: impl Future<Output = Option<Seated>>,
        address: IpAddr,
    ) -> Option<Seated> {
        tokio::select! {
            seated = connecting => seated,
            () = self.drains_for(HANDSHAKE_GRACE) => {
                self.end_handshake(Handshake::Timeout, address, "tcp", None);
                None
            }
        }
    }

    /// Returns when the gateway has been draining for so long.
    async fn drains_for(&self, grace: Duration) {
        let mut draining = self.draining.clone();
        // The error is that nobody is left to say so.
        let _ = draining.wait_for(|draining| *draining).await;
        sleep(grace).await;
    }

    /// Shakes hands; what is left to do then is to serve the connection, which has a seat of its device.
    async fn connect(
        &self,
        stream: TcpStream,
        address: IpAddr,
        address_limits: AddressLimits,
    ) -> Option<Seated> {
        let (stream, links) = self.shake_hands(stream, address).await?;
        let is_h2 = stream.alpn_protocol() == Some(b"h2");
        let protocol = if is_h2 { Protocol::H2 } else { Protocol::H1 };
        let caller = self.caller(stream.peer_certificates(), links, address, address_limits);
        let Some(seat) = self.seat(&caller, stream.peer_certificates(), "tcp") else {
            turn_away(stream, protocol).await;
            return None;
        };
        self.metrics.handshake(if stream.is_resumed() {
            Handshake::Resumed
        } else {
            Handshake::Accepted
        });
        let connection = Connection::new(protocol, caller, &self.service);
        let service = self.service.clone();
        let serving: Serving = if is_h2 {
            Box::pin(http::h2::serve(stream, connection, service))
        } else {
            Box::pin(http::h1::serve(stream, connection, service))
        };
        Some((serving, seat))
    }

    /// One more connection of the device. `None`, counted and written down, when it has too many. A certificate that names no
    /// device stands for itself: its requests are refused, but it could hold as many connections as it likes.
    fn seat(
        &self,
        caller: &Caller,
        chain: Option<&[CertificateDer]>,
        transport: &'static str,
    ) -> Option<Seat> {
        let name = caller.id().map_or(leaf(chain), str::as_bytes);
        let seat = self.capacity.seat(name);
        if seat.is_none() {
            self.metrics.handshake(Handshake::DeviceFull);
            self.audit.record(Event::ConnectionRefused {
                address: caller.address,
                transport,
                device: caller.id(),
                serial: leaf_serial(chain).as_deref(),
            });
        }
        seat
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
        let pace = Pace::begin(self.handshake_timeout);
        let handshake = TlsStream::accept(
            stream,
            self.tls.configs.load().tcp.clone(),
            self.buffers.clone(),
            || pace.step(),
        );
        let handshake = handshake.map_err(|(error, stream)| (failure(&error), stream));
        let (result, serial) = match pace.keep(self.turns.drive(handshake)).await {
            Some(Ok(stream)) => match self.vet(stream.peer_certificates()) {
                Ok(links) => return Some((stream, links)),
                Err(result) => {
                    let serial = leaf_serial(stream.peer_certificates());
                    deliver_alert(stream).await;
                    (result, serial)
                }
            },
            Some(Err(((Handshake::Io, _), _))) if !pace.has_begun() => {
                // A balancer looks whether somebody listens: nobody is refused, and nothing is to be written down.
                self.metrics.handshake(Handshake::Unused);
                return None;
            }
            Some(Err((failed, stream))) => {
                deliver_alert(stream).await;
                failed
            }
            None => (Handshake::Timeout, None),
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
        let device = self.identity.device(leaf(chain)).map(|device| {
            let limits = self.limits.device(&device.id, self.clock.now());
            let memory = self.service.ingest.admission.device(&device.id);
            KnownDevice {
                device,
                limits,
                memory,
            }
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

/// Waits for it to be, or for nobody to be left who could say so.
async fn is_true(told: &mut watch::Receiver<bool>) {
    let _ = told.wait_for(|told| *told).await;
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

/// Closes a connection that is one too many of its device.
async fn turn_away(mut stream: impl AsyncRead + AsyncWrite + Unpin, protocol: Protocol) {
    if protocol == Protocol::H2 {
        // A client that is gone need not be told.
        let _ = timeout(ALERT_GRACE, stream.write_all(H2_CALM)).await;
    }
    deliver_alert(stream).await;
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
    identity::serial(leaf(chain))
}

/// The client's own certificate in DER.
fn leaf<'a>(chain: Option<&'a [CertificateDer]>) -> &'a [u8] {
    let leaf = chain.and_then(<[_]>::first);
    leaf.map_or(&[], |leaf| leaf.as_ref())
}
