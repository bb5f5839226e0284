//! QUIC: one endpoint a worker, on its own socket.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use quinn::crypto::HmacKey;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TransportConfig,
    TransportErrorCode, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::task::{JoinSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::{
    Acceptor, Failed, HANDSHAKE_GRACE, Permits, Vetted, WorkerConnectionIds, attended, pace,
};
use crate::http::{self, Connection};
use crate::lifecycle::{Phase, Token};
use crate::limits::AddressLimits;
use crate::tls::{self, Note};
use crate::words::{Handshake, Protocol};

/// Bytes that a stream may send before they are read.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// Bytes that a connection may send before they are read; quinn's own default has no bound.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);

/// Control and QPACK streams of h3, and a reserved one (RFC 9114 section 6.2).
const UNI_STREAMS_MAX: u32 = 8;

/// Handshakes under way of addresses that nobody has validated: with more of them on a worker, a
/// client must first prove that it is where it says, by a Retry (RFC 9000 section 8.1.2). Costs an
/// honest one a round trip.
const UNVALIDATED_MAX: usize = 64;

/// The code of HTTP/3 with which a connection is closed whose device has too many (RFC 9114 section
/// 8.1).
const H3_EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

/// The alert to a client that shows no certificate (RFC 8446 section 6.2).
const CERTIFICATE_REQUIRED: u8 = 116;

/// Between two stateless resets of a worker. quinn's own, 20 ms, would let a large fleet wait for
/// minutes until each device knows that the gateway has been killed; at a thousand a second they
/// cost a hundredth of a core.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// Time that CONNECTION_CLOSE has to be sent. A client that is gone would have its connection stay
/// for longer, for the case that it comes back: a stateless reset tells it then.
const CLOSE_GRACE: Duration = Duration::from_millis(250);

/// Time between two looks at whether a socket that nothing needs any more has been closed.
const SOCKET_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// A worker's place among the UDP sockets of the port, which the gateway leaves when every worker
/// has. Who ends before the socket is closed leaves the place to the worker's thread.
pub(crate) type Place = Rc<Cell<Option<Token>>>;

/// A worker's QUIC endpoint, and what its connections are made with, but for what changes with the
/// files of TLS.
pub(crate) struct Quic {
    endpoint: Endpoint,
    config: ServerConfig,
    /// The endpoint's socket, as long as anything of quinn's holds it.
    socket: Weak<dyn AsyncUdpSocket>,
}

impl Quic {
    /// An endpoint on `socket`, whose connection ids lead back to this worker. `reset_key` is this
    /// worker's.
    pub(crate) fn new(
        socket: UdpSocket,
        tls: Arc<rustls::ServerConfig>,
        reset_key: Arc<dyn HmacKey>,
        ids: WorkerConnectionIds,
        idle_timeout: Duration,
    ) -> io::Result<Self> {
        let config = server_config(tls, idle_timeout)?;
        let mut endpoint = EndpointConfig::new(reset_key);
        endpoint
            .cid_generator(move || Box::new(ids))
            .min_reset_interval(RESET_INTERVAL);
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no runtime"))?;
        let socket = runtime.wrap_udp_socket(socket)?;
        Ok(Self {
            socket: Arc::downgrade(&socket),
            endpoint: Endpoint::new_with_abstract_socket(
                endpoint,
                Some(config.clone()),
                socket,
                runtime,
            )?,
            config,
        })
    }
}

/// Returns when the endpoint's connections and its socket are gone, which may take as long as a
/// client that is gone.
async fn let_go(endpoint: Endpoint, socket: Weak<dyn AsyncUdpSocket>) {
    endpoint.wait_idle().await;
    drop(endpoint);
    while socket.strong_count() > 0 {
        sleep(SOCKET_CHECK_INTERVAL).await;
    }
}

fn server_config(
    tls: Arc<rustls::ServerConfig>,
    idle_timeout: Duration,
) -> io::Result<ServerConfig> {
    let tls = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport(idle_timeout)?))
        .migration(true);
    Ok(config)
}

