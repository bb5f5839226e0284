//! Sockets that systemd has opened and passes (`LISTEN_FDS`): one TCP listener, and one UDP socket
//! for HTTP/3.
//!
//! They stay open while the gateway is restarted, so no connection is refused then: it waits in the
//! kernel. All workers accept from the one listener, each through a descriptor of its own; what it
//! brings goes to whoever wakes first, not to each its share as with a listener each. A QUIC
//! connection has to stay with its worker, so the first worker alone serves the UDP socket. Where
//! it is the processor that bounds the gateway, let it open its own sockets.

use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context, bail, ensure};
use socket2::{Socket, Type};

use crate::config::ListenConfig;
use crate::worker::Sockets;

/// The number of the first descriptor that is passed: the one after stderr.
const FIRST: i32 = 3;

/// A listener and a UDP socket: no unit of ours passes more.
const PASSED_MAX: i32 = 2;

/// Takes the sockets that systemd passed to this process, if it passed any; `FOREBAY_LISTEN` is
/// ignored then.
pub(crate) fn take(config: &ListenConfig) -> anyhow::Result<Option<(SocketAddr, Vec<Sockets>)>> {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<i32>().ok())
    };
    let is_for_us =
        number("LISTEN_PID").is_some_and(|pid| pid.cast_unsigned() == std::process::id());
    let count = number("LISTEN_FDS").filter(|count| is_for_us && *count > 0);
    let Some(count) = count else { return Ok(None) };
    ensure!(
        count <= PASSED_MAX,
        "LISTEN_FDS: {count} sockets were passed; one for TCP and one for UDP can be used"
    );
    share(config, (0..count).map(own).collect::<Result<_, _>>()?).map(Some)
}

#[allow(unsafe_code)]
fn own(place: i32) -> std::io::Result<Socket> {
    // SAFETY: by the protocol of LISTEN_FDS these descriptors were opened for this process and
    // belong to nobody in it; `take` is called once, before anything else is passed on.
    let descriptor = unsafe { OwnedFd::from_raw_fd(FIRST + place) };
    let socket = Socket::from(descriptor);
    socket.set_nonblocking(true)?;
    socket.set_cloexec(true)?;
    Ok(socket)
}

fn share(config: &ListenConfig, passed: Vec<Socket>) -> anyhow::Result<(SocketAddr, Vec<Sockets>)> {
    assert!(passed.len() <= PASSED_MAX as usize, "more were refused");
    let (tcp, udp) = sort(passed)?;
    let tcp = tcp.context("LISTEN_FDS: no TCP listener was passed")?;
    if config.http3 && udp.is_none() {
        bail!(
            "LISTEN_FDS: no UDP socket was passed: add ListenDatagram= to the socket unit, or set FOREBAY_HTTP3=false"
        );
    }
    let address = tcp
        .local_addr()?
        .as_socket()
        .context("LISTEN_FDS: the listener is not on an IP address")?;
    let mut udp = udp.filter(|_| config.http3);
    let sockets = (0..config.workers.get()).map(|_| {
        Ok(Sockets {
            tcp: tcp.try_clone()?.into(),
            udp: udp.take().map(Into::into),
        })
    });
    Ok((address, sockets.collect::<std::io::Result<_>>()?))
}

/// The last TCP listener and the last UDP socket of those that were passed.
fn sort(passed: Vec<Socket>) -> anyhow::Result<(Option<Socket>, Option<Socket>)> {
    let (mut tcp, mut udp) = (None, None);
    for socket in passed {
        let kind = socket.r#type();
        match kind.context("LISTEN_FDS: what was passed is no socket")? {
            Type::STREAM => tcp = Some(socket),
            Type::DGRAM => udp = Some(socket),
            _ => bail!("LISTEN_FDS: a socket that is neither TCP nor UDP was passed"),
        }
    }
    Ok((tcp, udp))
}
