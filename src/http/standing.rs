//! Whether a connection may go on, as the lists of the authorities and the devices file say now.
//!
//! [`review`] is called when the worker's bell has rung, on each of its connections; a connection
//! that has fallen stays so.

use http::StatusCode;
use tokio::time::Instant;

use super::bell::Bell;
use super::reply::Problem;
use super::{Connection, NEXT_REQUEST_GRACE, Service};
use crate::ingest::{Refusal, Standing};
use crate::limits::Limits;
use crate::telemetry::audit::{Event, Peer};

impl Connection {
    /// Returns the peer of the connection, for the audit log.
    pub(super) fn peer(&self) -> Peer<'_> {
        Peer {
            address: self.caller.address,
            protocol: self.protocol.label(),
            device: self.caller.id(),
        }
    }
}

/// Judges a connection by the revocation lists and the devices file in force, logs it if it may not
/// go on, and updates the limits of its device.
pub(super) fn review(connection: &Connection, service: &Service) -> Standing {
    let caller = &connection.caller;
    if caller.standing.get() != Standing::Good {
        return caller.standing.get();
    }
    let (bell, limits) = (&service.bell, &service.ingest.gate.limits);
    let standing = judge(connection, bell, limits);
    if standing != Standing::Good {
        caller.standing.set(standing);
        write_down(connection, service, standing);
    }
    standing
}

fn judge(connection: &Connection, bell: &Bell, limits: &Limits) -> Standing {
    let caller = &connection.caller;
    if bell.revocation().takes_back(&caller.credential) {
        return Standing::Revoked;
    }
    caller.judged_by(&bell.devices(), limits)
}

/// Writes down that a request is forbidden, or that the devices file denies its device.
pub(super) fn write_down_refusal(
    connection: &Connection,
    service: &Service,
    refusal: &Refusal,
    problem: &Problem,
) {
    let (caller, peer) = (&connection.caller, connection.peer());
    if matches!(refusal, Refusal::DeviceDenied) {
        debug_assert_eq!(caller.standing.get(), Standing::Denied, "nobody else is");
        service.metrics.device_denied();
        let serial = caller.credential.serial();
        service.audit.record(Event::DeviceDenied { peer, serial });
    } else if problem.status == StatusCode::FORBIDDEN {
        let code = problem.code;
        service.audit.record(Event::Forbidden { peer, code });
    }
}

fn write_down(connection: &Connection, service: &Service, standing: Standing) {
    let serial = connection.caller.credential.serial();
    let peer = connection.peer();
    let cut = |reason| Event::DeviceCut {
        peer,
        serial,
        reason,
    };
    service.audit.record(match standing {
        Standing::Good => unreachable!("it goes on"),
        Standing::Revoked => Event::ConnectionCut { peer, serial },
        Standing::Unpinned => cut("unpinned"),
        Standing::Denied => cut("denied"),
    });
}

impl Service {
    /// Returns the time until which an h1 connection of a gateway that drains waits for one more
    /// request, which may be on its way: closed now, it would take that along unanswered, and
    /// nothing like GOAWAY could tell the client.
    pub(super) fn lingers(&self, connection: &Connection) -> Option<Instant> {
        let until = connection.idle_since() + NEXT_REQUEST_GRACE;
        let may_go_on =
            !connection.is_closing() && connection.caller.standing.get() == Standing::Good;
        (may_go_on && until > Instant::now()).then_some(until)
    }

    /// Whether the connection is to end once nothing is in flight on it.
    pub(super) fn is_over(&self, connection: &Connection) -> bool {
        let has_fallen = connection.caller.standing.get() != Standing::Good;
        let is_cut = has_fallen && connection.has_asked.get();
        connection.is_closing() || is_cut || self.bell.is_draining()
    }
}
