//! librdkafka's properties: ours, the operator's over them, and those that would break the promise.
//!
//! A property may have two names (`linger.ms` is `queue.buffering.max.ms`). The operator's value under either replaces
//! ours; faults are told under the name that the operator used.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::KafkaConfig;
use crate::sink::{SinkError, SinkOptions};

/// What a message has beside its value: key, headers, framing; generous.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 4096;

/// librdkafka's own defaults for `message.max.bytes` and `batch.size`.
const MESSAGE_BYTES_DEFAULT: usize = 1_000_000;

/// Smaller requests than this would cost throughput.
const REQUEST_BYTES_MIN: usize = 128 << 10;

/// librdkafka's bounds for `message.timeout.ms` and `socket.timeout.ms`. The least one leaves room for a lingering batch.
const MESSAGE_TIMEOUT_MILLIS: (u128, u128) = (1000, i32::MAX as u128);
const SOCKET_TIMEOUT_MILLIS_MAX: u128 = 300_000;

/// Other names of a producer's properties, from librdkafka's CONFIGURATION.md.
const ALIASES: [(&str, &str); 10] = [
    ("bootstrap.servers", "metadata.broker.list"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanism", "sasl.mechanisms"),
    (
        "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.client.id",
    ),
    (
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.client.secret",
    ),
    ("linger.ms", "queue.buffering.max.ms"),
    ("retries", "message.send.max.retries"),
    ("compression.type", "compression.codec"),
    ("acks", "request.required.acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
];

/// Those that need nothing but a user and a password.
const SASL_MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// Those whose partition is a function of the key, which is never empty.
const PARTITIONERS: [&str; 6] = [
    "murmur2_random",
    "murmur2",
    "consistent_random",
    "consistent",
    "fnv1a_random",
    "fnv1a",
];

/// The producer's configuration.
pub(crate) struct Settings {
    pub client: ClientConfig,
    pub body_bytes_max: usize,
    /// The operator's properties, for faults to name.
    names: Vec<String>,
}

impl Settings {
    pub(crate) fn new(config: &KafkaConfig, options: &SinkOptions) -> Result<Self, SinkError> {
        let operators = |property: &str| {
            let mut named = config
                .properties
                .iter()
                .filter(|(name, _)| canonical(name) == property);
            named.next().map(|(_, value)| value.as_str())
        };
        let idempotent = !operators("enable.idempotence").is_some_and(is_off);
        let mut client = defaults(options);
        if !idempotent {
            tracing::warn!(
                "FOREBAY_KAFKA_ENABLE_IDEMPOTENCE is off: a retry may write a record twice"
            );
            client.set("max.in.flight.requests.per.connection", "1");
        }
        if operators("debug").is_some_and(|debug| !debug.is_empty()) {
            client.set_log_level(RDKafkaLogLevel::Debug);
        }
        for (index, (name, value)) in config.properties.iter().enumerate() {
            keep_promise(name, value, options, idempotent)?;
            let others = &config.properties[..index];
            if let Some((other, _)) = others
                .iter()
                .find(|(other, _)| canonical(other) == canonical(name))
            {
                return Err(fault(
                    name,
                    &format!("is {} under another name; set one of them", variable(other)),
                ));
            }
            client.remove(canonical(name)).set(name, value);
        }
        let names = config
            .properties
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        Ok(Self {
            client,
            body_bytes_max: options.body_bytes_max,
            names,
        })
    }

    /// For a producer that puts each record into a request of its own.
    pub(crate) fn alone(&self) -> ClientConfig {
        let mut client = self.client.clone();
        client.set("batch.num.messages", "1");
        client
    }

    /// Properties that librdkafka does not take.
    pub(crate) fn misconfigured(&self, error: KafkaError) -> SinkError {
        let (name, text) = match error {
            KafkaError::ClientConfig(_, text, name, _) => (Some(name), text),
            KafkaError::ClientCreation(text) => (self.named_in(&text), text),
            error => (None, error.to_string()),
        };
        SinkError::Misconfigured(format!(
            "{}: {text}",
            name.map_or("FOREBAY_KAFKA_*".into(), |name| variable(&name))
        ))
    }

    /// The property that a fault speaks of: the operator's with the longest name, else the first that is named.
    fn named_in(&self, text: &str) -> Option<String> {
        let operators = self
            .names
            .iter()
            .filter(|name| text.contains(*name))
            .max_by_key(|name| name.len());
        let mut words = text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '.');
        operators.cloned().or_else(|| {
            words
                .find(|word| word.trim_matches('.').contains('.'))
                .map(Into::into)
        })
    }
}

/// What a record takes of the memory budget at least, its payload aside; admission reckons as much.
const RECORD_BYTES_MIN: usize = 1024;

/// Batches are made by the batcher: librdkafka need not make them again. Its queue is bounded as admission is.
fn defaults(options: &SinkOptions) -> ClientConfig {
    let timeout_millis = options
        .ack_timeout
        .as_millis()
        .clamp(MESSAGE_TIMEOUT_MILLIS.0, MESSAGE_TIMEOUT_MILLIS.1);
    let message_bytes = MESSAGE_BYTES_DEFAULT.max(message_bytes_needed(options));
    // A topic that takes the largest record takes every request of this size.
    let request_bytes =
        message_bytes_needed(options).clamp(REQUEST_BYTES_MIN, MESSAGE_BYTES_DEFAULT);
    let mut client = ClientConfig::new();
    client
        .set("client.id", "forebay")
        .set("request.required.acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.ms", "0")
        .set("queue.buffering.max.messages", queue_messages(options))
        .set("queue.buffering.max.kbytes", queue_kbytes(options))
        .set("allow.auto.create.topics", "false")
        .set("message.max.bytes", message_bytes.to_string())
        .set("batch.size", request_bytes.to_string())
        .set("message.timeout.ms", timeout_millis.to_string())
        .set(
            "socket.timeout.ms",
            timeout_millis.min(SOCKET_TIMEOUT_MILLIS_MAX).to_string(),
        )
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Info);
    client
}

