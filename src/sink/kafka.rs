//! Kafka by librdkafka: acks from all in-sync replicas, idempotent, one order per device.
//!
//! Value = body, key = device id, timestamp = time of receipt, headers `content-type` (when sent) and `record-id`. Keys
//! are partitioned by murmur2, as Java's producers do. `deliver` produces a batch from delivery's thread; a thread of
//! its own polls for delivery reports and counts them down, and the last one of a batch wakes delivery. librdkafka
//! retries by itself, in order, until `message.timeout.ms`; a record that timed out may or may not be in the topic.
//!
//! Bounds: admission bounds what is produced, so librdkafka's own queue has none. A record that is too large for the
//! topic is refused alone: a batch that the broker finds too large is produced again, record by record.

mod in_flight;
mod settings;
mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::{SinkError, SinkOptions};
use crate::config::KafkaConfig;
use crate::record::{Outcome, Outcomes, Reason, Record, StreamIndex};
use in_flight::{InFlight, Reports};

/// How long one poll for delivery reports waits: how soon a closing sink is noticed.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a closing sink waits for what librdkafka still holds.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Produces to one cluster.
pub struct KafkaSink {
    producer: Arc<BaseProducer<Reports>>,
    in_flight: Arc<InFlight>,
    topics: Vec<String>,
    settings: settings::Settings,
    /// The topics were found to take the largest record.
    fits: Arc<AtomicBool>,
    closing: Arc<AtomicBool>,
    polling: Option<JoinHandle<()>>,
}

impl KafkaSink {
    /// A wrong property is `Misconfigured`; the brokers need not be there.
    pub fn open(config: &KafkaConfig, options: SinkOptions) -> Result<Self, SinkError> {
        let settings = settings::Settings::new(config, &options)?;
        let in_flight = Arc::new(InFlight::new(options.in_flight_batches_max));
        let producer = settings.client.create_with_context(Reports(in_flight.clone()));
        let producer: Arc<BaseProducer<Reports>> = Arc::new(producer.map_err(settings::misconfigured)?);
        let closing = Arc::new(AtomicBool::new(false));
        let polling = thread::Builder::new().name("forebay-kafka".into()).spawn({
            let (producer, closing) = (producer.clone(), closing.clone());
            move || {
                while !closing.load(Ordering::Relaxed) {
                    producer.poll(POLL_TIMEOUT);
                }
            }
        });
        let polling = Some(polling.map_err(|error| SinkError::Away(error.to_string()))?);
        let topics = options.streams.into_iter().map(|stream| stream.target).collect();
        Ok(Self { producer, in_flight, topics, settings, fits: Arc::default(), closing, polling })
    }

    /// Produces the records in their order and waits for their delivery reports.
    pub async fn deliver(&self, stream: StreamIndex, records: &[Record]) -> Outcomes {
        let topic = &self.topics[stream.get()];
        let mut outcomes = match self.produce(topic, records).await {
            Outcomes::Each(outcomes) if records.len() > 1 => outcomes,
            outcomes => return outcomes,
        };
        for (index, outcome) in outcomes.iter_mut().enumerate().filter(|(_, outcome)| is_too_large(outcome)) {
            *outcome = self.produce(topic, &records[index..=index]).await.get(0).clone();
        }
        Outcomes::Each(outcomes)
    }

    async fn produce(&self, topic: &str, records: &[Record]) -> Outcomes {
        let Some(batch) = self.in_flight.begin(records.len()) else {
            return Outcomes::All(Outcome::Retryable("too many batches in flight".into()));
        };
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = self.send(topic, record, batch.opaque(index)) {
                batch.report(index, Some(outcome(&error)));
            }
        }
        batch.reported().await
    }

    fn send(&self, topic: &str, record: &Record, opaque: usize) -> Result<(), KafkaError> {
        let mut buffer = [0; 36];
        let id = Header { key: "record-id", value: Some(record.id.as_str(&mut buffer)) };
        let mut headers = OwnedHeaders::new_with_capacity(2);
        if let Some(content_type) = &record.content_type {
            headers = headers.insert(Header { key: "content-type", value: Some(content_type.as_ref()) });
        }
        let message = BaseRecord::with_opaque_to(topic, opaque)
            .key(record.device.as_str())
            .payload(record.payload.as_ref())
            .timestamp(record.received_at.0 as i64)
            .headers(headers.insert(id));
        self.producer.send(message).map_err(|(error, _)| error)
    }
}

impl Drop for KafkaSink {
    fn drop(&mut self) {
        // What is not flushed by then is reported as unknown when the producer goes.
        let _ = self.producer.flush(FLUSH_TIMEOUT);
        self.closing.store(true, Ordering::Relaxed);
        if let Some(polling) = self.polling.take() {
            let _ = polling.join();
        }
    }
}

/// What an error of librdkafka means for its record.
fn outcome(error: &KafkaError) -> Outcome {
    use RDKafkaErrorCode::*;
    let KafkaError::MessageProduction(code) = error else { return Outcome::Unknown };
    match code {
        MessageSizeTooLarge
        | InvalidMessageSize
        | InvalidMessage
        | InvalidRecord
        | InvalidTimestamp
        | InvalidTopic
        | PolicyViolation
        | UnknownTopic
        | UnknownTopicOrPartition
        | TopicAuthorizationFailed
        | ClusterAuthorizationFailed => Outcome::Permanent(name(*code)),
        QueueFull | NotEnoughReplicas => Outcome::Retryable(name(*code)),
        _ => Outcome::Unknown,
    }
}

fn is_too_large(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Permanent(reason) if *reason == name(RDKafkaErrorCode::MessageSizeTooLarge))
}

fn name(code: RDKafkaErrorCode) -> Reason {
    format!("{code:?}").into()
}
