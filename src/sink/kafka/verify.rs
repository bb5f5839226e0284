//! Verification of the topics: are they there, and do they take the largest record?
//!
//! Delivery's watch asks, for each topic once a second at most. The producer itself asks for the
//! topics, over the connections that carry the records, and makes none: `allow.auto.create.topics`
//! is off. Until a topic's size is known its settings are asked for. A topic that is missing or
//! closed to us is its own stream's trouble; brokers that do not answer, or turn us away (password,
//! certificate), are every stream's.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::task::spawn_blocking;

use super::client::Producer;
use super::leaders::Leaders;
use super::settings::MESSAGE_OVERHEAD_BYTES;
use super::{KafkaSink, SinkError, code_of};
use crate::record::StreamIndex;

/// Time that the brokers have for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Questions for settings without an answer, of brokers that answer others, after which they are
/// taken for brokers that tell none.
const SETTINGS_ATTEMPTS: usize = 2;

pub(crate) type Admin = AdminClient<DefaultClientContext>;

type Answer = Result<(), SinkError>;

/// The partitions of a topic, or why it cannot be used.
type Found = Result<Leaders, SinkError>;

/// The sizes that the topics take, as far as the brokers have told them.
pub(crate) struct Sizes {
    /// Whether each topic was found to take the largest record.
    fits: Box<[AtomicBool]>,
    /// Asks for the topics' settings; kept while a size is unknown: its connection may take longer
    /// to make than one question may take.
    admin: Mutex<Option<Arc<Admin>>>,
    /// Questions for settings that were not answered.
    unanswered: AtomicUsize,
}

impl Sizes {
    pub(crate) fn unknown(topics: usize) -> Self {
        Self {
            fits: (0..topics).map(|_| AtomicBool::new(false)).collect(),
            admin: Mutex::new(None),
            unanswered: AtomicUsize::new(0),
        }
    }

    fn is_known(&self, stream: StreamIndex) -> bool {
        self.fits[stream.get()].load(Ordering::Relaxed)
    }

    fn is_any_known(&self) -> bool {
        self.fits.iter().any(|fits| fits.load(Ordering::Relaxed))
    }

