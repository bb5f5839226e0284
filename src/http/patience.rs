//! One timer for all waits of a connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// Runs out at its deadline. The timer is set anew only when it has to fire earlier, or has fired too early: a deadline
/// that moves on with every request costs nothing.
pub(crate) struct Patience {
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl Patience {
    pub(crate) fn until(deadline: Instant) -> Self {
        Self {
            timer: Box::pin(sleep_until(deadline)),
            deadline,
        }
    }

    pub(crate) fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }

    /// Moves the deadline, but not to a later time.
    pub(crate) fn hasten(&mut self, deadline: Instant) {
        if deadline < self.deadline {
            self.reset(deadline);
        }
    }

    /// Ready when the deadline has passed.
    pub(crate) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.timer.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_runs_out_at_the_last_deadline_set() {
        let started_at = Instant::now();
        let mut patience = Patience::until(started_at + Duration::from_secs(2));
        for seconds in [9, 5, 1] {
            patience.reset(started_at + Duration::from_secs(seconds));
        }
        poll_fn(|context| patience.poll_over(context)).await;
        assert_eq!(started_at.elapsed(), Duration::from_secs(1));
        patience.reset(started_at + Duration::from_secs(7));
        poll_fn(|context| patience.poll_over(context)).await;
        assert_eq!(started_at.elapsed(), Duration::from_secs(7));
    }
}
