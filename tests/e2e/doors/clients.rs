//! Clients that nobody here wrote: curl as AWS documents it, OpenTelemetry's SDK for Python, Azure's own transport for
//! devices.

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
use serde_json::{Value, json};

use super::{doors, last, trace_id};
use crate::brokers;
use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Ask, Client, Gateway, PATIENCE, Protocol, Setup, Via, eventually};
use crate::kafka::Kafka;
use crate::pki::Identity;
use crate::tools::tools;

/// <https://docs.aws.amazon.com/iot/latest/developerguide/http.html> has the same with these arguments:
/// `--tlsv1.2 --cacert … --cert … --key … --request POST --data '{ "message": "Hello, world" }' https://…:8443/topics/topic?qos=1`.
#[test]
fn curl_publishes_as_aws_documents_it() {
    let gateway = doors().start();
    let device = gateway.device("plc-1");
    for protocol in [Protocol::H1, Protocol::H2] {
        let client = Client::open_via(Via::Curl, protocol, &gateway, &device);
        let body = r#"{ "message": "Hello, world" }"#;
        let reply = client.send(&Ask::post(body).to("/topics/alarms/topic?qos=1"));
        assert_eq!(reply.status, 200, "{reply:?}");
        assert_eq!(reply.problem()["message"], "OK");
        let record = last(&gateway, "alarms");
        assert_eq!(record["record_id"], *trace_id(&reply));
        assert_eq!(record["payload"], json!({ "message": "Hello, world" }));
    }
}

/// The name that AWS has for HTTP where MQTT shares the port. Without the door nobody speaks it.
#[test]
fn http_is_spoken_by_the_name_that_aws_has_for_it() {
    const REQUEST: &str = "POST /topics/alarms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1";
    let exchange = |gateway: &Gateway| {
        let device = gateway.device("plc-1");
        let tls = tls(gateway, Some(&device), "x-amzn-http-ca");
        block_on(async {
            let mut raw = Raw::open(gateway.address, tls).await?;
            raw.send(REQUEST.as_bytes()).await?;
            std::io::Result::Ok(raw.receive_all().await)
        })
    };
    let answer = exchange(&doors().start()).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("{\"message\":\"OK\","), "{answer}");
    let error = exchange(&Setup::new().start()).expect_err("no common protocol");
    assert!(
        error.to_string().contains("NoApplicationProtocol"),
        "{error}"
    );
}

/// `tests/clients/otlp_sdk.py`, and the lines that it prints.
struct Sdk {
    process: Child,
    lines: Receiver<Value>,
}

impl Sdk {
    fn start(gateway: &Gateway, device: &Identity, exports: usize) -> Self {
        let mut process = Command::new(tools().join("venv-otlp/bin/python"))
            .arg(script("otlp_sdk.py"))
            .arg(format!("https://localhost:{}", gateway.address.port()))
            .args([&gateway.pki.ca(), &device.cert, &device.key])
            .arg(exports.to_string())
            // Variables of its HTTP client would win over its own settings.
            .env_clear()
            .stdout(Stdio::piped())
            .spawn()
            .expect("`make tools` installs OpenTelemetry's SDK in target/tools/venv-otlp");
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

fn script(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/clients", name]
        .iter()
        .collect()
}

/// Spans, metrics and logs of the SDK are in Kafka as they were sent, and are what they are said to be.
#[test]
fn the_python_sdk_exports_what_arrives() {
    let topics = ["sdk-logs", "sdk-metrics", "sdk-traces"];
    let setup = topics.map(brokers::gateway_to);
    let [setup, ..] = setup;
    let gateway = setup
        .set(
            "FOREBAY_STREAMS",
            "logs=sdk-logs,metrics=sdk-metrics,traces=sdk-traces",
        )
        .set("FOREBAY_FRONT_DOORS", "otlp")
        .set(
            "FOREBAY_OTLP_STREAMS",
            "logs=logs,metrics=metrics,traces=traces",
        )
        .without_limits()
        .start();
    let sdk = Sdk::start(&gateway, &gateway.device("plc-1"), 5);
    let acknowledged = sdk.acknowledged();
    assert_eq!(acknowledged.len(), 15);
    for signal in ["logs", "metrics", "traces"] {
        let of = |(kind, body): &(String, Vec<u8>)| (kind == signal).then(|| body.clone());
        let sent: Vec<_> = acknowledged.iter().filter_map(of).collect();
        let stored = Kafka::shared().read_topic(&format!("sdk-{signal}"));
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

/// The SDK sends again what was answered 503, as long as it is told to: nothing that it was told is safe is lost, and
/// nothing is given up.
#[test]
fn the_python_sdk_gets_through_a_silent_broker() {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("sdk-outage")
        .set("FOREBAY_FRONT_DOORS", "otlp")
        .set(
            "FOREBAY_OTLP_STREAMS",
            "logs=telemetry,metrics=telemetry,traces=telemetry",
        )
        .set("FOREBAY_ACK_TIMEOUT", "2s")
        .without_limits()
        .start();
    let sdk = Sdk::start(&gateway, &gateway.device("plc-1"), 100);
    let first = sdk.next().expect("an export");
    assert_eq!(first["taken"], true, "{first}");
    let paused = broker.pause();
    let shed = "forebay_http_requests_total{protocol=\"h1\",status=\"503\"}";
    eventually("exports that are told to come back", || {
        gateway.metric(shed) >= 3.0
    });
    drop(paused);
    let mut acknowledged = sdk.acknowledged();
    assert_eq!(acknowledged.len(), 299, "all but the first");
    let body = first["body"].as_str().expect("a body");
    acknowledged.push((String::new(), BASE64.decode(body).expect("base64")));
    let stored = broker.kafka.read_topic("sdk-outage");
    let stored: HashSet<_> = stored
        .into_iter()
        .filter_map(|record| record.value)
        .collect();
    for (signal, body) in &acknowledged {
        assert!(stored.contains(body), "an acknowledged export of {signal}");
    }
}

/// `azure-iot-device-http` sends a message of each kind by itself; only the port is another than Azure's.
#[test]
fn azures_own_transport_for_devices_sends_its_messages() {
    let gateway = doors().start();
    let device = gateway.device("urn:plant/7");
    let output = Command::new("node")
        .arg(script("iot_hub.js"))
        .arg(gateway.address.port().to_string())
        .args([&gateway.pki.ca(), &device.cert, &device.key])
        .args(["urn:plant/7", "plc-2"])
        .env("NODE_PATH", tools().join("iot-hub/node_modules"))
        .output()
        .expect("node");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    let told: Vec<Value> = said
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(told.len(), 3, "{said} {complaint}");
    assert_eq!(told[0], json!({ "sent": "MessageEnqueued" }), "{said}");
    assert_eq!(told[1], json!({ "sent": "MessageEnqueued" }), "{said}");
    assert_eq!(told[2]["status"], 403, "another device's path: {said}");
    let lines = gateway.files("telemetry");
    let record = &lines[0].0;
    assert_eq!(record["record_id"], "message-1");
    assert_eq!(record["content_type"], "application/json");
    assert_eq!(record["payload"], json!({ "temperature": 21.5 }));
    let headers = &record["headers"];
    assert_eq!(headers["iothub-app-line"], "7", "{headers}");
    assert_eq!(headers["iothub-correlationid"], "correlation-1");
    assert_eq!(headers["iothub-contentencoding"], "utf-8");
    assert_eq!(
        headers["iothub-to"],
        "/devices/urn%3Aplant%2F7/messages/events"
    );
    assert_eq!(lines[1].payload(), b"plain");
}
