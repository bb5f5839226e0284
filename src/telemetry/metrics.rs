//! Metrics: what happened, counted where it happens, summed when somebody asks.
//!
//! Each worker has a [`WorkerMetrics`] of its own that only its thread writes: plain relaxed loads and stores on cache
//! lines that no other thread touches until a scrape adds them up. What happens once a batch, or less often, goes to
//! the exporter's own handles, resolved once. `gateway` makes the [`Metrics`], `telemetry::admin` serves their text.
//!
//! Names and labels are a contract; no label comes from a client, so the series are fixed at start, and so is the
//! memory. Units are base units: seconds, bytes, records. Nothing here fails.

mod cell;
mod histogram;
mod hot;
mod journal;
mod process;
mod spool;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use metrics::{
    Counter, Gauge, counter, describe_counter, describe_gauge, gauge, with_local_recorder,
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::record::{Outcome, Outcomes, StreamIndex, Timestamp};
use crate::words::{Handshake, Protocol, Reload, Scope, SealReason};
use histogram::{
    BATCH_AGE, BATCH_BYTES, BATCH_RECORDS, Histogram, REQUEST_DURATION, SINK_DURATION,
};
pub use hot::WorkerMetrics;
pub(crate) use journal::JournalMetrics;
pub use spool::SpoolMetrics;

const OUTCOMES: [&str; 5] = ["delivered", "retryable", "barred", "permanent", "unknown"];

type Probe = Box<dyn Fn() -> f64 + Send + Sync>;

/// All metrics of the process.
pub struct Metrics {
    workers: Vec<Arc<WorkerMetrics>>,
    handle: PrometheusHandle,
    totals: Totals,
    sink_records: Vec<[Counter; OUTCOMES.len()]>,
    dropped_records: Counter,
    sink_duration: CachePadded<Histogram>,
    sink_up: Vec<Gauge>,
    in_flight_batches: Gauge,
    certificate_expiry: Gauge,
    reload_failures: [Counter; Reload::LABELS.len()],
    spool: SpoolMetrics,
    audit: JournalMetrics,
    access: JournalMetrics,
    probes: Vec<(Gauge, Probe)>,
}

/// Handles for what the workers count.
struct Totals {
    requests: Vec<Counter>,
    connections: Vec<Gauge>,
    handshakes: Vec<Counter>,
    refused: Vec<Counter>,
    sealed: Vec<Counter>,
    certificates_expiring: [Counter; 1],
    floods_ended: [Counter; 1],
    queued_batches: Gauge,
}

/// A gauge that is read when somebody asks.
pub struct ProbedGauge {
    pub name: &'static str,
    pub help: &'static str,
    pub read: Probe,
}

impl Metrics {
    /// Metrics of so many workers and these streams.
    pub fn new(workers: usize, streams: &[String], probed: Vec<ProbedGauge>) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            Self::register(handle, workers, streams, probed)
        })
    }

    fn register(
        handle: PrometheusHandle,
        workers: usize,
        streams: &[String],
        probed: Vec<ProbedGauge>,
    ) -> Self {
        describe();
        let of_stream = |stream: &String| {
            OUTCOMES
                .map(|outcome| counter!("forebay_sink_records_total", "stream" => stream.clone(), "outcome" => outcome))
        };
        let probe = |probed: ProbedGauge| {
            describe_gauge!(probed.name, probed.help);
            (gauge!(probed.name), probed.read)
        };
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            handle,
            totals: Totals::register(),
            sink_records: streams.iter().map(of_stream).collect(),
            dropped_records: counter!("forebay_delivery_dropped_records_total"),
            sink_duration: CachePadded::default(),
            sink_up: streams
                .iter()
                .map(|stream| gauge!("forebay_sink_up", "stream" => stream.clone()))
                .collect(),
            in_flight_batches: gauge!("forebay_sink_in_flight_batches"),
            certificate_expiry: gauge!("forebay_tls_certificate_expiry_timestamp_seconds"),
            reload_failures: Reload::LABELS
                .map(|what| counter!("forebay_tls_reload_failures_total", "what" => what)),
            spool: SpoolMetrics::register(),
            audit: JournalMetrics::audit(),
            access: JournalMetrics::access(),
            probes: probed.into_iter().map(probe).collect(),
        }
    }

    /// The metrics that the worker at `index` writes.
    pub fn worker(&self, index: usize) -> Arc<WorkerMetrics> {
        self.workers[index].clone()
    }

    /// What the spool counts.
    pub fn spool(&self) -> SpoolMetrics {
        self.spool.clone()
    }

    /// What the audit log counts.
    pub(crate) fn audit(&self) -> JournalMetrics {
        self.audit.clone()
    }

    /// What the access log counts.
    pub(crate) fn access(&self) -> JournalMetrics {
        self.access.clone()
    }

    /// Outcomes of a batch of `records` records.
    pub fn sink_outcomes(&self, stream: StreamIndex, outcomes: &Outcomes, records: usize) {
        let Some(counters) = self.sink_records.get(stream.get()) else {
            return;
        };
        match outcomes {
            Outcomes::All(outcome) => counters[label(outcome)].increment(records as u64),
            Outcomes::Each(outcomes) => outcomes
                .iter()
                .for_each(|outcome| counters[label(outcome)].increment(1)),
        }
    }

    /// Records that were answered and are lost.
    pub fn records_dropped(&self, records: usize) {
        self.dropped_records.increment(records as u64);
    }

    /// How long the sink took for one batch. Only the delivery thread may call this: the histogram has one writer.
    pub fn sink_duration(&self, duration: Duration) {
        self.sink_duration
            .observe(&SINK_DURATION, cell::micros(duration));
    }

    /// Whether the sink takes the stream's records.
    pub fn set_sink_up(&self, stream: StreamIndex, up: bool) {
        if let Some(gauge) = self.sink_up.get(stream.get()) {
            gauge.set(u8::from(up));
        }
    }

    /// Batches that the sink has and has not answered.
    pub fn set_in_flight_batches(&self, batches: usize) {
        self.in_flight_batches.set(batches as f64);
    }

    /// When the server's own certificate expires.
    pub fn set_certificate_expiry(&self, at: Timestamp) {
        self.certificate_expiry.set((at.0 / 1000) as f64);
    }

    /// A changed file could not be used; what was there before stays in force.
    pub(crate) fn reload_failed(&self, what: Reload) {
        self.reload_failures[what.index()].increment(1);
    }

    /// All metrics in Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.totals.update(&self.workers);
        self.probes
            .iter()
            .for_each(|(gauge, read)| gauge.set(read()));
        let mut text = self.handle.render();
        self.write_histograms(&mut text);
        process::write(&mut text);
        text
    }

    fn write_histograms(&self, text: &mut String) {
        REQUEST_DURATION.write_head(text);
        for (place, protocol) in Protocol::LABELS.iter().enumerate() {
            let label = format!("protocol=\"{protocol}\"");
            REQUEST_DURATION.write(
                text,
                &label,
                self.workers
                    .iter()
                    .map(|worker| &worker.cells.durations[place]),
            );
        }
        for (family, of) in BATCH_HISTOGRAMS {
            family.write_head(text);
            family.write(text, "", self.workers.iter().map(|worker| of(worker)));
        }
        SINK_DURATION.write_head(text);
        SINK_DURATION.write(text, "", std::iter::once(&*self.sink_duration));
    }
}

