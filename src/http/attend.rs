//! The fleet events of a connection's device, from facts that the connection has anyway.
//!
//! `accept` has a connection attended once its handshake is over. Each answer counts, the adapters
//! note how their connections end, and the last word is [`Service::end`]'s. A connection that is
//! dropped without it belongs to a gateway that is out of time.

use super::{Connection, Service};
use crate::events::Opening;
use crate::ingest::{Caller, Standing};
use crate::record::Timestamp;
use crate::telemetry::audit::Event;
use crate::words::{Disconnect, Scope};

impl Connection {
    /// Has the fleet's stream told of the connection from now on, where anything is told, and it is
    /// known whose it is. `serial` is that of its certificate, by the content octets of its DER.
    pub fn attended(mut self, service: &Service, is_resumed: bool, serial: &[u8]) -> Self {
        let (Some(reporter), Ok(known)) = (&service.reporter, &self.caller.device) else {
            return self;
        };
        let device = &known.device;
        let presence = reporter.open(&Opening {
            device: &device.id,
            protocol: self.protocol,
            address: self.caller.address,
            is_resumed,
            serial,
            not_after: device.not_after,
        });
        if device.expiry_notice(Timestamp::now()).is_some() {
            presence.note_expiry();
        }
        self.presence = Some(presence);
        self
    }

    /// Counts a request that was answered.
    #[inline]
    pub(super) fn count_answer(&self, is_accepted: bool) {
        if let Some(presence) = &self.presence {
            let accepted_bytes = self.caller.accepted_bytes.take();
            presence.count(is_accepted, accepted_bytes);
        }
    }

    /// Counts a refusal by a bucket.
    pub(super) fn count_limited(&self, service: &Service, scope: Scope) {
        let (Some(presence), Ok(known)) = (&self.presence, &self.caller.device) else {
            return;
        };
        let now = service.ingest.gate.clock.now();
        let limits = known.limits.as_ref().ok();
        if let Some(refused) = limits.and_then(|limits| limits.note_refusal(now)) {
            presence.note_limited(scope, refused);
        }
    }

    /// Has it told that the certificate's end is near.
    pub(super) fn note_expiry(&self) {
        if let Some(presence) = &self.presence {
            presence.note_expiry();
        }
    }

    /// Reports the new events; called by the connection's task when it has been polled.
    #[inline]
    pub(super) fn tell_news(&self) {
        if let Some(presence) = &self.presence {
            presence.tell_news();
        }
    }

    /// Notes how the connection ends; the first word counts, but for a flood.
    pub(super) fn note_end(&self, reason: Disconnect) {
        if self.end.get().is_none() || reason == Disconnect::Flood {
            self.end.set(Some(reason));
        }
    }
}

impl Service {
    /// Says which certificate a device has shown, for the list of those that expire.
    pub(super) fn note_certificate(&self, caller: &Caller) {
        if let Ok(known) = &caller.device {
            let end = known.device.near_end(Timestamp::now());
            self.expiring.note(&known.device.id, end);
        }
    }

    /// Counts and writes down that a connection was ended because it cost more than it brought.
    #[cold]
    pub(super) fn end_flood(&self, connection: &Connection) {
        self.metrics.flood_ended();
        connection.note_end(Disconnect::Flood);
        let peer = connection.peer();
        self.audit.record(Event::FloodEnded { peer });
    }

    /// Says how a connection has ended, that has ended by itself or was cut.
    pub(super) fn end(&self, connection: &Connection) {
        use Disconnect::{Closed, Denied, Drain, Expired, Flood, Lost, Revoked};
        let noted = connection.end.get();
        let reason = match (noted, connection.caller.standing.get()) {
            (Some(Flood | Expired), _) => noted,
            (_, Standing::Revoked | Standing::Unpinned) => Some(Revoked),
            (_, Standing::Denied) => Some(Denied),
            (Some(Lost), Standing::Good) => noted,
            (_, Standing::Good) if self.bell.is_draining() => Some(Drain),
            (_, Standing::Good) => noted.or(Some(Closed)),
        };
        debug_assert!(reason.is_some(), "a connection that ends has a reason");
        connection.end.set(reason);
    }
}
