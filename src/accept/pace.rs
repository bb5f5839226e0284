//! The time that a handshake may take: in flights, for a slow link is slow at each of them.
//!
//! A flight is what one side sends before it waits for the other. `accept` gives each flight the
//! handshake time-out: the client must begin within one (its hello is right behind the packet that
//! opens the connection), it may be silent for two (the gateway's flight to it, its own back), and
//! the whole may take [`WHOLE_FLIGHTS`]. Who says something, but nothing that completes the
//! handshake, wins no more than that. How many are under way at once is bounded by `capacity`.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

/// Flights in which nothing arrives: one there, one back.
const SILENT_FLIGHTS: u32 = 2;

/// Flights of a handshake: TLS 1.2 has four, TLS 1.3 three, and two more where it has to ask for
/// another hello.
const WHOLE_FLIGHTS: u32 = 5;

const _: () = assert!(
    1 + SILENT_FLIGHTS < WHOLE_FLIGHTS,
    "who begins late may go on"
);

/// Time of a whole handshake whose flights cannot be told apart.
pub(crate) fn whole(flight: Duration) -> Duration {
    WHOLE_FLIGHTS * flight
}

/// Keeps the time of one handshake.
pub(crate) struct Pace {
    flight: Duration,
    began_at: Instant,
    last: Cell<Option<Instant>>,
}

impl Pace {
    pub(crate) fn begin(flight: Duration) -> Self {
        Self {
            flight,
            began_at: Instant::now(),
            last: Cell::default(),
        }
    }

    /// The client has said something.
    pub(crate) fn step(&self) {
        self.last.set(Some(Instant::now()));
    }

    /// Whether the client has said anything.
    pub(crate) fn has_begun(&self) -> bool {
        self.last.get().is_some()
    }

    /// Drives a handshake to its end; `None` when it is out of time.
    pub(crate) async fn keep<F: Future>(&self, handshake: F) -> Option<F::Output> {
        let mut handshake = pin!(handshake);
        loop {
            let deadline = self.deadline();
            if let Ok(done) = timeout_at(deadline, handshake.as_mut()).await {
                return Some(done);
            }
            if self.deadline() == deadline {
                return None;
            }
        }
    }

    fn deadline(&self) -> Instant {
        let end = self.began_at + whole(self.flight);
        match self.last.get() {
            None => self.began_at + self.flight,
            Some(last) => end.min(last + SILENT_FLIGHTS * self.flight),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const FLIGHT: Duration = Duration::from_secs(5);

    /// A client that says something after each of these times, and then nothing any more: when it
    /// is given up.
    async fn given_up_after(pauses_seconds: &[u64]) -> u64 {
        let pace = Pace::begin(FLIGHT);
        let handshake = async {
            for seconds in pauses_seconds {
                sleep(Duration::from_secs(*seconds)).await;
                pace.step();
            }
            pending::<()>().await;
        };
        assert!(pace.keep(handshake).await.is_none());
        pace.began_at.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_the_whole_are_bounded() {
        assert_eq!(given_up_after(&[]).await, 5, "it never begins");
        assert_eq!(given_up_after(&[4]).await, 14, "it does not go on");
        assert_eq!(given_up_after(&[1, 9]).await, 20);
        assert_eq!(given_up_after(&[1; 100]).await, 25, "it comes to no end");
    }

    #[tokio::test(start_paused = true)]
    async fn six_seconds_between_flights_are_survived() {
        let pace = Pace::begin(FLIGHT);
        let handshake = async {
            for seconds in [3, 6, 6, 6] {
                sleep(Duration::from_secs(seconds)).await;
                pace.step();
            }
            204
        };
        assert_eq!(pace.keep(handshake).await, Some(204));
    }
}
