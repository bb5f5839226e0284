//! Environment and flags → [`Config`], parsed once at start, every field typed and validated.
//!
//! [`Raw`] is what was written, [`Config`] is what it means: every field typed, within its bounds,
//! and consistent with the others. All faults are found at once, each named with its variable and
//! an example. A room receives its own section, never the whole; nothing else reads the
//! environment.

pub(crate) mod host;
mod raw;
mod resolve;
mod spooled;
#[cfg(test)]
mod tests;
pub(crate) mod value;
pub(crate) mod variables;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use crate::record::StreamIndex;
use crate::topic::Filter;
pub(crate) use host::raise_open_file_limit;
pub use raw::Raw;
pub(crate) use resolve::{BODY_BYTES_LIMIT, MEMORY_HEADROOM_BYTES};
pub(crate) use spooled::{
    BATCHES_PER_QUOTA, SPOOL_BYTES_MIN, SPOOLED_BATCH_BYTES_MAX, SPOOLED_BATCH_RECORDS_MAX,
};

/// The faults of a configuration, a line for each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub(crate) struct ConfigErrors(pub Vec<String>);

/// The whole configuration, resolved.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub listen: ListenConfig,
    pub admin_listen: SocketAddr,
    pub tls: TlsConfig,
    pub device_id_sources: Vec<IdSource>,
    /// `None`: every device may speak.
    pub devices_file: Option<PathBuf>,
    /// Time before its certificate's expiry from which a device is told of it.
    pub expiry_notice: Duration,
    pub streams: Vec<StreamConfig>,
    pub stream_access: Vec<StreamAccess>,
    pub stream_rules: Vec<StreamRules>,
    /// `None`: nothing is told of the fleet.
    pub events: Option<EventsConfig>,
    pub doors: DoorsConfig,
    pub sink: SinkConfig,
    pub batch: BatchConfig,
    pub limits: LimitsConfig,
    pub http: HttpConfig,
    pub ack: AckConfig,
    pub spool: Option<SpoolConfig>,
    /// Bytes of all records that are not yet safe.
    pub memory_bytes_max: usize,
    pub drain_timeout: Duration,
    pub log: LogConfig,
    /// `None`: no audit log. `stdout` or a file.
    pub audit_log: Option<JournalTarget>,
    pub access_log: Option<AccessLogConfig>,
    /// Every variable with its value and source, a line each; secrets are not shown.
    pub described: String,
}

#[derive(Clone, Debug)]
pub(crate) struct ListenConfig {
    pub address: SocketAddr,
    pub http3: bool,
    pub workers: NonZeroUsize,
    /// Let another process share the port.
    pub reuse_port: bool,
    pub connections: ConnectionsConfig,
    /// Time for one flight of a handshake.
    pub handshake_timeout: Duration,
}

/// Bounds of connections and handshakes at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionsConfig {
    /// TCP and QUIC connections together.
    pub all_max: usize,
    /// TCP connections, each of which is an open file: some are left for everything else.
    pub tcp_max: usize,
    /// Connections of one source address.
    pub address_max: usize,
    /// Connections of one device.
    pub device_max: usize,
    /// Handshakes under way; one address may have half of them.
    pub handshakes_max: usize,
}

#[derive(Clone, Debug)]
pub(crate) struct TlsConfig {
    /// Chains, the preferred one first.
    pub cert: Vec<PathBuf>,
    /// The key of each chain.
    pub key: Vec<PathBuf>,
    pub client_ca: PathBuf,
    pub crl: Vec<PathBuf>,
    pub crl_strict: bool,
    pub min_version: TlsVersion,
    /// Whether HTTP/1.1 is also spoken under the name that AWS IoT Core has for it.
    pub amazon_alpn: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    Tls12,
    Tls13,
}

/// Field of a certificate that may hold the device id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdSource {
    SanUri,
    SanDns,
    Cn,
    /// SHA-256 of the leaf's DER, lower-case hex.
    Fingerprint,
}

/// A stream as devices name it, and as the sink does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    pub name: String,
    /// The topic, the Kinesis stream or the folder.
    pub target: String,
}

/// Which devices may write a stream: globs over device ids (`*`, `?`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAccess {
    pub stream: String,
    pub devices: Vec<String>,
}

/// The file that has the rules of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamRules {
    pub stream: String,
    pub file: PathBuf,
}

/// Settings of the fleet's events.
#[derive(Clone, Debug)]
pub struct EventsConfig {
    /// The stream's place in `FOREBAY_STREAMS`.
    pub stream: StreamIndex,
    /// The name of this gateway among its replicas, in characters that a URI needs not escape.
    pub replica: String,
    /// Time between two `usage` events of a connection that sent; `None` switches them off.
    pub usage_interval: Option<Duration>,
}

