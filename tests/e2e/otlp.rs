//! Spans and metrics by OTLP, as a collector receives them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that keeps what it is sent.
#[derive(Clone, Default)]
struct Collector {
    spans: Arc<Mutex<Vec<Span>>>,
    /// The last export.
    metrics: Arc<Mutex<Vec<Metric>>>,
    services: Arc<Mutex<Vec<String>>>,
}

impl Collector {
    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
        let collector = Self::default();
        let serving = collector.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let serving = serving.clone();
                std::thread::spawn(move || while serving.take_one(&stream).is_some() {});
            }
        });
        (collector, endpoint)
    }

    /// One request of a connection.
    fn take_one(&self, mut stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.to_ascii_lowercase());
        }
        let length = lines
            .iter()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        if lines[0].starts_with("post /v1/traces ") {
            self.take_spans(ExportTraceServiceRequest::decode(&body[..]).expect("spans"));
        } else {
            assert!(lines[0].starts_with("post /v1/metrics "), "{}", lines[0]);
            self.take_metrics(ExportMetricsServiceRequest::decode(&body[..]).expect("metrics"));
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .ok()
    }

    fn take_spans(&self, request: ExportTraceServiceRequest) {
        for resource in request.resource_spans {
            let name = resource
                .resource
                .iter()
                .find_map(|resource| attribute(&resource.attributes, "service.name"));
            self.services.lock().unwrap().extend(name);
            let spans = resource
                .scope_spans
                .into_iter()
                .flat_map(|scope| scope.spans);
            self.spans.lock().unwrap().extend(spans);
        }
    }

    fn take_metrics(&self, request: ExportMetricsServiceRequest) {
        let scopes = request
            .resource_metrics
            .into_iter()
            .flat_map(|resource| resource.scope_metrics);
        *self.metrics.lock().unwrap() = scopes.flat_map(|scope| scope.metrics).collect();
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The value of the series with these labels, of a counter.
    fn counter(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let metrics = self.metrics.lock().unwrap();
        let metric = metrics.iter().find(|metric| metric.name == name)?;
        let Some(Data::Sum(sum)) = &metric.data else {
            panic!("{name} is no sum: {metric:?}")
        };
        assert!(sum.is_monotonic, "{name}");
        let has = |(label, value): &(&str, &str), of: &[KeyValue]| {
            attribute(of, label).as_deref() == Some(value)
        };
        let point = sum
            .data_points
            .iter()
            .find(|point| labels.iter().all(|label| has(label, &point.attributes)))?;
        match point.value? {
            number_data_point::Value::AsDouble(value) => Some(value),
            number_data_point::Value::AsInt(value) => Some(value as f64),
        }
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match &attribute.value {
        Some(AnyValue {
            value: Some(Value::StringValue(text)),
        }) => Some(text.clone()),
        Some(AnyValue {
            value: Some(Value::IntValue(number)),
        }) => Some(number.to_string()),
        _ => None,
    }
}

fn gateway(endpoint: &str, sampler: &str) -> Gateway {
    let setup = Setup::new()
        .set("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .set("OTEL_TRACES_SAMPLER", sampler);
    setup
        .set("OTEL_BSP_SCHEDULE_DELAY", 100)
        .set("OTEL_METRIC_EXPORT_INTERVAL", 100)
        .start()
}

/// Of each protocol: one that is traced, one whose device traces but not this time, one without, one refused.
fn send(gateway: &Gateway) {
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, gateway, &gateway.device("plc-1"));
        for flags in ["01", "00"] {
            let ask = Ask::post("1").with("traceparent", &format!("00-{TRACE}-{PARENT}-{flags}"));
            assert_eq!(client.send(&ask).status, 204);
        }
        assert_eq!(client.send(&Ask::post("1")).status, 204);
        assert_eq!(client.send(&Ask::post("1").to("/none")).status, 404);
    }
}

#[test]
fn a_collector_is_told_of_requests_and_of_all_that_is_counted() {
    let (collector, endpoint) = Collector::start();
    let mut gateway = gateway(&endpoint, "parentbased_always_on");
    send(&gateway);
    let accepted = || {
        let of = |protocol| {
            collector.counter(
                "forebay_http_requests_total",
                &[("protocol", protocol), ("status", "204")],
            )
        };
        ["h1", "h2", "h3"].map(of)
    };
    eventually("the metrics", || accepted() == [Some(3.0); 3]);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0);

    let spans = collector.spans();
    assert_eq!(spans.len(), 9, "{spans:?}");
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let traced: Vec<_> = spans
        .iter()
        .filter(|span| hex(&span.trace_id) == TRACE)
        .collect();
    assert!(
        traced.len() == 3
            && traced
                .iter()
                .all(|span| hex(&span.parent_span_id) == PARENT),
        "{traced:?}"
    );
    let of = |key: &str, value: &str| {
        spans
            .iter()
            .filter(|span| attribute(&span.attributes, key).as_deref() == Some(value))
            .count()
    };
    assert_eq!(
        (
            of("http.response.status_code", "204"),
            of("error.type", "not-found")
        ),
        (6, 3)
    );
    assert_eq!(
        (
            of("network.protocol.version", "1.1"),
            of("network.protocol.version", "3")
        ),
        (3, 3)
    );
    assert_eq!(of("forebay.device", "plc-1"), 9);
    assert!(
        spans
            .iter()
            .all(|span| span.end_time_unix_nano > span.start_time_unix_nano),
        "{spans:?}"
    );
    assert!(
        collector
            .services
            .lock()
            .unwrap()
            .iter()
            .all(|service| service == "forebay")
    );
    let counted = collector.counter(
        "forebay_http_request_duration_seconds_bucket",
        &[("protocol", "h1"), ("le", "+Inf")],
    );
    assert_eq!(counted, Some(4.0));
}

/// A collector that is away costs no request, and not the way out.
#[test]
fn nothing_depends_on_the_collector() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let mut gateway = gateway(&format!("http://{nobody}"), "always_on");
    send(&gateway);
    gateway.terminate();
    assert_eq!(
        (gateway.exit_code(), gateway.files("telemetry").len()),
        (0, 9)
    );
}

#[test]
fn the_sampler_is_the_environments() {
    let (collector, endpoint) = Collector::start();
    let mut gateway = gateway(&endpoint, "parentbased_always_off");
    send(&gateway);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0);
    assert_eq!(collector.spans().len(), 3);
}
