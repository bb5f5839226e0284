//! OTLP: metrics, and spans of requests, pushed to a collector over HTTP; a cargo feature.
//!
//! `gateway` starts it where `OTEL_EXPORTER_OTLP_ENDPOINT`, or the endpoint of one signal, is set;
//! the other `OTEL_*` variables (sampler, intervals, queues, resource, headers) are the SDK's own.
//! The SDK exports on threads of its own; its queues are bounded, and what does not fit is dropped.
//! The endpoint is plain HTTP: a collector beside the gateway.
//!
//! Metrics are those of `/metrics`, by the same names; a histogram travels as its `_bucket`, `_sum`
//! and `_count`. Failure: an endpoint or setting that cannot be used is an error at start; later
//! the SDK logs what it could not send.

use std::collections::BTreeMap;
use std::env;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider as _};
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::access::Exchange;
use crate::record::TraceParent;

/// Lifetime of a snapshot: one reading of all metrics serves an export.
const SNAPSHOT_LIFETIME: Duration = Duration::from_millis(500);

/// Time that waiting spans and metrics have to be sent at the end of the process.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Exporter of spans and metrics; clones share it.
#[derive(Clone)]
pub(crate) struct Otlp {
    spans: Option<SdkTracerProvider>,
    metrics: Option<SdkMeterProvider>,
}

impl Otlp {
    /// Begins to export the signals that have an endpoint. `render` is the text of `/metrics`.
    pub(crate) fn start(
        render: impl Fn() -> String + Send + Sync + 'static,
    ) -> Result<Self, ExporterBuildError> {
        let spans = wants("TRACES").then(span_provider).transpose()?;
        let metrics = wants("METRICS")
            .then(|| metric_provider(render))
            .transpose()?;
        Ok(Self { spans, metrics })
    }

    /// Makes the tracer of a worker.
    pub(crate) fn tracer(&self) -> Option<Tracer> {
        self.spans
            .as_ref()
            .map(|provider| Tracer(provider.tracer("forebay")))
    }

    /// Sends what waits, within a bound.
    pub(crate) fn stop(&self) {
        if let Some(spans) = &self.spans {
            must_be_sent(spans.shutdown_with_timeout(LAST_EXPORT_TIMEOUT));
        }
        if let Some(metrics) = &self.metrics {
            must_be_sent(metrics.shutdown_with_timeout(LAST_EXPORT_TIMEOUT));
        }
    }
}

fn must_be_sent(sent: OTelSdkResult) {
    if let Err(error) = sent {
        tracing::warn!(%error, "OTLP: what waited could not be sent");
    }
}

/// Whether the environment names an endpoint for the signal, and does not switch it off.
fn wants(signal: &str) -> bool {
    let is =
        |name: &str, value: &str| env::var(name).is_ok_and(|set| set.eq_ignore_ascii_case(value));
    if is("OTEL_SDK_DISABLED", "true") || is(&format!("OTEL_{signal}_EXPORTER"), "none") {
        return false;
    }
    let is_set = |name: &str| env::var(name).is_ok_and(|endpoint| !endpoint.is_empty());
    is_set("OTEL_EXPORTER_OTLP_ENDPOINT")
        || is_set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))
}

fn span_provider() -> Result<SdkTracerProvider, ExporterBuildError> {
    let exporter = SpanExporter::builder().with_http().build()?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource())
        .build())
}

fn metric_provider(
    render: impl Fn() -> String + Send + Sync + 'static,
) -> Result<SdkMeterProvider, ExporterBuildError> {
    let exporter = MetricExporter::builder().with_http().build()?;
    let provider = SdkMeterProvider::builder()
        .with_periodic_exporter(exporter)
        .with_resource(resource())
        .build();
    observe(&provider.meter("forebay"), Snapshots::new(render));
    Ok(provider)
}

/// Describes the service that spans and metrics belong to, by `OTEL_SERVICE_NAME` and
/// `OTEL_RESOURCE_ATTRIBUTES`; its name is `forebay` where they give none.
fn resource() -> Resource {
    let names_it = |name: &str, what: &str| env::var(name).is_ok_and(|set| set.contains(what));
    let is_named =
        names_it("OTEL_SERVICE_NAME", "") || names_it("OTEL_RESOURCE_ATTRIBUTES", "service.name=");
    let resource = Resource::builder();
    if is_named {
        resource.build()
    } else {
        resource.with_service_name("forebay").build()
    }
}

/// Series of a name: labels and value.
type Series = Vec<(Vec<KeyValue>, f64)>;

