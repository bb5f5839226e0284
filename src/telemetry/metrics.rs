//! Metrics: what happened, counted where it happens, summed when somebody asks.
//!
//! Each worker has a [`WorkerMetrics`] of its own that only its thread writes: plain relaxed loads
//! and stores on cache lines that no other thread touches until a scrape adds them up. What happens
//! once a batch, or less often, goes to the exporter's own handles, resolved once. `gateway` makes
//! the [`Metrics`], `telemetry::admin` serves their text.
//!
//! Names and labels are a contract; no label comes from a client, so the series are fixed at start,
//! and so is the memory. Units are base units: seconds, bytes, records. Nothing here fails.

mod cell;
mod events;
mod files;
mod histogram;
mod hot;
mod journal;
mod outcomes;
mod process;
mod register;
mod rejected;
mod spool;
#[cfg(test)]
mod tests;
mod watchers;

use std::iter;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use metrics::{Counter, Gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::record::{Outcomes, StreamIndex};
use crate::words::{Handshake, Protocol, Reload, Scope, SealReason};
pub use events::EventMetrics;
pub(crate) use files::FileMetrics;
use histogram::{
    BATCH_AGE, BATCH_BYTES, BATCH_RECORDS, Histogram, REQUEST_DURATION, SINK_DURATION,
};
pub use hot::WorkerMetrics;
pub(crate) use journal::JournalMetrics;
use outcomes::{OUTCOMES, place, sink_records};
use register::{counter, counters, each, gauge, gauges};
pub(crate) use rejected::RejectedRecords;
pub use spool::SpoolMetrics;
pub(crate) use watchers::WatcherMetrics;

type Probe = Box<dyn Fn() -> f64 + Send + Sync>;

/// All metrics of the process.
pub struct Metrics {
    workers: Vec<Arc<WorkerMetrics>>,
    handle: PrometheusHandle,
    totals: Totals,
    /// Counters of each stream, one for each outcome.
    sink_records: Vec<[Counter; OUTCOMES.len()]>,
    dropped_records: Counter,
    sink_duration: CachePadded<Histogram>,
    sink_up: Vec<Gauge>,
    partitions_away: Vec<Gauge>,
    in_flight_batches: Gauge,
    /// State of the files that are read again.
    files: FileMetrics,
    rejected: RejectedRecords,
    events: EventMetrics,
    spool: SpoolMetrics,
    audit: JournalMetrics,
    access: JournalMetrics,
    watchers: WatcherMetrics,
    probes: Vec<(Gauge, Probe)>,
}

/// Handles for what the workers count: each is the sum over all of them.
struct Totals {
    requests: Vec<Counter>,
    refusals: Vec<Counter>,
    connections: Vec<Gauge>,
    handshakes: Vec<Counter>,
    refused: Vec<Counter>,
    sealed: Vec<Counter>,
    certificates_expiring: [Counter; 1],
    devices_denied: [Counter; 1],
    floods_ended: [Counter; 1],
    queued_batches: [Gauge; 1],
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
        let mut probes = Vec::new();
        for ProbedGauge { name, help, read } in probed {
            probes.push((gauge(name, help), read));
        }
        Self {
            workers: (0..workers).map(|_| Arc::default()).collect(),
            handle,
            totals: Totals::register(),
            sink_records: sink_records(streams),
            dropped_records: counter(
                "forebay_delivery_dropped_records_total",
                "Records that were answered 204 and dropped: refused for good, and no spool to set them aside",
            ),
            sink_duration: CachePadded::default(),
            sink_up: gauges(
                "forebay_sink_up",
                "Whether the sink takes the stream's records",
                each("stream", streams),
            ),
            partitions_away: gauges(
                "forebay_sink_partitions_away",
                "Partitions, or shards, of the stream that have no leader, owe answers, or are overloaded",
                each("stream", streams),
            ),
            in_flight_batches: gauge(
                "forebay_sink_in_flight_batches",
                "Batches that the sink has not answered",
            ),
            files: FileMetrics::register(),
            rejected: RejectedRecords::register(streams),
            events: EventMetrics::register(),
            spool: SpoolMetrics::register(),
            audit: JournalMetrics::audit(),
            access: JournalMetrics::access(),
            watchers: WatcherMetrics::register(),
            probes,
        }
    }

    /// The metrics that the worker at `index` writes.
    pub fn worker(&self, index: usize) -> Arc<WorkerMetrics> {
        self.workers[index].clone()
    }

    /// Counter of records that the rules of their stream reject; every worker has a clone.
    pub(crate) fn rejected(&self) -> RejectedRecords {
        self.rejected.clone()
    }

    /// Metrics of the fleet's events.
    pub fn events(&self) -> EventMetrics {
        self.events.clone()
    }

    /// Metrics of the spool.
    pub fn spool(&self) -> SpoolMetrics {
        self.spool.clone()
    }

    /// Metrics of the audit log.
    pub(crate) fn audit(&self) -> JournalMetrics {
        self.audit.clone()
    }

    /// Metrics of the access log.
    pub(crate) fn access(&self) -> JournalMetrics {
        self.access.clone()
    }

    /// Metrics of the live page's watchers.
    pub(crate) fn watchers(&self) -> &WatcherMetrics {
        &self.watchers
    }

    /// Counts the outcomes of a batch of `records` records.
    pub fn sink_outcomes(&self, stream: StreamIndex, outcomes: &Outcomes, records: usize) {
        let counters = &self.sink_records[stream.get()];
        match outcomes {
            Outcomes::All(outcome) => counters[place(outcome)].increment(records as u64),
            Outcomes::Each(outcomes) => {
                for outcome in outcomes {
                    counters[place(outcome)].increment(1);
                }
            }
        }
    }

    /// Counts records that were answered and are lost.
    pub fn records_dropped(&self, records: usize) {
        self.dropped_records.increment(records as u64);
    }

    /// Observes how long the sink took for one batch. Only the delivery thread may call this: the
    /// histogram has one writer.
    pub fn sink_duration(&self, duration: Duration) {
        self.sink_duration
            .observe(&SINK_DURATION, cell::micros(duration));
    }

    /// Says how many partitions of the stream are away.
    pub(crate) fn set_partitions_away(&self, stream: StreamIndex, away: usize) {
        self.partitions_away[stream.get()].set(away as f64);
    }

    /// Says whether the sink takes the stream's records.
    pub fn set_sink_up(&self, stream: StreamIndex, up: bool) {
        self.sink_up[stream.get()].set(u8::from(up));
    }

    /// Says how many batches the sink has and has not answered.
    pub fn set_in_flight_batches(&self, batches: usize) {
        self.in_flight_batches.set(batches as f64);
    }

    /// Metrics of the files that are read again while the gateway runs.
    pub(crate) fn files(&self) -> &FileMetrics {
        &self.files
    }

    /// Counts a changed file that could not be used; what was there before stays in force.
    pub(crate) fn reload_failed(&self, what: Reload) {
        self.files.failed(what);
    }

    /// Says that the file, as it is now, is in force.
    pub(crate) fn reload_succeeded(&self, what: Reload) {
        self.files.succeeded(what);
    }

    /// Renders all metrics in Prometheus' text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.totals.update(&self.workers);
        for (gauge, read) in &self.probes {
            gauge.set(read());
        }
        let mut text = self.handle.render();
        self.write_histograms(&mut text);
        process::write(&mut text);
        text
    }

    fn write_histograms(&self, text: &mut String) {
        REQUEST_DURATION.write_head(text);
        for (place, protocol) in Protocol::LABELS.iter().enumerate() {
            let label = format!("protocol=\"{protocol}\"");
            let durations = self.workers.iter().map(|one| &one.cells.durations[place]);
            REQUEST_DURATION.write(text, &label, durations);
        }
        for (family, of) in BATCH_HISTOGRAMS {
            family.write_head(text);
            family.write(text, "", self.workers.iter().map(|worker| of(worker)));
        }
        SINK_DURATION.write_head(text);
        SINK_DURATION.write(text, "", iter::once(&*self.sink_duration));
    }
}

