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

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::time::timeout;

use crate::protocol::Protocol;
use crate::target::Target;
pub use upload::Pace;

/// Of an answer's body; more is an error.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Of a UDP socket: with room for more, answers would wait there until their devices have asked
/// again.
const RECEIVE_BUFFER_BYTES: usize = 512 << 10;

/// Of a UDP socket: holds a burst of requests.
const SEND_BUFFER_BYTES: usize = 4 << 20;

/// Where the connections of a thread come from.
pub struct Sources {
    /// TCP connections come from 127.0.0.2 and so on in turn; 0 leaves the address to the system.
    pub addresses: u8,
    /// UDP sockets for QUIC.
    pub sockets: usize,
}

/// Makes the connections of one thread.
pub struct Dialer {
    target: Arc<Target>,
    timeout: Duration,
    addresses: u8,
    endpoints: Vec<quinn::Endpoint>,
    transport: Arc<quinn::TransportConfig>,
}

impl Dialer {
    /// Within a tokio runtime.
    pub fn new(target: Arc<Target>, timeout: Duration, sources: &Sources) -> Result<Self> {
        let endpoint = |socket: usize| endpoint(source(sources.addresses, socket), target.address);
        let endpoints = (0..sources.sockets).map(endpoint).collect::<Result<_>>()?;
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

    /// The `number` chooses among the sockets and source addresses.
    pub async fn connect(
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
        let quic = endpoint
            .connect_with(config, self.target.address, &self.target.host)?
            .await?;
        Ok(Connection::H3(
            h3::Connection::open(quic, &self.target).await?,
        ))
    }

    fn source(&self, number: u32) -> Option<SocketAddr> {
        (self.addresses > 0).then(|| source(self.addresses, number as usize))
    }
}

fn source(addresses: u8, number: usize) -> SocketAddr {
    let last = if addresses == 0 {
        1
    } else {
        2 + (number % usize::from(addresses)) as u8
    };
    (Ipv4Addr::new(127, 0, 0, last), 0).into()
}

fn endpoint(source: SocketAddr, target: SocketAddr) -> Result<quinn::Endpoint> {
    let any: SocketAddr = if target.is_ipv4() {
        (IpAddr::from([0, 0, 0, 0]), 0).into()
    } else {
        ([0_u16; 8], 0).into()
    };
    let socket = UdpSocket::bind(if target.ip().is_loopback() && target.is_ipv4() {
        source
    } else {
        any
    })?;
    let options = socket2::SockRef::from(&socket);
    // The system grants as much as its administrator allows.
    let _ = options.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    let _ = options.set_send_buffer_size(SEND_BUFFER_BYTES);
    let runtime = quinn::default_runtime().context("a runtime")?;
    Ok(quinn::Endpoint::new(
        quinn::EndpointConfig::default(),
        None,
        socket,
        runtime,
    )?)
}

/// A connection that takes requests; dropping it closes it.
pub enum Connection {
    H1(tcp::H1),
    H2(tcp::H2),
    H3(h3::Connection),
}

impl Connection {
    /// Sends a body and returns the status of the answer, once all of it has come. After an error
    /// the connection is of no more use.
    pub async fn send(&mut self, body: Bytes, pace: Option<Pace>) -> Result<u16> {
        match self {
            Self::H1(connection) => connection.send(body, pace).await,
            Self::H2(connection) => connection.send(body, pace).await,
            Self::H3(connection) => connection.send(body, pace).await,
        }
    }

    /// Whether it has not been closed, as far as is known.
    pub fn is_open(&self) -> bool {
        match self {
            Self::H1(connection) => connection.is_open(),
            Self::H2(connection) => connection.is_open(),
            Self::H3(connection) => connection.is_open(),
        }
    }

    /// A handle to the same connection for a further request at the same time; none on HTTP/1.1.
    pub fn share(&self) -> Option<Self> {
        match self {
            Self::H1(_) => None,
            Self::H2(connection) => Some(Self::H2(connection.clone())),
            Self::H3(connection) => Some(Self::H3(connection.clone())),
        }
    }
}