    fn fits(&self, stream: StreamIndex) {
        self.fits[stream.get()].store(true, Ordering::Relaxed);
        if self.fits.iter().all(|fits| fits.load(Ordering::Relaxed)) {
            *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl KafkaSink {
    /// Asks the brokers for each topic and, until they have answered once, how large a record it
    /// takes.
    pub async fn verify(&self, streams: &[StreamIndex]) -> Vec<Answer> {
        let mut answers = self.find_topics(streams).await;
        let is_away = |answer: &Answer| matches!(answer, Err(SinkError::Away(_)));
        if answers.iter().all(is_away) && !self.sizes.is_any_known() {
            // The first connection may take longer to make than one question may take.
            answers = self.find_topics(streams).await;
        }
        if let Some(place) = answers.iter().position(Result::is_ok) {
            self.measure_distance(streams[place]).await;
        }
        self.check_sizes(streams, &mut answers).await;
        for answer in &mut answers {
            if let Err(SinkError::Away(reason)) = answer {
                *answer = Err(self.explain(reason));
            }
        }
        if answers.iter().all(Result::is_ok) {
            self.producers.first().reports().all_is_well();
        }
        answers
    }

    /// Measures how far the brokers are, by a topic that is there.
    async fn measure_distance(&self, stream: StreamIndex) {
        let topic = self.topics[stream.get()].clone();
        let ask = move |producer: &Producer| find_topic(producer, &topic).is_ok();
        self.producers.measure(ask).await;
    }

    /// Asks by the producer, which waits for the answers on another thread.
    async fn find_topics(&self, streams: &[StreamIndex]) -> Vec<Answer> {
        // Told even though the producer is replaced: the next may fail as well, and not at once.
        if let Some(reason) = self.producers.failure() {
            return vec![Err(SinkError::Away(reason)); streams.len()];
        }
        let producer = self.producers.first().producer();
        let topics: Vec<String> = streams
            .iter()
            .map(|stream| self.topics[stream.get()].clone())
            .collect();
        let found = spawn_blocking(move || find_each(&producer, &topics)).await;
        let Ok(found) = found else {
            return vec![Err(SinkError::Away("the question failed".into())); streams.len()];
        };
        let mut answers = Vec::with_capacity(found.len());
        for (stream, found) in streams.iter().zip(found) {
            let topic = &self.topics[stream.get()];
            answers.push(found.map(|leaders| self.leaders.note(*stream, topic, leaders)));
        }
        answers
    }

    /// Holds the largest record against the topics that are there and whose size is not known.
    async fn check_sizes(&self, streams: &[StreamIndex], answers: &mut [Answer]) {
        debug_assert_eq!(answers.len(), streams.len(), "an answer for each stream");
        let mut places = Vec::new();
        let mut topics = Vec::new();
        for (place, stream) in streams.iter().enumerate() {
            if answers[place].is_ok() && !self.sizes.is_known(*stream) {
                places.push(place);
                topics.push(self.topics[stream.get()].as_str());
            }
        }
        if places.is_empty() {
            return;
        }
        let checked = match self.ask_sizes(&topics).await {
            Ok(checked) => checked,
            Err(answer) => vec![answer; places.len()],
        };
        for (place, answer) in places.into_iter().zip(checked) {
            if answer.is_ok() {
                self.sizes.fits(streams[place]);
            }
            answers[place] = answer;
        }
    }

    /// Asks for the topics' settings. Where there are none to be had the error is the answer for
    /// each of them.
    async fn ask_sizes(&self, topics: &[&str]) -> Result<Vec<Answer>, Answer> {
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let resources: Vec<_> = topics
            .iter()
            .map(|name| ResourceSpecifier::Topic(name))
            .collect();
        let admin = self.admin().map_err(Err)?;
        let told = admin.describe_configs(&resources, &options).await;
        let told = told.map_err(|error| self.do_without_sizes(&error))?;
        let mut answers = Vec::with_capacity(topics.len());
        for (topic, settings) in topics.iter().zip(told) {
            // A topic that is there, and whose settings we may not read, has no limit that we know.
            let bytes_max = settings.map_or(usize::MAX, |settings| record_bytes_max(&settings));
            answers.push(self.check_size(topic, bytes_max));
        }
        Ok(answers)
    }

    /// Answers without the topics' settings. That may be for ever, on a cluster that answers
    /// otherwise.
    fn do_without_sizes(&self, error: &KafkaError) -> Answer {
        let attempts = self.sizes.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        if attempts >= SETTINGS_ATTEMPTS {
            return Ok(());
        }
        Err(away(error))
    }

    fn admin(&self) -> Result<Arc<Admin>, SinkError> {
        let mut admin = self
            .sizes
            .admin
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(admin) = &*admin {
            return Ok(admin.clone());
        }
        let mut config = self.settings.client.clone();
        self.producers.first().keyring().configure(&mut config);
        let made = config.create();
        let made = made.map_err(|error| self.settings.misconfigured(error))?;
        let made: Arc<Admin> = Arc::new(made);
        self.producers.first().keyring().enter(&made);
        Ok(admin.insert(made).clone())
    }

    fn check_size(&self, topic: &str, record_bytes_max: usize) -> Answer {
        let needed = self.settings.body_bytes_max + MESSAGE_OVERHEAD_BYTES;
        if needed <= record_bytes_max {
            return Ok(());
        }
        Err(SinkError::Misconfigured(format!(
            "topic {topic} takes messages of {record_bytes_max} bytes (max.message.bytes, segment.bytes), too few for a body \
             of FOREBAY_BODY_BYTES_MAX={}B and its overhead: raise max.message.bytes to {needed} or lower FOREBAY_BODY_BYTES_MAX",
            self.settings.body_bytes_max
        )))
    }

    /// Adds librdkafka's latest trouble with its connections, which tells more than a missing
    /// answer does.
    fn explain(&self, reason: &str) -> SinkError {
        let Some(trouble) = self.producers.first().reports().trouble() else {
            return SinkError::Away(reason.into());
        };
        let mut text = format!("{reason}; {}", trouble.reason);
        // A listener of another protocol hangs up; so does a broker that ends, but not before we
        // were ever connected.
        if !self.sizes.is_any_known() && trouble.reason.contains("Disconnected") {
            text += "; does FOREBAY_KAFKA_SECURITY_PROTOCOL fit this listener?";
        }
        if trouble.turns_us_away() {
            SinkError::Closed(text)
        } else {
            SinkError::Away(text)
        }
    }
}

/// Asks for one topic after the other; where one gets no answer at all, the others are not asked
/// for.
fn find_each(producer: &Producer, topics: &[String]) -> Vec<Found> {
    let mut answers = Vec::with_capacity(topics.len());
    for topic in topics {
        match find_topic(producer, topic) {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                answers.resize_with(topics.len(), || Err(away(&error)));
                break;
            }
        }
    }
    answers
}

/// Asks the brokers for a topic. An error is that they say nothing.
fn find_topic(producer: &Producer, topic: &str) -> Result<Found, KafkaError> {
    let metadata = producer.client().fetch_metadata(Some(topic), TIMEOUT)?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    let Some(found) = found else {
        return Ok(Err(missing(topic)));
    };
    Ok(match found.error() {
        Some(code) => Err(unusable(topic, code.into())),
        None => Ok(Leaders::of(found.partitions())),
    })
}

/// Returns the error that a topic's error code means.
fn unusable(topic: &str, code: RDKafkaErrorCode) -> SinkError {
    use RDKafkaErrorCode::*;
    match code {
        UnknownTopicOrPartition | UnknownTopic => missing(topic),
        TopicAuthorizationFailed | InvalidTopic => {
            SinkError::Closed(format!("topic {topic}: {code}; {}", advice(code)))
        }
        _ => SinkError::Away(format!("topic {topic}: {code}")),
    }
}

/// Finds the largest message that the topic takes: a segment has to hold it, too. There is no limit
/// where it does not say.
fn record_bytes_max(settings: &ConfigResource) -> usize {
    let limits = settings
        .entries
        .iter()
        .filter(|entry| ["max.message.bytes", "segment.bytes"].contains(&entry.name.as_str()));
    limits
        .filter_map(|entry| entry.value.as_ref()?.parse().ok())
        .min()
        .unwrap_or(usize::MAX)
}

fn advice(code: RDKafkaErrorCode) -> &'static str {
    match code {
        RDKafkaErrorCode::TopicAuthorizationFailed => {
            "give the gateway's user Describe and Write on it, or name another with FOREBAY_STREAMS=name=topic"
        }
        _ => "name another with FOREBAY_STREAMS=name=topic",
    }
}

fn missing(topic: &str) -> SinkError {
    let advice = "create it, or name another with FOREBAY_STREAMS=name=topic";
    SinkError::Closed(format!(
        "topic {topic} does not exist, or may not be seen: {advice}"
    ))
}

fn away(error: &KafkaError) -> SinkError {
    SinkError::Away(format!("Kafka does not answer: {}", code_of(error)))
}
