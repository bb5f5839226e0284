//! Kafka by librdkafka: acks from all in-sync replicas, idempotent, one order per device.
//!
//! Value = body, key = device id (null for an event of no device), timestamp = time of receipt,
//! headers `content-type` (when sent), `record-id`, and further ones of the record. Keys are
//! partitioned by murmur2, as Java's producers do. `deliver` produces a batch from delivery's
//! thread; librdkafka's reports wake a task there that counts them down, and the last one of a
//! batch wakes its delivery. librdkafka retries by itself, in order, until `message.timeout.ms`;
//! then it says whether the topic may have the record.
//!
//! Where brokers are slow to acknowledge there are further [`producers`].
//!
//! Bounds: librdkafka's own queues hold as much as the memory budget admits. One bad record costs
//! only itself: for one record, or for its size, brokers refuse all that librdkafka put into one
//! request, so refused records are produced again, each in a request of its own, by one more
//! producer, which is made when it is first needed.

mod ack_time;
mod client;
mod in_flight;
mod keyring;
mod leaders;
mod login;
mod native;
mod pace;
mod producers;
mod properties;
mod reports;
mod settings;
mod strands;
mod verify;

use std::ffi::CString;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseProducer;
use tokio::task::{JoinSet, yield_now};

use super::{Arrivals, Progress, SinkError, SinkOptions};
use crate::config::{KafkaConfig, StreamConfig};
use crate::record::{Outcome, Outcomes, Reason, Record, StreamIndex, Timestamp};
use client::{Client, Common, Producer};
use in_flight::InFlight;
use keyring::Keyring;
use native::{Headers, Message};
use producers::Producers;
use reports::Reports;
use strands::{Strands, Waiting};

/// Bytes of a request that a record takes beside its payload, its key and further headers, roughly:
/// its id, its content type, its trace, and how all of these are framed.
const FRAMING_BYTES: usize = 192;

/// Produces to one cluster.
pub struct KafkaSink {
    producers: Arc<Producers>,
    /// Produces each record in a request of its own.
    alone: OnceLock<Client>,
    in_flight: Arc<InFlight>,
    topics: Vec<String>,
    settings: settings::Settings,
    sizes: verify::Sizes,
    leaders: leaders::KnownLeaders,
    /// They keep the secret in force and begin rounds, and end with the sink.
    _tasks: JoinSet<()>,
}

