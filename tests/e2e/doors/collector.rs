//! An OpenTelemetry Collector sends to the gateway as docs/front-doors.md says, and another one reads what became of it.
//!
//! The program is `tests/opentelemetry/otel-collector`. Either collector writes what goes through it to a file, both in the
//! same form: what arrived is held against what was sent.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::{SIGNALS, to_topics};
use crate::brokers;
use crate::harness::{Gateway, eventually};
use crate::kafka::Kafka;
use crate::tools::tools;

const PAGE: &str = include_str!("../../../docs/front-doors.md");

/// The settings of the page that begin so, with what a test has in the places of its examples.
fn settings(begin: &str, places: &[(&str, &str)]) -> String {
    let mut blocks = PAGE.split("```yaml\n");
    let block = blocks.find(|block| block.starts_with(begin));
    let block = block.and_then(|block| block.split("```").next());
    let mut block = block.expect("the page has such settings").to_owned();
    for (example, own) in places {
        assert!(block.contains(example), "{example} is in {block}");
        block = block.replace(example, own);
    }
    block
}

/// A collector that runs, in a folder of its own.
struct Collector {
    process: Child,
    folder: PathBuf,
}

impl Collector {
    /// Takes signals at a socket, and exports them to the gateway, and to its file.
    fn that_sends(gateway: &Gateway, encoding: &str) -> Self {
        let device = gateway.device("collector-1");
        let path = |path: &Path| path.display().to_string();
        let page = settings(
            "exporters:",
            &[
                (
                    "forebay.example.com:8443",
                    &format!("localhost:{}", gateway.address.port()),
                ),
                ("collector.pem", &path(&device.cert)),
                ("collector.key", &path(&device.key)),
                (" ca.pem", &format!(" {}", path(&gateway.pki.ca()))),
            ],
        );
        let own = format!(
            "receivers: {{ otlp: {{ protocols: {{ http: {{ endpoint: otlp.sock, transport: unix }} }} }} }}\n\
             exporters: {{ otlp_http: {{ encoding: {encoding} }}, file: {{ path: signals }} }}\n"
        );
        let pipeline = "receivers: [otlp], exporters: [otlp_http, file]";
        Self::start(gateway.path("sends"), &page, &own, pipeline)
    }

    /// Reads a topic for each signal, and writes what it reads to its file.
    fn that_reads(gateway: &Gateway, kafka: &Kafka, topics: &str, encoding: &str) -> Self {
        let brokers = kafka.plain();
        let page = settings(
            "receivers:",
            &[
                ("broker-1:9092", &brokers[0].1),
                ("otlp_proto", encoding),
                ("otlp_traces", &format!("{topics}-traces")),
                ("otlp_metrics", &format!("{topics}-metrics")),
                ("otlp_logs", &format!("{topics}-logs")),
            ],
        );
        // Records from before it came are read too.
        let own = "receivers: { kafka: { initial_offset: earliest } }\n\
                   exporters: { file: { path: signals } }\n";
        let pipeline = "receivers: [kafka], exporters: [file]";
        Self::start(gateway.path("reads"), &page, own, pipeline)
    }

    fn start(folder: PathBuf, page: &str, own: &str, pipeline: &str) -> Self {
        fs::create_dir(&folder).expect("a folder");
        let pipelines = SIGNALS.map(|signal| format!("{signal}: {{ {pipeline} }}"));
        let service = format!("service: {{ pipelines: {{ {} }} }}\n", pipelines.join(", "));
        fs::write(folder.join("page.yaml"), page).expect("a file");
        fs::write(folder.join("own.yaml"), own.to_owned() + &service).expect("a file");
        let log = File::create(folder.join("log")).expect("a file");
        let process = Command::new(tools().join("bin/otel-collector"))
            .args(["--config", "page.yaml", "--config", "own.yaml"])
            .current_dir(&folder)
            .stderr(log)
            .spawn()
            .expect("`make tools` builds OpenTelemetry's collector");
        let collector = Self { process, folder };
        eventually("a collector that runs", || {
            let log = fs::read_to_string(collector.folder.join("log")).unwrap_or_default();
            log.contains("Everything is ready")
        });
        collector
    }

    /// Hands it an export of each signal for each number.
    fn take(&self, numbers: usize) {
        for number in 0..numbers {
            for signal in SIGNALS {
                self.take_one(signal, &export(signal, number));
            }
        }
    }

    fn take_one(&self, signal: &str, body: &Value) {
        let mut curl = Command::new("curl")
            .args(["-sS", "--fail", "-o", "answer"])
            .args(["--unix-socket", "otlp.sock"])
            .args(["-H", "content-type: application/json"])
            .args(["-d", "@-"])
            .arg(format!("http://localhost/v1/{signal}"))
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .spawn()
            .expect("curl");
        let mut stdin = curl.stdin.take().expect("piped");
        stdin
            .write_all(body.to_string().as_bytes())
            .expect("curl reads");
        drop(stdin);
        assert!(curl.wait().expect("curl ends").success());
    }

