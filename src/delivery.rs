//! Delivery: takes sealed batches to the sink or the spool, keeps watch over the sink, and sends
//! every batch home.
//!
//! One thread with its own runtime owns the sink and the spool. Batches start in the order in which
//! they come out of the hand-over queue; how many are in flight at once is bounded by the lanes
//! that sent them. Every batch goes home with its outcomes, whatever happens to it. There are two
//! [ways](way) to make records safe: by the sink alone ([`outlet`]), or by the sink and the spool
//! ([`overflow`]); the [`drain`] then takes the backlog on disk to the sink. A batch that was
//! answered before goes home at once, and its records are kept by [`queued`] until they are safe.
//!
//! [`watch`] asks the sink whether it is there; admission and `/readyz` read the [`Health`] that it
//! keeps. [`Promised`] counts records that were answered and are not safe. A task that panics
//! raises the [`alarm`]: the gateway then drains and ends with an error, while the other tasks go
//! on.

mod alarm;
mod back_off;
mod backlog;
mod drain;
mod ending;
mod flight;
mod flow;
mod outlet;
mod overflow;
mod promised;
mod queued;
mod shipment;
mod stragglers;
#[cfg(test)]
mod tests;
mod watch;
mod way;
mod window;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet, spawn_local};

use crate::config::{BatchConfig, StreamConfig};
use crate::handover::Receiver;
use crate::health::Health;
use crate::lifecycle::{Phase, Phases};
use crate::record::{Batch, StreamIndex};
use crate::sink::{Sink, SinkError};
use crate::telemetry::metrics::Metrics;
use alarm::Alarm;
pub use backlog::Backlog;
use drain::Drain;
use outlet::Outlet;
use overflow::Spooling;
pub(crate) use promised::Promised;
use queued::Queued;
use shipment::{Shipment, Terms};
pub(crate) use stragglers::STRAGGLERS_MAX;
use watch::Watch;
use way::Way;

/// Takes batches to one sink.
pub struct Delivery {
    outlet: Rc<Outlet>,
    backlog: Option<Rc<Backlog>>,
    promised: Promised,
    /// The stream of the gateway's own records (events), which no client is owed.
    own_stream: Option<StreamIndex>,
    alarm: Alarm,
}

/// Settings of delivery, from the configuration.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    pub streams: Vec<StreamConfig>,
    /// Limits of a batch that the drain, or the queue of answered records, makes.
    pub batch: BatchConfig,
    /// Most batches that the sink has of a stream at once, with a spool, but for one; at least one.
    pub stream_batches_max: usize,
    /// Further batches, for streams that are busy and answer.
    pub shared_batches_max: usize,
    /// Time that a request waits for its ack.
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
        let backlog = backlog.map(Rc::new);
        let watch = Watch::new(health, metrics.clone(), &options.streams, backlog.clone());
        Self {
            outlet: Rc::new(Outlet::new(sink, watch, metrics, options)),
            backlog,
            promised: Promised::default(),
            own_stream: None,
            alarm: Alarm::silent(),
        }
    }

    /// Sets the stream of the gateway's own records: they are delivered as those are that were
    /// answered before, but no client is owed them.
    pub(crate) fn with_own_stream(self, own_stream: Option<StreamIndex>) -> Self {
        Self { own_stream, ..self }
    }

    /// Sets the counter of records that were answered and are not safe.
    pub(crate) fn counting(self, promised: Promised) -> Self {
        Self { promised, ..self }
    }

    /// Sets the callback that is told which task has panicked.
    pub fn alarming(self, alarm: impl Fn(&'static str) + 'static) -> Self {
        Self {
            alarm: Alarm::new(alarm),
            ..self
        }
    }

    /// Asks the sink for the first time. A stream that is away, missing or closed is waited for;
    /// the only error is a stream that can never work as configured.
    pub fn verify(&self) -> impl Future<Output = Result<(), SinkError>> + use<> {
        let outlet = self.outlet.clone();
        async move {
            for answer in outlet.probe(&outlet.watch.all()).await {
                if matches!(answer, Err(SinkError::Misconfigured(_))) {
                    return answer;
                }
            }
            Ok(())
        }
    }

    /// Delivers until every worker has gone and every batch is home, or until the gateway hurries
    /// and the rest has been spooled. Runs on a local runtime.
    pub async fn run(self, mut batches: Receiver<Batch>, phases: Phases) {
        let running = self.start();
        let outlet = running.outlet().clone();
        let hurrying = spawn_local(hurry_in(outlet.clone(), phases));
        let mut under_way = JoinSet::new();
        while let Some(batch) = batches.recv().await {
            running.begin(batch, &mut under_way);
            while under_way.try_join_next().is_some() {}
        }
        outlet.ending.intake.end();
        // It ends in a hurry too, once all that can be spooled is. A task that panicked has raised
        // the alarm, as the others do.
        let _ = running.queueing.await;
        let finished = async {
            while under_way.join_next().await.is_some() {}
            let _ = running.draining.await;
        };
        tokio::select! {
            biased;
            () = finished => {}
            () = outlet.ending.hurried() => {}
        }
        running.watching.abort();
        hurrying.abort();
    }
}

/// Delivery at work: its tasks, and the state that they share.
struct Running {
    way: Way,
    alarm: Alarm,
    queued: Rc<Queued>,
    watching: JoinHandle<Option<()>>,
    draining: JoinHandle<Option<()>>,
    queueing: JoinHandle<Option<()>>,
}

impl Delivery {
    fn start(self) -> Running {
        let Self {
            outlet,
            backlog,
            promised,
            own_stream,
            alarm,
        } = self;
        let watched = outlet.clone();
        let watch = async move { watched.keep_watch().await };
        let way = match backlog {
            None => Way::Direct(outlet),
            Some(backlog) => {
                let spooling = Spooling::new(outlet, backlog, alarm.clone());
                Way::Spooling(Rc::new(spooling))
            }
        };
        let queued = Queued::new(way.clone(), alarm.clone(), promised, own_stream);
        let queued = Rc::new(queued);
        let queue = queued.clone().deliver();
        Running {
            watching: alarm.spawn_guarded("the watch over the sink", watch),
            draining: alarm.spawn_guarded("the drain of the spool", drain(way.clone())),
            queueing: alarm.spawn_guarded("the delivery of queued records", queue),
            way,
            queued,
            alarm,
        }
    }
}

impl Running {
    fn outlet(&self) -> &Rc<Outlet> {
        self.way.outlet()
    }

    fn begin(&self, batch: Batch, under_way: &mut JoinSet<Option<()>>) {
        if batch.is_answered() {
            return self.queued.queue(batch);
        }
        let delivered = deliver(self.way.clone(), batch);
        under_way.spawn_local(self.alarm.clone().guard("a delivery", delivered));
    }
}

/// Takes the backlog on disk to the sink; ends at once without a spool.
async fn drain(way: Way) {
    if let Way::Spooling(spooling) = way {
        Drain::new(spooling).run().await;
    }
}

async fn hurry_in(outlet: Rc<Outlet>, phases: Phases) {
    phases.reached(Phase::Hurrying).await;
    outlet.ending.time.end();
}

/// Makes the records of a batch safe and tells the worker whose requests wait.
async fn deliver(way: Way, batch: Batch) {
    let (stream, opened_at) = (batch.stream, batch.opened_at);
    let (records, receipt) = batch.into_parts();
    let terms = Terms {
        stream,
        opened_at,
        is_answered: false,
    };
    let shipment = Shipment { terms, records };
    way.ship(shipment, receipt).await;
}
