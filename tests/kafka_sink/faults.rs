//! librdkafka's mock cluster answers with faults: what each means for the records, and that the sink survives it.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey::{self, InitProducerId, Produce};
use rdkafka::types::RDKafkaRespErr::{self, *};

use super::*;

const TOPIC: &str = "readings";

/// One broker, and a sink.
struct Faulty {
    cluster: MockCluster<'static, DefaultProducerContext>,
    sink: KafkaSink,
}

impl Faulty {
    fn new() -> Self {
        Self::with_ack_timeout(Duration::from_secs(10))
    }

    /// Gives up on a record after two seconds.
    fn impatient() -> Self {
        Self::with_ack_timeout(Duration::from_secs(2))
    }

    fn with_ack_timeout(ack_timeout: Duration) -> Self {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 1, 1).unwrap();
        let sink = open(properties(&cluster), TOPIC, ack_timeout).unwrap();
        Self { cluster, sink }
    }

    /// The next requests of this kind are answered so.
    fn answer(&self, kind: RDKafkaApiKey, error: RDKafkaRespErr, times: usize) {
        self.cluster.request_errors(kind, &vec![error; times]);
    }

    async fn deliver(&self, body: &'static str) -> Outcome {
        self.sink
            .deliver(STREAM, &[record("device", body)])
            .await
            .get(0)
            .clone()
    }

    /// Asks until the sink has made up its mind: the mock does not tell a topic's settings.
    async fn verdict(&self) -> Result<(), SinkError> {
        let first = verify(&self.sink).await;
        if matches!(&first, Err(SinkError::Away(_))) {
            verify(&self.sink).await
        } else {
            first
        }
    }

    /// Returns the bodies that the topic holds.
    fn bodies(&self) -> Vec<String> {
        let stored = kafka::read_topic(&properties(&self.cluster), TOPIC);
        stored
            .into_iter()
            .map(|record| String::from_utf8(record.value.unwrap()).unwrap())
            .collect()
    }

    /// Delivers until it succeeds; how a device behaves that is told to come again.
    async fn recovers(&self) {
        let started = Instant::now();
        while self.deliver("after all").await != Outcome::Delivered {
            assert!(
                started.elapsed() < Duration::from_secs(8),
                "it does not recover"
            );
        }
    }
}

fn properties(cluster: &MockCluster<'static, DefaultProducerContext>) -> Properties {
    vec![("bootstrap.servers".into(), cluster.bootstrap_servers())]
}

#[tokio::test]
async fn what_passes_is_tried_again_and_written_once() {
    let errors = [
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR,
        RD_KAFKA_RESP_ERR__TRANSPORT,
    ];
    join_all(errors.map(async |error| {
        let faulty = Faulty::new();
        faulty.answer(Produce, error, 1);
        assert_eq!(faulty.deliver("one").await, Outcome::Delivered, "{error:?}");
        assert_eq!(faulty.bodies(), ["one"], "{error:?}");
    }))
    .await;
}

/// A device that waits for each answer, while the partition goes from broker to broker.
#[tokio::test]
async fn a_change_of_leader_keeps_the_order() {
    const BROKERS: i32 = 3;
    let cluster = MockCluster::new(BROKERS).unwrap();
    cluster.create_topic(TOPIC, 1, BROKERS).unwrap();
    let sink = open(properties(&cluster), TOPIC, Duration::from_secs(20)).unwrap();
    let faulty = Faulty { cluster, sink };
    let sent = numbers(40);
    for (number, body) in sent.iter().enumerate() {
        if number % 10 == 5 {
            faulty
                .cluster
                .partition_leader(TOPIC, 0, Some(1 + number as i32 / 10 % BROKERS))
                .unwrap();
        }
        let outcomes = faulty
            .sink
            .deliver(STREAM, &[record("device", body.clone())])
            .await;
        assert_eq!(*outcomes.get(0), Outcome::Delivered, "{number}");
    }
    assert!(
        faulty.bodies().iter().map(String::as_bytes).eq(&sent),
        "{:?}",
        faulty.bodies()
    );
}

