//! Reads a Kafka topic from its beginning to where it ended when the audit began, one partition
//! after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Auditor, Found};

/// The most that the brokers take to answer about a topic.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The most that is waited for a record at a time.
const POLL: Duration = Duration::from_millis(200);

/// Silence after which the rest of the records counts as not to be had.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub(crate) fn read(bootstrap: &str, topic: &str, auditor: &mut dyn Auditor) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "forebay-loadtest-audit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()?;
    for number in partitions(&consumer, topic)? {
        let (first, end) = consumer.fetch_watermarks(topic, number, ANSWER_MAX)?;
        let mut partition = Partition {
            consumer: &consumer,
            topic,
            number,
            next: first,
            end,
        };
        partition.read(auditor)?;
    }
    Ok(())
}

fn partitions(consumer: &BaseConsumer, topic: &str) -> Result<Vec<i32>> {
    let metadata = consumer.fetch_metadata(Some(topic), ANSWER_MAX);
    let metadata = metadata.context("the topic")?;
    let mut numbers = Vec::new();
    for topic in metadata.topics() {
        numbers.extend(topic.partitions().iter().map(|partition| partition.id()));
    }
    ensure!(!numbers.is_empty(), "there is no topic {topic}");
    Ok(numbers)
}

/// A partition that is being read.
struct Partition<'a> {
    consumer: &'a BaseConsumer,
    topic: &'a str,
    number: i32,
    /// The offset that is read next.
    next: i64,
    end: i64,
}

impl Partition<'_> {
    fn read(&mut self, auditor: &mut dyn Auditor) -> Result<()> {
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(self.topic, self.number, Offset::Offset(self.next))?;
        self.consumer.assign(&assignment)?;
        let mut heard = Instant::now();
        while self.next < self.end {
            let Self {
                topic,
                number,
                next,
                ..
            } = self;
            ensure!(
                heard.elapsed() < SILENCE_MAX,
                "{topic}/{number} is silent at {next} of {}",
                self.end
            );
            self.skip_markers()?;
            if let Some(message) = self.consumer.poll(POLL) {
                heard = Instant::now();
                self.take(&message?, auditor);
            }
        }
        Ok(())
    }

    /// Follows the consumer past transaction markers, which have offsets and are not handed out.
    fn skip_markers(&mut self) -> Result<()> {
        let positions = self.consumer.position()?;
        let found = positions.find_partition(self.topic, self.number);
        if let Some(Offset::Offset(position)) = found.map(|found| found.offset()) {
            self.next = self.next.max(position);
        }
        Ok(())
    }

    fn take(&mut self, message: &BorrowedMessage, auditor: &mut dyn Auditor) {
        self.next = message.offset() + 1;
        if message.offset() < self.end {
            let device = std::str::from_utf8(message.key().unwrap_or_default());
            auditor.take(&Found {
                device: device.unwrap_or("?"),
                payload: message.payload().unwrap_or_default(),
            });
        }
    }
}
