//! Metrics: what happened, counted where it happens, summed when somebody asks.
//!
//! Each worker has a [`WorkerMetrics`] of its own that only its thread writes: plain relaxed loads and stores on cache
//! lines that no other thread touches until a scrape adds them up. What happens once a batch, or less often, goes to
//! the exporter's own handles, resolved once. Names and labels are a contract; no label comes from a client.

mod hot;

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Recorder, counter, describe_counter, describe_gauge, describe_histogram};
use metrics::{Unit, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::record::{Outcome, Outcomes, StreamIndex, Timestamp};
use hot::DurationTotals;
pub use hot::{Handshake, Protocol, Scope, SealReason, WorkerMetrics};

const RECORDS_BUCKETS: [f64; 11] = [1., 2., 5., 10., 20., 50., 100., 200., 500., 1000., 5000.];
const BYTES_BUCKETS: [f64; 8] = [256., 1024., 4096., 16384., 65536., 262_144., 1_048_576., 4_194_304.];
const SECONDS_BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1., 2.5, 5., 10.];
const OUTCOMES: [&str; 4] = ["delivered", "retryable", "permanent", "unknown"];

type Probe = Box<dyn Fn() -> f64 + Send + Sync>;

/// All metrics of the process.
pub struct Metrics {
    workers: Vec<Arc<WorkerMetrics>>,
    handle: PrometheusHandle,
    totals: Totals,
    sink_records: Vec<[Counter; OUTCOMES.len()]>,
    sink_duration: Histogram,
    sink_up: Gauge,
    in_flight_batches: Gauge,
    certificate_expiry: Gauge,
    probes: Vec<(Gauge, Probe)>,
}

/// Handles for what the workers count.
struct Totals {
    requests: Vec<Counter>,
    connections: Vec<Gauge>,
    handshakes: Vec<Counter>,
    refused: Vec<Counter>,
    sealed: Vec<Counter>,
}

/// A gauge that is read when somebody asks.
pub struct ProbedGauge {
    pub name: &'static str,
    pub help: &'static str,
    pub read: Probe,
}

impl Metrics {
    /// Metrics of so many workers and these streams.
    pub fn new(workers: usize, streams: &[String], probed: Vec<ProbedGauge>) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_records".into()), &RECORDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_bytes".into()), &BYTES_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS_BUCKETS)?
            .build_recorder();
        let handle = recorder.handle();
        Ok(with_local_recorder(&recorder, || Self::register(&recorder, handle, workers, streams, probed)))
    }

    fn register<R: Recorder>(
        _recorder: &R,
        handle: PrometheusHandle,
        workers: usize,
        streams: &[String],
        probed: Vec<ProbedGauge>,
    ) -> Self {
        describe();
        let batch_records = histogram!("forebay_batcher_batch_records");
        let batch_bytes = histogram!("forebay_batcher_batch_bytes");
        let batch_age = histogram!("forebay_batcher_batch_age_seconds");
        let worker = |_| Arc::new(WorkerMetrics::new(batch_records.clone(), batch_bytes.clone(), batch_age.clone()));
        let of_stream = |stream: &String| {
            OUTCOMES
                .map(|outcome| counter!("forebay_sink_records_total", "stream" => stream.clone(), "outcome" => outcome))
        };
        let probe = |probed: ProbedGauge| {
            describe_gauge!(probed.name, probed.help);
            (gauge!(probed.name), probed.read)
        };
        Self {
            workers: (0..workers).map(worker).collect(),
            handle,
            totals: Totals::register(),
            sink_records: streams.iter().map(of_stream).collect(),
            sink_duration: histogram!("forebay_sink_duration_seconds"),
            sink_up: gauge!("forebay_sink_up"),
            in_flight_batches: gauge!("forebay_sink_in_flight_batches"),
            certificate_expiry: gauge!("forebay_tls_certificate_expiry_timestamp_seconds"),
            probes: probed.into_iter().map(probe).collect(),
        }
    }

    /// The metrics that the worker at `index` writes.
    pub fn worker(&self, index: usize) -> Arc<WorkerMetrics> {
        self.workers[index].clone()
    }

    /// Outcomes of a batch of `records` records.
    pub fn sink_outcomes(&self, stream: StreamIndex, outcomes: &Outcomes, records: usize) {
        let Some(counters) = self.sink_records.get(stream.get()) else { return };
        match outcomes {
            Outcomes::All(outcome) => counters[label(outcome)].increment(records as u64),
            Outcomes::Each(outcomes) => outcomes.iter().for_each(|outcome| counters[label(outcome)].increment(1)),
        }
    }

    /// How long the sink took for one batch.
    pub fn sink_duration(&self, duration: Duration) {
        self.sink_duration.record(duration);
    }

    pub fn set_sink_up(&self, up: bool) {
        self.sink_up.set(u8::from(up));
    }

    pub fn set_in_flight_batches(&self, batches: usize) {
        self.in_flight_batches.set(batches as f64);
    }

    /// When the server's own certificate expires.
    pub fn set_certificate_expiry(&self, at: Timestamp) {
        self.certificate_expiry.set((at.0 / 1000) as f64);
    }

    /// All metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.totals.update(&self.workers);
        self.probes.iter().for_each(|(gauge, read)| gauge.set(read()));
        self.handle.run_upkeep();
        let mut text = self.handle.render();
        DurationTotals::of(&self.workers).render(&mut text);
        text
    }
}

