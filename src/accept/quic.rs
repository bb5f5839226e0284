//! QUIC: one endpoint a worker, on its own socket.

use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, EndpointConfig, IdleTimeout, Incoming, ServerConfig, TransportConfig, VarInt};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::rustls;

use super::{Acceptor, WorkerConnectionIds};
use crate::http::{self, Connection, STREAMS_MAX};
use crate::telemetry::metrics::{Handshake, Protocol};

/// What a stream may send before it is read, in bytes.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;

/// What a connection may send before it is read, in bytes: quinn's own default has no bound.
const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;

/// Control and QPACK streams of h3, and a reserved one (RFC 9114 section 6.2).
const UNI_STREAMS_MAX: u32 = 8;

/// A worker's QUIC endpoint, and what its connections are made with, but for what changes with the files of TLS.
pub struct Quic {
    endpoint: Endpoint,
    config: ServerConfig,
}

impl Quic {
    /// An endpoint on `socket`, whose connection ids lead back to this worker.
    pub fn new(
        socket: UdpSocket,
        tls: Arc<rustls::ServerConfig>,
        ids: WorkerConnectionIds,
        idle_timeout: Duration,
    ) -> io::Result<Self> {
        let tls = QuicServerConfig::try_from(tls).map_err(io::Error::other)?;
        let mut config = ServerConfig::with_crypto(Arc::new(tls));
        config.transport_config(Arc::new(transport(idle_timeout)?)).migration(true);
        let mut endpoint = EndpointConfig::default();
        endpoint.cid_generator(move || Box::new(ids));
        let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no runtime"))?;
        Ok(Self { endpoint: Endpoint::new(endpoint, Some(config.clone()), socket, runtime)?, config })
    }
}

fn transport(idle_timeout: Duration) -> io::Result<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle_timeout = IdleTimeout::try_from(idle_timeout).map_err(io::Error::other)?;
    transport
        .max_idle_timeout(Some(idle_timeout))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .datagram_receive_buffer_size(None);
    Ok(transport)
}

impl Acceptor {
    /// Accepts QUIC connections until the gateway drains, then waits for them to end.
    pub async fn run_quic(self: Rc<Self>, quic: Quic) {
        let Quic { endpoint, config } = quic;
        let mut connections = JoinSet::new();
        let mut draining = self.draining.clone();
        loop {
            tokio::select! {
                _ = draining.wait_for(|draining| *draining) => break,
                Some(_) = connections.join_next() => {}
                incoming = endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    match self.permits.clone().try_acquire_owned() {
                        Ok(permit) => drop(connections.spawn_local(self.clone().serve_quic(incoming, config.clone(), permit))),
                        Err(_) => incoming.refuse(),
                    }
                }
            }
        }
        endpoint.set_server_config(None);
        while connections.join_next().await.is_some() {}
        endpoint.wait_idle().await;
    }

    async fn serve_quic(self: Rc<Self>, incoming: Incoming, mut config: ServerConfig, _permit: OwnedSemaphorePermit) {
        let Some(address_limits) = self.admit(incoming.remote_address().ip()) else { return incoming.refuse() };
        // One that lacks QUIC's first cipher suite was refused at start.
        let tls = QuicServerConfig::try_from(self.tls.configs.load().quic.clone());
        let Ok(tls) = tls else { return incoming.refuse() };
        config.crypto = Arc::new(tls);
        let handshake = async { incoming.accept_with(Arc::new(config))?.await };
        let quic = match timeout(self.handshake_timeout, handshake).await {
            Ok(Ok(quic)) => quic,
            Ok(Err(error)) => return self.metrics.handshake(failure(&error)),
            Err(_) => return self.metrics.handshake(Handshake::Timeout),
        };
        let chain = quic.peer_identity().and_then(|any| any.downcast::<Vec<rustls::pki_types::CertificateDer>>().ok());
        let chain = chain.as_ref().map(|chain| &chain[..]);
        let links = match self.vet(chain) {
            Ok(links) => links,
            // Dropped, the connection is closed.
            Err(result) => return self.metrics.handshake(result),
        };
        self.metrics.handshake(Handshake::Accepted);
        let caller = self.caller(chain, links, address_limits);
        http::h3::serve(quic, Connection::new(Protocol::H3, caller, self.metrics.clone()), self.service.clone()).await;
    }
}

/// A failed handshake carries its TLS alert (RFC 9001 section 4.8, RFC 8446 section 6).
fn failure(error: &quinn::ConnectionError) -> Handshake {
    const ALERTS: u64 = 0x100;
    let quinn::ConnectionError::TransportError(error) = error else {
        let timed_out = matches!(error, quinn::ConnectionError::TimedOut);
        return if timed_out { Handshake::Timeout } else { Handshake::Io };
    };
    match u64::from(error.code).checked_sub(ALERTS) {
        Some(42 | 43 | 46) => Handshake::BadCertificate,
        Some(44) => Handshake::Revoked,
        Some(45) => Handshake::Expired,
        Some(48) => Handshake::UnknownIssuer,
        Some(116) => Handshake::NoCertificate,
        _ => Handshake::Protocol,
    }
}
