//! Reads a Kafka topic from its beginning to where it ended when the audit began, one partition
//! after the other.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::{Comparison, Found};

const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Without a record for this long, the rest is not to be had.
const SILENCE_MAX: Duration = Duration::from_secs(60);

pub fn read(bootstrap: &str, topic: &str, comparison: &mut Comparison) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "forebay-loadtest-audit")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .create()?;
    let metadata = consumer
        .fetch_metadata(Some(topic), ANSWER_MAX)
        .context("the topic")?;
    let partitions: Vec<i32> = metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
        .map(|partition| partition.id())
        .collect();
    ensure!(!partitions.is_empty(), "there is no topic {topic}");
    for partition in partitions {
        let (first, end) = consumer.fetch_watermarks(topic, partition, ANSWER_MAX)?;
        read_partition(&consumer, (topic, partition), first..end, comparison)?;
    }
    Ok(())
}

fn read_partition(
    consumer: &BaseConsumer,
    (topic, partition): (&str, i32),
    offsets: std::ops::Range<i64>,
    comparison: &mut Comparison,
) -> Result<()> {
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, partition, Offset::Offset(offsets.start))?;
    consumer.assign(&assignment)?;
    let mut next = offsets.start;
    let mut heard = Instant::now();
    while next < offsets.end {
        ensure!(
            heard.elapsed() < SILENCE_MAX,
            "{topic}/{partition} is silent at {next} of {}",
            offsets.end
        );
        // Transaction markers have offsets, and are not handed out.
        let position = consumer
            .position()?
            .find_partition(topic, partition)
            .map(|found| found.offset());
        if let Some(Offset::Offset(position)) = position {
            next = next.max(position);
        }
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            continue;
        };
        let message = message?;
        heard = Instant::now();
        next = message.offset() + 1;
        if message.offset() < offsets.end {
            let device = std::str::from_utf8(message.key().unwrap_or_default()).unwrap_or("?");
            comparison.take(&Found {
                device,
                payload: message.payload().unwrap_or_default(),
            });
        }
    }
    Ok(())
}