type OfWorker = fn(&WorkerMetrics) -> &Histogram;

const BATCH_HISTOGRAMS: [(&histogram::Family, OfWorker); 3] = [
    (&BATCH_RECORDS, |worker| &worker.cells.batch_records),
    (&BATCH_BYTES, |worker| &worker.cells.batch_bytes),
    (&BATCH_AGE, |worker| &worker.cells.batch_age),
];

impl Totals {
    fn register() -> Self {
        let requests = hot::request_labels();
        let requests = requests
            .map(|(protocol, status)| [("protocol", protocol.to_owned()), ("status", status)]);
        Self {
            requests: counters(
                "forebay_http_requests_total",
                "Requests answered, by protocol and status",
                requests,
            ),
            refusals: counters(
                "forebay_http_refusals_total",
                "Requests refused, by the code of the problem",
                each("code", hot::refusal_codes()),
            ),
            connections: gauges(
                "forebay_http_connections",
                "Open connections",
                each("protocol", &Protocol::LABELS),
            ),
            handshakes: counters(
                "forebay_tls_handshakes_total",
                "TLS and QUIC handshakes, by result",
                each("result", &Handshake::LABELS),
            ),
            refused: counters(
                "forebay_limits_refused_total",
                "Requests and connections refused by a bucket",
                each("scope", &Scope::LABELS),
            ),
            sealed: counters(
                "forebay_batcher_sealed_total",
                "Batches sealed, by reason",
                each("reason", &SealReason::LABELS),
            ),
            certificates_expiring: [counter(
                "forebay_identity_certificates_expiring_total",
                "Connections whose device was told that its certificate expires soon",
            )],
            devices_denied: [counter(
                "forebay_identity_devices_denied_total",
                "Requests refused because the devices file denies their device",
            )],
            floods_ended: [counter(
                "forebay_http_floods_ended_total",
                "Connections ended because of what they sent that came to nothing",
            )],
            queued_batches: [gauge(
                "forebay_batcher_queued_batches",
                "Sealed batches that wait until the sink has taken others",
            )],
        }
    }

