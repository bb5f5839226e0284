//! Cutting connections that have no right to go on, or no client to go on with: a certificate has
//! been revoked while its connection lives, or before its session was resumed, its authority has
//! been taken out of the bundle, or the devices file denies its device.
//!
//! Every adapter serves within [`until_cut`]. From the fall of a connection on each further request
//! of it is refused, the connection drains, and after [`CUT_AFTER`] it is closed, even with
//! requests in flight. A connection that has not asked anything yet is not drained: its first
//! request is answered, so that the device learns why; a device that was denied before it connected
//! has [`KNOCK_AFTER`] for that. When the gateway drains, a connection is closed [`LEFT_AFTER`] its
//! last request has been answered, whatever its client does or leaves undone: it may acknowledge
//! nothing, give no window, stop in the middle of a head, or read no answer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::deadline::Deadline;
use super::standing::review;
use super::{Connection, NEXT_REQUEST_GRACE, Service};
use crate::ingest::Standing;

/// Time that the requests in flight of a connection that may not go on have to end.
const CUT_AFTER: Duration = Duration::from_secs(1);

/// Time that a connection of a device that was denied already has to ask, and be told so.
const KNOCK_AFTER: Duration = Duration::from_secs(10);

const _: () = assert!(KNOCK_AFTER.as_secs() >= CUT_AFTER.as_secs());

/// Time that a connection with nothing in flight has to end by itself, once the gateway drains.
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
            cut.note_standing(connection, service);
        }
        if cut.poll_due(connection, service, context).is_ready() {
            return Poll::Ready(());
        }
        let served = serving.as_mut().poll(context);
        connection.tell_news();
        served
    })
    .await;
}

/// The time at which a connection is cut.
#[derive(Default)]
struct Cut {
    /// Time at which it is closed, once it may not go on.
    ends_at: Option<Instant>,
    /// Made when there is a time to wait for: idle connections are many.
    timer: Option<Deadline>,
}

impl Cut {
    fn note_standing(&mut self, connection: &Connection, service: &Service) {
        if self.ends_at.is_some() {
            return;
        }
        let was_good = connection.caller.standing.get() == Standing::Good;
        if review(connection, service) != Standing::Good {
            let grace = if was_good { CUT_AFTER } else { KNOCK_AFTER };
            self.ends_at = Some(Instant::now() + grace);
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

    /// Returns the time of the cut. It moves on for as long as a request is in flight on a
    /// connection that drains.
    fn deadline(&self, connection: &Connection, service: &Service) -> Option<Instant> {
        let Some(draining_since) = service.bell.draining_since() else {
            return self.ends_at;
        };
        let left_at = draining_since.max(connection.idle_since()) + LEFT_AFTER;
        Some(self.ends_at.map_or(left_at, |ends_at| ends_at.min(left_at)))
    }
}
