//! The metric contract: names, labels, and a text that Prometheus' own checker accepts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::*;
use crate::record::Outcome;
use crate::record::Timestamp;

/// Names and label names of the contract that these rooms own; `gateway` brings the probed gauges.
const CONTRACT: &[(&str, &str, &[&str])] = &[
    (
        "forebay_http_requests_total",
        "counter",
        &["protocol", "status"],
    ),
    (
        "forebay_http_request_duration_seconds",
        "histogram",
        &["protocol"],
    ),
    ("forebay_http_connections", "gauge", &["protocol"]),
    ("forebay_tls_handshakes_total", "counter", &["result"]),
    (
        "forebay_tls_certificate_expiry_timestamp_seconds",
        "gauge",
        &[],
    ),
    (
        "forebay_tls_client_ca_expiry_timestamp_seconds",
        "gauge",
        &[],
    ),
    (
        "forebay_tls_crl_next_update_timestamp_seconds",
        "gauge",
        &[],
    ),
    ("forebay_tls_reload_failures_total", "counter", &["what"]),
    ("forebay_tls_reload_ok", "gauge", &["what"]),
    ("forebay_http_refusals_total", "counter", &["code"]),
    (
        "forebay_ingest_rejected_total",
        "counter",
        &["stream", "code"],
    ),
    ("forebay_limits_refused_total", "counter", &["scope"]),
    ("forebay_limits_devices", "gauge", &[]),
    ("forebay_batcher_batch_records", "histogram", &[]),
    ("forebay_batcher_batch_bytes", "histogram", &[]),
    ("forebay_batcher_sealed_total", "counter", &["reason"]),
    (
        "forebay_sink_records_total",
        "counter",
        &["stream", "outcome"],
    ),
    ("forebay_sink_duration_seconds", "histogram", &[]),
    ("forebay_sink_up", "gauge", &["stream"]),
    ("forebay_spool_bytes", "gauge", &[]),
    ("forebay_spool_records", "gauge", &[]),
    ("forebay_spool_up", "gauge", &[]),
    ("forebay_spool_dead_letter_bytes", "gauge", &[]),
    ("forebay_spool_dead_letter_records", "gauge", &[]),
    ("forebay_spool_disk_failures_total", "counter", &[]),
    ("forebay_spool_damaged_frames_total", "counter", &[]),
    ("forebay_spool_dropped_records_total", "counter", &[]),
    ("process_cpu_seconds_total", "counter", &[]),
    ("process_resident_memory_bytes", "gauge", &[]),
    ("process_start_time_seconds", "gauge", &[]),
    ("forebay_build_info", "gauge", &["version"]),
];

fn metrics(workers: usize) -> Metrics {
    let read = Box::new(|| 7.0);
    let probed = ProbedGauge {
        name: "forebay_limits_devices",
        help: "Devices whose buckets are held",
        read,
    };
    Metrics::new(
        workers,
        &["telemetry".into(), "alarms".into()],
        vec![probed],
    )
}

/// Metrics of two workers that have seen some of everything.
fn busy_metrics() -> Metrics {
    let metrics = metrics(2);
    for index in 0..2 {
        let worker = metrics.worker(index);
        worker.handshake(Handshake::Accepted);
        worker.connection_opened(Protocol::H2);
        worker.request(Protocol::H2, 204, Duration::from_millis(2));
        worker.request(Protocol::H3, 299, Duration::from_secs(60));
        worker.refused(Scope::DeviceBytes);
        worker.batch_sealed(SealReason::Idle, 3, 1000, Duration::ZERO);
    }
    metrics.sink_outcomes(StreamIndex(0), &Outcomes::DELIVERED, 6);
    metrics.sink_outcomes(
        StreamIndex(1),
        &Outcomes::Each(vec![Outcome::Unknown, Outcome::Retryable("x".into())]),
        2,
    );
    metrics.sink_duration(Duration::from_millis(3));
    metrics.set_sink_up(StreamIndex(0), true);
    metrics.set_sink_up(StreamIndex(1), false);
    metrics
        .files()
        .set_certificate_end(Timestamp(1_800_000_000_999));
    metrics
        .files()
        .set_trust_ends(Timestamp(1_900_000_000_000), None);
    metrics.worker(1).refusal("not-found");
    metrics.reload_failed(Reload::Crl);
    metrics
}

