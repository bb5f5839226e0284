//! Accepting connections: a permit first, then a handshake within its deadline, then HTTP.
//!
//! One [`Acceptor`] a worker, for its TCP listener and its QUIC endpoint. Permits are taken before
//! the next connection is accepted, so that the process never runs out of file descriptors; a
//! source address must have a handshake token, and not too many connections, and neither must the
//! device ([`Capacity`]); the steps of handshakes take [`Turns`], and keep a [`Pace`]. What fails
//! before a certificate is verified is counted and closed, never answered. When the gateway closes
//! its listeners, what the kernel has accepted is served still; `run_tcp` and `run_quic` return
//! once every connection has ended.

mod capacity;
mod pace;
mod quic;
mod steer;
mod tcp;
mod turn;

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::time::sleep;

use crate::config::ListenConfig;
use crate::http::Service;
use crate::identity::{self, Identity, Link, ShownCertificate};
use crate::ingest::{Caller, ContentTypes, Gate, KnownDevice};
use crate::lifecycle::{Phase, Phases};
use crate::limits::AddressLimits;
use crate::record::Timestamp;
use crate::telemetry::audit::{Certificate, Event};
use crate::tls::{Buffers, Refused, Status, Tls};
use crate::words::{Handshake, Scope};
pub(crate) use capacity::Capacity;
use capacity::{AddressPermit, ConnectionPermit, HandshakePermit, Seat};
pub(crate) use quic::{Place, Quic};
pub(crate) use steer::{WorkerConnectionIds, steer_to_workers};
pub(crate) use tcp::LISTENER_QUEUE_MAX;
use turn::Turns;

/// A handshake that is under way when the gateway drains gets this long to end.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(750);

type Permits = (ConnectionPermit, HandshakePermit);

/// Why a handshake has failed, and what the client's certificate says of itself, where it is known.
struct Failed {
    result: Handshake,
    certificate: Option<Box<ShownCertificate>>,
}

impl Failed {
    /// One of which no certificate is known.
    fn new(result: Handshake) -> Self {
        Self {
            result,
            certificate: None,
        }
    }

    /// One whose certificate the verifier has taken, and which is refused all the same.
    fn after(result: Handshake, chain: Option<&[CertificateDer]>) -> Self {
        Self {
            result,
            certificate: identity::shown(leaf(chain)).map(Box::new),
        }
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self {
            result: refused.reason,
            certificate: refused.certificate.map(Box::new),
        }
    }
}

/// Decides who is let in, and which device a certificate names.
#[derive(Clone)]
pub(crate) struct Trust {
    pub tls: Tls,
    pub identity: Arc<Identity>,
}

/// Accepts for one worker.
pub(crate) struct Acceptor {
    service: Rc<Service>,
    trust: Trust,
    capacity: Arc<Capacity>,
    phases: Phases,
    /// How long one flight of a handshake may take.
    handshake_timeout: Duration,
    turns: Turns,
    buffers: Buffers,
}

impl Acceptor {
    pub(crate) fn new(
        config: &ListenConfig,
        service: Service,
        trust: Trust,
        capacity: Arc<Capacity>,
        phases: Phases,
    ) -> Self {
        Self {
            service: Rc::new(service),
            trust,
            capacity,
            phases,
            handshake_timeout: config.handshake_timeout,
            turns: Turns::default(),
            buffers: Buffers::default(),
        }
    }

    fn gate(&self) -> &Gate {
        &self.service.ingest.gate
    }

    /// Counts how a handshake has ended.
    fn count(&self, result: Handshake) {
        self.service.metrics.handshake(result);
    }

    /// Returns when the gateway has been draining for so long.
    async fn drains_for(&self, grace: Duration) {
        self.phases.reached(Phase::Draining).await;
        sleep(grace).await;
    }

    /// Seats one more connection of the device. `None`, counted and written down, when it has too
    /// many. A certificate that names no device stands for itself: its requests are refused, but it
    /// could hold as many connections as it likes.
    fn seat(
        &self,
        caller: &Caller,
        chain: Option<&[CertificateDer]>,
        transport: &'static str,
    ) -> Option<Seat> {
        let name = caller.id().map_or(leaf(chain), str::as_bytes);
        let seat = self.capacity.seat(name);
        if seat.is_none() {
            self.count(Handshake::DeviceFull);
            self.service.audit.record(Event::ConnectionRefused {
                address: caller.address,
                transport,
                device: caller.id(),
                serial: leaf_serial(chain).as_deref(),
            });
        }
        seat
    }

    /// Takes a place and a handshake token of the source address.
    fn admit(&self, address: IpAddr) -> Result<(AddressPermit, AddressLimits), Handshake> {
        let permit = self.capacity.admit(address).ok_or(Handshake::AddressFull)?;
        let now = self.gate().clock.now();
        let limits = self.gate().limits.address(address, now).ok();
        let limits = limits
            .filter(|limits| limits.take_handshake(now).is_ok())
            .ok_or_else(|| {
                self.service.metrics.refused(Scope::Handshake);
                Handshake::RateLimited
            })?;
        Ok((permit, limits))
    }

    /// Counts a handshake that came to nothing, and writes it down.
    fn end_handshake(&self, failed: &Failed, address: IpAddr, transport: &'static str) {
        self.count(failed.result);
        self.service.audit.record(Event::HandshakeRefused {
            address,
            transport,
            reason: failed.result.label(),
            certificate: failed.certificate.as_deref().map(in_audit),
        });
    }

    /// Gives what is to be asked about the chain from now on. A resumed session has not been
    /// verified: it ends here when nobody knows whether it is revoked. When it is known to be, the
    /// device is told so in answer to its request.
    fn vet(&self, chain: Option<&[CertificateDer]>) -> Result<Vec<Link>, Handshake> {
        let revocation = self.trust.tls.revocation.borrow();
        let chain = chain.unwrap_or_default();
        let links = revocation
            .links(chain.iter().map(|certificate| certificate.as_ref()))
            .map_err(|_| Handshake::BadCertificate)?;
        match revocation.status(&links, Timestamp::now()) {
            Status::Good | Status::Revoked => {
                self.trust.tls.certificates.learn(chain);
                Ok(links)
            }
            Status::Unlisted => Err(Handshake::CrlMissing),
            Status::Outdated => Err(Handshake::CrlExpired),
        }
    }

    /// Tells who has connected. Without a usable identity each request is refused, and none has
    /// buckets.
    fn caller(
        &self,
        chain: Option<&[CertificateDer]>,
        links: Vec<Link>,
        address: IpAddr,
        address_limits: AddressLimits,
    ) -> Caller {
        let device = self.trust.identity.device(leaf(chain)).map(|device| {
            let Gate {
                clock,
                limits,
                admission,
            } = self.gate();
            KnownDevice {
                limits: limits.device(&device.id, clock.now()),
                memory: admission.device(&device.id),
                device,
            }
        });
        Caller {
            device,
            chain: links,
            is_revoked: Cell::new(false),
            content_types: ContentTypes::default(),
            address,
            address_limits,
        }
    }
}

fn in_audit(certificate: &ShownCertificate) -> Certificate<'_> {
    Certificate {
        serial: &certificate.serial,
        subject: &certificate.subject,
        issuer: &certificate.issuer,
        not_before: certificate.not_before,
        not_after: certificate.not_after,
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
