//! The results of a fleet: one document, written as JSON, from which text, HTML page and comparison
//! are made.
//!
//! `fleet` fills a [`Report`], the modules below show it. Its fields are described in
//! `loadtest/README.md`. Times are microseconds, sizes bytes, CPU seconds or cores. A field that a
//! file lacks reads as nothing measured.

pub(crate) mod compare;
pub(crate) mod html;
mod plot;
mod protocols;
pub(crate) mod text;
mod verdicts;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::statistics::{Summary, Times};

/// The version of this description.
pub(crate) const VERSION: u32 = 1;

/// Requests by the status that they got, as the ledger names it.
pub(crate) type Statuses = BTreeMap<String, u64>;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Report {
    pub version: u32,
    pub run: String,
    pub ended_at: String,
    pub machine: Machine,
    pub load: Load,
    pub setup: Setup,
    pub total: Total,
    pub groups: Groups,
    /// Figures of each protocol: `h1`, `h2`, `h3`.
    pub protocols: BTreeMap<String, Spoken>,
    pub latency_histogram: Times,
    pub seconds: Vec<Second>,
    pub usage: Vec<UsageSecond>,
    pub events: Vec<Event>,
    /// `None` where no process was named.
    pub server: Option<Server>,
    pub generator: Generator,
    pub verdict: Verdict,
    /// `None` where the sink has not been audited.
    pub audit: Option<Audited>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Machine {
    pub cores: usize,
    pub cpu: Option<String>,
}

/// Options of the run, as they were asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Load {
    pub url: String,
    pub devices: u32,
    pub protocol: Option<String>,
    pub scenario: Option<String>,
    pub interval_s: f64,
    pub duration_s: f64,
    pub payload_bytes: usize,
    pub reconnect: bool,
    pub resume: bool,
    pub processes: u32,
    pub threads: u32,
    pub source_addresses: u8,
    pub sockets: u16,
    pub seed: u64,
    /// The status that counts as good.
    pub expect: u16,
}

/// Figures of the set-up before the run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Setup {
    pub certificates: u64,
    pub certificates_per_second: f64,
    pub seconds: f64,
    pub connections: u64,
    pub connections_failed: u64,
    pub handshake_us: Summary,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Total {
    pub requests: u64,
    pub per_second: f64,
    pub expected: u64,
    pub statuses: Statuses,
    pub behind: u64,
    pub missed: u64,
    pub latency_us: Summary,
    pub service_us: Summary,
    pub send_lateness_us: Summary,
    pub handshakes: u64,
    pub handshakes_failed: u64,
    pub handshake_us: Summary,
}

/// `None` where nobody was in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Groups {
    pub fleet: Option<Group>,
    pub noisy: Option<Group>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Group {
    pub requests: u64,
    pub statuses: Statuses,
    pub missed: u64,
    pub latency_us: Summary,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Spoken {
    pub requests: u64,
    pub expected: u64,
    pub missed: u64,
    pub latency_us: Summary,
    pub latency_histogram: Times,
}

/// Result of the sink's audit, as the audit writes it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Audited {
    pub good: bool,
    pub run: String,
    /// Readings that were answered 204.
    pub safe: u64,
    /// Readings of which nobody knows: 504, or no answer.
    pub unknown: u64,
    /// Records in the sink.
    pub records: u64,
    pub faults: BTreeMap<String, u64>,
    pub examples: Vec<Example>,
}

/// A difference that the audit found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Example {
    pub fault: String,
    pub what: String,
}

/// One second of the run; `t` is its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Second {
    pub t: u32,
    pub ended: u64,
    pub statuses: Statuses,
    pub connections: i64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
    pub max: u64,
    pub behind: u64,
    pub missed: u64,
    pub send_lateness_p99: u64,
    pub handshakes: u64,
    pub handshakes_failed: u64,
}

/// Cores and bytes in about a second; `t` is its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct UsageSecond {
    pub t: f64,
    pub server_cores: Option<f64>,
    pub server_rss_bytes: Option<u64>,
    pub generator_cores: f64,
    pub busiest_thread_cores: f64,
}

/// A hook that was run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub t: f64,
    pub what: String,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Server {
    pub cpu_seconds: f64,
    pub cores: f64,
    pub cpu_us_per_request: f64,
    pub rss_peak_bytes: Option<u64>,
    pub pss_bytes: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Generator {
    pub cores: f64,
    pub busiest_thread_cores: f64,
    pub cpu_us_per_request: f64,
    /// The idle part of all cores, 0 to 1.
    pub machine_idle: f64,
}

/// Whether the generator was fit, so that the figures are the server's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Verdict {
    pub fit: bool,
    /// Why the figures are not to be trusted; none: they are.
    pub reasons: Vec<String>,
    /// Notes for the reader that do not spoil the figures.
    pub notes: Vec<String>,
}

/// Reads a report that was written as JSON.
pub(crate) fn read(path: &Path) -> Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// Writes the report as JSON, as a page, or both.
pub(crate) fn write(report: &Report, json: Option<&Path>, page: Option<&Path>) -> Result<()> {
    if let Some(path) = json {
        write_text(path, &serde_json::to_string_pretty(report)?)?;
    }
    if let Some(path) = page {
        write_text(path, &html::page(report))?;
    }
    Ok(())
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}