#[test]
fn what_workers_count_is_summed_and_rendered() {
    let text = busy_metrics().render();
    let lines: HashSet<&str> = text.lines().collect();
    for line in [
        "forebay_http_requests_total{protocol=\"h2\",status=\"204\"} 2",
        "forebay_http_requests_total{protocol=\"h3\",status=\"other\"} 2",
        "forebay_http_requests_total{protocol=\"h1\",status=\"504\"} 0",
        "forebay_http_connections{protocol=\"h2\"} 2",
        "forebay_tls_handshakes_total{result=\"accepted\"} 2",
        "forebay_limits_refused_total{scope=\"device-bytes\"} 2",
        "forebay_batcher_sealed_total{reason=\"idle\"} 2",
        "forebay_batcher_batch_records_bucket{le=\"2\"} 0",
        "forebay_batcher_batch_records_bucket{le=\"5\"} 2",
        "forebay_batcher_batch_bytes_sum 2000",
        "forebay_sink_records_total{stream=\"telemetry\",outcome=\"delivered\"} 6",
        "forebay_sink_records_total{stream=\"alarms\",outcome=\"unknown\"} 1",
        "forebay_sink_records_total{stream=\"alarms\",outcome=\"retryable\"} 1",
        "forebay_sink_duration_seconds_sum 0.003",
        "forebay_sink_up{stream=\"telemetry\"} 1",
        "forebay_sink_up{stream=\"alarms\"} 0",
        "forebay_limits_devices 7",
        "forebay_tls_certificate_expiry_timestamp_seconds 1800000000",
        "forebay_tls_client_ca_expiry_timestamp_seconds 1900000000",
        "forebay_tls_crl_next_update_timestamp_seconds 0",
        "forebay_tls_reload_failures_total{what=\"crl\"} 1",
        "forebay_tls_reload_ok{what=\"crl\"} 0",
        "forebay_tls_reload_ok{what=\"certificate\"} 1",
        "forebay_http_refusals_total{code=\"not-found\"} 1",
        concat!(
            "forebay_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} 1"
        ),
        "forebay_http_request_duration_seconds_bucket{protocol=\"h2\",le=\"0.001\"} 0",
        "forebay_http_request_duration_seconds_bucket{protocol=\"h2\",le=\"0.0025\"} 2",
        "forebay_http_request_duration_seconds_bucket{protocol=\"h3\",le=\"10\"} 0",
        "forebay_http_request_duration_seconds_bucket{protocol=\"h3\",le=\"+Inf\"} 2",
        "forebay_http_request_duration_seconds_count{protocol=\"h2\"} 2",
    ] {
        assert!(lines.contains(line), "{line} is not in:\n{text}");
    }
}

/// A connection that one scrape saw open is gone in the next: gauges go down, also where the sum
/// wraps.
#[test]
fn closed_connections_are_not_counted() {
    let metrics = metrics(1);
    let worker = metrics.worker(0);
    worker.connection_opened(Protocol::H1);
    worker.connection_opened(Protocol::H1);
    worker.connection_closed(Protocol::H1);
    assert!(
        metrics
            .render()
            .contains("forebay_http_connections{protocol=\"h1\"} 1\n")
    );
    worker.connection_closed(Protocol::H1);
    assert!(
        metrics
            .render()
            .contains("forebay_http_connections{protocol=\"h1\"} 0\n")
    );
}