impl KafkaSink {
    /// Builds the producer. A wrong property is `Misconfigured`; the brokers need not be there.
    /// `on_password` is called when a password file has changed, with whether it is of use.
    pub fn open(
        config: &KafkaConfig,
        options: SinkOptions,
        on_password: impl Fn(bool) + Send + 'static,
    ) -> Result<Self, SinkError> {
        let settings = settings::Settings::new(config, &options)?;
        let in_flight = Arc::new(InFlight::new(options.in_flight_batches_max));
        let topics = topics(options.streams);
        let common = Common {
            reports: Reports::new(in_flight.clone()),
            keyring: Arc::new(Keyring::default()),
            topics: native_names(&topics)?,
        };
        let login = settings.login.clone();
        login.begin(&common.keyring);
        let first = first_client(&settings, &common)?;
        let further = settings.further.clone();
        let producers = Producers::new(first, further, &topics, in_flight.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(login.keep(common.keyring, common.reports, on_password));
        tasks.spawn(producers.clone().keep());
        Ok(Self {
            producers,
            alone: OnceLock::new(),
            in_flight,
            sizes: verify::Sizes::unknown(topics.len()),
            leaders: leaders::KnownLeaders::none(topics.len()),
            topics,
            settings,
            _tasks: tasks,
        })
    }

    /// Builds all that can be built without the brokers, and with a file's password only if files
    /// are to be read. A wrong property, and a file that cannot be read, is `Misconfigured`.
    pub fn check(
        config: &KafkaConfig,
        options: &SinkOptions,
        reads_files: bool,
    ) -> Result<(), SinkError> {
        let config = match reads_files {
            true => config.clone(),
            false => login::with_any_password(config),
        };
        let settings = settings::Settings::new(&config, options)?;
        let mut nowhere = settings.client.clone();
        nowhere.remove("bootstrap.servers");
        let built: Result<BaseProducer, KafkaError> = nowhere.create();
        built
            .map(drop)
            .map_err(|error| settings.misconfigured(error))
    }

    /// Counts the producers that records go by at present.
    pub fn producers(&self) -> usize {
        self.producers.count()
    }

    /// Returns the time that acknowledgements take of late; 0 while it is not known.
    pub(crate) fn ack_time(&self) -> Duration {
        self.in_flight.ack_time()
    }

    /// Produces the records in their order and waits for their delivery reports.
    pub async fn deliver(&self, stream: StreamIndex, records: &[Record]) -> Outcomes {
        let nobody = Progress::default();
        self.deliver_with(stream, records, &nobody).await
    }

    /// Delivers as [`deliver`](Self::deliver) does; `progress` tells of the reports that have come.
    pub(crate) async fn deliver_with(
        &self,
        stream: StreamIndex,
        records: &[Record],
        progress: &Progress,
    ) -> Outcomes {
        if records.is_empty() {
            return Outcomes::DELIVERED;
        }
        let outcomes = self.produce_all(stream, records, progress).await;
        let Outcomes::Each(mut outcomes) = outcomes else {
            return outcomes;
        };
        debug_assert_eq!(outcomes.len(), records.len(), "an outcome for each record");
        let is_refused = |index: &usize| is_refused(&outcomes[*index]);
        let refused: Vec<usize> = (0..records.len()).filter(is_refused).collect();
        if refused.is_empty() {
            return Outcomes::Each(outcomes);
        }
        let alone = refused.iter().map(|&index| &records[index]);
        let again = self.produce_alone(stream, alone).await;
        for (place, &index) in refused.iter().enumerate() {
            outcomes[index] = judge_time(&records[index], again.get(place).clone());
        }
        Outcomes::Each(outcomes)
    }

    async fn produce_all(
        &self,
        stream: StreamIndex,
        records: &[Record],
        progress: &Progress,
    ) -> Outcomes {
        let partitions = || self.partition_count(stream);
        if let Some(strands) = self.producers.strands(stream, partitions) {
            let produced = self.produce_in_rounds(strands, stream, records, progress);
            return produced.await;
        }
        let producer = self.producers.straight();
        let produced = self.produce(producer, stream, records.iter(), progress);
        produced.await
    }

    async fn produce_alone(
        &self,
        stream: StreamIndex,
        records: impl ExactSizeIterator<Item = &Record>,
    ) -> Outcomes {
        match self.alone() {
            Some(alone) => {
                let nobody = Progress::default();
                let produced = self.produce(alone.producer(), stream, records, &nobody);
                produced.await
            }
            None => Outcomes::All(Outcome::Retryable("no producer for single records".into())),
        }
    }

    fn alone(&self) -> Option<&Client> {
        if self.alone.get().is_none() {
            let made = self.producers.first().beside(self.settings.alone());
            let made =
                made.inspect_err(|error| tracing::warn!(%error, "no producer for single records"));
            let _ = self.alone.set(made.ok()?);
        }
        self.alone.get()
    }

    async fn produce(
        &self,
        producer: Arc<Producer>,
        stream: StreamIndex,
        records: impl ExactSizeIterator<Item = &Record>,
        progress: &Progress,
    ) -> Outcomes {
        let Some(batch) = self.in_flight.begin(records.len(), None) else {
            return self.too_many().await;
        };
        progress.follow(batch.arrivals());
        for (index, record) in records.enumerate() {
            let message = message(record, batch.opaque(index));
            self.send(&producer, stream, message);
        }
        drop(producer);
        batch.reported().await
    }

    async fn produce_in_rounds(
        &self,
        strands: &Arc<Strands>,
        stream: StreamIndex,
        records: &[Record],
        progress: &Progress,
    ) -> Outcomes {
        let places = Arc::new(strands.places(records));
        let Some(batch) = self.in_flight.begin(records.len(), Some(places.clone())) else {
            return self.too_many().await;
        };
        progress.follow(batch.arrivals());
        for (index, record) in records.iter().enumerate() {
            let message = message(record, batch.opaque(index));
            match places.of(index) {
                Some(place) => places.wait(place, waiting(record, message)),
                None => self.send(&self.producers.straight(), stream, message),
            }
        }
        batch.reported().await
    }

    async fn too_many(&self) -> Outcomes {
        // Reports, which make room, are counted on this thread: a caller that tries again at once
        // must not keep them out.
        yield_now().await;
        Outcomes::All(Outcome::Retryable("too many batches in flight".into()))
    }

    fn send(&self, producer: &Producer, stream: StreamIndex, message: Message<&str, &Bytes>) {
        let opaque = message.opaque;
        if let Err(code) = producer.send(stream.get(), message) {
            self.in_flight.fail(opaque, code);
        }
    }
}

fn first_client(settings: &settings::Settings, common: &Common) -> Result<Client, SinkError> {
    let client = Client::new(settings.client.clone(), common.clone());
    client.map_err(|error| settings.misconfigured(error))
}

fn topics(streams: Vec<StreamConfig>) -> Vec<String> {
    streams.into_iter().map(|stream| stream.target).collect()
}

/// Returns the topics' names, for librdkafka.
fn native_names(topics: &[String]) -> Result<Arc<[CString]>, SinkError> {
    let names: Result<_, _> = topics
        .iter()
        .map(|topic| CString::new(topic.as_str()))
        .collect();
    names.map_err(|_| SinkError::Misconfigured("FOREBAY_STREAMS: a topic's name has no NUL".into()))
}

/// Makes the message that a record is downstream.
fn message(record: &Record, opaque: usize) -> Message<&str, &Bytes> {
    Message {
        key: record.key(),
        value: &record.payload,
        timestamp: record.received_at.0 as i64,
        headers: headers(record),
        opaque,
    }
}

/// Makes the record's message one that waits from now on.
fn waiting(record: &Record, message: Message<&str, &Bytes>) -> Waiting {
    Waiting {
        message: message.into_owned(),
        bytes: record.sent_bytes() + record.device.as_str().len() + FRAMING_BYTES,
        since: Instant::now(),
    }
}

fn headers(record: &Record) -> Headers {
    let mut headers = Headers::with_capacity(3 + record.headers.len());
    if let Some(content_type) = &record.content_type {
        headers.add("content-type", content_type.as_bytes());
    }
    if let Some(trace) = &record.trace {
        headers.add("traceparent", trace.as_str().as_bytes());
    }
    headers.add("record-id", record.id.as_str(&mut [0; 36]).as_bytes());
    for (name, value) in record.headers.iter() {
        headers.add(name, value.as_bytes());
    }
    headers
}

/// Whether the topic has a record whose production failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InTopic {
    No,
    Perhaps,
}