fn transport(idle_timeout: Duration) -> io::Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle_timeout = IdleTimeout::try_from(idle_timeout).map_err(io::Error::other)?;
    transport
        .max_idle_timeout(Some(idle_timeout))
        .max_concurrent_bidi_streams(VarInt::from_u32(http::h3::room::STREAMS_AT_FIRST))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(None)
        // Answers fit one datagram. With it each connection would keep the buffer of ten, 14 KB, from
        // the moment on that its handshake has sent two.
        .enable_segmentation_offload(false);
    Ok(transport)
}

impl Acceptor {
    /// Accepts QUIC connections until the gateway drains, then waits for them to end. `place` is
    /// left when the socket is closed, which may be later.
    pub(crate) async fn run_quic(self: Rc<Self>, quic: Quic, place: Place) {
        let Quic {
            endpoint,
            config,
            socket,
        } = quic;
        let mut connections = JoinSet::new();
        let unvalidated = Rc::new(());
        loop {
            tokio::select! {
                () = self.phases.reached(Phase::Draining) => break,
                Some(_) = connections.join_next() => {}
                incoming = endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    if let Some((incoming, permits)) = self.take_in(incoming, &unvalidated) {
                        let unvalidated = unvalidated.clone();
                        let hello = Box::new(Hello { incoming, config: config.clone() });
                        connections.spawn_local(self.clone().serve_quic(hello, permits, unvalidated));
                    }
                }
            }
        }
        endpoint.set_server_config(None);
        while connections.join_next().await.is_some() {}
        let _ = timeout(CLOSE_GRACE, endpoint.wait_idle()).await;
        spawn_local(async move {
            let_go(endpoint, socket).await;
            drop(place.take());
        });
    }

    /// Takes in a connection that may begin its handshake. `unvalidated` has a clone for each one
    /// under way whose address has not been validated.
    fn take_in(&self, incoming: Incoming, unvalidated: &Rc<()>) -> Option<(Incoming, Permits)> {
        if !incoming.remote_address_validated() && Rc::strong_count(unvalidated) > UNVALIDATED_MAX {
            self.count(Handshake::Retry);
            // It fails only for those that have been validated.
            let _ = incoming.retry();
            return None;
        }
        let Some(permits) = self.capacity.take_quic() else {
            let address = incoming.remote_address().ip();
            self.end_handshake(&Failed::new(Handshake::Full), address, "quic");
            incoming.refuse();
            return None;
        };
        Some((incoming, permits))
    }

    async fn serve_quic(
        self: Rc<Self>,
        hello: Box<Hello>,
        (_connection, handshake): Permits,
        unvalidated: Rc<()>,
    ) {
        let address = hello.incoming.remote_address().ip();
        let unvalidated = (!hello.incoming.remote_address_validated()).then_some(unvalidated);
        let (mut permit, address_limits) = match self.admit(address) {
            Ok(admitted) => admitted,
            Err(result) => {
                hello.incoming.refuse();
                return self.end_handshake(&Failed::new(result), address, "quic");
            }
        };
        // Boxed, so that what only a handshake needs is given back when it is over.
        let shaken = Box::pin(self.shake_quic(hello)).await;
        drop((unvalidated, handshake));
        permit.settle();
        match shaken {
            Ok(shaken) => self.serve_h3(shaken, address, address_limits).await,
            Err(failed) => self.end_handshake(&failed, address, "quic"),
        }
    }

    /// Serves a connection, or closes it where its device has too many.
    async fn serve_h3(&self, shaken: Shaken, address: IpAddr, address_limits: AddressLimits) {
        let Shaken {
            quic,
            chain,
            vetted,
            is_resumed,
        } = shaken;
        let caller = self.caller(chain.as_deref(), vetted, address, address_limits);
        let Some(_seat) = self.seat(&caller, chain.as_deref(), "quic") else {
            return quic.close(H3_EXCESSIVE_LOAD, b"");
        };
        self.count(Handshake::Accepted);
        let connection = Connection::new(Protocol::H3, caller, &self.service);
        let connection = attended(connection, &self.service, is_resumed, chain.as_deref());
        // Only the handshake needs the chain.
        drop(chain);
        http::h3::serve(quic, connection, self.service.clone()).await;
    }

    async fn shake_quic(&self, hello: Box<Hello>) -> Result<Shaken, Failed> {
        let Hello {
            incoming,
            mut config,
        } = *hello;
        // A configuration that rustls or quinn does not take was refused at the start.
        let Ok((tls, note)) = self.trust.tls.configs.load().quic.config() else {
            incoming.refuse();
            return Err(Failed::new(Handshake::Protocol));
        };
        let Ok(tls) = QuicServerConfig::try_from(tls) else {
            incoming.refuse();
            return Err(Failed::new(Handshake::Protocol));
        };
        config.crypto = Arc::new(tls);
        let quic = match self.handshake_in_time(incoming, config).await {
            Some(Ok(quic)) => quic,
            Some(Err(error)) => return Err(failure(&error, &note)),
            None => return Err(Failed::new(Handshake::Timeout)),
        };
        let chain = client_chain(&quic);
        match self.vet(chain.as_deref()) {
            Ok(vetted) => Ok(Shaken {
                quic,
                chain,
                vetted,
                is_resumed: !note.has_verified(),
            }),
            // Dropped, the connection is closed.
            Err(result) => Err(Failed::after(result, chain.as_deref())),
        }
    }

    /// Drives a handshake to its end; `None` when it is out of time, or the gateway drains.
    async fn handshake_in_time(
        &self,
        incoming: Incoming,
        config: ServerConfig,
    ) -> Option<Result<quinn::Connection, quinn::ConnectionError>> {
        // The first packet has all of a hello, as a rule, and is answered when it is accepted.
        let handshake = async {
            self.turns
                .take(|| incoming.accept_with(Arc::new(config)))
                .await?
                .await
        };
        // quinn does not tell when something arrives.
        tokio::select! {
            biased;
            shaken = timeout(pace::whole(self.handshake_timeout), handshake) => shaken.ok(),
            () = self.drains_for(HANDSHAKE_GRACE) => None,
        }
    }
}