/// Each status of the wire contract has a series of its own.
#[test]
fn the_statuses_of_the_contract_are_told_apart() {
    let metrics = metrics(1);
    let statuses = [
        200, 204, 400, 403, 404, 405, 408, 413, 415, 421, 429, 431, 502, 503, 504,
    ];
    statuses.iter().for_each(|status| {
        metrics
            .worker(0)
            .request(Protocol::H1, *status, Duration::ZERO)
    });
    let text = metrics.render();
    for status in statuses {
        let line =
            format!("forebay_http_requests_total{{protocol=\"h1\",status=\"{status}\"}} 1\n");
        assert!(text.contains(&line), "{line}");
    }
    assert!(text.contains("forebay_http_requests_total{protocol=\"h1\",status=\"other\"} 0\n"));
}

#[test]
fn scrapes_while_workers_count_lose_nothing() {
    const REQUESTS: u64 = 20_000;
    let metrics = metrics(2);
    std::thread::scope(|scope| {
        for index in 0..2 {
            let worker = metrics.worker(index);
            scope.spawn(move || {
                (0..REQUESTS).for_each(|_| worker.request(Protocol::H1, 204, Duration::ZERO))
            });
        }
        for _ in 0..20 {
            assert_eq!(faults(&metrics.render()), Vec::<String>::new());
        }
    });
    let line = format!(
        "forebay_http_requests_total{{protocol=\"h1\",status=\"204\"}} {}\n",
        2 * REQUESTS
    );
    assert!(metrics.render().contains(&line));
}

#[test]
fn names_types_and_labels_are_those_of_the_contract() {
    let text = busy_metrics().render();
    let families = Families::read(&text);
    for (name, kind, labels) in CONTRACT {
        let family = families
            .0
            .get(name)
            .unwrap_or_else(|| panic!("{name} is missing:\n{text}"));
        assert_eq!(family.kind, *kind, "{name}");
        assert_eq!(family.labels, labels.iter().copied().collect(), "{name}");
    }
}

#[test]
fn the_text_is_well_formed() {
    assert_eq!(faults(&busy_metrics().render()), Vec::<String>::new());
}

#[test]
fn the_check_finds_what_is_malformed() {
    let good = "# HELP a_total A\n# TYPE a_total counter\na_total 1\n";
    assert_eq!(faults(good), Vec::<String>::new());
    for bad in [
        "a_total 1\n",
        "# HELP a_total A\na_total 1\n",
        "# HELP a A\n# TYPE a counter\na 1\n",
        "# HELP a_total A\n# TYPE a_total gauge\na_total 1\n",
        "# HELP a_total A\n# TYPE a_total counter\na_total 1\na_total 1\n",
        "# HELP a_total A\n# TYPE a_total counter\na_total one\n",
        "# HELP a_total A\n# TYPE a_total counter\na_total{device=\"x\"} 1\n",
        "# HELP a_ms A\n# TYPE a_ms histogram\na_ms_bucket{le=\"+Inf\"} 1\na_ms_count 1\na_ms_sum 1\n",
        "# HELP a_seconds A\n# TYPE a_seconds summary\na_seconds{quantile=\"0.5\"} 1\n",
        "# HELP a_seconds A\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"1\"} 2\na_seconds_bucket{le=\"+Inf\"} 1\n",
        "# HELP a_seconds A\n# TYPE a_seconds histogram\na_seconds_bucket{le=\"+Inf\"} 1\na_seconds_count 2\n",
    ] {
        assert!(!faults(bad).is_empty(), "no fault found in:\n{bad}");
    }
}

/// Prometheus' own checker, where it is installed: on the PATH or in the folder of the tests'
/// tools.
#[test]
fn promtool_accepts_the_text() {
    let Some(promtool) = promtool() else {
        eprintln!("promtool is not installed: only the check of this file has run");
        return;
    };
    let mut command = Command::new(promtool);
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    process
        .stdin
        .take()
        .unwrap()
        .write_all(busy_metrics().render().as_bytes())
        .unwrap();
    let output = process.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn promtool() -> Option<PathBuf> {
    let tools = std::env::var_os("TOOLS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools")),
        PathBuf::from,
    );
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain([tools.join("bin")]);
    folders.find_map(|folder| Some(folder.join("promtool")).filter(|file| file.is_file()))
}