/// The front doors: which are open, and where they lead to.
#[derive(Clone, Debug, Default)]
pub(crate) struct DoorsConfig {
    pub open: OpenDoors,
    /// The first filter that matches a topic has its stream.
    pub topics: Vec<TopicRoute>,
    pub otlp_streams: OtlpStreams,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenDoors {
    pub iot_core: bool,
    pub iot_hub: bool,
    pub otlp: bool,
}

/// The stream of the topics that a filter matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicRoute {
    pub filter: Filter,
    pub stream: String,
}

/// The stream of each signal of OpenTelemetry that has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OtlpStreams {
    pub logs: Option<String>,
    pub metrics: Option<String>,
    pub traces: Option<String>,
}

#[derive(Clone, Debug)]
pub enum SinkConfig {
    Null,
    File(FileConfig),
    #[cfg(feature = "kafka")]
    Kafka(KafkaConfig),
    #[cfg(feature = "kinesis")]
    Kinesis(KinesisConfig),
}

impl SinkConfig {
    /// Whether what stands beside a record's content type and id goes on with it.
    pub(crate) fn keeps_headers(&self) -> bool {
        match self {
            #[cfg(feature = "kinesis")]
            Self::Kinesis(_) => false,
            _ => true,
        }
    }
}

#[derive(Clone, Debug)]
pub struct FileConfig {
    pub dir: PathBuf,
}

/// librdkafka properties, in its own spelling (`bootstrap.servers`).
#[derive(Clone, Debug)]
pub struct KafkaConfig {
    pub properties: Vec<(String, String)>,
}

/// Region, credentials and endpoint come from the AWS SDK's own variables.
#[derive(Clone, Debug)]
pub struct KinesisConfig {
    /// Pack the records as KPL aggregates.
    pub aggregate: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct BatchConfig {
    pub bytes_max: usize,
    pub records_max: usize,
    pub linger: Duration,
}

/// A token bucket's shape. A rate of 0 switches the limit off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quota {
    /// Tokens a second.
    pub rate: f64,
    /// Tokens that a full bucket holds.
    pub burst: u64,
}

#[derive(Clone, Debug)]
pub struct DeviceClass {
    /// Glob over device ids.
    pub devices: String,
    pub requests: Quota,
}

#[derive(Clone, Debug)]
pub struct LimitsConfig {
    pub device_requests: Quota,
    pub device_bytes: Quota,
    /// First match wins.
    pub device_classes: Vec<DeviceClass>,
    pub address_requests: Quota,
    pub address_handshakes: Quota,
    pub gateway_requests: Quota,
    pub devices_max: usize,
}

#[derive(Clone, Debug)]
pub struct HttpConfig {
    pub body_bytes_max: usize,
    /// Bytes of a body of many records, decoded.
    pub records_bytes_max: usize,
    /// Records in one request.
    pub records_max: usize,
    pub content_encodings: ContentEncodings,
    /// Further host names (`*`: any).
    pub authorities: Vec<String>,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    /// Bytes a second that a body must keep up; 0 is no such bound.
    pub body_rate_min: u64,
    pub idle_timeout: Duration,
}

/// The content codings that a body may come in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContentEncodings {
    pub gzip: bool,
    pub zstd: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct AckConfig {
    pub mode: AckMode,
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckMode {
    /// 204 when the stream has the record.
    Durable,
    /// 204 when the record is in memory.
    Queued,
}

impl AckMode {
    /// Returns the word of `FOREBAY_ACK`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Queued => "queued",
        }
    }
}

/// Target of a log of JSON lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JournalTarget {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Debug)]
pub(crate) struct AccessLogConfig {
    pub target: JournalTarget,
    /// Share of all requests, above 0 and at most 1.
    pub share: f64,
}

#[derive(Clone, Debug)]
pub(crate) struct SpoolConfig {
    pub dir: PathBuf,
    pub mode: SpoolMode,
    pub bytes_max: u64,
    pub when_full: WhenFull,
    pub key_file: Option<PathBuf>,
}

/// The records that go to disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpoolMode {
    /// Records that the sink cannot take.
    Overflow,
    /// Every record, before it is answered.
    Always,
}

/// Behaviour of a spool whose quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    Reject,
    DropOldest,
}

#[derive(Clone, Debug)]
pub(crate) struct LogConfig {
    /// tracing-subscriber's `EnvFilter` syntax.
    pub filter: String,
    pub json: bool,
}
