//! Delivery: takes sealed batches to the sink or the spool, keeps watch over the sink, and sends every batch home.
//!
//! One thread with its own runtime owns the sink and the spool. Batches start in the order in which they come out of the
//! hand-over queue; how many are under way at once is bounded by the lanes that sent them. Every batch goes home with its
//! outcomes, whatever happens to it: straight from the sink where there is no spool, by [`overflow`] where there is one.
//! What is on disk is taken to the sink by [`drain`].
//!
//! [`watch`] asks the sink whether it is there; [`Health`] is what admission and `/readyz` read.

mod backlog;
mod drain;
mod health;
mod overflow;
mod watch;
mod window;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::{JoinSet, spawn_local};

use crate::config::{BatchConfig, StreamConfig};
use crate::handover::Receiver;
use crate::record::{Batch, Outcomes, Record, StreamIndex};
use crate::sink::{Sink, SinkError};
use crate::telemetry::metrics::Metrics;
pub use backlog::Backlog;
pub use health::Health;
use watch::Watch;

/// Takes batches to one sink.
pub struct Delivery {
    sink: Sink,
    backlog: Option<Backlog>,
    watch: Watch,
    metrics: Arc<Metrics>,
    options: DeliveryOptions,
}

/// What delivery is told of the configuration.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    pub streams: Vec<StreamConfig>,
    /// What the spool's records travel in.
    pub batch: BatchConfig,
    /// With a spool, the sink has no more of them at once.
    pub in_flight_batches_max: usize,
}

impl Delivery {
    pub fn new(
        sink: Sink,
        backlog: Option<Backlog>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        options: DeliveryOptions,
    ) -> Self {
        let watch = Watch::new(health, metrics.clone(), &options.streams);
        Self {
            sink,
            backlog,
            watch,
            metrics,
            options,
        }
    }

    /// Asks the sink for the first time. A stream may be away, missing or closed, and is waited for; only one that can never
    /// work as configured is an error.
    pub async fn verify(&self) -> Result<(), SinkError> {
        let answers = self.probe(&self.watch.all()).await;
        let unfit =
            |answer: &Result<(), SinkError>| matches!(answer, Err(SinkError::Misconfigured(_)));
        answers.into_iter().find(unfit).unwrap_or(Ok(()))
    }

    /// Delivers until every worker has gone and every batch is home, or `hurried` is ready and what there is has been
    /// spooled. Runs on a local runtime.
    pub async fn run(
        self,
        mut batches: Receiver<Batch>,
        hurried: impl Future<Output = ()> + 'static,
    ) {
        let delivery = Rc::new(self);
        spawn_local(delivery.clone().hurry_when(hurried));
        let watch = spawn_local(delivery.clone().keep_watch());
        let draining = spawn_local(delivery.clone().drain());
        let mut under_way = JoinSet::new();
        while let Some(batch) = batches.recv().await {
            under_way.spawn_local(delivery.clone().deliver(batch));
            while under_way.try_join_next().is_some() {}
        }
        delivery.watch.leave();
        let finished = async {
            while under_way.join_next().await.is_some() {}
            // A drain that panicked has told of it.
            let _ = draining.await;
        };
        tokio::select! {
            () = finished => {}
            () = delivery.watch.hurried() => {}
        }
        watch.abort();
    }

    async fn hurry_when(self: Rc<Self>, hurried: impl Future<Output = ()>) {
        hurried.await;
        self.watch.hurry();
    }

    async fn deliver(self: Rc<Self>, batch: Batch) {
        if let Some(backlog) = &self.backlog {
            return self.deliver_or_spool(backlog, batch).await;
        }
        let outcomes = self.ask_sink(batch.stream, batch.records()).await;
        batch.settle(outcomes);
    }

    /// Takes records to the sink and keeps count of it.
    async fn ask_sink(&self, stream: StreamIndex, records: &[Record]) -> Outcomes {
        let started_at = self.watch.batch_started(stream);
        let outcomes = self.sink.deliver(stream, records).await;
        self.metrics.sink_duration(started_at.elapsed());
        self.metrics.sink_outcomes(stream, &outcomes, records.len());
        let backlog = self.backlog.as_ref();
        self.watch
            .batch_finished(stream, &outcomes, records.len(), backlog);
        outcomes
    }

    async fn keep_watch(self: Rc<Self>) {
        let idle_interval = self.sink.idle_probe_interval();
        loop {
            let due = self
                .watch
                .wait_until_due(idle_interval, self.backlog.as_ref())
                .await;
            self.probe(&due).await;
        }
    }

    async fn probe(&self, streams: &[StreamIndex]) -> Vec<Result<(), SinkError>> {
        let answers = self.sink.verify(streams).await;
        self.watch
            .answered(streams, &answers, self.backlog.as_ref());
        answers
    }
}