/// A connection that may begin its handshake, and what it is made with. Boxed: the future that
/// serves a connection would have room for it to its end.
struct Hello {
    incoming: Incoming,
    config: ServerConfig,
}

/// A connection whose handshake has ended well.
struct Shaken {
    quic: quinn::Connection,
    chain: Option<Vec<CertificateDer<'static>>>,
    /// The client as the handshake has shown it.
    vetted: Vetted,
    /// The session is that of an earlier connection.
    is_resumed: bool,
}

fn client_chain(quic: &quinn::Connection) -> Option<Vec<CertificateDer<'static>>> {
    let chain = quic.peer_identity()?.downcast().ok()?;
    Some(*chain)
}

/// Why a handshake failed: because of the certificate that its verifier has noted, or as its alert
/// says.
fn failure(error: &quinn::ConnectionError, note: &Note) -> Failed {
    if let Some(refused) = note.refused() {
        return Failed {
            result: refused.reason,
            certificate: refused.certificate.clone().map(Box::new),
        };
    }
    let result = match error {
        quinn::ConnectionError::TransportError(error) => match alert(error.code) {
            Some(CERTIFICATE_REQUIRED) => Handshake::NoCertificate,
            _ => Handshake::Protocol,
        },
        quinn::ConnectionError::ConnectionClosed(close) => {
            alert(close.error_code).map_or(Handshake::Io, tls::alert_received)
        }
        quinn::ConnectionError::TimedOut => Handshake::Timeout,
        _ => Handshake::Io,
    };
    Failed::new(result)
}

/// The alert of TLS that a code of QUIC carries (RFC 9001 section 4.8).
fn alert(code: TransportErrorCode) -> Option<u8> {
    const ALERTS: u64 = 0x100;
    let alert = u64::from(code).checked_sub(ALERTS)?;
    u8::try_from(alert).ok()
}
