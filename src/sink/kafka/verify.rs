//! Are the topics there, and do they take the largest record?

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaRespErr;

use super::in_flight::Reports;
use super::settings::{MESSAGE_OVERHEAD_BYTES, misconfigured};
use super::{KafkaSink, SinkError};

/// How long the brokers get for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);

impl KafkaSink {
    /// Asks the brokers for each topic and, until they have answered once, how large a record it takes.
    pub async fn verify(&self) -> Result<(), SinkError> {
        let (producer, topics) = (self.producer.clone(), self.topics.clone());
        let find = move || topics.iter().try_for_each(|topic| find_topic(&producer, topic));
        tokio::task::spawn_blocking(find).await.map_err(|error| SinkError::Away(error.to_string()))??;
        if !self.fits.load(Ordering::Relaxed) {
            self.check_sizes().await?;
            self.fits.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    async fn check_sizes(&self) -> Result<(), SinkError> {
        let admin: AdminClient<DefaultClientContext> = self.settings.client.create().map_err(misconfigured)?;
        let topics: Vec<_> = self.topics.iter().map(|topic| ResourceSpecifier::Topic(topic)).collect();
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let answers = admin.describe_configs(&topics, &options).await.map_err(away)?;
        for (topic, answer) in self.topics.iter().zip(answers) {
            // Who may write a topic may not always read its settings; then the brokers will tell, record by record.
            let Ok(settings) = answer else { continue };
            let entry = settings.entries.iter().find(|entry| entry.name == "max.message.bytes");
            let bytes_max = entry.and_then(|entry| entry.value.as_ref()?.parse::<usize>().ok());
            self.check_size(topic, bytes_max.unwrap_or(usize::MAX))?;
        }
        Ok(())
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
}

fn find_topic(producer: &Arc<BaseProducer<Reports>>, topic: &str) -> Result<(), SinkError> {
    let metadata = producer.client().fetch_metadata(Some(topic), TIMEOUT).map_err(away)?;
    let error = metadata.topics().iter().find(|found| found.name() == topic).and_then(|found| found.error());
    match error {
        None => Ok(()),
        Some(
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
        ) => {
            let advice = "create it, or name another with FOREBAY_STREAMS=name=topic";
            Err(SinkError::Misconfigured(format!("topic {topic} does not exist: {advice}")))
        }
        Some(error) => {
            let code = RDKafkaErrorCode::from(error);
            let is_forbidden = code == RDKafkaErrorCode::TopicAuthorizationFailed;
            let text = format!("topic {topic}: {code}");
            Err(if is_forbidden { SinkError::Misconfigured(text) } else { SinkError::Away(text) })
        }
    }
}

fn away(error: KafkaError) -> SinkError {
    SinkError::Away(format!("Kafka does not answer: {error}"))
}
