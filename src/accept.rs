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

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::time::sleep;

use crate::config::ListenConfig;
use crate::devices::{Devices, Verdict};
use crate::http::{Connection, Service};
use crate::identity::{
    self, Credential, Device, Identity, IdentityError, Pinned, ShownCertificate, Vouched,
};
use crate::ingest::{Caller, ContentTypes, Gate, KnownDevice, Standing};
use crate::lifecycle::{Phase, Phases};
use crate::limits::AddressLimits;
use crate::record::{DeviceId, Timestamp};
use crate::telemetry::audit::{Certificate, Event, Peer};
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

/// Time on top of a handshake's own until the tickets that pins have given are void.
const UNPINNING_GRACE: Duration = Duration::from_secs(5);

type Permits = (ConnectionPermit, HandshakePermit);

/// Why a handshake has failed, and what the client's certificate says of itself, where it is known.
struct Failed {
    result: Handshake,
    certificate: Option<Box<ShownCertificate>>,
}

impl Failed {
    /// Makes the failure of a handshake of which no certificate is known.
    fn new(result: Handshake) -> Self {
        Self {
            result,
            certificate: None,
        }
    }

    /// Makes the failure of a handshake that is refused although the verifier has taken its
    /// certificate.
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
    /// Time that one flight of a handshake may take.
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
            let serial = leaf_serial(chain);
            self.tell_refused(Handshake::DeviceFull, serial.as_deref().unwrap_or_default());
            self.service.audit.record(Event::ConnectionRefused {
                peer: Peer {
                    address: caller.address,
                    protocol: transport,
                    device: caller.id(),
                },
                serial: serial.as_deref(),
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
        if let Some(certificate) = &failed.certificate {
            self.tell_refused(failed.result, &certificate.serial);
        }
        self.service.audit.record(Event::HandshakeRefused {
            address,
            transport,
            reason: failed.result.label(),
            certificate: failed.certificate.as_deref().map(in_audit),
        });
    }

    /// Has the fleet's stream told of a certificate that is turned away.
    fn tell_refused(&self, result: Handshake, serial: &[u8]) {
        if let Some(reporter) = &self.service.reporter {
            reporter.refused(result.label(), serial);
        }
    }

    /// Finds out by which right a client speaks. A resumed session has not been verified: it ends
    /// here when nobody knows whether it is revoked. When it is known to be, the device is told so
    /// in answer to its request.
    fn vet(&self, chain: Option<&[CertificateDer]>) -> Result<Vetted, Handshake> {
        let chain = chain.unwrap_or_default();
        let certificate = identity::fingerprint(leaf(Some(chain)));
        let devices = self.trust.tls.devices.borrow().clone();
        let pinned_id = devices.pin(&certificate).map(|pin| device_id(pin.id));
        let vouched = match &pinned_id {
            Some(_) => vouched_by_pin(chain)?,
            None => self.vouched_by_chain(chain, &devices)?,
        };
        let credential = Credential {
            certificate,
            vouched,
        };
        Ok(Vetted {
            credential,
            pinned_id,
            devices,
        })
    }

    fn vouched_by_chain(
        &self,
        chain: &[CertificateDer],
        devices: &Devices,
    ) -> Result<Vouched, Handshake> {
        if devices.has_unpinned_within(self.unpinning_time(), Instant::now()) {
            self.trust.tls.verify(chain)?;
        }
        let revocation = self.trust.tls.revocation.borrow();
        let links = revocation
            .links(chain.iter().map(|certificate| certificate.as_ref()))
            .map_err(|_| Handshake::BadCertificate)?;
        match revocation.status(&links, Timestamp::now()) {
            Status::Good | Status::Revoked => {
                self.trust.tls.certificates.learn(chain);
                Ok(Vouched::Chain(links))
            }
            Status::Unlisted => Err(Handshake::CrlMissing),
            Status::Outdated => Err(Handshake::CrlExpired),
        }
    }

    /// Time after a pin's end within which a handshake may end that began with it, or with a
    /// ticket of that time. Until it is over no chain is taken for one that was verified.
    fn unpinning_time(&self) -> Duration {
        pace::whole(self.handshake_timeout) + UNPINNING_GRACE
    }

    /// Tells who has connected. Without a usable identity each request is refused, and none has
    /// buckets.
    fn caller(
        &self,
        chain: Option<&[CertificateDer]>,
        vetted: Vetted,
        address: IpAddr,
        address_limits: AddressLimits,
    ) -> Caller {
        let Vetted {
            credential,
            pinned_id,
            devices,
        } = vetted;
        let identity = &self.trust.identity;
        let device = match pinned_id {
            Some(id) => identity.device_named(id, leaf(chain)),
            None => identity.device(leaf(chain)),
        };
        let (device, standing) = self.known(device, &credential, &devices);
        Caller {
            device,
            credential,
            standing: Cell::new(standing),
            edition: Cell::new(devices.edition()),
            content_types: ContentTypes::default(),
            address,
            address_limits,
            accepted_bytes: Cell::default(),
        }
    }

    /// Finds the buckets of a device, and holds it to what the devices file says.
    fn known(
        &self,
        device: Result<Device, IdentityError>,
        credential: &Credential,
        devices: &Devices,
    ) -> (Result<KnownDevice, IdentityError>, Standing) {
        let device = match device {
            Ok(device) => device,
            Err(error) => return (Err(error), Standing::Good),
        };
        let Gate {
            clock,
            limits,
            admission,
        } = self.gate();
        let verdict = devices.verdict_of(&credential.certificate, device.id.as_str());
        let known = KnownDevice {
            limits: limits.device(&device.id, clock.now()),
            streams: RefCell::default(),
            memory: admission.device(&device.id),
            device,
        };
        let standing = match verdict {
            Verdict::Denied => Standing::Denied,
            Verdict::Allowed(settings) => {
                if !settings.are_silent() {
                    known.hold_to(settings, limits);
                }
                Standing::Good
            }
        };
        (Ok(known), standing)
    }
}

/// A client as its handshake has shown it.
struct Vetted {
    credential: Credential,
    /// The device that its certificate stands for, where the devices file says so.
    pinned_id: Option<DeviceId>,
    /// The devices file by which that was found out.
    devices: Arc<Devices>,
}

fn vouched_by_pin(chain: &[CertificateDer]) -> Result<Vouched, Handshake> {
    let pinned = Pinned::read(leaf(Some(chain)));
    let pinned = pinned.map_err(|_| Handshake::BadCertificate)?;
    Ok(Vouched::Pin(Box::new(pinned)))
}

fn device_id(id: &str) -> DeviceId {
    DeviceId::parse(id).expect("the devices file was read")
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

/// A connection that is served from now on, and told of.
fn attended(
    connection: Connection,
    service: &Service,
    is_resumed: bool,
    chain: Option<&[CertificateDer]>,
) -> Connection {
    if service.reporter.is_none() {
        return connection;
    }
    let serial = leaf_serial(chain).unwrap_or_default();
    connection.attended(service, is_resumed, &serial)
}

fn leaf_serial(chain: Option<&[CertificateDer]>) -> Option<Box<[u8]>> {
    identity::serial(leaf(chain))
}

/// The client's own certificate in DER.
fn leaf<'a>(chain: Option<&'a [CertificateDer]>) -> &'a [u8] {
    let leaf = chain.and_then(<[_]>::first);
    leaf.map_or(&[], |leaf| leaf.as_ref())
}
