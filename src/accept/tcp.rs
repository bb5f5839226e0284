//! TCP: one listener a worker, its handshakes, and the connections of HTTP/1.1 and HTTP/2 that come
//! of them.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use futures_util::{FutureExt, TryFutureExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::capacity::Seat;
use super::pace::Pace;
use super::{Acceptor, Failed, HANDSHAKE_GRACE, Permits, Vetted, attended};
use crate::http::{self, Connection};
use crate::lifecycle::{Phase, Token};
use crate::limits::AddressLimits;
use crate::tls::{self, PlainHttp, TlsStream};
use crate::words::{Handshake, Protocol};

/// Pause of accepting when the system has no file descriptor or memory to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are taken from a listener which closes: as many as the kernel may hold.
pub(crate) const LISTENER_QUEUE_MAX: usize = 4096;

/// Time that a client whose handshake failed has to read the alert and go.
const ALERT_GRACE: Duration = Duration::from_secs(1);

/// Answer to an HTTP/2 client whose device has too many connections: SETTINGS, and GOAWAY with
/// ENHANCE_YOUR_CALM (RFC 9113 sections 3.4, 6.8 and 7). HTTP/1.1 has no words for it.
const H2_CALM: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b";

const _: () = assert!(
    H2_CALM.len() == 9 + 9 + 8,
    "two frame heads, and what GOAWAY says"
);

/// Answer to a client that speaks plain HTTP where TLS is spoken, as nginx gives it. The problem is
/// written out, since no request is read.
const TLS_REQUIRED: &str = "HTTP/1.1 400 Bad Request\r\n\
    content-type: application/problem+json\r\n\
    content-length: 182\r\n\
    connection: close\r\n\r\n\
    {\"type\":\"urn:forebay:problem:tls-required\",\"title\":\"TLS required\",\"status\":400,\
    \"code\":\"tls-required\",\"detail\":\"This port speaks TLS: use https:// and show the device's certificate.\"}";

/// A connection being served.
type Serving = Pin<Box<dyn Future<Output = ()>>>;

/// A stream whose handshake has ended well, and what has been found out about its client.
type Shaken = (TlsStream<TcpStream>, Vetted);

/// A connection to be served, and its place among those of its device.
type Seated = (Serving, Seat);

