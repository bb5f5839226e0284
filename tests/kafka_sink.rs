//! The Kafka sink against a real broker; with faults and with properties in the modules below.
#![cfg(feature = "kafka")]

#[path = "kafka_sink/faults.rs"]
mod faults;
#[path = "support/kafka.rs"]
mod kafka;
#[path = "kafka_sink/properties.rs"]
mod properties;
#[path = "kafka_sink/slow.rs"]
mod slow;
#[path = "support/tools.rs"]
mod tools;

use std::collections::HashMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forebay::internals::config::{KafkaConfig, StreamConfig};
use forebay::internals::record::{
    DeviceId, Headers, Outcome, Outcomes, Permit, Record, RecordId, StreamIndex, Timestamp,
};
use forebay::internals::sink::KafkaSink;
use forebay::internals::sink::{SinkError, SinkOptions};
use futures_util::future::join_all;

use self::kafka::{Kafka, Properties, Stored};

const STREAM: StreamIndex = StreamIndex(0);

fn record(device: &str, body: impl Into<Bytes>) -> Record {
    Record {
        device: DeviceId::parse(device).unwrap(),
        payload: body.into(),
        content_type: None,
        id: RecordId::new(Timestamp::now()),
        trace: None,
        headers: Headers::default(),
        received_at: Timestamp::now(),
        permit: Permit::without_budget(),
    }
}

fn options(topic: &str, ack_timeout: Duration) -> SinkOptions {
    let streams = vec![StreamConfig {
        name: "telemetry".into(),
        target: topic.into(),
    }];
    SinkOptions {
        streams,
        body_bytes_max: 256 << 10,
        ack_timeout,
        memory_bytes_max: 64 << 20,
        in_flight_batches_max: 64,
        threads: 1,
    }
}

fn open(
    properties: Properties,
    topic: &str,
    ack_timeout: Duration,
) -> Result<KafkaSink, SinkError> {
    KafkaSink::open(
        &KafkaConfig { properties },
        options(topic, ack_timeout),
        |_| {},
    )
}

async fn verify(sink: &KafkaSink) -> Result<(), SinkError> {
    sink.verify(&[STREAM]).await.remove(0)
}

fn sink(properties: Properties, topic: &str) -> KafkaSink {
    open(properties, topic, Duration::from_secs(10)).unwrap()
}

/// Values by key, in the order of the topic.
fn by_device(stored: &[Stored]) -> HashMap<&str, Vec<&[u8]>> {
    let mut devices: HashMap<&str, Vec<&[u8]>> = HashMap::new();
    for record in stored {
        let device = std::str::from_utf8(record.key.as_deref().unwrap()).unwrap();
        devices
            .entry(device)
            .or_default()
            .push(record.value.as_deref().unwrap());
    }
    devices
}

fn numbers(end: u32) -> Vec<Bytes> {
    (0..end).map(|number| number.to_string().into()).collect()
}

#[tokio::test]
async fn a_record_arrives_byte_for_byte_with_its_key_time_and_headers() {
    let broker = Kafka::shared();
    broker.create_topic("bytes", 1, &[]).await;
    let sink = sink(broker.plain(), "bytes");
    verify(&sink).await.unwrap();
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut binary = record("urn:plant/1@site-a_b.c", every_byte.clone());
    binary.content_type = Some("application/cbor".into());
    binary.id = RecordId::from_key(b"reading-17").unwrap();
    binary.received_at = Timestamp(1_700_000_000_123);
    let plain = record("d", vec![7; 256 << 10]);
    let plain_id = plain.id.as_str(&mut [0; 36]).as_bytes().to_vec();
    assert_eq!(
        sink.deliver(STREAM, &[binary, plain]).await,
        Outcomes::DELIVERED
    );

    let stored = broker.read_topic("bytes");
    let header = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    assert_eq!(
        stored[0],
        Stored {
            partition: 0,
            offset: 0,
            timestamp: Some(1_700_000_000_123),
            key: Some(b"urn:plant/1@site-a_b.c".to_vec()),
            value: Some(every_byte),
            headers: vec![
                header("content-type", b"application/cbor"),
                header("record-id", b"reading-17")
            ],
        }
    );
    assert_eq!(stored[1].value, Some(vec![7; 256 << 10]));
    assert_eq!(stored[1].headers, [header("record-id", &plain_id)]);
    assert_eq!(stored.len(), 2);
}

/// The hashes are those that Kafka's own tests expect of its Java client (UtilsTest.testMurmur2).
#[tokio::test]
async fn a_device_lands_on_the_partition_that_javas_producers_choose() {
    const PARTITIONS: i32 = 7;
    let hashes: [(&str, i32); 6] = [
        ("21", -973_932_308),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
        ("a-little-bit-longer-string", -1_486_304_829),
        (
            "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
            -58_897_971,
        ),
        ("abc", 479_470_107),
    ];
    let broker = Kafka::shared();
    broker.create_topic("murmur2", PARTITIONS, &[]).await;
    let sink = sink(broker.plain(), "murmur2");
    let records: Vec<_> = hashes
        .iter()
        .map(|(device, _)| record(device, "x"))
        .collect();
    assert_eq!(sink.deliver(STREAM, &records).await, Outcomes::DELIVERED);
    let stored = broker.read_topic("murmur2");
    for (device, hash) in hashes {
        let landed = stored
            .iter()
            .find(|record| record.key.as_deref() == Some(device.as_bytes()))
            .unwrap();
        assert_eq!(
            landed.partition,
            (hash & 0x7fff_ffff) % PARTITIONS,
            "{device}"
        );
    }
}

