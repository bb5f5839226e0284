//! The watch over the sink: is it there, is it silent, and can anything be made safe?
//!
//! The sink is asked at leisure while records flow, at once when they stop coming back or fail, and every second while it
//! is away, never more often. What it answers, together with the spool's state, is the gateway's [`Health`].

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use super::backlog::Backlog;
use super::health::Health;
use crate::config::SpoolMode;
use crate::sink::SinkError;
use crate::telemetry::metrics::Metrics;

/// How often a sink is asked that is away, or that is silent while records wait for it.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How often a sink is asked when all is well.
const IDLE_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// What the sink said when it was asked last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkState {
    Up,
    /// It answers, but cannot take everything as configured.
    Unfit(String),
    Away(String),
}

pub struct Watch {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    sink: RefCell<SinkState>,
    progress: Cell<Progress>,
    doubt: Notify,
    sink_changed: Notify,
    exit: watch::Sender<Exit>,
}

/// How far the gateway is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Exit {
    Not,
    /// No more batches come.
    Leaving,
    /// There is no time left.
    Hurrying,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    /// The last time that a record was delivered, or that nothing waited for delivery.
    at: Instant,
    in_flight: usize,
}

impl Watch {
    pub fn new(health: Arc<Health>, metrics: Arc<Metrics>) -> Self {
        Self {
            health,
            metrics,
            sink: RefCell::new(SinkState::Up),
            progress: Cell::new(Progress {
                at: Instant::now(),
                in_flight: 0,
            }),
            doubt: Notify::new(),
            sink_changed: Notify::new(),
            exit: watch::Sender::new(Exit::Not),
        }
    }

    pub fn batch_started(&self) -> Instant {
        let now = Instant::now();
        let Progress { at, in_flight } = self.progress.get();
        self.set_progress(if in_flight == 0 { now } else { at }, in_flight + 1);
        now
    }

    pub fn batch_finished(&self, is_progress: bool) {
        let Progress { at, in_flight } = self.progress.get();
        self.set_progress(if is_progress { Instant::now() } else { at }, in_flight - 1);
        if !is_progress {
            self.doubt.notify_one();
        }
    }

    fn set_progress(&self, at: Instant, in_flight: usize) {
        self.progress.set(Progress { at, in_flight });
        self.metrics.set_in_flight_batches(in_flight);
    }

    /// Batches that the sink has and has not answered.
    pub fn in_flight(&self) -> usize {
        self.progress.get().in_flight
    }

    /// How long the sink has owed an answer.
    fn silence(&self) -> Option<Duration> {
        let progress = self.progress.get();
        (progress.in_flight > 0).then(|| progress.at.elapsed())
    }

    /// Returns when it is time to ask the sink.
    pub async fn wait_for_doubt(&self) {
        if !self.health.is_up() || !self.sink_is_up() {
            return;
        }
        tokio::select! {
            () = self.doubt.notified() => {}
            () = self.silent() => {}
            () = sleep(IDLE_PROBE_INTERVAL) => {}
        }
    }

    async fn silent(&self) {
        while self
            .silence()
            .is_none_or(|silence| silence < PROBE_INTERVAL)
        {
            sleep(PROBE_INTERVAL).await;
        }
    }

    /// The least time between two questions.
    pub async fn pause(&self) {
        sleep(PROBE_INTERVAL).await;
    }

    pub fn sink_is_up(&self) -> bool {
        *self.sink.borrow() == SinkState::Up
    }

    /// Whether it is worth a try to deliver what is spooled.
    pub fn sink_answers(&self) -> bool {
        !matches!(*self.sink.borrow(), SinkState::Away(_))
    }

    pub fn sink_answered(&self, answer: &Result<(), SinkError>, backlog: Option<&Backlog>) {
        let state = match answer {
            Ok(()) => SinkState::Up,
            Err(SinkError::Misconfigured(reason)) => SinkState::Unfit(reason.clone()),
            Err(SinkError::Away(reason)) => SinkState::Away(reason.clone()),
        };
        let was_up = self.sink_is_up();
        match &state {
            SinkState::Up if !was_up => tracing::info!("the sink is back"),
            SinkState::Unfit(reason) | SinkState::Away(reason) if was_up => {
                let meanwhile = if backlog.is_some() {
                    "spooled"
                } else {
                    "refused"
                };
                tracing::warn!(
                    reason,
                    "the sink is away: new records are {meanwhile} until it is back"
                );
            }
            _ => {}
        }
        self.metrics.set_sink_up(state == SinkState::Up);
        *self.sink.borrow_mut() = state;
        self.update_health(backlog);
        self.sink_changed.notify_waiters();
    }

    /// To be called when the spool's state may have changed, too.
    pub fn update_health(&self, backlog: Option<&Backlog>) {
        match self.trouble(backlog) {
            None => self.health.set_up(),
            Some(reason) if self.health.reason().is_none_or(|known| *known != reason) => {
                self.health.set_down(reason)
            }
            Some(_) => {}
        }
    }

    /// Why nothing can be made safe.
    fn trouble(&self, backlog: Option<&Backlog>) -> Option<String> {
        let of_sink = match &*self.sink.borrow() {
            SinkState::Up => None,
            SinkState::Unfit(reason) | SinkState::Away(reason) => Some(reason.clone()),
        };
        let Some(backlog) = backlog else {
            return of_sink;
        };
        match backlog.mode() {
            SpoolMode::Always => backlog.trouble(),
            SpoolMode::Overflow => Some(format!("{}; {}", of_sink?, backlog.trouble()?)),
        }
    }

    /// Returns when the sink has been asked again.
    pub async fn sink_changed(&self) {
        self.sink_changed.notified().await;
    }

    pub fn leave(&self) {
        self.go(Exit::Leaving);
    }

    pub fn hurry(&self) {
        self.go(Exit::Hurrying);
    }

    fn go(&self, exit: Exit) {
        self.exit.send_modify(|now| *now = exit.max(*now));
    }

    pub fn is_leaving(&self) -> bool {
        *self.exit.borrow() >= Exit::Leaving
    }

    pub fn is_hurrying(&self) -> bool {
        *self.exit.borrow() >= Exit::Hurrying
    }

    pub async fn left(&self) {
        self.reached(Exit::Leaving).await;
    }

    pub async fn hurried(&self) {
        self.reached(Exit::Hurrying).await;
    }

    async fn reached(&self, exit: Exit) {
        // The sender is here.
        let _ = self.exit.subscribe().wait_for(|now| *now >= exit).await;
    }
}