/// As many messages as the memory budget admits.
fn queue_messages(options: &SinkOptions) -> String {
    let messages = options.memory_bytes_max / RECORD_BYTES_MIN;
    messages.clamp(1, i32::MAX as usize).to_string()
}

/// As many bytes as the memory budget admits, and room for the largest message in any case.
fn queue_kbytes(options: &SinkOptions) -> String {
    let bytes = options.memory_bytes_max.max(message_bytes_needed(options));
    bytes.div_ceil(1024).min(i32::MAX as usize).to_string()
}

fn message_bytes_needed(options: &SinkOptions) -> usize {
    options.body_bytes_max + MESSAGE_OVERHEAD_BYTES
}

/// Refuses values with which a 204 would mean less than that the reading is safe, in order, within a bounded time.
///
/// Some clusters have no idempotent producers. Then a retry may write twice, which at-least-once allows; but with several
/// requests in flight it would also overtake.
fn keep_promise(
    name: &str,
    value: &str,
    options: &SinkOptions,
    idempotent: bool,
) -> Result<(), SinkError> {
    let message_bytes = message_bytes_needed(options);
    let is_below = |least: usize| value.parse().is_ok_and(|given: usize| given < least);
    let is_one_of = |known: &[&str]| known.iter().any(|known| value.eq_ignore_ascii_case(known));
    let why: String = match canonical(name) {
        "request.required.acks" if !is_one_of(&["all", "-1"]) => {
            "must be all: with fewer acks a 204 would not mean that the reading is safe".into()
        }
        "partitioner" if !is_one_of(&PARTITIONERS) => format!(
            "must be one of {}: only a partition that follows from the key keeps a device's order",
            PARTITIONERS.join(", ")
        ),
        "queuing.strategy" if !is_one_of(&["fifo"]) => {
            "must be fifo: otherwise later records of a device overtake earlier ones".into()
        }
        "max.in.flight.requests.per.connection" if !idempotent && value != "1" => {
            "must be 1 without idempotence: a retry would overtake later records of its device"
                .into()
        }
        "sasl.mechanisms" if !is_one_of(&SASL_MECHANISMS) => {
            format!("must be one of {}", SASL_MECHANISMS.join(", "))
        }
        "message.timeout.ms" if value.trim() == "0" => {
            "must not be 0: no wait is without a bound".into()
        }
        "queue.buffering.max.ms" if outlasts(value, options.ack_timeout) => {
            "must be less than FOREBAY_ACK_TIMEOUT: no reading would be acknowledged in time".into()
        }
        "message.max.bytes" if is_below(message_bytes) => {
            let needed = body_and_overhead(options);
            format!("is too few for {needed}: leave it unset, or set at least {message_bytes}")
        }
        "queue.buffering.max.kbytes" if is_below(message_bytes.div_ceil(1024)) => {
            let (needed, least) = (body_and_overhead(options), message_bytes.div_ceil(1024));
            format!("is too few for {needed}: leave it unset, or set at least {least}")
        }
        "transactional.id" => "must not be set: Forebay does not write in transactions".into(),
        "delivery.report.only.error" => {
            "must not be set: Forebay needs every report for its acks".into()
        }
        "log.level" => {
            "must not be set: FOREBAY_LOG and FOREBAY_KAFKA_DEBUG choose what is logged".into()
        }
        "api.version.request" if is_off(value) => {
            "must not be off: records would lose their headers and their time".into()
        }
        "test.mock.num.brokers" | "test.mock.broker.rtt" => {
            "must not be set: a mock cluster keeps nothing".into()
        }
        _ => return Ok(()),
    };
    Err(fault(name, &why))
}