type OfWorker = fn(&WorkerMetrics) -> &Histogram;

const BATCH_HISTOGRAMS: [(&histogram::Family, OfWorker); 3] = [
    (&BATCH_RECORDS, |worker| &worker.cells.batch_records),
    (&BATCH_BYTES, |worker| &worker.cells.batch_bytes),
    (&BATCH_AGE, |worker| &worker.cells.batch_age),
];

fn label(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Delivered => 0,
        Outcome::Retryable(_) => 1,
        Outcome::Barred(_) => 2,
        Outcome::Permanent(_) => 3,
        Outcome::Unknown => 4,
    }
}

impl Totals {
    fn register() -> Self {
        let request = |(protocol, status)| counter!("forebay_http_requests_total", "protocol" => protocol, "status" => status);
        let handshake = |result| counter!("forebay_tls_handshakes_total", "result" => result);
        let refused = |scope| counter!("forebay_limits_refused_total", "scope" => scope);
        let sealed = |reason| counter!("forebay_batcher_sealed_total", "reason" => reason);
        let connections = |protocol| gauge!("forebay_http_connections", "protocol" => protocol);
        Self {
            requests: hot::request_labels().map(request).collect(),
            connections: Protocol::LABELS.into_iter().map(connections).collect(),
            handshakes: Handshake::LABELS.into_iter().map(handshake).collect(),
            refused: Scope::LABELS.into_iter().map(refused).collect(),
            sealed: SealReason::LABELS.into_iter().map(sealed).collect(),
            certificates_expiring: [counter!("forebay_identity_certificates_expiring_total")],
            floods_ended: [counter!("forebay_http_floods_ended_total")],
            queued_batches: gauge!("forebay_batcher_queued_batches"),
        }
    }

