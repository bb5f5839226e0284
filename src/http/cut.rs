//! Cutting connections that have no right to go on, or nobody to go on with: a certificate has been
//! revoked while its connection lives, or before its session was resumed, or its authority has been
//! taken out of the bundle.
//!
//! Every adapter serves within [`until_cut`]. From the revocation of its certificate on each
//! further request of a connection is refused, the connection drains, and after [`CUT_AFTER`] it is
//! closed, whatever is under way. A connection that has not asked anything yet is not drained: its
//! first request is answered, so that the device learns why. When the gateway drains, a connection
//! is closed [`LEFT_AFTER`] its last request has been answered, whatever its client does or leaves
//! undone: it may acknowledge nothing, give no window, stop in the middle of a head, or read no
//! answer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::deadline::Deadline;
use super::{Connection, NEXT_REQUEST_GRACE, Service};
use crate::telemetry::audit::Event;

/// What is under way on a connection that has been revoked gets this long to end.
const CUT_AFTER: Duration = Duration::from_secs(1);

/// A connection with nothing in flight gets this long to end by itself, once the gateway drains.
const LEFT_AFTER: Duration = Duration::from_millis(1500);

const _: () = assert!(LEFT_AFTER.as_millis() > NEXT_REQUEST_GRACE.as_millis());

/// Drives `serving` until it ends, or is cut. It is polled whenever the bell rings.
pub(crate) async fn until_cut<F: Future<Output = ()>>(
    mut serving: Pin<&mut F>,
    connection: &Connection,
    service: &Service,
) {
    let mut listener = service.bell.listen();
    let mut cut = Cut::default();
    poll_fn(|context| {
        while listener.poll_ring(context).is_ready() {
            cut.note_revocation(connection, service);
        }
        if cut.poll_due(connection, service, context).is_ready() {
            return Poll::Ready(());
        }
        serving.as_mut().poll(context)
    })
    .await;
}

/// When a connection is to be cut.
#[derive(Default)]
struct Cut {
    revoked_at: Option<Instant>,
    /// Made when there is something to wait for: idle connections are many.
    timer: Option<Deadline>,
}

impl Cut {
    fn note_revocation(&mut self, connection: &Connection, service: &Service) {
        let caller = &connection.caller;
        let is_revoked = || service.bell.is_revoked(&caller.chain);
        if self.revoked_at.is_none() && is_revoked() {
            caller.is_revoked.set(true);
            write_down(connection, service);
            self.revoked_at = Some(Instant::now());
        }
    }

    fn poll_due(
        &mut self,
        connection: &Connection,
        service: &Service,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(deadline) = self.deadline(connection, service) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Deadline::until(deadline));
        timer.reset(deadline);
        timer.poll_passed(context)
    }

    /// It moves on for as long as a request is under way on a connection that drains.
    fn deadline(&self, connection: &Connection, service: &Service) -> Option<Instant> {
        let cut_at = self.revoked_at.map(|at| at + CUT_AFTER);
        let Some(draining_since) = service.bell.draining_since() else {
            return cut_at;
        };
        let left_at = draining_since.max(connection.idle_since()) + LEFT_AFTER;
        Some(cut_at.map_or(left_at, |cut_at| cut_at.min(left_at)))
    }
}

fn write_down(connection: &Connection, service: &Service) {
    let caller = &connection.caller;
    let serial = caller.chain.first().map(|leaf| &*leaf.serial);
    let (address, protocol, device) = (caller.address, connection.protocol.label(), caller.id());
    service.audit.record(Event::ConnectionCut {
        address,
        protocol,
        device,
        serial,
    });
}
