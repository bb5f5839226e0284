//! Leaving: the waits of a connection that is told to go, and their bound.
//!
//! A request whose head has come whole is finished, within its own bounds. Everything else that a
//! client may be silent about (the rest of a head, room for an answer, a refused body that it still
//! sends) is waited for no longer than [`GRACE`] from then on, so that no client that is silent, or
//! gone, holds up a gateway that drains.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

/// Time that a connection that has been told to go waits for streams that are not in flight.
pub(crate) const GRACE: Duration = Duration::from_millis(750);

/// Whether a connection is leaving, for its requests.
#[derive(Default)]
pub(crate) struct Leave {
    has_begun: Cell<bool>,
    begun: Notify,
}

impl Leave {
    /// Begins to leave.
    pub(crate) fn begin(&self) {
        self.has_begun.set(true);
        self.begun.notify_waiters();
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun.get()
    }

    /// Waits for `waiting`; gives nothing when the connection has been leaving for [`GRACE`].
    pub(crate) async fn bound<T>(&self, waiting: impl Future<Output = T>) -> Option<T> {
        let waiting = pin!(waiting);
        tokio::select! {
            biased;
            done = waiting => Some(done),
            () = self.lasts() => None,
        }
    }

    async fn lasts(&self) {
        let begun = self.begun.notified();
        if !self.has_begun() {
            begun.await;
        }
        sleep(GRACE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_waited_for_until_the_grace_is_over() {
        let leave = Leave::default();
        assert_eq!(leave.bound(ready(1)).await, Some(1));
        let started_at = Instant::now();
        let leaving = async {
            sleep(Duration::from_secs(60)).await;
            leave.begin();
        };
        let (before, ()) = tokio::join!(leave.bound(pending::<()>()), leaving);
        assert_eq!(
            (before, started_at.elapsed()),
            (None, Duration::from_secs(60) + GRACE)
        );
        assert_eq!(leave.bound(pending::<()>()).await, None);
        assert_eq!(started_at.elapsed(), Duration::from_secs(60) + 2 * GRACE);
        assert_eq!(leave.bound(ready(1)).await, Some(1));
    }
}