/// All series by name, read at most once an export.
struct Snapshots {
    render: Box<dyn Fn() -> String + Send + Sync>,
    last: Mutex<(Instant, Arc<BTreeMap<String, Series>>)>,
}

impl Snapshots {
    fn new(render: impl Fn() -> String + Send + Sync + 'static) -> Arc<Self> {
        let last = Mutex::new((Instant::now(), Arc::new(parse(&render()))));
        Arc::new(Self {
            render: Box::new(render),
            last,
        })
    }

    /// Tells an instrument the series of its name.
    fn tell(&self, name: &str, to: &dyn AsyncInstrument<f64>) {
        for (labels, value) in self.get().get(name).into_iter().flatten() {
            to.observe(*value, labels);
        }
    }

    fn get(&self) -> Arc<BTreeMap<String, Series>> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0.elapsed() > SNAPSHOT_LIFETIME {
            *last = (Instant::now(), Arc::new(parse(&(self.render)())));
        }
        last.1.clone()
    }
}

/// Prometheus' text format, as the gateway itself writes it: no label holds a quote or a comma.
fn parse(text: &str) -> BTreeMap<String, Series> {
    let mut series = BTreeMap::<String, Series>::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let Ok(value) = value.parse() else { continue };
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        let of_name = series.entry(name.to_owned()).or_default();
        of_name.push((parse_labels(labels), value));
    }
    series
}

/// The labels of `protocol="h1",status="204"}`.
fn parse_labels(labels: &str) -> Vec<KeyValue> {
    let mut parsed = Vec::new();
    for label in labels.trim_end_matches('}').split(',') {
        if let Some((key, value)) = label.split_once('=') {
            let value = value.trim_matches('"').to_owned();
            parsed.push(KeyValue::new(key.to_owned(), value));
        }
    }
    parsed
}

/// Makes an instrument of each name; the series of all are fixed when the gateway starts.
fn observe(meter: &Meter, snapshots: Arc<Snapshots>) {
    const COUNTERS: [&str; 4] = ["_total", "_bucket", "_sum", "_count"];
    for name in snapshots.get().keys().cloned() {
        let (snapshots, of) = (snapshots.clone(), name.clone());
        if COUNTERS.iter().any(|end| name.ends_with(end)) {
            let counter = meter.f64_observable_counter(name);
            counter
                .with_callback(move |to| snapshots.tell(&of, to))
                .build();
        } else {
            let gauge = meter.f64_observable_gauge(name);
            gauge
                .with_callback(move |to| snapshots.tell(&of, to))
                .build();
        }
    }
}

/// Makes a span of a request.
#[derive(Clone)]
pub(crate) struct Tracer(SdkTracer);

impl Tracer {
    /// Makes the span of a request that has just been answered; where the device has sent a
    /// `traceparent`, it is a child of that one's span.
    pub(crate) fn record(&self, exchange: &Exchange<'_>, trace: Option<&TraceParent>) {
        let parent = match trace.and_then(span_context) {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let ended = SystemTime::now();
        let span = self.0.span_builder("ingest").with_kind(SpanKind::Server);
        let span = span.with_start_time(ended - exchange.duration);
        let span = span.with_attributes(attributes(exchange));
        let mut span = span.start_with_context(&self.0, &parent);
        if exchange.status >= 500 {
            span.set_status(Status::error(exchange.code.unwrap_or_default()));
        }
        span.end_with_timestamp(ended);
    }
}

/// The attributes of a span, by OpenTelemetry's semantic conventions for HTTP servers.
fn attributes(exchange: &Exchange<'_>) -> Vec<KeyValue> {
    let version = match exchange.protocol {
        "h1" => "1.1",
        protocol => protocol.trim_start_matches('h'),
    };
    let address = exchange.address.to_canonical().to_string();
    let mut attributes = vec![
        KeyValue::new("http.response.status_code", i64::from(exchange.status)),
        KeyValue::new("network.protocol.version", version.to_owned()),
        KeyValue::new("client.address", address),
    ];
    if let Some(device) = exchange.device {
        attributes.push(KeyValue::new("forebay.device", device.to_owned()));
    }
    attributes.extend(exchange.code.map(|code| KeyValue::new("error.type", code)));
    attributes
}

fn span_context(trace: &TraceParent) -> Option<SpanContext> {
    let text = trace.as_str();
    let trace_id = TraceId::from_hex(&text[3..35]).ok()?;
    let span_id = SpanId::from_hex(&text[36..52]).ok()?;
    let flags = TraceFlags::new(u8::from_str_radix(&text[53..55], 16).ok()?);
    Some(SpanContext::new(
        trace_id,
        span_id,
        flags,
        true,
        TraceState::default(),
    ))
}
