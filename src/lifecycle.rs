//! The phases of the process on its way out: one state that every room reads and only `gateway`
//! advances.
//!
//! `gateway` makes a [`Lifecycle`] and advances it; all other rooms hold [`Phases`]. No phase is
//! left for an earlier one, and a wait for a phase ends with any later one too. To look costs one
//! relaxed load of a word that hardly ever changes, so requests may do it. A [`Barrier`] tells
//! `gateway` that all others are through with something: each of them drops its [`Token`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::sync::{Notify, watch};

/// The phase of the gateway on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Connections are accepted and requests answered.
    Serving,
    /// TCP listeners close, so that a device that is told to go finds another gateway.
    Closing,
    /// Connections are told to go; requests that have begun are finished.
    Draining,
    /// There is no time left: waiting records are spooled or refused now.
    Hurrying,
}

/// The one state, and the tasks that wait for another.
#[derive(Debug)]
struct Current {
    phase: AtomicU8,
    advanced: Notify,
}

/// The side that advances.
#[derive(Debug)]
pub(crate) struct Lifecycle(Arc<Current>);

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Current {
            phase: AtomicU8::new(Phase::Serving as u8),
            advanced: Notify::new(),
        }))
    }

    pub(crate) fn advance(&self, to: Phase) {
        let from = self.0.phase.fetch_max(to as u8, Ordering::Relaxed);
        debug_assert!(from < to as u8, "each phase is entered once, in its order");
        self.0.advanced.notify_waiters();
    }

    pub(crate) fn phases(&self) -> Phases {
        Phases(self.0.clone())
    }
}

/// The side that looks and waits. Clones see the same.
#[derive(Clone, Debug)]
pub struct Phases(Arc<Current>);

impl Phases {
    /// Returns the phases of a process that serves for ever, to drive a room without a gateway.
    pub fn serving() -> Self {
        Lifecycle::new().phases()
    }

    pub(crate) fn has_reached(&self, phase: Phase) -> bool {
        self.0.phase.load(Ordering::Relaxed) >= phase as u8
    }

    /// Returns once the gateway is in this phase or a later one.
    pub(crate) async fn reached(&self, phase: Phase) {
        loop {
            // It hears of any advance after it was made, and so of one before the look.
            let advanced = self.0.advanced.notified();
            if self.has_reached(phase) {
                return;
            }
            advanced.await;
        }
    }
}

/// Tells when all of its tokens have been dropped.
#[derive(Clone, Debug)]
pub(crate) struct Barrier(watch::Sender<()>);

/// Holds its barrier up until it is dropped.
#[derive(Debug)]
pub(crate) struct Token {
    _held: watch::Receiver<()>,
}

impl Barrier {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(crate) fn token(&self) -> Token {
        Token {
            _held: self.0.subscribe(),
        }
    }

    /// Returns when no token is left.
    pub(crate) async fn passed(&self) {
        self.0.closed().await;
        debug_assert_eq!(self.0.receiver_count(), 0, "tokens are made at the start");
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_for_a_phase_is_woken_by_a_later_one() {
        let lifecycle = Lifecycle::new();
        let phases = lifecycle.phases();
        let mut closing = Box::pin(phases.reached(Phase::Closing));
        assert!((&mut closing).now_or_never().is_none());
        lifecycle.advance(Phase::Draining);
        closing.await;
        assert!(phases.has_reached(Phase::Draining));
        assert!(!phases.has_reached(Phase::Hurrying));
        let hurrying = phases.reached(Phase::Hurrying);
        assert!(hurrying.now_or_never().is_none(), "that is to come");
    }

    /// A wait that begins after the phase was reached misses nothing.
    #[tokio::test]
    async fn a_phase_that_was_reached_before_anybody_waited_is_reached() {
        let lifecycle = Lifecycle::new();
        let phases = lifecycle.phases();
        let reached = phases.reached(Phase::Closing);
        lifecycle.advance(Phase::Closing);
        reached.await;
        phases.reached(Phase::Serving).await;
    }

    #[test]
    fn a_barrier_is_passed_when_the_last_token_is_dropped() {
        let barrier = Barrier::new();
        let (first, last) = (barrier.token(), barrier.token());
        drop(first);
        assert!(barrier.passed().now_or_never().is_none());
        drop(last);
        assert!(barrier.passed().now_or_never().is_some());
    }
}
