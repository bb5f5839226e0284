//! The table of variables: names, defaults, meanings. Flags, `--help`, `forebay check` and the
//! documentation are made from it.

/// One `FOREBAY_*` variable; `--` and the rest of its name in lower case with `-` is its flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Name, with `FOREBAY_`.
    pub name: &'static str,
    pub group: &'static str,
    pub default: Default,
    pub meaning: &'static str,
    pub example: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Default {
    /// The default as an operator would write it.
    Value(&'static str),
    /// No value; the text says what that means.
    Unset(&'static str),
    /// Must be set.
    Required,
}

use self::Default::{Required, Unset, Value};

const fn variable(
    group: &'static str,
    name: &'static str,
    default: Default,
    example: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable {
        name,
        group,
        default,
        meaning,
        example,
    }
}

const LISTENING: &str = "Listening";
const TLS: &str = "TLS and identity";
const STREAMS: &str = "Streams and sinks";
const BATCHING: &str = "Batching and acks";
const SPOOL: &str = "Spool";
const LIMITS: &str = "Limits";
const TIMEOUTS: &str = "Bounds and time-outs";
const LOGS: &str = "Logs";

/// Any librdkafka property: upper case, `_` for `.`.
pub(crate) const KAFKA_PREFIX: &str = "FOREBAY_KAFKA_";

/// All variables, but of the `FOREBAY_KAFKA_*` only the one that the Kafka sink requires, and those that are not librdkafka's.
#[rustfmt::skip]
pub const VARIABLES: &[Variable] = &[
    variable(LISTENING, "FOREBAY_LISTEN", Value("0.0.0.0:8443"), "0.0.0.0:8443", "address for TCP (h1, h2) and UDP (h3); port 0 picks a free one"),
    variable(LISTENING, "FOREBAY_HTTP3", Value("true"), "false", "serve HTTP/3 on the same port"),
    variable(LISTENING, "FOREBAY_WORKERS", Unset("the cores it may use"), "4", "worker threads, 256 at most"),
    variable(LISTENING, "FOREBAY_ADMIN_LISTEN", Value("127.0.0.1:9444"), "127.0.0.1:9444", "plain HTTP: a live page at /; /livez, /servez, /readyz, /metrics"),
    variable(LISTENING, "FOREBAY_REUSE_PORT", Value("false"), "true", "let another gateway share the port, for rolling restarts"),
    variable(LISTENING, "FOREBAY_CONNECTIONS_MAX", Unset("three quarters of the open-file limit"), "10000", "connections, TCP and QUIC together; those of TCP need an open file each, and some are kept for the rest"),
    variable(LISTENING, "FOREBAY_ADDRESS_CONNECTIONS_MAX", Unset("three quarters of FOREBAY_CONNECTIONS_MAX"), "500", "connections of one source address; the default leaves room for a fleet behind one NAT"),
    variable(LISTENING, "FOREBAY_DEVICE_CONNECTIONS_MAX", Value("500"), "4", "connections of one device; one more is closed after its handshake"),
    variable(LISTENING, "FOREBAY_HANDSHAKES_MAX", Unset("one for each MiB of the memory it may use, 256 to 16384"), "2000", "handshakes under way, half of them from one source address at most"),
    variable(TLS, "FOREBAY_TLS_CERT", Required, "/etc/forebay/server.pem", "server certificate chain, PEM; several, comma-separated: the first that a client can verify is sent"),
    variable(TLS, "FOREBAY_TLS_KEY", Required, "/etc/forebay/server.key", "server key, PEM; as many as chains, in their order"),
    variable(TLS, "FOREBAY_TLS_CLIENT_CA", Required, "/etc/forebay/ca.pem", "PEM bundle that device certificates chain to"),
    variable(TLS, "FOREBAY_TLS_CRL", Unset("none"), "/etc/forebay/crl.pem", "CRL files, PEM or DER, comma-separated"),
    variable(TLS, "FOREBAY_TLS_CRL_STRICT", Value("true"), "false", "with CRLs set: an issuer without a CRL, or with an expired one, means refusal"),
    variable(TLS, "FOREBAY_TLS_MIN_VERSION", Value("1.2"), "1.3", "least TLS version on TCP: 1.2 or 1.3"),
    variable(TLS, "FOREBAY_DEVICE_ID", Value("san-uri,san-dns,cn"), "san-uri,cn", "where the device id stands in a certificate, in order: san-uri, san-dns, cn, fingerprint"),
    variable(TLS, "FOREBAY_DEVICES_FILE", Unset("none: every device may speak"), "/etc/forebay/devices", "who may speak and what each is held to, read again when it changes: allow, deny, pin, default; see fleets.md"),
    variable(TLS, "FOREBAY_EXPIRY_NOTICE", Value("30d"), "14d", "how long before its certificate expires a device is told, in Forebay-Certificate-Expires"),
    variable(TLS, "FOREBAY_AUTHORITIES", Unset("none"), "ingest.example.com", "host names beside those of the server certificate, comma-separated; * is any"),
    variable(STREAMS, "FOREBAY_STREAMS", Value("telemetry"), "telemetry,alarms=plant-alarms", "stream names, the first is the default one; name=target where the sink calls it otherwise"),
    variable(STREAMS, "FOREBAY_STREAM_ACCESS", Unset("every device, every stream"), "alarms:plant-*,plc-7;telemetry:*", "which devices may write which stream, by globs; once set, a stream not listed is open to nobody"),
    variable(STREAMS, "FOREBAY_STREAM_RULES", Unset("none"), "telemetry=/etc/forebay/telemetry.toml", "what the records of a stream must be and what is changed of them: a rules file for each stream, separated by semicolons; read again when a file of theirs changes"),
    variable(STREAMS, "FOREBAY_EVENTS_STREAM", Unset("none: no events"), "fleet-events", "one of FOREBAY_STREAMS, closed to devices then: what happens to the fleet is told there, as CloudEvents; see fleets.md"),
    variable(STREAMS, "FOREBAY_REPLICA", Unset("the host's name"), "gw-1", "the name of this gateway in the source of its events: 1 to 255 characters of A-Za-z0-9._~-"),
    variable(STREAMS, "FOREBAY_USAGE_INTERVAL", Unset("off: no usage events"), "1m", "how often each connection that sent is told of by a usage event; 0 is off"),
    variable(STREAMS, "FOREBAY_FRONT_DOORS", Unset("none"), "iot-hub", "other platforms' addresses under which the same service is there, comma-separated: iot-core, iot-hub, otlp; see front-doors.md"),
    variable(STREAMS, "FOREBAY_TOPICS", Unset("none; required by the door iot-core"), "dt/+/telemetry=telemetry;#=telemetry", "the stream of each topic of the door iot-core, by MQTT topic filters; the first match wins, a topic without one is refused"),
    variable(STREAMS, "FOREBAY_OTLP_STREAMS", Unset("none; required by the door otlp"), "logs=telemetry,metrics=telemetry,traces=telemetry", "the stream of each signal of the door otlp: logs, metrics, traces; one without a stream is 404"),
    variable(STREAMS, "FOREBAY_SINK", Value("file"), "kafka", "file, kafka, kinesis, or null (for benchmarks: keeps nothing)"),
    variable(STREAMS, "FOREBAY_FILE_DIR", Value("data"), "/var/lib/forebay", "folder of the file sink, one folder in it for each stream"),
    variable(STREAMS, "FOREBAY_KAFKA_BOOTSTRAP_SERVERS", Unset("required by the Kafka sink"), "broker-1:9093,broker-2:9093", "Kafka brokers; every other librdkafka property likewise, upper case and _ for ."),
    variable(STREAMS, "FOREBAY_KAFKA_FURTHER_PRODUCERS", Value("16"), "32", "producers beside the first one while brokers are slow to acknowledge, 64 at most; each has a connection and a thread for each broker. 0: never any"),
    variable(STREAMS, "FOREBAY_KAFKA_SASL_PASSWORD_FILE", Unset("none"), "/etc/forebay/kafka-password", "a file with the password for PLAIN or SCRAM, in place of FOREBAY_KAFKA_SASL_PASSWORD; read again when it changes"),
    variable(STREAMS, "FOREBAY_KINESIS_AGGREGATE", Value("false"), "true", "pack many readings into one Kinesis record, as KPL does; consumers must unpack them"),
    variable(BATCHING, "FOREBAY_BATCH_BYTES", Value("512KiB"), "1MiB", "payload bytes that seal a batch"),
    variable(BATCHING, "FOREBAY_BATCH_RECORDS", Value("512"), "500", "records that seal a batch"),
    variable(BATCHING, "FOREBAY_BATCH_LINGER", Value("20ms"), "5ms", "the most that a record waits for company, where that saves requests to the sink worth speaking of or the sink is busy; a quiet gateway waits for none"),
    variable(BATCHING, "FOREBAY_ACK", Value("durable"), "queued", "durable: 204 when the stream has the record; queued: 204 when memory has it"),
    variable(BATCHING, "FOREBAY_ACK_TIMEOUT", Value("10s"), "30s", "how long a request waits for its ack before it is answered 504"),
    variable(BATCHING, "FOREBAY_MEMORY_MAX", Unset("a quarter of the memory it may use"), "1GiB", "all records that are not yet safe"),
    variable(SPOOL, "FOREBAY_SPOOL_DIR", Unset("none: no spool"), "/var/spool/forebay", "folder of the spool, this gateway's own: records that the sink cannot take are safe there"),
    variable(SPOOL, "FOREBAY_SPOOL_MODE", Value("overflow"), "always", "overflow: what the sink cannot take; always: everything, before it is answered"),
    variable(SPOOL, "FOREBAY_SPOOL_BYTES_MAX", Value("10GiB"), "100GiB", "what the spool may take of the disk, 32MiB at least; dead letters may take an eighth on top, 32MiB at least"),
    variable(SPOOL, "FOREBAY_SPOOL_FULL", Value("reject"), "drop-oldest", "when the spool is full: reject new records (503), or drop-oldest, counted"),
    variable(SPOOL, "FOREBAY_SPOOL_KEY_FILE", Unset("none: not encrypted"), "/etc/forebay/spool.keys", "encrypts the spool: 64 hex digits a line, the first key writes, all of them read"),
    variable(LIMITS, "FOREBAY_DEVICE_RATE", Value("50"), "0.2", "requests per second of one device; 0 is no limit"),
    variable(LIMITS, "FOREBAY_DEVICE_BURST", Value("100"), "5", "requests that one device may send at once"),
    variable(LIMITS, "FOREBAY_DEVICE_BYTE_RATE", Value("512KiB"), "64KiB", "body bytes per second of one device; 0 is no limit"),
    variable(LIMITS, "FOREBAY_DEVICE_BYTE_BURST", Value("1MiB"), "256KiB", "body bytes that one device may send at once"),
    variable(LIMITS, "FOREBAY_DEVICE_CLASSES", Unset("none"), "gw-*=500/1000;meter-*=0.2/5", "other request rates for some devices, rate/burst by glob; the first match wins"),
    variable(LIMITS, "FOREBAY_ADDRESS_RATE", Value("10000"), "500", "requests per second of one source address; 0 is no limit"),
    variable(LIMITS, "FOREBAY_ADDRESS_BURST", Value("20000"), "1000", "requests that one source address may send at once"),
    variable(LIMITS, "FOREBAY_HANDSHAKE_RATE", Value("1000"), "50", "new connections per second of one source address; the default leaves room for a site behind one NAT"),
    variable(LIMITS, "FOREBAY_HANDSHAKE_BURST", Value("5000"), "200", "new connections that one source address may open at once"),
    variable(LIMITS, "FOREBAY_GATEWAY_RATE", Value("0"), "100000", "requests per second of all devices; 0 is no limit"),
    variable(LIMITS, "FOREBAY_GATEWAY_BURST", Value("0"), "100000", "requests that all devices may send at once"),
    variable(LIMITS, "FOREBAY_DEVICES_MAX", Value("1000000"), "100000", "devices whose buckets are held at once"),
    variable(TIMEOUTS, "FOREBAY_BODY_BYTES_MAX", Value("256KiB"), "1MiB", "largest body, 10MiB at most"),
    variable(TIMEOUTS, "FOREBAY_CONTENT_ENCODINGS", Value("gzip,zstd"), "gzip", "content codings that a body may come in: gzip, zstd, or none; the bounds are those of the decoded body"),
    variable(TIMEOUTS, "FOREBAY_RECORDS_MAX", Value("1000"), "10000", "records in one request, 10000 at most; a device's burst bounds them too"),
    variable(TIMEOUTS, "FOREBAY_RECORDS_BYTES_MAX", Value("1MiB"), "4MiB", "largest body of many records, 16MiB at most; a device's byte burst bounds it too"),
    variable(TIMEOUTS, "FOREBAY_HANDSHAKE_TIMEOUT", Value("5s"), "10s", "for one flight of a TLS or QUIC handshake: the first must begin within it, over TCP a client may be silent for two, and all may take five"),
    variable(TIMEOUTS, "FOREBAY_HEADER_TIMEOUT", Value("10s"), "5s", "for a request's head, from its first byte"),
    variable(TIMEOUTS, "FOREBAY_BODY_TIMEOUT", Value("30s"), "10s", "for a request's body"),
    variable(TIMEOUTS, "FOREBAY_BODY_RATE_MIN", Value("1KiB"), "128B", "bytes a second that a body must keep up once it has had 10 s; 0 is none"),
    variable(TIMEOUTS, "FOREBAY_IDLE_TIMEOUT", Value("5m"), "1m", "for a connection without a request"),
    variable(TIMEOUTS, "FOREBAY_DRAIN_TIMEOUT", Value("30s"), "1m", "from SIGTERM to the exit"),
    variable(LOGS, "FOREBAY_LOG", Value("info"), "debug", "error, warn, info, debug, trace, or target=level directives"),
    variable(LOGS, "FOREBAY_AUDIT_LOG", Unset("none"), "/var/log/forebay/audit.log", "a file or stdout: JSON lines of refused handshakes, revocations, 403s, reloads, start and stop"),
    variable(LOGS, "FOREBAY_ACCESS_LOG", Unset("none"), "/var/log/forebay/access.log", "a file or stdout: a JSON line of a share of all requests"),
    variable(LOGS, "FOREBAY_ACCESS_LOG_SAMPLE", Value("0.01"), "1", "the share of requests that has a line, above 0 and at most 1"),
    variable(LOGS, "FOREBAY_LOG_FORMAT", Unset("text on a terminal, else json"), "json", "text or json"),
];

impl Variable {
    pub fn find(name: &str) -> Option<&'static Self> {
        VARIABLES.iter().find(|variable| variable.name == name)
    }

    pub fn flag(&self) -> String {
        flag_of(self.name)
    }
}

/// `FOREBAY_BATCH_LINGER` → `batch-linger`.
pub(crate) fn flag_of(name: &str) -> String {
    let name = name.trim_start_matches("FOREBAY_");
    name.to_ascii_lowercase().replace('_', "-")
}

/// The librdkafka property that an argument names, as a variable: `--kafka-client-id=a` →
/// `FOREBAY_KAFKA_CLIENT_ID`.
pub(crate) fn kafka_variable(argument: &str) -> Option<String> {
    let flag = argument.strip_prefix("--")?;
    let name = flag.split_once('=').map_or(flag, |(name, _)| name);
    if !name.starts_with("kafka-") {
        return None;
    }
    let name = name.to_ascii_uppercase().replace('-', "_");
    Some(format!("FOREBAY_{name}"))
}

/// The known name that is nearest to `name`.
pub(crate) fn nearest(name: &str) -> &'static str {
    let by_distance = |variable: &&Variable| strsim::damerau_levenshtein(name, variable.name);
    let nearest = VARIABLES.iter().min_by_key(by_distance);
    nearest.expect("the table has rows").name
}
