//! Starts the thread of delivery, with the sink and the spool that are configured.

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use tokio::task::spawn_local;
use tokio::time::timeout;

use super::alarm::{Alarm, SINK_THREAD};
use super::foundation::Foundation;
use super::shutdown::Shutdown;
use super::threads::{DeliveryThread, Running};
use super::{in_flight_batches_max, local_runtime, spool};
use crate::batcher::{OWN_BATCHES_MAX, SHARED_BATCHES_MAX};
use crate::config::{Config, SinkConfig, host};
use crate::delivery::{Backlog, Delivery, DeliveryOptions, Promised, STRAGGLERS_MAX};
use crate::handover::Receiver;
use crate::health::Health;
use crate::lifecycle::Phases;
use crate::record::{Batch, StreamIndex};
use crate::sink::{Sink, SinkError, SinkOptions};
use crate::telemetry::metrics::Metrics;
use crate::words::Reload;

/// Time that the sink has for its first answer before the gateway listens without it.
const FIRST_ANSWER_TIME: Duration = Duration::from_millis(500);

/// Returns once the sink is open and found fit, or has not said so in time: then it is waited for,
/// not ready. One that says afterwards that it can never work as configured ends the gateway.
pub(crate) fn start(
    config: &Config,
    foundation: &Foundation,
    batches: Receiver<Batch>,
    shutdown: &Shutdown,
) -> anyhow::Result<DeliveryThread> {
    shutdown.alarm().raise_at_panics();
    let parts = Parts::of(config, foundation)?;
    let alarm = shutdown.alarm();
    let promised = parts.promised.clone();
    let ending = shutdown.ending("delivery");
    let (opened, was_opened) = mpsc::sync_channel(1);
    let run = move || {
        let _told_at_the_end = ending;
        host::schedule_as_batch();
        if let Err(error) = parts.run(batches, &opened, alarm) {
            // The starter waits for one message, be it this.
            let _ = opened.send(Err(error));
        }
    };
    let handle = thread::Builder::new().name(SINK_THREAD.into()).spawn(run)?;
    was_opened
        .recv()
        .map_err(|_| anyhow!("the delivery thread ended before the sink was open"))??;
    let handle = Running::Thread(handle);
    Ok(DeliveryThread { handle, promised })
}

/// The parts of which the thread makes its delivery.
struct Parts {
    backlog: Option<Backlog>,
    sink: SinkConfig,
    sink_options: SinkOptions,
    options: DeliveryOptions,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    promised: Promised,
    phases: Phases,
    /// The stream of the fleet's events.
    own_stream: Option<StreamIndex>,
}

impl Parts {
    /// An error is a spool that cannot be opened.
    fn of(config: &Config, foundation: &Foundation) -> anyhow::Result<Self> {
        let metrics = foundation.observers.metrics.clone();
        Ok(Self {
            backlog: spool::open(config, &metrics)?,
            sink: config.sink.clone(),
            sink_options: sink_options(config),
            options: delivery_options(config),
            health: foundation.health.clone(),
            metrics,
            promised: Promised::default(),
            phases: foundation.phases.clone(),
            own_stream: config.events.as_ref().map(|events| events.stream),
        })
    }

    /// Tells `opened` when the gateway may listen, and delivers until the last batch is home. An
    /// error is a sink that cannot be used.
    fn run(
        self,
        batches: Receiver<Batch>,
        opened: &mpsc::SyncSender<anyhow::Result<()>>,
        alarm: Alarm,
    ) -> anyhow::Result<()> {
        local_runtime()?.block_on(async {
            let phases = self.phases.clone();
            let delivery = self.open().await?;
            hear_first_answer(&delivery, alarm).await?;
            // The starter waits for this one message.
            let _ = opened.send(Ok(()));
            delivery.run(batches, phases).await;
            Ok(())
        })
    }

    async fn open(self) -> Result<Delivery, SinkError> {
        let metrics = self.metrics.clone();
        let on_password = move |is_good| match is_good {
            true => metrics.reload_succeeded(Reload::Password),
            false => metrics.reload_failed(Reload::Password),
        };
        let sink = Sink::open(&self.sink, self.sink_options, on_password).await?;
        let delivery = Delivery::new(sink, self.backlog, self.health, self.metrics, self.options)
            .counting(self.promised)
            .with_own_stream(self.own_stream);
        Ok(delivery)
    }
}

/// Waits for the sink's first answer, and goes on without it where it takes too long. An error is a
/// sink that can never work as configured.
pub(crate) async fn hear_first_answer(delivery: &Delivery, alarm: Alarm) -> Result<(), SinkError> {
    let mut verifying = Box::pin(delivery.verify());
    match timeout(FIRST_ANSWER_TIME, &mut verifying).await {
        Ok(answer) => answer,
        Err(_) => {
            drop(spawn_local(end_where_unfit(verifying, alarm)));
            Ok(())
        }
    }
}

/// Ends the gateway if the sink's first answer is that it can never work as configured.
async fn end_where_unfit(answer: impl Future<Output = Result<(), SinkError>>, alarm: Alarm) {
    if let Err(error) = answer.await {
        tracing::error!(%error, "the sink cannot work as configured");
        alarm.raise("the start of the sink");
    }
}

pub(crate) fn sink_options(config: &Config) -> SinkOptions {
    SinkOptions {
        streams: config.streams.clone(),
        body_bytes_max: config.http.body_bytes_max,
        ack_timeout: config.ack.timeout,
        memory_bytes_max: config.memory_bytes_max,
        // Each stream has one from the spool, and stragglers are beside them.
        in_flight_batches_max: in_flight_batches_max(config)
            + config.streams.len()
            + STRAGGLERS_MAX,
        threads: config.listen.workers.get(),
    }
}

fn delivery_options(config: &Config) -> DeliveryOptions {
    let workers = config.listen.workers.get();
    DeliveryOptions {
        streams: config.streams.clone(),
        batch: config.batch,
        stream_batches_max: workers * OWN_BATCHES_MAX,
        shared_batches_max: workers * SHARED_BATCHES_MAX,
        ack_timeout: config.ack.timeout,
    }
}