impl Acceptor {
    /// Accepts TCP connections until listeners close, then waits for the connections to end.
    /// `listening` is dropped with the listener.
    pub(crate) async fn run_tcp(self: Rc<Self>, listener: TcpListener, listening: Token) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = self.phases.reached(Phase::Closing) => break,
                Some(_) = connections.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let Some(permits) = self.wait_for_room(&mut connections).await else {
                            break;
                        };
                        connections.spawn_local(self.clone().serve_tcp(stream, peer.ip(), permits));
                        // Behind those in line: more than can get on at a time wait in the kernel,
                        // which costs less.
                        self.turns.take(|| ()).await;
                    }
                    Err(error) => pause(&error).await,
                },
            }
        }
        debug_assert!(
            self.phases.has_reached(Phase::Closing),
            "nothing else ends it"
        );
        // The error is that nothing waits any more, or what accepting would have paused for.
        let _ = self.empty(listener, &mut connections);
        drop(listening);
        while connections.join_next().await.is_some() {}
    }

    /// Room for a connection that is there: a worker for which nobody waits holds no place. `None`
    /// when listeners close.
    async fn wait_for_room(&self, connections: &mut JoinSet<()>) -> Option<Permits> {
        let mut room = pin!(self.capacity.wait_for_tcp());
        loop {
            tokio::select! {
                biased;
                permits = &mut room => return Some(permits),
                () = self.phases.reached(Phase::Closing) => return None,
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// Takes what waits in the kernel's queue, as far as there is room, and closes the listener:
    /// what is left in the queue is reset.
    fn empty(
        self: &Rc<Self>,
        listener: TcpListener,
        connections: &mut JoinSet<()>,
    ) -> io::Result<()> {
        // Not tokio's: it would ask the kernel only when that has had the time to say that
        // something waits.
        let listener = listener.into_std()?;
        for permits in
            (0..LISTENER_QUEUE_MAX).map_while(|_| self.capacity.wait_for_tcp().now_or_never())
        {
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
        let (mut permit, address_limits) = match self.admit(address) {
            Ok(admitted) => admitted,
            Err(result) => return self.end_handshake(&Failed::new(result), address, "tcp"),
        };
        // Small answers leave at once: without this, a first answer can wait 40 ms for a delayed
        // ACK.
        let _ = stream.set_nodelay(true);
        // Boxed, so that what only a handshake needs is given back when it is over.
        let connecting = self.connect(stream, address, address_limits);
        let serving = Box::pin(self.until_left(connecting, address)).await;
        drop(handshake);
        permit.settle();
        if let Some((serving, _seat)) = serving {
            serving.await;
        }
    }

    /// Shakes hands for as long as the gateway serves, and a moment more: nobody who is silent
    /// holds it up.
    async fn until_left(
        &self,
        connecting: impl Future<Output = Option<Seated>>,
        address: IpAddr,
    ) -> Option<Seated> {
        tokio::select! {
            seated = connecting => seated,
            () = self.drains_for(HANDSHAKE_GRACE) => {
                self.end_handshake(&Failed::new(Handshake::Timeout), address, "tcp");
                None
            }
        }
    }

    /// Shakes hands; what is left to do then is to serve the connection, which has a seat of its
    /// device.
    async fn connect(
        &self,
        stream: TcpStream,
        address: IpAddr,
        address_limits: AddressLimits,
    ) -> Option<Seated> {
        let (stream, vetted) = self.shake_hands(stream, address).await?;
        let protocol = match stream.alpn_protocol() {
            Some(b"h2") => Protocol::H2,
            _ => Protocol::H1,
        };
        let caller = self.caller(stream.peer_certificates(), vetted, address, address_limits);
        let Some(seat) = self.seat(&caller, stream.peer_certificates(), "tcp") else {
            turn_away(stream, protocol).await;
            return None;
        };
        self.count(if stream.is_resumed() {
            Handshake::Resumed
        } else {
            Handshake::Accepted
        });
        let connection = Connection::new(protocol, caller, &self.service);
        let (is_resumed, chain) = (stream.is_resumed(), stream.peer_certificates());
        let connection = attended(connection, &self.service, is_resumed, chain);
        Some((self.serving(stream, protocol, connection), seat))
    }

    fn serving(
        &self,
        stream: TlsStream<TcpStream>,
        protocol: Protocol,
        connection: Connection,
    ) -> Serving {
        let service = self.service.clone();
        match protocol {
            Protocol::H2 => Box::pin(http::h2::serve(stream, connection, service)),
            Protocol::H1 => Box::pin(http::h1::serve(stream, connection, service)),
            Protocol::H3 => unreachable!("it is served over QUIC"),
        }
    }

    async fn shake_hands(&self, stream: TcpStream, address: IpAddr) -> Option<Shaken> {
        let pace = Pace::begin(self.handshake_timeout);
        let handshake = TlsStream::accept(
            stream,
            self.trust.tls.configs.load().tcp.clone(),
            self.buffers.clone(),
            || pace.step(),
        );
        let handshake = handshake.map_err(|(error, stream)| (failure(&error), stream));
        let failed = match pace.keep(self.turns.drive(handshake)).await {
            Some(Ok(stream)) => match self.vet_client(stream).await {
                Ok(shaken) => return Some(shaken),
                Err(failed) => failed,
            },
            Some(Err((failed, _))) if failed.result == Handshake::Io && !pace.has_begun() => {
                // A balancer looks whether somebody listens: nobody is refused, and nothing is to
                // be written down.
                self.count(Handshake::Unused);
                return None;
            }
            Some(Err((failed, stream))) => {
                say_why(&failed, stream).await;
                failed
            }
            None => Failed::new(Handshake::Timeout),
        };
        self.end_handshake(&failed, address, "tcp");
        None
    }

    /// Vets the client's chain, and closes the connection of one that may not go on.
    async fn vet_client(&self, stream: TlsStream<TcpStream>) -> Result<Shaken, Failed> {
        match self.vet(stream.peer_certificates()) {
            Ok(vetted) => Ok((stream, vetted)),
            Err(result) => {
                let failed = Failed::after(result, stream.peer_certificates());
                deliver_alert(stream).await;
                Err(failed)
            }
        }
    }
}

/// Closes a connection whose handshake has failed: a client of plain HTTP, which reads no alert, is
/// answered in clear before.
async fn say_why(failed: &Failed, mut stream: TcpStream) {
    if failed.result == Handshake::PlainHttp {
        // A client that is gone need not be told.
        let _ = timeout(ALERT_GRACE, stream.write_all(TLS_REQUIRED.as_bytes())).await;
    }
    deliver_alert(stream).await;
}

/// Closes a connection whose last bytes are an alert. Closed with the client's bytes unread, it
/// would be reset, and the alert lost on its way: in TLS 1.3 a refused client has sent its first
/// request already.
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

/// A connection that broke before it was accepted is nothing to wait for; anything else would fail
/// again at once.
async fn pause(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    if !matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    ) {
        sleep(ACCEPT_PAUSE).await;
    }
}

/// Why it failed. To be called before anything else is awaited: another handshake may fail on this
/// thread.
fn failure(error: &io::Error) -> Failed {
    let Some(inner) = error.get_ref() else {
        return Failed::new(Handshake::Io);
    };
    if inner.is::<PlainHttp>() {
        return Failed::new(Handshake::PlainHttp);
    }
    match inner.downcast_ref::<rustls::Error>() {
        None => Failed::new(Handshake::Io),
        Some(error) => match tls::take_refused(error) {
            Some(refused) => refused.into(),
            None => Failed::new(tls::failure(error)),
        },
    }
}
