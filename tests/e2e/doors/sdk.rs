//! OpenTelemetry's own SDKs, for Python and for Go, with certificates of devices.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::Value;

use super::{SIGNALS, to_topics};
use crate::brokers;
use crate::harness::{Gateway, PATIENCE, eventually};
use crate::kafka::Kafka;
use crate::pki::Identity;
use crate::tools::tools;

#[derive(Clone, Copy)]
enum Language {
    /// `tests/clients/otlp_sdk.py`.
    Python,
    /// `tests/opentelemetry/otel-sdk`.
    Go,
}

impl Language {
    /// The program that exports so often.
    fn command(self, gateway: &Gateway, device: &Identity, exports: usize) -> Command {
        let endpoint = format!("https://localhost:{}", gateway.address.port());
        let ca = gateway.pki.ca();
        let program = match self {
            Self::Python => "venv-otlp/bin/python",
            Self::Go => "bin/otel-sdk",
        };
        let mut command = Command::new(tools().join(program));
        // Variables that were here before would win over what is said below.
        command.env_clear();
        match self {
            Self::Python => command
                .args([script("otlp_sdk.py"), endpoint.into()])
                .args([&ca, &device.cert, &device.key]),
            Self::Go => command
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
                .env("OTEL_EXPORTER_OTLP_CERTIFICATE", ca)
                .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &device.cert)
                .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", &device.key),
        };
        command.arg(exports.to_string());
        command
    }
}

/// A program that exports, and the lines that it prints.
struct Sdk {
    process: Child,
    lines: Receiver<Value>,
}

impl Sdk {
    fn start(language: Language, gateway: &Gateway, exports: usize) -> Self {
        let mut process = language
            .command(gateway, &gateway.device("plc-1"), exports)
            .stdout(Stdio::piped())
            .spawn()
            .expect("`make tools` installs OpenTelemetry's SDKs");
        let stdout = process.stdout.take().expect("piped");
        // More than any test exports: what has been said waits for no reader.
        let (told, lines) = sync_channel(1000);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).expect("JSON");
                if told.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process, lines }
    }

    /// Reads the client's next line about an export.
    fn next(&self) -> Option<Value> {
        self.lines.recv_timeout(3 * PATIENCE).ok()
    }

    /// Signal and body of each export that was acknowledged, to the end.
    fn acknowledged(self) -> Vec<(String, Vec<u8>)> {
        let mut all = Vec::new();
        while let Some(export) = self.next() {
            assert_eq!(export["taken"], true, "{export}");
            let text = |name: &str| export[name].as_str().expect("a text");
            let body = BASE64.decode(text("body")).expect("base64");
            all.push((text("signal").to_owned(), body));
        }
        all
    }
}

impl Drop for Sdk {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A program of `tests/clients`.
pub(super) fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/clients", name]
        .iter()
        .collect()
}

/// Spans, metrics and logs are in Kafka as they were sent, and are what they are said to be.
fn what_is_exported_arrives(language: Language, topics: &str) {
    let setup = SIGNALS.map(|signal| brokers::gateway_to(&format!("{topics}-{signal}")));
    let [setup, ..] = setup;
    let gateway = to_topics(setup, topics).without_limits().start();
    let acknowledged = Sdk::start(language, &gateway, 5).acknowledged();
    assert_eq!(acknowledged.len(), 15);
    for signal in SIGNALS {
        let of = |(kind, body): &(String, Vec<u8>)| (kind == signal).then(|| body.clone());
        let sent: Vec<_> = acknowledged.iter().filter_map(of).collect();
        let stored = Kafka::shared().read_topic(&format!("{topics}-{signal}"));
        let bodies: Vec<_> = stored
            .iter()
            .filter_map(|record| record.value.clone())
            .collect();
        assert_eq!(bodies, sent, "{signal}");
        for record in &stored {
            let header = |name: &str, value: &str| {
                let header = (name.to_owned(), value.as_bytes().to_vec());
                assert!(record.headers.contains(&header), "{:?}", record.headers);
            };
            header("content-type", "application/x-protobuf");
            header("otlp-encoding", "otlp_proto");
            header("otlp-signal", signal);
        }
        let things: usize = bodies.iter().map(|body| count(signal, body)).sum();
        assert_eq!(things, 5, "{signal}");
    }
}

#[test]
fn what_the_python_sdk_exports_arrives() {
    what_is_exported_arrives(Language::Python, "sdk-python");
}

#[test]
fn what_the_go_sdk_exports_arrives() {
    what_is_exported_arrives(Language::Go, "sdk-go");
}

/// Counts the spans, metrics or log records of an export.
fn count(signal: &str, body: &[u8]) -> usize {
    match signal {
        "traces" => {
            let request = ExportTraceServiceRequest::decode(body).expect("spans");
            let mut scopes = request.resource_spans.iter().flat_map(|of| &of.scope_spans);
            scopes.next().expect("a scope").spans.len()
        }
        "metrics" => {
            let request = ExportMetricsServiceRequest::decode(body).expect("metrics");
            let mut scopes = request
                .resource_metrics
                .iter()
                .flat_map(|of| &of.scope_metrics);
            scopes.next().expect("a scope").metrics.len()
        }
        // The crate is built without logs: each has its text.
        _ => body.windows(7).filter(|text| *text == b"stroke ").count(),
    }
}

/// An SDK sends again what was answered 503, as long as it is told to: nothing that it was told is safe is lost, and
/// nothing is given up.
fn gets_through_a_silent_broker(language: Language, topic: &str) {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to(topic)
        .set("FOREBAY_FRONT_DOORS", "otlp")
        .set(
            "FOREBAY_OTLP_STREAMS",
            "logs=telemetry,metrics=telemetry,traces=telemetry",
        )
        .set("FOREBAY_ACK_TIMEOUT", "2s")
        .without_limits()
        .start();
    let sdk = Sdk::start(language, &gateway, 100);
    let first = sdk.next().expect("an export");
    assert_eq!(first["taken"], true, "{first}");
    let paused = broker.pause();
    let shed = |protocol| {
        let labels = format!("protocol=\"{protocol}\",status=\"503\"");
        gateway.metric(&format!("forebay_http_requests_total{{{labels}}}"))
    };
    eventually("exports that are told to come back", || {
        shed("h1") + shed("h2") >= 3.0
    });
    drop(paused);
    let mut acknowledged = sdk.acknowledged();
    assert_eq!(acknowledged.len(), 299, "all but the first");
    let body = first["body"].as_str().expect("a body");
    acknowledged.push((String::new(), BASE64.decode(body).expect("base64")));
    let stored = broker.kafka.read_topic(topic);
    let stored: HashSet<_> = stored
        .into_iter()
        .filter_map(|record| record.value)
        .collect();
    for (signal, body) in &acknowledged {
        assert!(stored.contains(body), "an acknowledged export of {signal}");
    }
}

#[test]
fn the_python_sdk_gets_through_a_silent_broker() {
    gets_through_a_silent_broker(Language::Python, "sdk-python-outage");
}

#[test]
fn the_go_sdk_gets_through_a_silent_broker() {
    gets_through_a_silent_broker(Language::Go, "sdk-go-outage");
}
