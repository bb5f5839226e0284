//! Delivery: takes sealed batches to the sink or the spool, keeps watch over the sink, and sends every batch home.
//!
//! One thread with its own runtime owns the sink and the spool. Batches start in the order in which they come out of the
//! hand-over queue; how many are under way at once is bounded by the lanes that sent them. Every batch goes home with its
//! outcomes, whatever happens to it, by [`overflow`]; one that was answered before goes home at once, and its records are
//! kept by [`queued`] until they are safe. What is on disk is taken to the sink by [`drain`].
//!
//! [`watch`] asks the sink whether it is there; [`Health`] is what admission and `/readyz` read. [`Promised`] counts what was
//! answered and is not safe. A task that panics raises the alarm: the gateway then drains and ends with an error, and the
//! others go on meanwhile.

mod backlog;
mod drain;
mod health;
mod holds;
mod overflow;
mod promised;
mod queued;
mod read_ahead;
mod shipment;
#[cfg(test)]
mod tests;
mod watch;
mod window;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::{JoinHandle, JoinSet, spawn_local};

use crate::config::{BatchConfig, StreamConfig};
use crate::handover::Receiver;
use crate::lifecycle::{Phase, Phases};
use crate::record::{Batch, Outcomes, Record, StreamIndex};
use crate::sink::{Sink, SinkError};
use crate::telemetry::metrics::Metrics;
pub use backlog::Backlog;
pub use health::Health;
pub(crate) use promised::Promised;
use queued::Queued;
use shipment::{Home, Shipment};
use watch::Watch;

/// Takes batches to one sink.
pub struct Delivery {
    sink: Sink,
    backlog: Option<Backlog>,
    watch: Watch,
    metrics: Arc<Metrics>,
    options: DeliveryOptions,
    /// Of the streams, in their order.
    names: Vec<Arc<str>>,
    queued: Queued,
    promised: Promised,
    /// Is told what has ended that must not end.
    alarm: Box<dyn Fn(&'static str)>,
}

/// What delivery is told of the configuration.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    pub streams: Vec<StreamConfig>,
    /// What the spool's records travel in.
    pub batch: BatchConfig,
    /// With a spool, the sink has no more of them at once.
    pub in_flight_batches_max: usize,
    /// How long a request waits for its ack.
    pub ack_timeout: Duration,
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
        let streams = options.streams.iter();
        let names = streams.map(|stream| stream.name.as_str().into()).collect();
        Self {
            sink,
            backlog,
            watch,
            metrics,
            options,
            names,
            queued: Queued::default(),
            promised: Promised::default(),
            alarm: Box::new(|_| ()),
        }
    }

    /// Where it counts what was answered and is not safe.
    pub(crate) fn counting(self, promised: Promised) -> Self {
        Self { promised, ..self }
    }

    /// Whom it tells what has ended that must not end.
    pub fn alarming(self, alarm: impl Fn(&'static str) + 'static) -> Self {
        Self {
            alarm: Box::new(alarm),
            ..self
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

    /// Delivers until every worker has gone and every batch is home, or the gateway hurries and what there is has been
    /// spooled. Runs on a local runtime.
    pub async fn run(self, mut batches: Receiver<Batch>, phases: Phases) {
        let delivery = Rc::new(self);
        let hurrying = spawn_local(delivery.clone().hurry_in(phases));
        let watching = delivery.start("the watch over the sink", Self::keep_watch);
        let draining = delivery.start("the drain of the spool", Self::drain);
        let queueing = delivery.start("the delivery of queued records", Self::deliver_queued);
        let mut under_way = JoinSet::new();
        while let Some(batch) = batches.recv().await {
            delivery.clone().begin(batch, &mut under_way);
            while under_way.try_join_next().is_some() {}
        }
        delivery.watch.leave();
        delivery.close_queue();
        // It ends in a hurry too, once what can be spooled is. One that panicked has told of it, as the others do.
        let _ = queueing.await;
        let finished = async {
            while under_way.join_next().await.is_some() {}
            let _ = draining.await;
        };
        tokio::select! {
            () = finished => {}
            () = delivery.watch.hurried() => {}
        }
        watching.abort();
        hurrying.abort();
    }

    fn start<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        what: &'static str,
        task: impl FnOnce(Rc<Self>) -> F,
    ) -> JoinHandle<()> {
        spawn_local(self.clone().guarded(what, task(self.clone())))
    }

    /// Raises the alarm if the task panics.
    async fn guarded(self: Rc<Self>, what: &'static str, task: impl Future<Output = ()>) {
        if AssertUnwindSafe(task).catch_unwind().await.is_err() {
            (self.alarm)(what);
        }
    }

    fn begin(self: Rc<Self>, batch: Batch, under_way: &mut JoinSet<()>) {
        if batch.is_answered() {
            return self.queue(batch);
        }
        let delivered = self.clone().deliver(batch);
        under_way.spawn_local(self.guarded("a delivery", delivered));
    }

    async fn hurry_in(self: Rc<Self>, phases: Phases) {
        phases.reached(Phase::Hurrying).await;
        self.watch.hurry();
    }

    async fn deliver(self: Rc<Self>, batch: Batch) {
        let (stream, opened_at) = (batch.stream, batch.opened_at);
        let (records, receipt) = batch.into_parts();
        let shipment = Shipment {
            stream,
            records,
            opened_at,
            home: Home::Worker(receipt),
        };
        self.ship(shipment).await;
    }

    /// `None` where the stream is not among those that are configured.
    fn index_of(&self, stream: &str) -> Option<StreamIndex> {
        let index = self.names.iter().position(|name| **name == *stream)?;
        Some(StreamIndex(index as u16))
    }

    /// Whether it is worth a try to take records of the stream to the sink. One that is not configured is refused at once.
    fn may_try(&self, stream: &str) -> bool {
        let index = self.index_of(stream);
        index.is_none_or(|index| self.watch.answers(index))
    }

    /// Takes records to the sink and keeps count of it.
    async fn ask_sink(&self, stream: StreamIndex, records: &[Record]) -> Outcomes {
        if records.is_empty() {
            // No word of the sink: it is not to count as one.
            return Outcomes::DELIVERED;
        }
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