    fn update(&self, workers: &[Arc<WorkerMetrics>]) {
        set(&self.requests, workers, WorkerMetrics::requests);
        set(&self.handshakes, workers, |worker| {
            worker.cells.handshakes.iter()
        });
        set(&self.refused, workers, |worker| worker.cells.refused.iter());
        set(&self.sealed, workers, |worker| worker.cells.sealed.iter());
        set(&self.certificates_expiring, workers, |worker| {
            std::iter::once(&worker.cells.certificates_expiring)
        });
        set(&self.floods_ended, workers, |worker| {
            std::iter::once(&worker.cells.floods_ended)
        });
        let connections = hot::sums(workers, |worker| worker.cells.connections.iter());
        self.connections
            .iter()
            .zip(connections)
            .for_each(|(gauge, value)| gauge.set(value as f64));
        let queued = hot::sums(workers, |worker| {
            std::iter::once(&worker.cells.queued_batches)
        });
        queued
            .into_iter()
            .for_each(|value| self.queued_batches.set(value as f64));
    }
}

fn set<'a, I: Iterator<Item = &'a cell::Local>>(
    counters: &[Counter],
    workers: &'a [Arc<WorkerMetrics>],
    cells: impl Fn(&'a WorkerMetrics) -> I,
) {
    let sums = hot::sums(workers, cells);
    counters
        .iter()
        .zip(sums)
        .for_each(|(counter, value)| counter.absolute(value));
}

fn describe() {
    describe_counter!(
        "forebay_http_requests_total",
        "Requests answered, by protocol and status"
    );
    describe_gauge!("forebay_http_connections", "Open connections");
    describe_counter!(
        "forebay_tls_handshakes_total",
        "TLS and QUIC handshakes, by result"
    );
    describe_gauge!(
        "forebay_tls_certificate_expiry_timestamp_seconds",
        "When the server certificate expires"
    );
    describe_counter!(
        "forebay_tls_reload_failures_total",
        "Changed files that could not be used, by what they hold"
    );
    describe_counter!(
        "forebay_identity_certificates_expiring_total",
        "Connections whose device was told that its certificate expires soon"
    );
    describe_counter!(
        "forebay_http_floods_ended_total",
        "Connections ended because of what they sent that came to nothing"
    );
    describe_counter!(
        "forebay_limits_refused_total",
        "Requests and connections refused by a bucket"
    );
    describe_counter!("forebay_batcher_sealed_total", "Batches sealed, by reason");
    describe_gauge!(
        "forebay_batcher_queued_batches",
        "Sealed batches that wait until the sink has taken others"
    );
    describe_counter!(
        "forebay_sink_records_total",
        "Records that the sink answered for, by outcome"
    );
    describe_counter!(
        "forebay_delivery_dropped_records_total",
        "Records that were answered 204 and dropped: refused for good, and no spool to set them aside"
    );
    describe_gauge!(
        "forebay_sink_up",
        "Whether the sink takes the stream's records"
    );
    describe_gauge!(
        "forebay_sink_in_flight_batches",
        "Batches that the sink has not answered"
    );
}