fn label(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Delivered => 0,
        Outcome::Retryable(_) => 1,
        Outcome::Permanent(_) => 2,
        Outcome::Unknown => 3,
    }
}

impl Totals {
    fn register() -> Self {
        let request =
            |(protocol, status)| counter!("forebay_http_requests_total", "protocol" => protocol, "status" => status);
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
        }
    }

    fn update(&self, workers: &[Arc<WorkerMetrics>]) {
        set(&self.requests, workers, WorkerMetrics::requests);
        set(&self.handshakes, workers, |worker| worker.handshakes.iter());
        set(&self.refused, workers, |worker| worker.refused.iter());
        set(&self.sealed, workers, |worker| worker.sealed.iter());
        let connections = hot::sums(workers, |worker| worker.connections.iter());
        self.connections.iter().zip(connections).for_each(|(gauge, value)| gauge.set(value as f64));
    }
}

fn set<'a, I: Iterator<Item = &'a hot::Local>>(
    counters: &[Counter],
    workers: &'a [Arc<WorkerMetrics>],
    cells: impl Fn(&'a WorkerMetrics) -> I,
) {
    let sums = hot::sums(workers, cells);
    counters.iter().zip(sums).for_each(|(counter, value)| counter.absolute(value));
}

fn describe() {
    describe_counter!("forebay_http_requests_total", "Requests answered, by protocol and status");
    describe_gauge!("forebay_http_connections", "Open connections");
    describe_counter!("forebay_tls_handshakes_total", "TLS and QUIC handshakes, by result");
    describe_gauge!("forebay_tls_certificate_expiry_timestamp_seconds", "When the server certificate expires");
    describe_counter!("forebay_limits_refused_total", "Requests and connections refused by a bucket");
    describe_counter!("forebay_batcher_sealed_total", "Batches sealed, by reason");
    describe_histogram!("forebay_batcher_batch_records", Unit::Count, "Records in a sealed batch");
    describe_histogram!("forebay_batcher_batch_bytes", Unit::Bytes, "Payload bytes in a sealed batch");
    describe_histogram!("forebay_batcher_batch_age_seconds", Unit::Seconds, "Age of the oldest record when sealed");
    describe_counter!("forebay_sink_records_total", "Records that the sink answered for, by outcome");
    describe_histogram!("forebay_sink_duration_seconds", Unit::Seconds, "Time the sink took for a batch");
    describe_gauge!("forebay_sink_up", "Whether the sink takes records");
    describe_gauge!("forebay_sink_in_flight_batches", "Batches that the sink has not answered");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_count_is_summed_and_rendered() {
        let probed = ProbedGauge { name: "forebay_limits_devices", help: "Devices", read: Box::new(|| 7.0) };
        let metrics = Metrics::new(2, &["telemetry".into()], vec![probed]).unwrap();
        for worker in 0..2 {
            metrics.worker(worker).request(Protocol::H2, 204, Duration::from_millis(2));
            metrics.worker(worker).batch_sealed(SealReason::Idle, 3, 1000, Duration::ZERO);
        }
        metrics.sink_outcomes(StreamIndex(0), &Outcomes::DELIVERED, 6);
        let text = metrics.render();
        for line in [
            "forebay_http_requests_total{protocol=\"h2\",status=\"204\"} 2",
            "forebay_batcher_sealed_total{reason=\"idle\"} 2",
            "forebay_batcher_batch_records_bucket{le=\"5\"} 2",
            "forebay_sink_records_total{stream=\"telemetry\",outcome=\"delivered\"} 6",
            "forebay_limits_devices 7",
            "forebay_http_request_duration_seconds_bucket{protocol=\"h2\",le=\"0.0025\"} 2",
            "forebay_http_request_duration_seconds_count{protocol=\"h2\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in:\n{text}");
        }
    }
}
