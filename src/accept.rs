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
mod tcp;
mod turn;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::http::Service;
use crate::identity::{self, Identity, Link};
use crate::ingest::{Caller, KnownDevice};
use crate::limits::{AddressLimits, Clock, Limits};
use crate::record::Timestamp;
use crate::telemetry::audit::{Audit, Event};
use crate::telemetry::metrics::WorkerMetrics;
use crate::tls::{Buffers, Status, Tls};
use crate::words::{Handshake, Scope};
pub(crate) use capacity::Capacity;
use capacity::{ConnectionPermit, Guest, HandshakePermit, Seat};
pub(crate) use quic::{Place, Quic};
pub(crate) use steer::{WorkerConnectionIds, steer_to_workers};
pub(crate) use turn::Turns;

/// A handshake that is under way when the gateway drains gets this long to end.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(750);

type Permits = (ConnectionPermit, HandshakePermit);

/// Accepts for one worker.
pub(crate) struct Acceptor {
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
    /// Returns when the gateway has been draining for so long.
    async fn drains_for(&self, grace: Duration) {
        let mut draining = self.draining.clone();
        // The error is that nobody is left to say so.
        let _ = draining.wait_for(|draining| *draining).await;
        sleep(grace).await;
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

    /// What is to be asked about the chain from now on. A resumed session has not been verified: it ends here when
    /// nobody knows whether it is revoked. When it is known to be, the device is told so in answer to its request.
    fn vet(&self, chain: Option<&[CertificateDer]>) -> Result<Vec<Link>, Handshake> {
        let revocation = self.tls.revocation.borrow();
        let chain = chain.unwrap_or_default();
        let links = revocation
            .links(chain.iter().map(|certificate| certificate.as_ref()))
            .map_err(|_| Handshake::BadCertificate)?;
        match revocation.status(&links, Timestamp::now()) {
            Status::Good | Status::Revoked => {
                self.tls.certificates.learn(chain);
                Ok(links)
            }
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

fn leaf_serial(chain: Option<&[CertificateDer]>) -> Option<Box<[u8]>> {
    identity::serial(leaf(chain))
}

/// The client's own certificate in DER.
fn leaf<'a>(chain: Option<&'a [CertificateDer]>) -> &'a [u8] {
    let leaf = chain.and_then(<[_]>::first);
    leaf.map_or(&[], |leaf| leaf.as_ref())
}