#[tokio::test]
async fn records_arrive_by_mutual_tls_and_by_password() {
    let broker = Kafka::shared();
    let listeners =
        ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].map(|mechanism| broker.sasl(mechanism));
    broker.create_topic("listeners", 1, &[]).await;
    for listener in [broker.mutual_tls()].into_iter().chain(listeners) {
        let sink = sink(listener, "listeners");
        verify(&sink).await.unwrap();
        assert_eq!(
            sink.deliver(STREAM, &[record("device", "x")]).await,
            Outcomes::DELIVERED
        );
    }
    assert_eq!(broker.read_topic("listeners").len(), 4);
}

/// Returns the error of `verify`, within its time.
async fn complaint(listener: Properties) -> SinkError {
    let sink = sink(listener, "strangers");
    let started = Instant::now();
    let error = verify(&sink).await.unwrap_err();
    assert!(
        started.elapsed() < Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    error
}

fn with(mut listener: Properties, property: &str, value: &str) -> Properties {
    kafka::set(&mut listener, property, value);
    listener
}

#[tokio::test]
async fn who_is_turned_away_is_told_why_and_soon() {
    let broker = Kafka::shared();
    broker.create_topic("strangers", 1, &[]).await;
    let refused = [
        (
            with(broker.sasl("PLAIN"), "sasl.password", "wrong"),
            "uthentication failed",
        ),
        (
            with(broker.sasl("SCRAM-SHA-512"), "sasl.password", "wrong"),
            "uthentication failed",
        ),
        (broker.mutual_tls_of_a_stranger(), "alert"),
        (
            with(
                broker.mutual_tls(),
                "ssl.ca.location",
                &broker.file("stranger.pem"),
            ),
            "certificate verify failed",
        ),
    ];
    let hung_up = [
        with(broker.mutual_tls(), "security.protocol", "plaintext"),
        with(broker.plain(), "security.protocol", "ssl"),
        with(broker.sasl("PLAIN"), "security.protocol", "ssl"),
    ];
    let refused =
        join_all(refused.map(|(listener, text)| async move { (complaint(listener).await, text) }));
    let (refused, hung_up) = tokio::join!(refused, join_all(hung_up.map(complaint)));
    for (error, says) in refused {
        assert!(
            matches!(&error, SinkError::Closed(text) if text.contains(says)),
            "{says}: {error:?}"
        );
    }
    for error in hung_up {
        assert!(
            matches!(&error, SinkError::Away(text) if text.contains("SECURITY_PROTOCOL")),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_away_and_nothing_is_written() {
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let properties = vec![("bootstrap.servers".into(), nobody.to_string())];
    let sink = open(properties, "nowhere", Duration::from_millis(100)).unwrap();
    let (started, records) = (Instant::now(), [record("device", "x")]);
    let deliver = async { (sink.deliver(STREAM, &records).await, started.elapsed()) };
    let (verified, (outcomes, elapsed)) = tokio::join!(verify(&sink), deliver);
    assert!(
        matches!(&verified, Err(SinkError::Away(text)) if text.contains("refused")),
        "{verified:?}"
    );
    assert_eq!(
        *outcomes.get(0),
        Outcome::Retryable("MessageTimedOut".into())
    );
    assert!(elapsed < Duration::from_secs(3), "{elapsed:?}");
}

/// Even where brokers make topics that are asked for: a name that is wrong stays wrong.
#[tokio::test]
async fn a_missing_topic_is_named_with_what_to_set_and_is_not_made() {
    let broker = Kafka::shared();
    let sink = sink(broker.plain(), "missing");
    for other in ["found", "found-too"] {
        let error = verify(&sink).await.unwrap_err();
        assert!(matches!(error, SinkError::Closed(_)), "{error:?}");
        assert!(
            error.to_string().contains("missing") && error.to_string().contains("FOREBAY_STREAMS"),
            "{error}"
        );
        // The broker makes topics in the order in which it was asked.
        broker.create_topic(other, 1, &[]).await;
    }
}

#[tokio::test]
async fn a_topic_that_does_not_take_the_largest_record_is_named_with_what_to_set() {
    let broker = Kafka::shared();
    broker
        .create_topic("narrow", 1, &[("max.message.bytes", "262144")])
        .await;
    let error = verify(&sink(broker.plain(), "narrow")).await.unwrap_err();
    assert!(matches!(error, SinkError::Misconfigured(_)), "{error:?}");
    for part in [
        "narrow",
        "max.message.bytes",
        "266240",
        "FOREBAY_BODY_BYTES_MAX",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    broker
        .create_topic("wide-enough", 1, &[("max.message.bytes", "266240")])
        .await;
    verify(&sink(broker.plain(), "wide-enough")).await.unwrap();
}

/// The topic was narrowed while the gateway ran. Brokers refuse a request of many records for the sake of one.
#[tokio::test]
async fn a_record_too_large_for_the_topic_is_refused_alone() {
    let broker = Kafka::shared();
    broker
        .create_topic("too-large", 1, &[("max.message.bytes", "20000")])
        .await;
    let sink = sink(broker.plain(), "too-large");
    let batches: Vec<Vec<_>> = (0..8)
        .map(|batch| {
            let body = |i| {
                if i == 7 {
                    vec![b'x'; 30_000]
                } else {
                    format!("{i}").into_bytes()
                }
            };
            (0..20)
                .map(|i| record(&format!("device-{batch}"), body(i)))
                .collect()
        })
        .collect();
    let delivered = join_all(batches.iter().map(|batch| sink.deliver(STREAM, batch))).await;
    for outcomes in delivered {
        for i in 0..20 {
            match (i, outcomes.get(i)) {
                (7, Outcome::Permanent(reason)) => assert_eq!(&**reason, "MessageSizeTooLarge"),
                (_, outcome) => assert_eq!((i, outcome), (i, &Outcome::Delivered)),
            }
        }
    }
    let stored = broker.read_topic("too-large");
    let kept: Vec<_> = numbers(20)
        .into_iter()
        .enumerate()
        .filter(|(i, _)| *i != 7)
        .map(|(_, body)| body)
        .collect();
    assert_eq!(stored.len(), 8 * 19);
    assert!(
        by_device(&stored).values().all(|bodies| *bodies == kept),
        "{:?}",
        by_device(&stored)
    );
}

#[tokio::test]
async fn batches_that_follow_each_other_keep_the_order_of_their_devices() {
    let broker = Kafka::shared();
    broker.create_topic("order", 3, &[]).await;
    let sink = sink(broker.plain(), "order");
    let batches: Vec<Vec<_>> = (0..60)
        .map(|batch| {
            (0..50)
                .map(|device| record(&format!("device-{device}"), format!("{batch}")))
                .collect()
        })
        .collect();
    let outcomes = join_all(batches.iter().map(|batch| sink.deliver(STREAM, batch))).await;
    assert!(
        outcomes
            .iter()
            .all(|outcomes| *outcomes == Outcomes::DELIVERED)
    );
    let stored = broker.read_topic("order");
    assert_eq!(stored.len(), 3000);
    for (device, bodies) in by_device(&stored) {
        assert_eq!(bodies, numbers(60), "{device}");
    }
}

/// Stopped for 15 s, a broker holds requests that it will yet act on: those are in doubt, the others are not.
#[tokio::test]
async fn a_broker_silent_for_15_seconds_leaves_true_outcomes_and_is_used_again() {
    let broker = Kafka::start();
    broker.create_topic("silence", 1, &[]).await;
    let sink = open(broker.plain(), "silence", Duration::from_secs(2)).unwrap();
    let deliver = async |i: u32| {
        let records = [record("device", format!("{i}"))];
        (
            i.to_string(),
            sink.deliver(STREAM, &records).await.get(0).clone(),
        )
    };
    assert_eq!(deliver(0).await.1, Outcome::Delivered);
    broker.pause();
    let (started, mut outcomes) = (Instant::now(), Vec::new());
    for round in 0.. {
        outcomes.extend(join_all((1..5).map(|i| deliver(round * 4 + i))).await);
        if started.elapsed() > Duration::from_secs(15) {
            break;
        }
    }
    assert!(
        started.elapsed() < Duration::from_secs(22),
        "a round may take a little more than 2 s"
    );
    assert!(matches!(verify(&sink).await, Err(SinkError::Away(_))));
    broker.resume();
    let resumed = Instant::now();
    while deliver(1000).await.1 != Outcome::Delivered {
        assert!(
            resumed.elapsed() < Duration::from_secs(10),
            "it does not recover"
        );
    }
    verify(&sink).await.unwrap();
    let stored = broker.read_topic("silence");
    assert!(
        outcomes
            .iter()
            .any(|(_, outcome)| *outcome == Outcome::Unknown),
        "{outcomes:?}"
    );
    for (body, outcome) in outcomes {
        let times = stored
            .iter()
            .filter(|record| record.value.as_deref() == Some(body.as_bytes()))
            .count();
        match outcome {
            Outcome::Delivered => assert_eq!(times, 1, "{body}"),
            Outcome::Retryable(_) => assert_eq!(times, 0, "{body}"),
            Outcome::Unknown => assert!(times <= 1, "{body}"),
            Outcome::Barred(reason) | Outcome::Permanent(reason) => panic!("{body}: {reason}"),
        }
    }
}