    /// The exports that have gone through it: a line for each.
    fn signals(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("signals")).unwrap_or_default();
        // The last line may not be whole yet.
        let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
        whole.lines().map(str::to_owned).collect()
    }

    /// The exports, once there are so many different ones.
    fn all(&self, exports: usize) -> BTreeSet<String> {
        let different = || self.signals().into_iter().collect::<BTreeSet<_>>();
        eventually("all exports", || different().len() >= exports);
        different()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An export of one span, data point or log record.
fn export(signal: &str, number: usize) -> Value {
    let resource =
        json!({ "attributes": [{ "key": "service.name", "value": { "stringValue": "press-7" } }] });
    let scope = json!({ "name": "press", "version": "1.2" });
    let name = format!("stroke {number}");
    match signal {
        "traces" => {
            let span = json!({
                "traceId": format!("{:032x}", number + 1), "spanId": format!("{:016x}", number + 1),
                "name": name, "kind": 2, "startTimeUnixNano": "1000", "endTimeUnixNano": "2000",
                "attributes": [{ "key": "force", "value": { "doubleValue": 21.5 } }],
            });
            let spans = json!([{ "scope": scope, "spans": [span] }]);
            json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": spans }] })
        }
        "metrics" => {
            let points = json!([{ "timeUnixNano": "3000", "asDouble": 0.1 }]);
            let metric = json!({ "name": name, "unit": "1", "gauge": { "dataPoints": points } });
            let metrics = json!([{ "scope": scope, "metrics": [metric] }]);
            json!({ "resourceMetrics": [{ "resource": resource, "scopeMetrics": metrics }] })
        }
        _ => {
            let record = json!({ "timeUnixNano": "4000", "severityNumber": 9, "body": { "stringValue": name } });
            let logs = json!([{ "scope": scope, "logRecords": [record] }]);
            json!({ "resourceLogs": [{ "resource": resource, "scopeLogs": logs }] })
        }
    }
}

/// Through a collector, the gateway, Kafka and another collector: equal to what was sent.
fn what_a_collector_sends_another_reads(exporter: &str, receiver: &str) {
    const NUMBERS: usize = 5;
    let topics = format!("collector-{exporter}");
    let setup = SIGNALS.map(|signal| brokers::gateway_to(&format!("{topics}-{signal}")));
    let [setup, ..] = setup;
    let gateway = to_topics(setup, &topics).without_limits().start();
    let sender = Collector::that_sends(&gateway, exporter);
    let reader = Collector::that_reads(&gateway, Kafka::shared(), &topics, receiver);
    sender.take(NUMBERS);
    let exports = NUMBERS * SIGNALS.len();
    let arrived = reader.all(exports);
    assert_eq!(arrived, sender.all(exports));
    for name in 0..NUMBERS {
        let name = format!("\"stroke {name}\"");
        let named = arrived.iter().filter(|export| export.contains(&name));
        assert_eq!(named.count(), SIGNALS.len(), "{name}");
    }
}

#[test]
fn what_a_collector_sends_as_protobuf_another_reads() {
    what_a_collector_sends_another_reads("proto", "otlp_proto");
}

#[test]
fn what_a_collector_sends_as_json_another_reads() {
    what_a_collector_sends_another_reads("json", "otlp_json");
}

/// The queue of a collector drains when the broker is back: each export was acknowledged once, and is there. Until then it
/// came back no sooner than it was told.
#[test]
fn a_collectors_queue_drains_after_an_outage() {
    const NUMBERS: usize = 20;
    const EXPORTS: usize = NUMBERS * SIGNALS.len();
    // Exports that a collector has in flight at once, ten of each signal, and the least `Retry-After`.
    const CONSUMERS: f64 = 30.0;
    const RETRY_AFTER_SECONDS: f64 = 1.0;
    let topics = "collector-outage";
    let broker = brokers::pausable();
    let setup = SIGNALS.map(|signal| broker.gateway_to(&format!("{topics}-{signal}")));
    let [setup, ..] = setup;
    let gateway = to_topics(setup, topics)
        .set("FOREBAY_ACK_TIMEOUT", "2s")
        .without_limits()
        .start();
    let answered = |status| {
        let labels = format!("protocol=\"h2\",status=\"{status}\"");
        gateway.metric(&format!("forebay_http_requests_total{{{labels}}}"))
    };
    let sender = Collector::that_sends(&gateway, "proto");
    sender.take(1);
    let first = SIGNALS.len() as f64;
    eventually("the first exports", || answered(200) == first);
    let paused = broker.pause();
    let began = Instant::now();
    sender.take(NUMBERS);
    eventually("exports that are told to come back", || {
        answered(503) >= 2.0 * CONSUMERS
    });
    assert_eq!(answered(200), first);
    drop(paused);
    let all = EXPORTS as f64 + first;
    eventually("a queue that is empty", || answered(200) >= all);
    let turns = began.elapsed().as_secs_f64() / RETRY_AFTER_SECONDS + 1.0;
    let (refused, unknown) = (answered(503), answered(504));
    assert!(refused + unknown <= CONSUMERS * turns, "{refused} {turns}");
    let reader = Collector::that_reads(&gateway, &broker.kafka, topics, "otlp_proto");
    assert_eq!(reader.all(EXPORTS), sender.all(EXPORTS));
    assert_eq!(
        answered(200),
        all,
        "what was acknowledged is not sent again"
    );
}