/// Whether so many milliseconds are no less than this time.
fn outlasts(millis: &str, time: Duration) -> bool {
    let millis = millis.trim().parse::<f64>();
    millis.is_ok_and(|millis| millis >= time.as_secs_f64() * 1000.0)
}

fn body_and_overhead(options: &SinkOptions) -> String {
    let bytes = options.body_bytes_max;
    format!("a body of FOREBAY_BODY_BYTES_MAX={bytes}B and its overhead")
}

fn fault(property: &str, why: &str) -> SinkError {
    SinkError::Misconfigured(format!("{}: {why}", variable(property)))
}

/// As librdkafka reads a switch.
fn is_off(value: &str) -> bool {
    ["false", "f", "0"]
        .iter()
        .any(|off| value.eq_ignore_ascii_case(off))
}

fn canonical(name: &str) -> &str {
    ALIASES
        .iter()
        .find(|(alias, _)| *alias == name)
        .map_or(name, |(_, property)| property)
}

fn variable(property: &str) -> String {
    format!(
        "FOREBAY_KAFKA_{}",
        property.to_ascii_uppercase().replace('.', "_")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(
        body_bytes_max: usize,
        ack_timeout: Duration,
        memory_bytes_max: usize,
    ) -> SinkOptions {
        SinkOptions {
            streams: Vec::new(),
            body_bytes_max,
            ack_timeout,
            memory_bytes_max,
            in_flight_batches_max: 1,
        }
    }

    fn set_by(property: &str, options: &SinkOptions) -> usize {
        defaults(options).get(property).unwrap().parse().unwrap()
    }

    fn set(property: &str, body_bytes_max: usize, ack_timeout: Duration) -> usize {
        set_by(property, &options(body_bytes_max, ack_timeout, 64 << 20))
    }

    #[test]
    fn librdkafkas_queue_is_bounded_by_the_memory_budget() {
        for (memory_bytes_max, messages, kbytes) in [
            (64 << 20, 64 << 10, 64 << 10),
            (8 << 30, 8 << 20, 8 << 20),
            (1 << 20, 1 << 10, (10 << 10) + 4),
        ] {
            let options = options(10 << 20, Duration::from_secs(10), memory_bytes_max);
            assert_eq!(set_by("queue.buffering.max.messages", &options), messages);
            assert_eq!(set_by("queue.buffering.max.kbytes", &options), kbytes);
        }
    }

    #[test]
    fn every_body_fits_and_so_does_every_request_where_every_body_does() {
        for body_bytes_max in [4 << 10, 256 << 10, 10 << 20] {
            let bytes = |property| set(property, body_bytes_max, Duration::from_secs(10));
            let needed = body_bytes_max + MESSAGE_OVERHEAD_BYTES;
            assert!(bytes("message.max.bytes") >= needed);
            assert!(bytes("batch.size") <= needed.max(REQUEST_BYTES_MIN));
        }
    }

    #[test]
    fn librdkafka_gives_up_when_the_request_does() {
        for (seconds, message, socket) in [
            (0, 1000, 1000),
            (10, 10_000, 10_000),
            (600, 600_000, 300_000),
        ] {
            let ack_timeout = Duration::from_secs(seconds);
            assert_eq!(set("message.timeout.ms", 1, ack_timeout), message);
            assert_eq!(set("socket.timeout.ms", 1, ack_timeout), socket);
        }
    }
}
