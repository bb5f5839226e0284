//! Are the topics there, and do they take the largest record?
//!
//! Delivery's watch asks, once a second at most. Until the topics' sizes are known their settings are asked for, and
//! nothing else names the topics: many brokers make a topic that a producer asks for, which would hide that a
//! name is wrong. After that the producer itself asks, over the connections that carry the records.
//! Brokers that turn us away (password, certificate) are a fault of the configuration; the rest may pass.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ConfigResource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::task::spawn_blocking;

use super::native::Producer;
use super::settings::MESSAGE_OVERHEAD_BYTES;
use super::{KafkaSink, SinkError, code_of};

/// How long the brokers get for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How often settings are asked for in vain, of brokers that answer otherwise, until they are taken for ones that tell none.
const SETTINGS_ATTEMPTS: usize = 2;

pub type Admin = AdminClient<DefaultClientContext>;

impl KafkaSink {
    /// Asks the brokers for each topic and, until they have answered once, how large a record it takes.
    pub async fn verify(&self) -> Result<(), SinkError> {
        let found = match self.fits.load(Ordering::Relaxed) {
            true => self.find_topics().await,
            false => self.check_topics().await,
        };
        found.map_err(|error| match error {
            SinkError::Away(reason) => self.explain(reason),
            misconfigured @ SinkError::Misconfigured(_) => misconfigured,
        })?;
        self.client.reports().all_is_well();
        Ok(())
    }

    async fn check_topics(&self) -> Result<(), SinkError> {
        match self.check_sizes().await {
            Err(SinkError::Away(reason)) => self.do_without_sizes(reason).await?,
            untold => self.find_listed(untold?).await?,
        }
        self.find_topics().await?;
        self.fits.store(true, Ordering::Relaxed);
        *self.admin.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// No settings are told, for this reason. That may be for ever, on a cluster that answers otherwise.
    async fn do_without_sizes(&self, reason: String) -> Result<(), SinkError> {
        self.find_listed(self.topics.clone()).await?;
        let is_last = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1 >= SETTINGS_ATTEMPTS;
        if is_last {
            Ok(())
        } else {
            Err(SinkError::Away(reason))
        }
    }

    /// Are the topics among all that there are? A long list, but asking for it makes no topic.
    async fn find_listed(&self, topics: Vec<String>) -> Result<(), SinkError> {
        if topics.is_empty() {
            return Ok(());
        }
        self.ask(move |producer| {
            let metadata = producer
                .client()
                .fetch_metadata(None, TIMEOUT)
                .map_err(|error| away(&error))?;
            let listed: HashSet<_> = metadata.topics().iter().map(|topic| topic.name()).collect();
            topics
                .iter()
                .find(|topic| !listed.contains(topic.as_str()))
                .map_or(Ok(()), |topic| Err(missing(topic)))
        })
        .await
    }

    async fn find_topics(&self) -> Result<(), SinkError> {
        let topics = self.topics.clone();
        self.ask(move |producer| {
            topics
                .iter()
                .try_for_each(|topic| find_topic(producer, topic))
        })
        .await
    }

    /// Asks by the producer, which waits for the answer on another thread.
    async fn ask(
        &self,
        question: impl FnOnce(&Producer) -> Result<(), SinkError> + Send + 'static,
    ) -> Result<(), SinkError> {
        // Told even though the producer is replaced: the next may fail as well, and not at once.
        if let Some(reason) = self.client.failure() {
            return Err(SinkError::Away(reason));
        }
        let producer = self.client.producer();
        let answer = spawn_blocking(move || question(&producer)).await;
        answer.unwrap_or_else(|error| Err(SinkError::Away(error.to_string())))
    }

    /// The topics whose settings are not told: they are not there, or we may not read them.
    async fn check_sizes(&self) -> Result<Vec<String>, SinkError> {
        let topics: Vec<_> = self
            .topics
            .iter()
            .map(|topic| ResourceSpecifier::Topic(topic))
            .collect();
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let answers = self
            .admin()?
            .describe_configs(&topics, &options)
            .await
            .map_err(|error| away(&error))?;
        let mut untold = Vec::new();
        for (topic, answer) in self.topics.iter().zip(answers) {
            // The client library gives a refusal of one topic as no settings at all.
            match answer.ok().filter(|settings| !settings.entries.is_empty()) {
                Some(settings) => self.check_size(topic, message_bytes_max(&settings))?,
                None => untold.push(topic.clone()),
            }
        }
        Ok(untold)
    }

    /// Kept while it is needed: its connection may take longer to make than one question may take.
    fn admin(&self) -> Result<Arc<Admin>, SinkError> {
        let mut admin = self.admin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(admin) = &*admin {
            return Ok(admin.clone());
        }
        let made = self
            .settings
            .client
            .create()
            .map_err(|error| self.settings.misconfigured(error))?;
        Ok(admin.insert(Arc::new(made)).clone())
    }

    fn check_size(&self, topic: &str, message_bytes_max: usize) -> Result<(), SinkError> {
        let needed = self.settings.body_bytes_max + MESSAGE_OVERHEAD_BYTES;
        if needed <= message_bytes_max {
            return Ok(());
        }
        Err(SinkError::Misconfigured(format!(
            "topic {topic} takes messages of {message_bytes_max} bytes (max.message.bytes), too few for a body of \
             FOREBAY_BODY_BYTES_MAX={}B and its overhead: raise max.message.bytes to {needed} or lower FOREBAY_BODY_BYTES_MAX",
            self.settings.body_bytes_max
        )))
    }

    /// What librdkafka last had to say about its connections tells more than that an answer is missing.
    fn explain(&self, reason: String) -> SinkError {
        let Some(trouble) = self.client.reports().trouble() else {
            return SinkError::Away(reason);
        };
        let mut text = format!("{reason}; {}", trouble.reason);
        // A listener of another protocol hangs up; so does a broker that ends, but not before we were ever connected.
        if !self.fits.load(Ordering::Relaxed) && trouble.reason.contains("Disconnected") {
            text += "; does FOREBAY_KAFKA_SECURITY_PROTOCOL fit this listener?";
        }
        if trouble.turns_us_away() {
            SinkError::Misconfigured(text)
        } else {
            SinkError::Away(text)
        }
    }
}

fn find_topic(producer: &Producer, topic: &str) -> Result<(), SinkError> {
    let metadata = producer
        .client()
        .fetch_metadata(Some(topic), TIMEOUT)
        .map_err(|error| away(&error))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found
        .and_then(|found| found.error())
        .map(RDKafkaErrorCode::from)
    {
        None => Ok(()),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
            Err(missing(topic))
        }
        Some(
            code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::InvalidTopic),
        ) => Err(SinkError::Misconfigured(format!("topic {topic}: {code}"))),
        Some(code) => Err(SinkError::Away(format!("topic {topic}: {code}"))),
    }
}

/// The largest message that the topic takes; no limit where it does not say.
fn message_bytes_max(settings: &ConfigResource) -> usize {
    let entry = settings
        .entries
        .iter()
        .find(|entry| entry.name == "max.message.bytes");
    entry
        .and_then(|entry| entry.value.as_ref()?.parse().ok())
        .unwrap_or(usize::MAX)
}

fn missing(topic: &str) -> SinkError {
    let advice = "create it, or name another with FOREBAY_STREAMS=name=topic";
    SinkError::Misconfigured(format!(
        "topic {topic} does not exist, or may not be seen: {advice}"
    ))
}

fn away(error: &KafkaError) -> SinkError {
    SinkError::Away(format!("Kafka does not answer: {}", code_of(error)))
}
