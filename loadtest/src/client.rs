//! Connections to the server under test, one kind for each protocol, and what a request on them
//! came to.
//!
//! Devices of a fleet and the closed loops of `burn` use it. One [`Dialer`] a thread owns the UDP
//! sockets that all QUIC connections of the thread share, and knows the source addresses that TCP
//! connections take in turn. Bounds: a connection and its handshake have `timeout`, a request too;
//! of an answer's body at most 1 MiB is read. Failure: an error that says what went wrong, for the
//! log; a caller counts it and goes on.

mod h3;
mod tcp;
mod upload;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;

use crate::protocol::Protocol;
use crate::target::Target;
pub(crate) use upload::Pace;

/// The most that is read of an answer's body; more is an error.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The receive buffer of a UDP socket: with room for more, answers would wait there until their
/// devices have asked again.
const RECEIVE_BUFFER_BYTES: usize = 512 << 10;

/// The send buffer of a UDP socket: holds a burst of requests.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// The addresses and sockets that the connections of a thread come from.
pub(crate) struct Sources {
    /// TCP connections come from 127.0.0.2 and so on in turn; 0 leaves the address to the system.
    pub addresses: u8,
    /// UDP sockets for QUIC.
    pub sockets: usize,
}

/// Makes the connections of one thread.
pub(crate) struct Dialer {
    target: Arc<Target>,
    timeout: Duration,
    addresses: u8,
    endpoints: Vec<quinn::Endpoint>,
    transport: Arc<quinn::TransportConfig>,
}

impl Dialer {
    /// Makes the sockets; within a tokio runtime.
    pub(crate) fn new(target: Arc<Target>, timeout: Duration, sources: &Sources) -> Result<Self> {
        let mut endpoints = Vec::new();
        for socket in 0..sources.sockets {
            let source = source(sources.addresses, socket);
            endpoints.push(endpoint(source, target.address)?);
        }
        let mut transport = quinn::TransportConfig::default();
        // The server's idle time-out holds; devices do not probe the path.
        transport.max_idle_timeout(None).mtu_discovery_config(None);
        Ok(Self {
            target,
            timeout,
            addresses: sources.addresses,
            endpoints,
            transport: Arc::new(transport),
        })
    }

    /// Connects and shakes hands. The `number` chooses among the sockets and source addresses.
    pub(crate) async fn connect(
        &self,
        protocol: Protocol,
        tls: &Arc<rustls::ClientConfig>,
        number: u32,
    ) -> Result<Connection> {
        let connecting = async {
            match protocol {
                Protocol::H1 => tcp::connect_h1(self, self.source(number), tls).await,
                Protocol::H2 => tcp::connect_h2(self, self.source(number), tls).await,
                Protocol::H3 => self.connect_quic(tls, number).await,
            }
        };
        timeout(self.timeout, connecting)
            .await
            .map_err(|_| anyhow!("no connection within {:?}", self.timeout))?
    }

    async fn connect_quic(
        &self,
        tls: &Arc<rustls::ClientConfig>,
        number: u32,
    ) -> Result<Connection> {
        ensure!(!self.endpoints.is_empty(), "no UDP socket");
        let crypto = QuicClientConfig::try_from(tls.clone())?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        let endpoint = &self.endpoints[number as usize % self.endpoints.len()];
        let Target { address, host, .. } = &*self.target;
        let quic = endpoint.connect_with(config, *address, host)?.await?;
        let connection = h3::Connection::open(quic, &self.target).await?;
        Ok(Connection::H3(connection))
    }

    /// The address that a TCP connection comes from, where the system does not choose it.
    fn source(&self, number: u32) -> Option<SocketAddr> {
        let is_chosen = self.addresses > 0 && has_loopback_sources(self.target.address);
        is_chosen.then(|| source(self.addresses, number as usize))
    }
}

/// Whether connections to a server may come from any address of 127.0.0.0/8.
fn has_loopback_sources(target: SocketAddr) -> bool {
    target.is_ipv4() && target.ip().is_loopback()
}

fn source(addresses: u8, number: usize) -> SocketAddr {
    let last = match addresses {
        0 => 1,
        addresses => 2 + (number % usize::from(addresses)) as u8,
    };
    (Ipv4Addr::new(127, 0, 0, last), 0).into()
}

fn endpoint(source: SocketAddr, target: SocketAddr) -> Result<quinn::Endpoint> {
    let any: IpAddr = match target.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = match has_loopback_sources(target) {
        true => UdpSocket::bind(source)?,
        false => UdpSocket::bind((any, 0))?,
    };
    let options = socket2::SockRef::from(&socket);
    // The system grants as much as its administrator allows.
    let _ = options.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    let _ = options.set_send_buffer_size(SEND_BUFFER_BYTES);
    let runtime = quinn::default_runtime().context("a runtime")?;
    let config = quinn::EndpointConfig::default();
    Ok(quinn::Endpoint::new(config, None, socket, runtime)?)
}

/// Answer to a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// A connection that takes requests; dropping it closes it.
pub(crate) enum Connection {
    H1(tcp::H1),
    H2(tcp::H2),
    H3(h3::Connection),
}

impl Connection {
    /// Sends a body and returns the answer, once all of it has come. After an error the connection
    /// is of no more use.
    pub(crate) async fn send(&mut self, body: Bytes, pace: Option<Pace>) -> Result<Answer> {
        match self {
            Self::H1(connection) => connection.send(body, pace).await,
            Self::H2(connection) => connection.send(body, pace).await,
            Self::H3(connection) => connection.send(body, pace).await,
        }
    }

    /// Whether it has not been closed, as far as is known.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::H1(connection) => connection.is_open(),
            Self::H2(connection) => connection.is_open(),
            Self::H3(connection) => connection.is_open(),
        }
    }

    /// A handle to the same connection for a further request at the same time; none on HTTP/1.1.
    pub(crate) fn share(&self) -> Option<Self> {
        match self {
            Self::H1(_) => None,
            Self::H2(connection) => Some(Self::H2(connection.clone())),
            Self::H3(connection) => Some(Self::H3(connection.clone())),
        }
    }
}
