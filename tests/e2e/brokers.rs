//! The Kafka brokers that the tests share: one that is always well, and one that may be stopped.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::harness::Setup;
use crate::kafka::{Kafka, Properties, Stored, read_topic, variables};

/// A gateway whose one stream is this topic of the broker that is always well; the topic is made.
pub fn gateway_to(topic: &str) -> Setup {
    gateway_with(topic, &[])
}

/// The same, with settings for the topic.
pub fn gateway_with(topic: &str, settings: &[(&str, &str)]) -> Setup {
    create(Kafka::shared(), topic, settings);
    setup(Kafka::shared(), topic)
}

/// The bodies of a topic's records as text, without the load's padding.
pub fn bodies(topic: &str) -> Vec<String> {
    bodies_of(Kafka::shared(), topic)
}

/// The same with the record id of each.
pub fn bodies_and_ids(topic: &str) -> Vec<(String, String)> {
    bodies_and_ids_at(&Kafka::shared().plain(), topic)
}

/// A broker to be stopped by one test at a time, which has it for itself while it holds this.
pub fn pausable() -> Pausable {
    static PAUSABLE: OnceLock<Mutex<Kafka>> = OnceLock::new();
    let kafka = PAUSABLE.get_or_init(|| Mutex::new(Kafka::start()));
    // A test that failed has resumed it all the same.
    Pausable {
        kafka: kafka.lock().unwrap_or_else(PoisonError::into_inner),
    }
}

pub struct Pausable {
    pub kafka: MutexGuard<'static, Kafka>,
}

impl Pausable {
    /// A gateway whose one stream is this topic; the topic is made.
    pub fn gateway_to(&self, topic: &str) -> Setup {
        create(&self.kafka, topic, &[]);
        setup(&self.kafka, topic)
    }

    pub fn bodies(&self, topic: &str) -> Vec<String> {
        bodies_of(&self.kafka, topic)
    }

    pub fn bodies_and_ids(&self, topic: &str) -> Vec<(String, String)> {
        bodies_and_ids_at(&self.kafka.plain(), topic)
    }

    /// Stops the process of the broker until the result is dropped: connections stay, nothing is answered.
    pub fn pause(&self) -> Paused<'_> {
        self.kafka.pause();
        Paused(&self.kafka)
    }
}

pub struct Paused<'a>(&'a Kafka);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

fn setup(kafka: &Kafka, topic: &str) -> Setup {
    Setup::new()
        .set_all(variables(&kafka.plain()))
        .set("FOREBAY_SINK", "kafka")
        .set("FOREBAY_STREAMS", format!("telemetry={topic}"))
}

fn create(kafka: &Kafka, topic: &str, settings: &[(&str, &str)]) {
    wait(kafka.create_topic(topic, 3, settings));
}

fn bodies_of(kafka: &Kafka, topic: &str) -> Vec<String> {
    bodies_and_ids_at(&kafka.plain(), topic)
        .into_iter()
        .map(|(body, _)| body)
        .collect()
}

/// The same of any cluster.
pub fn bodies_and_ids_at(cluster: &Properties, topic: &str) -> Vec<(String, String)> {
    let records = read_topic(cluster, topic);
    let id = |record: &Stored| {
        record
            .headers
            .iter()
            .find(|(name, _)| name == "record-id")
            .map(|(_, id)| text(id))
    };
    records
        .iter()
        .map(|record| {
            (
                text(record.value.as_deref().unwrap_or_default()),
                id(record).unwrap_or_default(),
            )
        })
        .collect()
}

pub fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim_end().to_owned()
}

/// Runs a client of a broker to its end.
pub fn wait<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}
