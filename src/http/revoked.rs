//! Cutting connections whose certificate has been revoked while they live, or before their session was resumed.
//!
//! Every adapter waits for [`revoked`] beside its requests. From then on each further request is refused, the connection
//! drains, and after [`CUT_AFTER`] it is closed, whatever is under way. A connection that has not asked anything yet is
//! not drained: its first request is answered, so that the device learns why.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::Connection;
use crate::tls::Revocation;

/// What is under way on a connection that has been revoked gets this long to end.
pub const CUT_AFTER: Duration = Duration::from_secs(1);

/// Ends when the connection's certificate is revoked, at once if it is already. The connection's requests are refused
/// from then on.
pub async fn revoked(mut revocation: watch::Receiver<Arc<Revocation>>, connection: &Connection) {
    while !revocation.borrow_and_update().is_revoked(&connection.caller.chain) {
        if revocation.changed().await.is_err() {
            // Nobody watches the files any more: the gateway is going away.
            pending().await
        }
    }
    connection.caller.is_revoked.set(true);
}
