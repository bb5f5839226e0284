//! The producer's configuration: our values of librdkafka's properties, and the operator's over
//! them.
//!
//! The sink asks for it once, before it has spoken to any broker. A value that would break the
//! promise, or that librdkafka does not take, is `Misconfigured` and named by its variable. How the
//! brokers are logged in to is `login`'s.

mod promise;

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::login::Login;
use super::properties::{Properties, Property, variable};
use super::{SinkError, SinkOptions};
use crate::config::KafkaConfig;
use promise::Promise;

/// Bytes of a message beside its value: key, headers, framing; generous.
pub(crate) const MESSAGE_OVERHEAD_BYTES: usize = 4096;

/// librdkafka's own defaults for `message.max.bytes` and `batch.size`.
const MESSAGE_BYTES_DEFAULT: usize = 1_000_000;

/// Smaller requests than this would cost throughput.
const REQUEST_BYTES_MIN: usize = 128 << 10;

const _: () = assert!(REQUEST_BYTES_MIN <= MESSAGE_BYTES_DEFAULT);

/// librdkafka's bounds for `message.timeout.ms` and `socket.timeout.ms`. The least one leaves room
/// for a lingering batch.
const MESSAGE_TIMEOUT_MILLIS: (u128, u128) = (1000, i32::MAX as u128);
const SOCKET_TIMEOUT_MILLIS_MAX: u128 = 300_000;

const _: () = assert!(MESSAGE_TIMEOUT_MILLIS.0 <= SOCKET_TIMEOUT_MILLIS_MAX);

/// Further producers, unless the operator says otherwise, and at most.
const FURTHER_PRODUCERS: usize = 16;
const FURTHER_PRODUCERS_MAX: usize = 64;

/// Time in which all records of a round come to a further producer, so that they go together.
const ROUND_LINGER_MILLIS: &str = "5";

/// librdkafka's own default for `batch.num.messages`.
const REQUEST_MESSAGES_DEFAULT: usize = 10_000;

/// Least bytes that a record takes of the memory budget, its payload aside, as admission counts
/// them.
const RECORD_BYTES_MIN: usize = 1024;

/// The producer's configuration, and its login.
pub(crate) struct Settings {
    pub client: ClientConfig,
    pub login: Login,
    pub body_bytes_max: usize,
    pub further: Further,
    /// The operator's properties, for faults to name.
    names: Vec<String>,
}

/// The further producers, for brokers that are slow.
#[derive(Clone)]
pub(crate) struct Further {
    /// As many as there are then; 0 for none ever.
    pub producers: usize,
    pub client: ClientConfig,
    /// Time for which these wait for company, and for which the first one does.
    pub linger: Duration,
    pub linger_of_first: Duration,
    /// Most that goes together into one request.
    pub round_bytes: usize,
    pub round_records: usize,
    /// Time that a record waits for its round at most.
    pub patience: Duration,
}

impl Settings {
    pub(crate) fn new(config: &KafkaConfig, options: &SinkOptions) -> Result<Self, SinkError> {
        let mut properties = Properties::new(&config.properties)?;
        let login = Login::take(&mut properties)?;
        let producers = take_further(&mut properties)?;
        let client = configure(&properties, options)?;
        let further = Further::new(producers, &client, options.ack_timeout);
        let names = properties.iter().map(|property| property.name.clone());
        Ok(Self {
            client,
            login,
            body_bytes_max: options.body_bytes_max,
            further,
            names: names.collect(),
        })
    }

    /// Returns the configuration of a producer that puts each record into a request of its own.
    pub(crate) fn alone(&self) -> ClientConfig {
        let mut client = self.client.clone();
        client.set("batch.num.messages", "1");
        client
    }

    /// Whether a device's partition is known here.
    pub(crate) fn spreads_by_murmur2(&self) -> bool {
        self.client.get("partitioner").is_some_and(is_murmur2)
    }

    /// Names the property that librdkafka does not take.
    pub(crate) fn misconfigured(&self, error: KafkaError) -> SinkError {
        let (name, text) = match error {
            KafkaError::ClientConfig(_, text, name, _) => (Some(name), text),
            KafkaError::ClientCreation(text) => (self.named_in(&text), text),
            error => (None, error.to_string()),
        };
        let variable = name.map_or("FOREBAY_KAFKA_*".into(), |name| variable(&name));
        SinkError::Misconfigured(format!("{variable}: {text}"))
    }

    /// Finds the property that a fault speaks of: the operator's with the longest name, else the
    /// first that is named.
    fn named_in(&self, text: &str) -> Option<String> {
        let named = self.names.iter().filter(|name| text.contains(*name));
        let longest = named.max_by_key(|name| name.len());
        longest
            .cloned()
            .or_else(|| first_property(text).map(Into::into))
    }
}

impl Further {
    /// Makes so many of them like the first, whose configuration this is.
    fn new(producers: usize, first: &ClientConfig, patience: Duration) -> Self {
        let number = |property: &str| first.get(property)?.trim().parse().ok();
        let (round_bytes, round_records) = (number("batch.size"), number("batch.num.messages"));
        let mut client = first.clone();
        if client.get("queue.buffering.max.ms") == Some("0") {
            client.set("queue.buffering.max.ms", ROUND_LINGER_MILLIS);
        }
        Self {
            producers,
            linger: linger(&client),
            linger_of_first: linger(first),
            client,
            round_bytes: round_bytes.unwrap_or(MESSAGE_BYTES_DEFAULT),
            round_records: round_records.unwrap_or(REQUEST_MESSAGES_DEFAULT),
            patience,
        }
    }
}