struct Family<'a> {
    kind: &'a str,
    labels: BTreeSet<&'a str>,
}

/// The families that a text declares, with the labels of their samples, `le` aside.
struct Families<'a>(BTreeMap<&'a str, Family<'a>>);

impl<'a> Families<'a> {
    fn read(text: &'a str) -> Self {
        let types = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let family = |kind| Family {
            kind,
            labels: BTreeSet::new(),
        };
        let mut families = Self(types.map(|(name, kind)| (name, family(kind))).collect());
        for sample in text.lines().filter_map(Sample::read) {
            if let Some(family) = families.0.get_mut(sample.family) {
                family.labels.extend(
                    sample
                        .labels
                        .iter()
                        .map(|(name, _)| *name)
                        .filter(|name| *name != "le"),
                );
            }
        }
        families
    }
}

struct Sample<'a> {
    name: &'a str,
    /// The name without what a histogram adds to it.
    family: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// `None` for a comment, an empty line and what is no sample. Label values must hold no comma
    /// or brace.
    fn read(line: &'a str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ').filter(|_| !line.starts_with('#'))?;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let pairs = labels
            .strip_suffix('}')?
            .split(',')
            .filter(|pair| !pair.is_empty());
        let pair = |pair: &'a str| {
            let (label, value) = pair.split_once('=')?;
            Some((label, value.strip_prefix('"')?.strip_suffix('"')?))
        };
        let labels = pairs.map(pair).collect::<Option<_>>()?;
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix))
            .unwrap_or(name);
        Some(Self {
            name,
            family,
            labels,
            value: value.parse().ok()?,
        })
    }
}

/// Finds the faults of a text in Prometheus' exposition format, and of its names.
fn faults(text: &str) -> Vec<String> {
    let families = Families::read(text);
    let helped: HashSet<&str> = text
        .lines()
        .filter_map(|line| Some(line.strip_prefix("# HELP ")?.split_once(' ')?.0))
        .collect();
    let mut faults: Vec<String> = families
        .0
        .iter()
        .filter_map(|(name, family)| name_fault(name, family))
        .collect();
    let mut seen = HashSet::new();
    // The bucket that came before in the same series; `_sum` may stand between the last one and
    // `_count`.
    let mut below = 0.0;
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let Some(sample) = Sample::read(line) else {
            faults.push(format!("not a sample: {line}"));
            continue;
        };
        if !families.0.contains_key(sample.family) || !helped.contains(sample.family) {
            faults.push(format!("no HELP or no TYPE: {line}"));
        }
        if !seen.insert(line.rsplit_once(' ').map_or(line, |(series, _)| series)) {
            faults.push(format!("twice: {line}"));
        }
        if sample.labels.iter().any(|(label, _)| *label == "device") {
            faults.push(format!("a device in a label: {line}"));
        }
        let is_bucket = sample.name.ends_with("_bucket");
        if is_bucket && sample.value < below {
            faults.push(format!("fewer than in the bucket below: {line}"));
        }
        if sample.name.ends_with("_count") && sample.value != below {
            faults.push(format!("not what the last bucket says: {line}"));
        }
        below = match sample.name {
            _ if is_bucket => sample.value,
            name if name.ends_with("_sum") => below,
            _ => 0.0,
        };
    }
    faults
}

fn name_fault(name: &str, family: &Family) -> Option<String> {
    let is_total = name.ends_with("_total");
    let has_unit = ["_seconds", "_bytes", "_records"]
        .iter()
        .any(|unit| name.ends_with(unit));
    let fits = match family.kind {
        "counter" => is_total,
        "gauge" => !is_total,
        "histogram" => has_unit,
        _ => false,
    };
    (!fits).then(|| format!("{name} is no name for a {}", family.kind))
}
