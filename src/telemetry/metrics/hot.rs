//! What a worker counts itself.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use metrics::Histogram;

/// A closed set of label values; a variant's place is its label's.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $label:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($variant),* }

        impl $name {
            pub const LABELS: [&str; [$($label),*].len()] = [$($label),*];
        }
    };
}

labels!(/// An HTTP version.
    Protocol { H1 = "h1", H2 = "h2", H3 = "h3" });
labels!(/// Whose bucket was empty.
Scope {
    Device = "device", DeviceBytes = "device-bytes", Address = "address", Handshake = "handshake",
    Gateway = "gateway",
});
labels!(/// Why a batch was sealed.
    SealReason { Bytes = "bytes", Records = "records", Linger = "linger", Idle = "idle", Drain = "drain" });
labels!(/// How a handshake ended.
Handshake {
    Accepted = "accepted", Resumed = "resumed", Timeout = "timeout", NoCertificate = "no_certificate",
    BadCertificate = "bad_certificate", UnknownIssuer = "unknown_issuer", Expired = "expired",
    Revoked = "revoked", RateLimited = "rate_limited", Protocol = "protocol", Io = "io",
});

/// The statuses of the wire contract; any other is counted as `other`.
const STATUSES: [u16; 16] = [204, 400, 403, 404, 405, 408, 413, 415, 421, 429, 431, 500, 502, 503, 504, 0];

/// Upper bounds of the request duration buckets, in microseconds.
const DURATION_BUCKETS_MICROS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000,
];

/// A counter with one writer: its thread loads and stores, others only load.
#[derive(Debug, Default)]
pub struct Local(AtomicU64);

impl Local {
    fn add(&self, n: u64) {
        self.0.store(self.get().wrapping_add(n), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one worker. Only its own thread writes them.
#[derive(Debug)]
pub struct WorkerMetrics(CachePadded<Cells>);

#[derive(Debug)]
pub struct Cells {
    requests: [[Local; STATUSES.len()]; Protocol::LABELS.len()],
    durations: [Durations; Protocol::LABELS.len()],
    pub connections: [Local; Protocol::LABELS.len()],
    pub handshakes: [Local; Handshake::LABELS.len()],
    pub refused: [Local; Scope::LABELS.len()],
    pub sealed: [Local; SealReason::LABELS.len()],
    batch_records: Histogram,
    batch_bytes: Histogram,
    batch_age: Histogram,
}

#[derive(Debug, Default)]
struct Durations {
    /// One for each bound, and one for what is longer.
    buckets: [Local; DURATION_BUCKETS_MICROS.len() + 1],
    sum_micros: Local,
}

impl std::ops::Deref for WorkerMetrics {
    type Target = Cells;

    fn deref(&self) -> &Cells {
        &self.0
    }
}

impl WorkerMetrics {
    pub fn new(batch_records: Histogram, batch_bytes: Histogram, batch_age: Histogram) -> Self {
        Self(CachePadded::new(Cells {
            requests: Default::default(),
            durations: Default::default(),
            connections: Default::default(),
            handshakes: Default::default(),
            refused: Default::default(),
            sealed: Default::default(),
            batch_records,
            batch_bytes,
            batch_age,
        }))
    }

    /// A request was answered.
    pub fn request(&self, protocol: Protocol, status: u16, duration: Duration) {
        let place = STATUSES.iter().position(|known| *known == status).unwrap_or(STATUSES.len() - 1);
        self.requests[protocol as usize][place].add(1);
        let micros = duration.as_micros() as u64;
        let durations = &self.durations[protocol as usize];
        durations.buckets[DURATION_BUCKETS_MICROS.partition_point(|bound| *bound < micros)].add(1);
        durations.sum_micros.add(micros);
    }

    pub fn connection_opened(&self, protocol: Protocol) {
        self.connections[protocol as usize].add(1);
    }

    pub fn connection_closed(&self, protocol: Protocol) {
        self.connections[protocol as usize].add(u64::MAX);
    }

    pub fn handshake(&self, result: Handshake) {
        self.handshakes[result as usize].add(1);
    }

    pub fn refused(&self, scope: Scope) {
        self.refused[scope as usize].add(1);
    }

    /// A batch was sealed; `bytes` are those of its payloads.
    pub fn batch_sealed(&self, reason: SealReason, records: usize, bytes: usize, age: Duration) {
        self.sealed[reason as usize].add(1);
        self.batch_records.record(records as f64);
        self.batch_bytes.record(bytes as f64);
        self.batch_age.record(age);
    }

    /// In the order of [`request_labels`].
    pub fn requests(&self) -> impl Iterator<Item = &Local> {
        self.0.requests.iter().flatten()
    }
}

/// Protocol and status of each request counter.
pub fn request_labels() -> impl Iterator<Item = (&'static str, String)> {
    let status = |status: u16| if status == 0 { "other".to_owned() } else { status.to_string() };
    Protocol::LABELS.into_iter().flat_map(move |protocol| STATUSES.map(|code| (protocol, status(code))))
}

/// The sum over all workers of each of their cells.
pub fn sums<'a, I: Iterator<Item = &'a Local>>(
    workers: &'a [Arc<WorkerMetrics>],
    cells: impl Fn(&'a WorkerMetrics) -> I,
) -> Vec<u64> {
    let mut sums = Vec::new();
    for worker in workers {
        for (place, cell) in cells(worker).enumerate() {
            if place == sums.len() {
                sums.push(0_u64);
            }
            sums[place] = sums[place].wrapping_add(cell.get());
        }
    }
    sums
}

/// `forebay_http_request_duration_seconds`: a request must not cost an entry in the exporter, so this one family is
/// counted in buckets here and written here.
pub struct DurationTotals {
    protocols: Vec<(Vec<u64>, u64)>,
}

impl DurationTotals {
    pub fn of(workers: &[Arc<WorkerMetrics>]) -> Self {
        let of_protocol = |protocol: usize| {
            let buckets = sums(workers, |worker| worker.0.durations[protocol].buckets.iter());
            let sum = workers.iter().map(|worker| worker.durations[protocol].sum_micros.get()).sum();
            (buckets, sum)
        };
        Self { protocols: (0..Protocol::LABELS.len()).map(of_protocol).collect() }
    }

    pub fn render(&self, text: &mut String) {
        const NAME: &str = "forebay_http_request_duration_seconds";
        let _ = writeln!(text, "# HELP {NAME} Time from a request's head to its answer\n# TYPE {NAME} histogram");
        for (protocol, (buckets, sum_micros)) in Protocol::LABELS.iter().zip(&self.protocols) {
            let mut count = 0;
            for (bucket, bound) in buckets.iter().zip(DURATION_BUCKETS_MICROS) {
                count += bucket;
                let seconds = bound as f64 / 1e6;
                let _ = writeln!(text, "{NAME}_bucket{{protocol=\"{protocol}\",le=\"{seconds}\"}} {count}");
            }
            let count = buckets.iter().sum::<u64>();
            let sum = *sum_micros as f64 / 1e6;
            let _ = writeln!(text, "{NAME}_bucket{{protocol=\"{protocol}\",le=\"+Inf\"}} {count}");
            let _ = writeln!(text, "{NAME}_sum{{protocol=\"{protocol}\"}} {sum}");
            let _ = writeln!(text, "{NAME}_count{{protocol=\"{protocol}\"}} {count}");
        }
    }
}