/// A record for which librdkafka's queue has no room is not in the topic, and may be sent again.
#[tokio::test]
async fn a_full_queue_takes_what_fits_and_says_what_did_not() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, 1, 1).unwrap();
    let mut properties = properties(&cluster);
    properties.push(("queue.buffering.max.messages".into(), "3".into()));
    let sink = open(properties, TOPIC, Duration::from_secs(10)).unwrap();
    let faulty = Faulty { cluster, sink };
    let records: Vec<_> = numbers(20)
        .into_iter()
        .map(|body| record("device", body))
        .collect();
    let outcomes = faulty.sink.deliver(STREAM, &records).await;
    let is_full = |index: &usize| *outcomes.get(*index) == Outcome::Retryable("QueueFull".into());
    let (full, taken): (Vec<usize>, Vec<usize>) = (0..records.len()).partition(is_full);
    assert!(
        !full.is_empty()
            && taken
                .iter()
                .all(|index| *outcomes.get(*index) == Outcome::Delivered),
        "{outcomes:?}"
    );
    assert_eq!(
        faulty.bodies(),
        taken.iter().map(usize::to_string).collect::<Vec<_>>()
    );
    faulty.recovers().await;
}

#[tokio::test]
async fn what_does_not_pass_in_time_is_retryable_or_in_doubt() {
    let cases = [
        (
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            Outcome::Retryable("MessageTimedOut".into()),
        ),
        (
            RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
            Outcome::Unknown,
        ),
        (RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Outcome::Unknown),
    ];
    join_all(cases.map(async |(error, outcome)| {
        let faulty = Faulty::impatient();
        faulty.answer(Produce, error, 1000);
        let started = Instant::now();
        assert_eq!(faulty.deliver("one").await, outcome, "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(4), "{error:?}");
        faulty.cluster.clear_request_errors(Produce);
        faulty.recovers().await;
    }))
    .await;
}

/// A record that is not at fault is never refused for good.
#[tokio::test]
async fn a_topic_that_is_closed_to_us_may_open_again() {
    let faulty = Faulty::new();
    faulty.answer(Produce, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, 1);
    assert_eq!(
        faulty.deliver("one").await,
        Outcome::Barred("TopicAuthorizationFailed".into())
    );
    faulty
        .cluster
        .topic_error(TOPIC, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
        .unwrap();
    let error = faulty.verdict().await.unwrap_err();
    assert!(
        matches!(&error, SinkError::Closed(text) if text.contains(TOPIC)),
        "{error:?}"
    );
    faulty
        .cluster
        .topic_error(TOPIC, RD_KAFKA_RESP_ERR_NO_ERROR)
        .unwrap();
    faulty.recovers().await;
    assert_eq!(faulty.bodies(), ["after all"]);
}

#[tokio::test]
async fn a_refused_request_is_taken_apart_and_only_the_record_at_fault_is_refused() {
    let cases = [
        (RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "MessageSizeTooLarge"),
        (RD_KAFKA_RESP_ERR_INVALID_RECORD, "InvalidRecord"),
        // Larger than a segment, which no repetition of the same request makes smaller.
        (
            RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE,
            "MessageBatchTooLarge",
        ),
    ];
    join_all(cases.map(async |(error, reason)| {
        let faulty = Faulty::new();
        // The request of all three, then the first of them alone.
        faulty.answer(Produce, error, 2);
        let records = ["one", "two", "three"].map(|body| record("device", body));
        let outcomes = faulty.sink.deliver(STREAM, &records).await;
        let refused = Outcome::Permanent(reason.into());
        assert_eq!(
            outcomes,
            Outcomes::Each(vec![refused, Outcome::Delivered, Outcome::Delivered])
        );
        assert_eq!(faulty.bodies(), ["two", "three"]);
    }))
    .await;
}

/// The gateway's clock gave the record its time. One that has waited for long has its time for good.
#[tokio::test]
async fn a_time_that_the_broker_refuses_is_the_clocks_fault_unless_the_record_is_old() {
    for (received_at, is_clock) in [
        (Timestamp::now(), true),
        (Timestamp(Timestamp::now().0 + 7_200_000), true),
        (Timestamp(Timestamp::now().0 - 7_200_000), false),
    ] {
        let faulty = Faulty::new();
        faulty.answer(Produce, RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, 2);
        let mut record = record("device", "x");
        record.received_at = received_at;
        let outcomes = faulty.sink.deliver(STREAM, &[record]).await;
        match outcomes.get(0) {
            Outcome::Barred(reason) => assert!(is_clock && reason.contains("clock"), "{reason}"),
            Outcome::Permanent(reason) => {
                assert_eq!((is_clock, &**reason), (false, "InvalidTimestamp"))
            }
            outcome => panic!("{outcome:?}"),
        }
        faulty.recovers().await;
    }
}

/// librdkafka gives up for good on a producer whose sequence the broker does not know.
#[tokio::test]
async fn a_producer_that_has_failed_for_good_is_replaced() {
    let faulty = Faulty::new();
    assert_eq!(faulty.deliver("one").await, Outcome::Delivered);
    for _ in 0..2 {
        faulty.answer(Produce, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, 1);
        assert_eq!(faulty.deliver("in doubt").await, Outcome::Unknown);
        faulty.recovers().await;
    }
    assert_eq!(faulty.bodies(), ["one", "after all", "after all"]);
}

/// As where the gateway's user lacks the permission IDEMPOTENT_WRITE.
#[tokio::test]
async fn a_cluster_that_forbids_idempotent_producers_is_away_until_it_does_not() {
    let faulty = Faulty::new();
    faulty.answer(
        InitProducerId,
        RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        1000,
    );
    let outcome = faulty.deliver("one").await;
    assert!(matches!(outcome, Outcome::Retryable(_)), "{outcome:?}");
    let error = faulty.verdict().await.unwrap_err();
    assert!(
        matches!(&error, SinkError::Away(text) if text.contains("uthorization failed")),
        "{error:?}"
    );
    faulty.cluster.clear_request_errors(InitProducerId);
    faulty.recovers().await;
}

#[tokio::test]
async fn a_silent_broker_leaves_the_outcome_in_doubt_within_the_ack_timeout() {
    let faulty = Faulty::impatient();
    assert_eq!(faulty.deliver("one").await, Outcome::Delivered);
    faulty
        .cluster
        .broker_round_trip_time(1, Duration::from_secs(5))
        .unwrap();
    let started = Instant::now();
    assert_eq!(faulty.deliver("two").await, Outcome::Unknown);
    assert!(started.elapsed() < Duration::from_secs(4));
    faulty
        .cluster
        .broker_round_trip_time(1, Duration::ZERO)
        .unwrap();
    faulty.recovers().await;
}

#[tokio::test]
async fn what_never_left_is_retryable() {
    let faulty = Faulty::impatient();
    assert_eq!(faulty.deliver("one").await, Outcome::Delivered);
    faulty.cluster.broker_down(1).unwrap();
    assert!(matches!(faulty.deliver("two").await, Outcome::Retryable(_)));
    faulty.cluster.broker_up(1).unwrap();
    faulty.recovers().await;
    assert_eq!(faulty.bodies(), ["one", "after all"]);
}

/// Delivery is told to stop while the broker owes reports: their places in the table come free when they come.
#[tokio::test]
async fn batches_that_nobody_waits_for_any_more_do_not_use_up_the_places() {
    let faulty = Faulty::impatient();
    assert_eq!(faulty.deliver("one").await, Outcome::Delivered);
    faulty.cluster.broker_down(1).unwrap();
    let records = [record("device", "two")];
    for _ in 0..64 {
        let cancelled =
            tokio::time::timeout(Duration::ZERO, faulty.sink.deliver(STREAM, &records)).await;
        assert!(cancelled.is_err());
    }
    assert_eq!(
        faulty.deliver("three").await,
        Outcome::Retryable("too many batches in flight".into())
    );
    faulty.cluster.broker_up(1).unwrap();
    faulty.recovers().await;
}
