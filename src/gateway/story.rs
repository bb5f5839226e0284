//! The log's story of a start, beside the lines of each room: version and features, where readings
//! go, their limits, when certificates and lists end, and when the gateway is ready.
//!
//! The gateway calls it once. Nothing here fails, and no line has a secret.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::config::{Config, LimitsConfig, Quota, SinkConfig, StreamConfig};
use crate::telemetry::admin::Status;
use crate::tls::Reloader;

/// Time between two looks at whether the gateway is ready, until it is.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Features that the program was built with.
const FEATURES: [(&str, bool); 4] = [
    ("kafka", cfg!(feature = "kafka")),
    ("kinesis", cfg!(feature = "kinesis")),
    ("msk", cfg!(feature = "msk")),
    ("otlp", cfg!(feature = "otlp")),
];

/// Tells of the program, the sink and the limits.
pub(crate) fn begin(config: &Config) {
    let built_in = FEATURES.iter().filter(|(_, is_on)| *is_on);
    let features: Vec<&str> = built_in.map(|(name, _)| *name).collect();
    let features = features.join(",");
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        features,
        "forebay starts"
    );
    let streams: Vec<String> = config.streams.iter().map(spell_stream).collect();
    let (sink, streams) = (name_of(&config.sink), streams.join(","));
    let ack = config.ack.mode.name();
    tracing::info!(sink, streams, ack, "where readings go");
    tell_bounds(config);
}

fn tell_bounds(config: &Config) {
    let LimitsConfig {
        device_requests,
        device_bytes,
        gateway_requests,
        devices_max,
        ..
    } = &config.limits;
    tracing::info!(
        device_requests = spell_quota(device_requests),
        device_bytes = spell_quota(device_bytes),
        gateway_requests = spell_quota(gateway_requests),
        devices_max,
        connections_max = config.listen.connections.all_max,
        body_bytes_max = config.http.body_bytes_max,
        memory_bytes_max = config.memory_bytes_max,
        "limits, rates a second with their bursts"
    );
}

/// Tells when what the files of TLS hold ends.
pub(crate) fn tell_files(reloader: &Reloader) {
    let (certificate, ends) = (reloader.certificate(), reloader.ends());
    let names = certificate.names.join(",");
    let certificate_until = certificate.not_after.rfc3339();
    let authority_until = ends.authority.rfc3339();
    let list_until = ends.list.map_or("no list".into(), |end| end.rfc3339());
    tracing::info!(
        names,
        certificate_until,
        authority_until,
        list_until,
        "certificates"
    );
}

/// Tells when the gateway is ready for the first time, and how long that took.
pub(crate) async fn tell_ready(status: Arc<Status>, started_at: Instant) {
    while status.readiness().is_err() {
        sleep(LOOK_INTERVAL).await;
    }
    let after_seconds = started_at.elapsed().as_secs_f64();
    tracing::info!(after_seconds, "ready");
}

/// `name`, or `name=target` where the sink calls it otherwise.
fn spell_stream(stream: &StreamConfig) -> String {
    if stream.name == stream.target {
        stream.name.clone()
    } else {
        format!("{}={}", stream.name, stream.target)
    }
}

/// `rate/burst`, as `FOREBAY_DEVICE_CLASSES` has it.
fn spell_quota(quota: &Quota) -> String {
    if quota.rate == 0.0 {
        return "off".into();
    }
    format!("{}/{}", quota.rate, quota.burst)
}

fn name_of(sink: &SinkConfig) -> &'static str {
    match sink {
        SinkConfig::Null => "null",
        SinkConfig::File(_) => "file",
        #[cfg(feature = "kafka")]
        SinkConfig::Kafka(_) => "kafka",
        #[cfg(feature = "kinesis")]
        SinkConfig::Kinesis(_) => "kinesis",
    }
}
