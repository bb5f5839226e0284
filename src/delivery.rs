//! Delivery: takes sealed batches to the sink, keeps watch over the sink, and sends every batch home.
//!
//! One thread with its own runtime owns the sink. Batches start in the order in which they come out of the hand-over
//! queue; how many are under way at once is bounded by the lanes that sent them. Every batch goes home with its
//! outcomes, whatever happens to it.
//!
//! The watch asks the sink whether it is there: at leisure while records flow, at once when they stop coming back or
//! fail, and every second while it is away, never more often. [`Health`] is what admission and `/readyz` read.

mod health;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::handover::Receiver;
use crate::record::{Batch, Outcome, Outcomes};
use crate::sink::{Sink, SinkError};
use crate::telemetry::metrics::Metrics;
pub use health::Health;

/// How often a sink is asked that is away, or that is silent while records wait for it.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How often a sink is asked when all is well.
const IDLE_PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// Takes batches to one sink.
pub struct Delivery {
    sink: Sink,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    /// The last time that a record was delivered, or that nothing waited for delivery.
    last_progress: RefCell<Progress>,
    doubt: Notify,
}

#[derive(Debug)]
struct Progress {
    at: Instant,
    in_flight: usize,
}

impl Delivery {
    pub fn new(sink: Sink, health: Arc<Health>, metrics: Arc<Metrics>) -> Self {
        let last_progress = RefCell::new(Progress { at: Instant::now(), in_flight: 0 });
        Self { sink, health, metrics, last_progress, doubt: Notify::new() }
    }

    /// Delivers until every worker has gone and every batch is home. Runs on a local runtime.
    pub async fn run(self, mut batches: Receiver<Batch>) {
        let delivery = Rc::new(self);
        let watch = tokio::task::spawn_local(delivery.clone().watch());
        let mut under_way = JoinSet::new();
        while let Some(batch) = batches.recv().await {
            under_way.spawn_local(delivery.clone().deliver(batch));
            while under_way.try_join_next().is_some() {}
        }
        while under_way.join_next().await.is_some() {}
        watch.abort();
    }

    async fn deliver(self: Rc<Self>, batch: Batch) {
        let started_at = self.start();
        let outcomes = self.sink.deliver(batch.stream, batch.records()).await;
        self.metrics.sink_duration(started_at.elapsed());
        self.metrics.sink_outcomes(batch.stream, &outcomes, batch.records().len());
        self.finish(&outcomes);
        batch.settle(outcomes);
    }

    fn start(&self) -> Instant {
        let now = Instant::now();
        let mut progress = self.last_progress.borrow_mut();
        if progress.in_flight == 0 {
            progress.at = now;
        }
        progress.in_flight += 1;
        self.metrics.set_in_flight_batches(progress.in_flight);
        now
    }

    fn finish(&self, outcomes: &Outcomes) {
        let mut progress = self.last_progress.borrow_mut();
        progress.in_flight -= 1;
        self.metrics.set_in_flight_batches(progress.in_flight);
        match outcomes {
            Outcomes::All(Outcome::Retryable(_) | Outcome::Unknown) => self.doubt.notify_one(),
            _ => progress.at = Instant::now(),
        }
    }

    /// How long the sink has owed an answer.
    fn silence(&self) -> Option<Duration> {
        let progress = self.last_progress.borrow();
        (progress.in_flight > 0).then(|| progress.at.elapsed())
    }

    async fn watch(self: Rc<Self>) {
        loop {
            self.wait_for_doubt().await;
            self.probe().await;
            sleep(PROBE_INTERVAL).await;
        }
    }

    /// Returns when it is time to ask the sink.
    async fn wait_for_doubt(&self) {
        if !self.health.is_up() {
            return;
        }
        tokio::select! {
            () = self.doubt.notified() => {}
            () = self.silent() => {}
            () = sleep(IDLE_PROBE_INTERVAL) => {}
        }
    }

    async fn silent(&self) {
        while self.silence().is_none_or(|silence| silence < PROBE_INTERVAL) {
            sleep(PROBE_INTERVAL).await;
        }
    }

    async fn probe(&self) {
        match self.sink.verify().await {
            Ok(()) => self.recovered(),
            Err(SinkError::Away(reason) | SinkError::Misconfigured(reason)) => self.lost(reason),
        }
    }

    fn recovered(&self) {
        if !self.health.is_up() {
            tracing::info!("the sink is back");
        }
        self.health.set_up();
        self.metrics.set_sink_up(true);
    }

    fn lost(&self, reason: String) {
        if self.health.is_up() {
            tracing::warn!(reason, "the sink is away: new records are refused until it is back");
        }
        self.health.set_down(reason);
        self.metrics.set_sink_up(false);
    }
}
