//! Tells systemd how it is: sd_notify's protocol, one datagram a message.
//!
//! `gateway` says when it listens, reloads and stops, and beats at half of the watchdog's time with
//! what `/readyz` says as the unit's status. Where nobody listens (`NOTIFY_SOCKET` is not set),
//! nothing is sent. A message that cannot be sent is lost: systemd then does what it does to a unit
//! that is silent.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::telemetry::admin::Status;

/// Time between two tellings of the status where there is no watchdog.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Tells systemd, where it wants to know; clones tell the same.
#[derive(Clone)]
pub(crate) struct Notifier {
    to: Option<Arc<(UnixDatagram, SocketAddr)>>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET` and `WATCHDOG_USEC` as systemd has set them.
    pub(crate) fn from_environment() -> Self {
        let name = std::env::var("NOTIFY_SOCKET").ok();
        Self {
            to: name.and_then(|name| open(&name)).map(Arc::new),
            watchdog: watchdog(),
        }
    }

    /// Tells that the gateway listens, or has read its files again.
    pub(crate) fn ready(&self) {
        self.say("READY=1");
    }

    pub(crate) fn reloading(&self) {
        self.say("RELOADING=1");
    }

    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=draining");
    }

    /// Says that it lives, and how, until it is dropped. Runs beside the signals and the admin
    /// address: what is told is that this thread runs; a worker that ends ends the gateway.
    pub(crate) async fn beat(self, status: Arc<Status>) {
        if self.to.is_none() {
            return std::future::pending().await;
        }
        // Half of the time, as systemd advises.
        let mut beats = interval(self.watchdog.map_or(STATUS_INTERVAL, |time| time / 2));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let readiness = status.spell().unwrap_or_else(|reason| reason);
            self.say(&format!("WATCHDOG=1\nSTATUS={readiness}"));
        }
    }

    fn say(&self, message: &str) {
        let Some((socket, address)) = self.to.as_deref() else {
            return;
        };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::warn!(%error, "systemd cannot be told");
        }
    }
}

fn open(name: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let opened = address(name).and_then(|address| Ok((UnixDatagram::unbound()?, address)));
    opened
        .inspect_err(|error| tracing::warn!(%error, "NOTIFY_SOCKET cannot be used"))
        .ok()
}

/// Time that systemd waits for a beat; `None` where it has no watchdog for this service.
fn watchdog() -> Option<Duration> {
    let micros: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

/// A path, or a name in Linux' abstract space, which is written with `@` for its leading zero.
fn address(name: &str) -> std::io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}
