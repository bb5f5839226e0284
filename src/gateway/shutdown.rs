//! From the first signal to the exit code: the gateway's side of the
//! [`lifecycle`](crate::lifecycle).
//!
//! A signal or the [alarm](super::alarm) asks the gateway to end. Each phase has a bound in time, so
//! the process ends whatever its threads do: the drain's own, [`CLOSE_TIMEOUT`] before it, and
//! [`HURRY_TIMEOUT`] after it.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::alarm::{Alarm, Ending};
use super::threads::{Exit, Threads};
use crate::lifecycle::{Barrier, Lifecycle, Phase, Phases, Token};
use crate::worker;

/// Time that threads have to answer what waits after the drain's deadline.
pub(crate) const HURRY_TIMEOUT: Duration = Duration::from_secs(3);

const _: () = assert!(worker::HURRY_TIMEOUT.as_millis() < HURRY_TIMEOUT.as_millis());

/// Far more than workers need to close their listeners.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Steers the end of the gateway: it advances the phases, waits at the barriers between them, and
/// listens for the alarm.
pub(crate) struct Shutdown {
    lifecycle: Lifecycle,
    /// Has a token of each TCP listener that is open.
    listeners: Barrier,
    /// Has a token of each UDP socket that is open.
    sockets: Barrier,
    alarm: Alarm,
    ended: mpsc::Receiver<&'static str>,
}

impl Shutdown {
    pub(crate) fn new() -> Self {
        let (alarm, ended) = Alarm::new();
        Self {
            lifecycle: Lifecycle::new(),
            listeners: Barrier::new(),
            sockets: Barrier::new(),
            alarm,
            ended,
        }
    }

    pub(crate) fn phases(&self) -> Phases {
        self.lifecycle.phases()
    }

    /// Returns the alarm that tasks raise without which the gateway cannot go on.
    pub(crate) fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// Makes the guard that a thread holds without which the gateway cannot go on.
    pub(crate) fn ending(&self, what: &'static str) -> Ending {
        self.alarm.at_end(what)
    }

    /// Makes the token that a TCP listener holds.
    pub(crate) fn listener(&self) -> Token {
        self.listeners.token()
    }

    /// Makes the token that a UDP socket holds.
    pub(crate) fn socket(&self) -> Token {
        self.sockets.token()
    }

    pub(crate) fn sockets(&self) -> Barrier {
        self.sockets.clone()
    }

    /// Returns when the gateway is to end: at a signal, or when something has ended without which
    /// it cannot go on.
    pub(crate) async fn asked_for(&mut self, signal: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = signal => tracing::info!("draining"),
            what = self.ended.recv() => {
                tracing::error!(what, "draining, since this has ended");
                self.alarm.mark();
            }
        }
    }

    /// Takes the gateway through its phases. Returns when its threads have ended, or their time is
    /// up; a second signal hurries them.
    pub(crate) async fn drain(
        &self,
        second_signal: impl Future<Output = ()>,
        drain_timeout: Duration,
        threads: Threads,
    ) -> Exit {
        assert!(!threads.workers.is_empty(), "a gateway has a worker");
        // Connections that are told to go come back at once: by then nobody of this gateway takes
        // them.
        self.lifecycle.advance(Phase::Closing);
        within(CLOSE_TIMEOUT, self.listeners.passed()).await;
        self.lifecycle.advance(Phase::Draining);
        if !have_ended(&threads, second_signal, drain_timeout).await {
            self.lifecycle.advance(Phase::Hurrying);
            within(HURRY_TIMEOUT, threads.ended()).await;
        }
        threads.exit(&self.alarm)
    }
}

/// Waits for the threads to end. `false` when that takes too long, or a second signal has come.
async fn have_ended(
    threads: &Threads,
    second_signal: impl Future<Output = ()>,
    drain_timeout: Duration,
) -> bool {
    tokio::select! {
        biased;
        () = threads.ended() => return true,
        () = second_signal => tracing::warn!("a second signal: leaving now"),
        () = sleep(drain_timeout) => tracing::warn!("the drain deadline has passed: leaving now"),
    }
    false
}

async fn within(bound: Duration, future: impl Future<Output = ()>) {
    // Past its bound the gateway goes on, finished or not.
    let _ = timeout(bound, future).await;
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Registers the signals; from here on none is missed.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
