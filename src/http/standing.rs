//! Whether a connection may go on, as the lists of the authorities and the devices file say now.
//!
//! [`review`] is called when the worker's bell has rung, on each of its connections; a connection
//! that has fallen stays so.

use http::StatusCode;

use super::bell::Bell;
use super::{Connection, Service, reply};
use crate::devices::Verdict;
use crate::ingest::{Refusal, Standing};
use crate::limits::Limits;
use crate::telemetry::audit::Event;

/// Judges a connection that may go on by what is in force now, writes down that it may not, and
/// lets it know what its device is held to.
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
    let devices = bell.devices();
    if caller.edition.replace(devices.edition()) == devices.edition() {
        return Standing::Good;
    }
    let known = caller.device.as_ref().ok();
    let id = known.map(|known| &known.device.id);
    if !caller.credential.is_named(id, &devices) {
        return Standing::Unpinned;
    }
    let verdict = id.map(|id| devices.verdict_of(&caller.credential.certificate, id.as_str()));
    match (known, verdict) {
        (_, Some(Verdict::Denied)) => Standing::Denied,
        (Some(known), Some(Verdict::Allowed(settings))) => {
            known.hold_to(settings, limits);
            Standing::Good
        }
        // Its requests are refused for want of an id.
        _ => Standing::Good,
    }
}

/// Counts a refusal by its code, and writes down that a request is forbidden, or that the devices
/// file denies its device.
pub(super) fn write_down_refusal(connection: &Connection, service: &Service, refusal: &Refusal) {
    let caller = &connection.caller;
    let (address, protocol, device) = (caller.address, connection.protocol.label(), caller.id());
    let (status, code) = reply::status_and_code(refusal);
    service.metrics.refusal(code);
    if matches!(refusal, Refusal::DeviceDenied) {
        debug_assert_eq!(caller.standing.get(), Standing::Denied, "nobody else is");
        service.metrics.device_denied();
        service.audit.record(Event::DeviceDenied {
            address,
            protocol,
            device,
            serial: caller.credential.serial(),
        });
    } else if status == StatusCode::FORBIDDEN {
        service.audit.record(Event::Forbidden {
            address,
            protocol,
            device,
            code,
        });
    }
}

fn write_down(connection: &Connection, service: &Service, standing: Standing) {
    let caller = &connection.caller;
    let serial = caller.credential.serial();
    let (address, protocol, device) = (caller.address, connection.protocol.label(), caller.id());
    let cut = |reason| Event::DeviceCut {
        address,
        protocol,
        device,
        serial,
        reason,
    };
    service.audit.record(match standing {
        Standing::Good => unreachable!("it goes on"),
        Standing::Revoked => Event::ConnectionCut {
            address,
            protocol,
            device,
            serial,
        },
        Standing::Unpinned => cut("unpinned"),
        Standing::Denied => cut("denied"),
    });
}