    /// Adds up what the workers have counted.
    fn update(&self, workers: &[Arc<WorkerMetrics>]) {
        count(&self.requests, workers, WorkerMetrics::requests);
        count(&self.refusals, workers, |one| &one.cells.refusals.0);
        count(&self.handshakes, workers, |one| &one.cells.handshakes);
        count(&self.refused, workers, |one| &one.cells.refused);
        count(&self.sealed, workers, |one| &one.cells.sealed);
        count(&self.certificates_expiring, workers, |one| {
            iter::once(&one.cells.certificates_expiring)
        });
        count(&self.devices_denied, workers, |one| {
            iter::once(&one.cells.devices_denied)
        });
        count(&self.floods_ended, workers, |one| {
            iter::once(&one.cells.floods_ended)
        });
        measure(&self.connections, workers, |one| &one.cells.connections);
        measure(&self.queued_batches, workers, |one| {
            iter::once(&one.cells.queued_batches)
        });
    }
}

fn count<'a, I: IntoIterator<Item = &'a cell::Local>>(
    counters: &[Counter],
    workers: &'a [Arc<WorkerMetrics>],
    cells: impl Fn(&'a WorkerMetrics) -> I,
) {
    let sums = hot::sums(workers, |worker| cells(worker).into_iter());
    debug_assert!(sums.is_empty() || sums.len() == counters.len(), "one each");
    for (counter, sum) in counters.iter().zip(sums) {
        counter.absolute(sum);
    }
}

fn measure<'a, I: IntoIterator<Item = &'a cell::Local>>(
    gauges: &[Gauge],
    workers: &'a [Arc<WorkerMetrics>],
    cells: impl Fn(&'a WorkerMetrics) -> I,
) {
    let sums = hot::sums(workers, |worker| cells(worker).into_iter());
    debug_assert!(sums.is_empty() || sums.len() == gauges.len(), "one each");
    for (gauge, sum) in gauges.iter().zip(sums) {
        gauge.set(sum as f64);
    }
}