/// Returns the outcome that a failure means for its record. Refused for good is only a record that
/// is at fault itself; a topic that is gone or closed to us may be there again later, and the
/// record must not be lost over it.
fn outcome(code: RDKafkaErrorCode, in_topic: InTopic) -> Outcome {
    use RDKafkaErrorCode::*;
    let reason = || format!("{code:?}").into();
    match code {
        _ if in_topic == InTopic::Perhaps => Outcome::Unknown,
        // The broker's own "unknown error": it does not say whether it wrote.
        Unknown => Outcome::Unknown,
        // A request that is larger than a segment: its records go one by one, and one alone is too
        // large for the topic.
        MessageSizeTooLarge
        | MessageBatchTooLarge
        | InvalidMessageSize
        | InvalidRecord
        | InvalidDifferentRecord
        | InvalidTimestamp
        | PolicyViolation => Outcome::Permanent(reason()),
        TopicAuthorizationFailed
        | ClusterAuthorizationFailed
        | UnknownTopicOrPartition
        | UnknownTopic
        | InvalidTopic
        | InvalidRequiredAcks
        | UnsupportedForMessageFormat
        | UnsupportedCompressionType => Outcome::Barred(reason()),
        _ => Outcome::Retryable(reason()),
    }
}

/// A record that came this lately has a time that the gateway's clock tells now.
const LATELY: Duration = Duration::from_secs(60);

/// The reason in the dead letters and on `/readyz` for a time that brokers refuse.
const CLOCK_REFUSED: &str = "InvalidTimestamp: the brokers refuse the time of receipt: check this machine's clock, or the \
     topic's message.timestamp.before.max.ms and after.max.ms";

/// Judges a time that the broker refuses. It is the gateway's clock's fault, not the record's, and
/// none of its neighbours would pass. It is the record's own only after it has waited: its time
/// does not change any more.
fn judge_time(record: &Record, outcome: Outcome) -> Outcome {
    let is_time =
        |reason: &Reason| **reason == *format!("{:?}", RDKafkaErrorCode::InvalidTimestamp);
    let latest_old = Timestamp::now().0.saturating_sub(LATELY.as_millis() as u64);
    match outcome {
        Outcome::Permanent(reason) if is_time(&reason) && record.received_at.0 > latest_old => {
            Outcome::Barred(CLOCK_REFUSED.into())
        }
        outcome => outcome,
    }
}

fn is_refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Permanent(_))
}

fn code_of(error: &KafkaError) -> RDKafkaErrorCode {
    match error {
        KafkaError::AdminOp(code) => *code,
        error => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_record_at_fault_is_refused_for_good_and_doubt_stays_doubt() {
        use RDKafkaErrorCode::*;
        for code in [MessageSizeTooLarge, MessageBatchTooLarge, InvalidRecord] {
            assert!(is_refused(&outcome(code, InTopic::No)), "{code:?}");
        }
        for code in [MessageTimedOut, NotEnoughReplicas, Fatal] {
            assert_eq!(
                outcome(code, InTopic::No),
                Outcome::Retryable(format!("{code:?}").into())
            );
        }
        for code in [
            TopicAuthorizationFailed,
            UnknownTopicOrPartition,
            UnsupportedCompressionType,
        ] {
            assert_eq!(
                outcome(code, InTopic::No),
                Outcome::Barred(format!("{code:?}").into())
            );
        }
        for code in [MessageTimedOut, MessageSizeTooLarge, RequestTimedOut] {
            assert_eq!(outcome(code, InTopic::Perhaps), Outcome::Unknown);
        }
        assert_eq!(outcome(Unknown, InTopic::No), Outcome::Unknown);
    }
}
