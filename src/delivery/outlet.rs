//! The way to the sink: the sink itself, the watch over it, and how much of it each stream may have
//! at once.
//!
//! Everything that goes to the sink goes by [`Outlet::ask_sink`], so that the watch sees each
//! batch. A stream may have as many batches at the sink as its lanes may send ahead, whatever the
//! others do: one whose batches do not come back takes up no other's room.

use std::sync::Arc;

use super::DeliveryOptions;
use super::ending::Ending;
use super::watch::Watch;
use crate::record::{Outcomes, Record, StreamIndex};
use crate::sink::{Sink, SinkError};
use crate::telemetry::metrics::Metrics;

/// Takes batches to one sink. One task keeps watch over it.
pub(crate) struct Outlet {
    pub sink: Sink,
    pub watch: Watch,
    pub metrics: Arc<Metrics>,
    pub options: DeliveryOptions,
    /// The streams' names, in their order.
    pub names: Vec<Arc<str>>,
    pub ending: Ending,
}

impl Outlet {
    pub(crate) fn new(
        sink: Sink,
        watch: Watch,
        metrics: Arc<Metrics>,
        options: DeliveryOptions,
    ) -> Self {
        let streams = options.streams.iter();
        let names = streams.map(|stream| stream.name.as_str().into()).collect();
        Self {
            sink,
            watch,
            metrics,
            options,
            names,
            ending: Ending::default(),
        }
    }

    pub(crate) fn name(&self, stream: StreamIndex) -> &str {
        &self.names[stream.get()]
    }

    /// Batches that the sink may have of one stream at once.
    pub(crate) fn stream_batches_max(&self) -> usize {
        let streams = self.names.len().max(1);
        (self.options.in_flight_batches_max / streams).max(1)
    }

    /// Whether the sink has not all the batches of the stream that it may have at once.
    pub(crate) fn has_room(&self, stream: StreamIndex) -> bool {
        self.watch.in_flight(stream) < self.stream_batches_max()
    }

    /// Takes records to the sink and keeps count of it.
    pub(crate) async fn ask_sink(&self, stream: StreamIndex, records: &[Record]) -> Outcomes {
        if records.is_empty() {
            // No word of the sink: it is not to count as one.
            return Outcomes::DELIVERED;
        }
        let started_at = self.watch.batch_started(stream);
        let outcomes = self.sink.deliver(stream, records).await;
        self.metrics.sink_duration(started_at.elapsed());
        self.metrics.sink_outcomes(stream, &outcomes, records.len());
        self.watch.batch_finished(stream, &outcomes, records.len());
        outcomes
    }

    /// Asks the sink for streams as they are due, for as long as it is polled.
    pub(crate) async fn keep_watch(&self) {
        let idle_interval = self.sink.idle_probe_interval();
        loop {
            let due = self.watch.wait_until_due(idle_interval).await;
            self.probe(&due).await;
        }
    }

    /// Asks the sink for these streams; one answer for each, in their order.
    pub(crate) async fn probe(&self, streams: &[StreamIndex]) -> Vec<Result<(), SinkError>> {
        let answers = self.sink.verify(streams).await;
        debug_assert_eq!(answers.len(), streams.len(), "one answer for each stream");
        self.watch.answered(streams, &answers);
        answers
    }
}
