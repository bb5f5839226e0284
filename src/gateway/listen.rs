//! One address, a TCP listener and a UDP socket for each worker; or the sockets that systemd has
//! opened.

mod activated;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context, anyhow};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::accept::{LISTENER_QUEUE_MAX, steer_to_workers};
use crate::config::{Config, ListenConfig};
use crate::telemetry::admin;
use crate::worker::Sockets;

/// Connections that the kernel holds until a worker accepts them; it cuts this to
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

const _: () = assert!(
    BACKLOG as usize == LISTENER_QUEUE_MAX,
    "all that waits is taken"
);

/// Asked of the kernel for what each UDP socket has received, in bytes: some 800 small datagrams
/// with what the kernel adds to them, which a worker has read in 20 to 40 ms. With room for more
/// they would wait for longer than clients do: each would send again what stands in line already,
/// and a gateway that has once fallen behind would never catch up.
const UDP_RECEIVE_BYTES: usize = 512 * 1024;

/// Asked of the kernel for what each UDP socket sends, in bytes: a burst of answers to all devices.
const UDP_SEND_BYTES: usize = 4 * 1024 * 1024;

/// Ports that are tried when the kernel picks one, until TCP and UDP can both have it.
const PORT_TRIES: usize = 16;

/// The bound addresses, and the sockets that the main thread holds.
pub(crate) struct Addresses {
    /// Address that devices connect to.
    pub listen: SocketAddr,
    pub places: Places,
    /// Listener of the admin address.
    pub admin: TcpListener,
}

/// The places of UDP sockets among those that share the port, the last first; to be dropped when
/// the workers have closed theirs.
///
/// Packets find their worker by the place of its socket (`accept::steer`), and the kernel fills the
/// place of a socket that is closed with the last of all. Closed from the last to the first, all of
/// this gateway's make room for those of the next one in their order; so they are also where the
/// process is killed, for the kernel closes the lower descriptors first.
pub(crate) type Places = Vec<UdpSocket>;

/// Binds all sockets, or takes those that were passed: one pair for each worker, in their order.
pub(crate) fn bind(config: &Config) -> anyhow::Result<(Addresses, Vec<Sockets>)> {
    let (listen, sockets) = match activated::take(&config.listen)? {
        Some(passed) => passed,
        None => bind_own(&config.listen)?,
    };
    assert_eq!(sockets.len(), config.listen.workers.get(), "one each");
    let addresses = Addresses {
        listen,
        places: keep_places(&sockets)?,
        admin: bind_admin(config.admin_listen)?,
    };
    Ok((addresses, sockets))
}

fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || {
        let listener = admin::bind(address)?;
        // Whom it accepts has the same; the kernel grants what it allows.
        SockRef::from(&listener).set_send_buffer_size(admin::SEND_BYTES)?;
        Ok(listener)
    };
    bind().map_err(|error| cannot_listen("FOREBAY_ADMIN_LISTEN", address, error))
}

/// Says what keeps the gateway from listening, and what to do about it.
fn cannot_listen(variable: &str, address: SocketAddr, error: io::Error) -> anyhow::Error {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse if variable == "FOREBAY_LISTEN" => {
            "another process is there: end it, or FOREBAY_REUSE_PORT=true shares the port with another gateway"
        }
        io::ErrorKind::AddrInUse => {
            "another process is there: end it, or choose another port; beside another gateway each needs its own"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a right: let systemd open it (forebay.socket), give CAP_NET_BIND_SERVICE, or choose a port above"
        }
        io::ErrorKind::AddrNotAvailable => {
            "it is no address of this machine: 0.0.0.0 or [::] is all that it has"
        }
        _ => "look at the address",
    };
    anyhow!("{variable}: cannot listen on {address}: {error}; {advice}")
}

fn bind_own(config: &ListenConfig) -> anyhow::Result<(SocketAddr, Vec<Sockets>)> {
    let (address, sockets) = pick_port(config)
        .and_then(|address| Ok((address, bind_all(config, address)?)))
        .map_err(|error| cannot_listen("FOREBAY_LISTEN", config.address, error))?;
    if let Some(udp) = sockets.first().and_then(|sockets| sockets.udp.as_ref()) {
        steer_to_workers(udp, config.workers.get())
            .context("cannot steer QUIC packets to their workers")?;
    }
    Ok((address, sockets))
}

fn keep_places(sockets: &[Sockets]) -> io::Result<Places> {
    sockets
        .iter()
        .rev()
        .filter_map(|sockets| sockets.udp.as_ref())
        .map(UdpSocket::try_clone)
        .collect()
}

/// The port, found free unless it may be shared. Without the look, SO_REUSEPORT would hide that it
/// is taken.
fn pick_port(config: &ListenConfig) -> io::Result<SocketAddr> {
    if config.reuse_port && config.address.port() != 0 {
        return Ok(config.address);
    }
    let tries = if config.address.port() == 0 {
        PORT_TRIES
    } else {
        1
    };
    (1..tries)
        .find_map(|_| probe(config).ok())
        .map_or_else(|| probe(config), Ok)
}

fn probe(config: &ListenConfig) -> io::Result<SocketAddr> {
    let tcp = open(config.address, Type::STREAM, false)?;
    tcp.listen(1)?;
    let address = tcp
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("not an IP socket"))?;
    if config.http3 {
        open(address, Type::DGRAM, false)?;
    }
    Ok(address)
}

fn bind_all(config: &ListenConfig, address: SocketAddr) -> io::Result<Vec<Sockets>> {
    let bind = |_| {
        let udp = config.http3.then(|| bind_udp(address)).transpose()?;
        Ok(Sockets {
            tcp: bind_tcp(address)?,
            udp,
        })
    };
    (0..config.workers.get()).map(bind).collect()
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = open(address, Type::STREAM, true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address, Type::DGRAM, true)?;
    // The kernel grants what it allows.
    socket.set_recv_buffer_size(UDP_RECEIVE_BYTES)?;
    socket.set_send_buffer_size(UDP_SEND_BYTES)?;
    Ok(socket.into())
}

fn open(address: SocketAddr, kind: Type, shares_port: bool) -> io::Result<Socket> {
    let protocol = if kind == Type::STREAM {
        Protocol::TCP
    } else {
        Protocol::UDP
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if kind == Type::STREAM {
        // A restarted gateway need not wait for its old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(shares_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
