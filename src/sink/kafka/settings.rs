//! librdkafka's properties: ours, the operator's over them, and those that would break the promise.

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::KafkaConfig;
use crate::sink::{SinkError, SinkOptions};

/// What a message has beside its value: key, headers, framing; generous.
pub const MESSAGE_OVERHEAD_BYTES: usize = 4096;

/// librdkafka's own default for `message.max.bytes`.
const MESSAGE_BYTES_DEFAULT: usize = 1_000_000;

/// Properties that carry the promise, and the values that keep it.
const PROMISED: [(&str, &[&str]); 3] =
    [("acks", &["all", "-1"]), ("request.required.acks", &["all", "-1"]), ("enable.idempotence", &["true"])];

/// Properties that Forebay needs for itself.
const RESERVED: [&str; 3] = ["delivery.report.only.error", "dr_cb", "dr_msg_cb"];

/// The producer's configuration.
pub struct Settings {
    pub client: ClientConfig,
    pub body_bytes_max: usize,
}

impl Settings {
    pub fn new(config: &KafkaConfig, options: &SinkOptions) -> Result<Self, SinkError> {
        let mut client = defaults(options);
        for (name, value) in &config.properties {
            keep_promise(name, value)?;
            client.set(name, value);
        }
        Ok(Self { client, body_bytes_max: options.body_bytes_max })
    }
}

/// Batches are made by the batcher, and records are bounded by admission: librdkafka need do neither again.
fn defaults(options: &SinkOptions) -> ClientConfig {
    let timeout_millis = options.ack_timeout.as_millis().max(1000).to_string();
    let message_bytes = MESSAGE_BYTES_DEFAULT.max(options.body_bytes_max + MESSAGE_OVERHEAD_BYTES).to_string();
    let mut client = ClientConfig::new();
    client
        .set("client.id", "forebay")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.ms", "1")
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "2097151")
        .set("message.max.bytes", message_bytes)
        .set("message.timeout.ms", &timeout_millis)
        .set("socket.timeout.ms", &timeout_millis)
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Warning);
    client
}

fn keep_promise(name: &str, value: &str) -> Result<(), SinkError> {
    let broken = PROMISED.iter().any(|(promised, kept)| *promised == name && !kept.contains(&value));
    if broken {
        let fault = "would make a 204 mean less than that the reading is safe; leave it unset";
        return Err(SinkError::Misconfigured(format!("{}: this value {fault}", variable(name))));
    }
    if RESERVED.contains(&name) {
        return Err(SinkError::Misconfigured(format!("{}: Forebay needs this property for its acks", variable(name))));
    }
    Ok(())
}

/// A property that librdkafka does not take.
pub fn misconfigured(error: KafkaError) -> SinkError {
    SinkError::Misconfigured(match error {
        KafkaError::ClientConfig(_, fault, name, _) => format!("{}: {fault}", variable(&name)),
        error => format!("FOREBAY_KAFKA_*: {error}"),
    })
}

fn variable(property: &str) -> String {
    format!("FOREBAY_KAFKA_{}", property.to_ascii_uppercase().replace('.', "_"))
}
