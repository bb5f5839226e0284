//! One timer for all waits of a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// An instant at which a wait ends, and may be moved. The timer is set anew only when it has to
/// fire earlier, or has fired too early: a deadline that moves on with every request costs nothing.
pub(crate) struct Deadline {
    timer: Pin<Box<Sleep>>,
    at: Instant,
}

impl Deadline {
    pub(crate) fn until(at: Instant) -> Self {
        Self {
            timer: Box::pin(sleep_until(at)),
            at,
        }
    }

    /// Moves the deadline to this instant.
    pub(crate) fn reset(&mut self, at: Instant) {
        self.at = at;
        if at < self.timer.deadline() {
            self.timer.as_mut().reset(at);
        }
    }

    /// Moves the deadline, but not to a later instant.
    pub(crate) fn hasten(&mut self, at: Instant) {
        if at < self.at {
            self.reset(at);
        }
    }

    /// Waits until the deadline has passed.
    pub(crate) fn poll_passed(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.timer.deadline() >= self.at {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_passes_at_the_last_instant_set() {
        let started_at = Instant::now();
        let mut deadline = Deadline::until(started_at + Duration::from_secs(2));
        for seconds in [9, 5, 1] {
            deadline.reset(started_at + Duration::from_secs(seconds));
        }
        poll_fn(|context| deadline.poll_passed(context)).await;
        assert_eq!(started_at.elapsed(), Duration::from_secs(1));
        deadline.reset(started_at + Duration::from_secs(7));
        poll_fn(|context| deadline.poll_passed(context)).await;
        assert_eq!(started_at.elapsed(), Duration::from_secs(7));
    }
}
