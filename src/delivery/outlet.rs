//! The way to the sink: the sink itself, the watch over it, and how much of it each stream may have
//! at once.
//!
//! Everything that goes to the sink goes as a [`Flight`](super::flight::Flight), so that the watch
//! sees each batch. A stream may have as many batches at the sink as its lanes may send ahead,
//! whatever the others do: one whose batches do not come back takes up no other's room. Further
//! ones are for whichever stream is busy, as long as it answers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::DeliveryOptions;
use super::ending::Ending;
use super::stragglers::{Stragglers, Usual};
use super::watch::Watch;
use crate::record::{Outcomes, StreamIndex};
use crate::sink::{Sink, SinkError};
use crate::telemetry::metrics::Metrics;

/// The least time that the sink has for a record before it is spooled, from when the record came in.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Acknowledgement times that the sink has for a record, where these make more than the least time.
const PATIENCE_ACKS: u32 = 4;

/// Takes batches to one sink. One task keeps watch over it.
pub(crate) struct Outlet {
    pub sink: Sink,
    pub watch: Watch,
    pub metrics: Arc<Metrics>,
    pub options: DeliveryOptions,
    /// The streams' names, in their order.
    pub names: Vec<Arc<str>>,
    pub ending: Ending,
    pub stragglers: Stragglers,
    /// Usual ack time of the batches of each stream.
    usual: Vec<Usual>,
}

impl Outlet {
    pub(crate) fn new(
        sink: Sink,
        watch: Watch,
        metrics: Arc<Metrics>,
        options: DeliveryOptions,
    ) -> Self {
        let streams = options.streams.iter();
        let names: Vec<_> = streams.map(|stream| stream.name.as_str().into()).collect();
        Self {
            sink,
            watch,
            metrics,
            options,
            usual: names.iter().map(|_| Usual::default()).collect(),
            names,
            ending: Ending::default(),
            stragglers: Stragglers::default(),
        }
    }

    pub(crate) fn name(&self, stream: StreamIndex) -> &str {
        &self.names[stream.get()]
    }

    /// Whether the sink may have another batch of the stream: one of the stream's own or, as long as
    /// it answers, of those that streams share.
    pub(crate) fn has_room(&self, stream: StreamIndex) -> bool {
        let (watch, own_max) = (&self.watch, self.options.stream_batches_max);
        let shared_max = self.options.shared_batches_max;
        watch.in_flight(stream) < own_max
            || (watch.in_flight_beyond(own_max) < shared_max
                && watch.owes_for(stream) < self.patience())
    }

    /// Returns the time that the sink has for a record that may go to disk instead. The other half of
    /// the ack time-out is the disk's.
    pub(crate) fn patience(&self) -> Duration {
        let of_acks = self.sink.ack_time().saturating_mul(PATIENCE_ACKS);
        let most = self.options.ack_timeout / 2;
        of_acks.max(PATIENCE_MIN).min(most)
    }

    /// Returns the usual ack time of the stream's batches.
    pub(crate) fn usual(&self, stream: StreamIndex) -> &Usual {
        &self.usual[stream.get()]
    }

    /// Notes that the sink has answered for a batch.
    pub(crate) fn answered(
        &self,
        stream: StreamIndex,
        outcomes: &Outcomes,
        records: usize,
        took: Duration,
    ) {
        self.metrics.sink_duration(took);
        self.metrics.sink_outcomes(stream, outcomes, records);
        self.watch.batch_finished(stream, outcomes, records);
    }

    /// Asks the sink for streams as they are due, for as long as it is polled.
    pub(crate) async fn keep_watch(&self) {
        let idle_interval = self.sink.idle_probe_interval();
        loop {
            let look = || self.look_at_partitions(&self.watch.all());
            let due = self.watch.wait_until_due(idle_interval, look).await;
            self.probe(&due).await;
        }
    }

    /// Asks the sink for these streams; one answer for each, in their order.
    pub(crate) async fn probe(&self, streams: &[StreamIndex]) -> Vec<Result<(), SinkError>> {
        let asked_at = Instant::now();
        let answers = self.sink.verify(streams).await;
        debug_assert_eq!(answers.len(), streams.len(), "one answer for each stream");
        self.watch.answered(streams, asked_at, &answers);
        self.look_at_partitions(streams);
        answers
    }

    /// Passes the sink's partitions of these streams on to the watch.
    fn look_at_partitions(&self, streams: &[StreamIndex]) {
        for stream in streams {
            let found = self.sink.partitions(*stream);
            self.watch.partitions_found(*stream, found);
        }
    }
}