/// Returns the time for which a producer waits for company.
fn linger(client: &ClientConfig) -> Duration {
    let names = ["queue.buffering.max.ms", "linger.ms"];
    let given = names.iter().find_map(|name| client.get(name));
    let millis = given.and_then(|millis| millis.trim().parse::<f64>().ok());
    Duration::try_from_secs_f64(millis.unwrap_or_default() / 1000.0).unwrap_or_default()
}

/// Takes out the number of further producers. There are none where it is not known which records
/// are of one partition, or where brokers do not keep a producer's order.
fn take_further(properties: &mut Properties) -> Result<usize, SinkError> {
    let further = properties.take("further.producers");
    let partitioner = properties.get("partitioner");
    let is_known = partitioner.is_none_or(|property| is_murmur2(&property.value));
    if !is_known || !is_idempotent(properties) {
        return Ok(0);
    }
    let Some(further) = further else {
        return Ok(FURTHER_PRODUCERS);
    };
    match further.value.trim().parse() {
        Ok(producers) if producers <= FURTHER_PRODUCERS_MAX => Ok(producers),
        _ => {
            let why = format!("must be a number from 0 to {FURTHER_PRODUCERS_MAX}");
            Err(further.fault(&why))
        }
    }
}

fn is_murmur2(partitioner: &str) -> bool {
    partitioner.starts_with("murmur2")
}

fn is_idempotent(properties: &Properties) -> bool {
    let idempotence = properties.get("enable.idempotence");
    !idempotence.is_some_and(Property::is_off)
}

/// Finds the first word that is spelled as a property is.
fn first_property(text: &str) -> Option<&str> {
    let mut words = text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '.');
    words.find(|word| word.trim_matches('.').contains('.'))
}

/// Puts the operator's properties over ours, except where that would break the promise.
fn configure(properties: &Properties, options: &SinkOptions) -> Result<ClientConfig, SinkError> {
    let is_idempotent = is_idempotent(properties);
    let promise = Promise {
        options,
        is_idempotent,
    };
    let mut client = defaults(options);
    if !is_idempotent {
        tracing::warn!("FOREBAY_KAFKA_ENABLE_IDEMPOTENCE is off: a retry may write a record twice");
        client.set("max.in.flight.requests.per.connection", "1");
    }
    let debug = properties.get("debug");
    if debug.is_some_and(|debug| !debug.value.is_empty()) {
        client.set_log_level(RDKafkaLogLevel::Debug);
    }
    for property in properties.iter() {
        promise.check(property)?;
        client.remove(property.canonical());
        client.set(&property.name, &property.value);
    }
    Ok(client)
}

/// Returns our values. Batches are made by the batcher: librdkafka need not make them again.
fn defaults(options: &SinkOptions) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("client.id", "forebay")
        .set("request.required.acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.ms", "0")
        .set("allow.auto.create.topics", "false")
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Info);
    set_bounds(&mut client, options);
    client
}

/// Bounds librdkafka's queue as admission is bounded, its messages by the largest body, and its
/// waits by the ack's.
fn set_bounds(client: &mut ClientConfig, options: &SinkOptions) {
    let (least, most) = MESSAGE_TIMEOUT_MILLIS;
    let timeout_millis = options.ack_timeout.as_millis().clamp(least, most);
    let socket_timeout_millis = timeout_millis.min(SOCKET_TIMEOUT_MILLIS_MAX);
    let message_bytes = MESSAGE_BYTES_DEFAULT.max(message_bytes_needed(options));
    // A topic that takes the largest record takes every request of this size.
    let request_bytes =
        message_bytes_needed(options).clamp(REQUEST_BYTES_MIN, MESSAGE_BYTES_DEFAULT);
    debug_assert!(request_bytes <= message_bytes, "a request fits a message");
    client
        .set("queue.buffering.max.messages", queue_messages(options))
        .set("queue.buffering.max.kbytes", queue_kbytes(options))
        .set("message.max.bytes", message_bytes.to_string())
        .set("batch.size", request_bytes.to_string())
        .set("message.timeout.ms", timeout_millis.to_string())
        .set("socket.timeout.ms", socket_timeout_millis.to_string());
}

/// Returns as many messages as the memory budget admits.
fn queue_messages(options: &SinkOptions) -> String {
    let messages = options.memory_bytes_max / RECORD_BYTES_MIN;
    messages.clamp(1, i32::MAX as usize).to_string()
}

/// Returns as many KiB as the memory budget admits, and room for the largest message in any case.
fn queue_kbytes(options: &SinkOptions) -> String {
    let bytes = options.memory_bytes_max.max(message_bytes_needed(options));
    bytes.div_ceil(1024).min(i32::MAX as usize).to_string()
}

fn message_bytes_needed(options: &SinkOptions) -> usize {
    options.body_bytes_max + MESSAGE_OVERHEAD_BYTES
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
            threads: 1,
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
