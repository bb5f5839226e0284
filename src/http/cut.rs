//! Cutting connections whose certificate has been revoked while they live, or before their session was resumed, and those
//! whose authority has been taken out of the bundle.
//!
//! Every adapter serves within [`until_cut`]. From the revocation on each further request is refused, the connection
//! drains, and after [`CUT_AFTER`] it is closed, whatever is under way. A connection that has not asked anything yet is
//! not drained: its first request is answered, so that the device learns why.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::{Connection, Service};
use crate::telemetry::audit::Event;

/// What is under way on a connection that has been revoked gets this long to end.
const CUT_AFTER: Duration = Duration::from_secs(1);

/// Drives `serving` until it ends, or is cut. It is polled whenever the bell rings.
pub async fn until_cut<F: Future<Output = ()>>(
    mut serving: Pin<&mut F>,
    connection: &Connection,
    service: &Service,
) {
    let mut listener = service.bell.listen();
    let mut cut: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|context| {
        while listener.poll_ring(context).is_ready() {
            if cut.is_none()
                && service
                    .revocation
                    .borrow()
                    .is_revoked(&connection.caller.chain)
            {
                connection.caller.is_revoked.set(true);
                write_down(connection, service);
                cut = Some(Box::pin(sleep(CUT_AFTER)));
            }
        }
        if cut
            .as_mut()
            .is_some_and(|cut| cut.as_mut().poll(context).is_ready())
        {
            return Poll::Ready(());
        }
        serving.as_mut().poll(context)
    })
    .await;
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
