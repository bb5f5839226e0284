//! The Kafka sink against a real broker, and against librdkafka's mock cluster with faults.
#![cfg(feature = "kafka")]

#[path = "support/kafka.rs"]
mod kafka;

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use forebay::config::{KafkaConfig, StreamConfig};
use forebay::record::{AckSlot, DeviceId, Outcomes, Permit, Record, RecordId, StreamIndex, Timestamp};
use forebay::sink::SinkOptions;
use forebay::sink::kafka::KafkaSink;

use self::kafka::{Kafka, Properties};

static RESERVED_BYTES: AtomicUsize = AtomicUsize::new(0);
const STREAM: StreamIndex = StreamIndex(0);

fn record(device: &str, body: impl Into<Bytes>) -> Record {
    Record {
        device: DeviceId::parse(device).unwrap(),
        payload: body.into(),
        content_type: None,
        id: RecordId::new(Timestamp::now()),
        received_at: Timestamp::now(),
        ack: AckSlot::NONE,
        permit: Permit::holding(&RESERVED_BYTES, 0),
    }
}

fn options(topic: &str) -> SinkOptions {
    let streams = vec![StreamConfig { name: "telemetry".into(), target: topic.into() }];
    SinkOptions { streams, body_bytes_max: 256 << 10, ack_timeout: Duration::from_secs(10), in_flight_batches_max: 64 }
}

fn sink(properties: Properties, topic: &str) -> KafkaSink {
    KafkaSink::open(&KafkaConfig { properties }, options(topic)).unwrap()
}

#[tokio::test]
async fn records_arrive_by_mutual_tls_and_by_password() {
    let broker = Kafka::shared();
    let listeners = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].map(|mechanism| broker.sasl(mechanism));
    broker.create_topic("listeners", 1, &[]).await;
    for listener in [broker.plain(), broker.mutual_tls()].into_iter().chain(listeners) {
        let sink = sink(listener, "listeners");
        sink.verify().await.unwrap();
        assert_eq!(sink.deliver(STREAM, &[record("device", "x")]).await, Outcomes::DELIVERED);
    }
    assert_eq!(broker.read_topic("listeners").len(), 5);
}
