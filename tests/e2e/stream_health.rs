//! Health is per stream, and decided by what becomes of records as well as by what the sink says when it is asked.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey::Produce;
use rdkafka::types::RDKafkaRespErr::{
    self, RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
};

use crate::brokers;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};
use crate::kafka::{Kafka, variables};
use crate::status::{assert_problem, assert_retry_after};

/// A cluster that answers well when it is asked, and a gateway to it.
struct Refusing {
    cluster: MockCluster<'static, DefaultProducerContext>,
    gateway: Gateway,
}

impl Refusing {
    fn start() -> Self {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("readings", 1, 1).expect("a topic");
        let properties = vec![("bootstrap.servers".into(), cluster.bootstrap_servers())];
        let gateway = Setup::new()
            .set("FOREBAY_SINK", "kafka")
            .set_all(variables(&properties))
            .set("FOREBAY_STREAMS", "telemetry=readings")
            .without_limits()
            .start();
        Self { cluster, gateway }
    }

    /// While every record is refused so, devices are told to come again, and operators why; then all is well by itself.
    fn is_unready_while(&self, error: RDKafkaRespErr, says: &[&str]) {
        self.cluster.request_errors(Produce, &[error; 1000]);
        let gateway = &self.gateway;
        let client = Client::open(Protocol::H2, gateway, &gateway.device("plc-1"));
        for _ in 0..50 {
            let reply = client.send(&Ask::post("x"));
            assert_problem(&reply, 503, "sink-unavailable");
            assert_retry_after(&reply);
        }
        let (status, body) = gateway.admin("/readyz");
        assert_eq!(status, 503, "{body}");
        for text in says.iter().chain(&["stream telemetry"]) {
            assert!(body.contains(text), "{body}");
        }
        assert!(gateway.log().contains(says[0]), "{}", gateway.log());
        assert_eq!(gateway.metric(&sink_up("telemetry")), 0.0);
        self.cluster.clear_request_errors(Produce);
        eventually("a reading that is taken", || {
            client.send(&Ask::post("x")).status == 204
        });
        gateway.wait_until_ready();
        assert_eq!(gateway.metric(&sink_up("telemetry")), 1.0);
    }
}

fn sink_up(stream: &str) -> String {
    format!("forebay_sink_up{{stream=\"{stream}\"}}")
}

#[test]
fn a_topic_that_answers_but_takes_no_records_is_unready_until_it_does() {
    let error = RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    Refusing::start().is_unready_while(error, &["TopicAuthorizationFailed"]);
}

/// The time of receipt is the gateway's: it is not the reading that is refused for good.
#[test]
fn a_clock_that_the_brokers_refuse_is_the_gateways_trouble() {
    let error = RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP;
    Refusing::start().is_unready_while(error, &["InvalidTimestamp", "clock"]);
}

/// An ACL of one topic allows Describe and not Write; the other stream does not notice.
#[test]
fn a_topic_without_the_right_to_write_stops_its_own_stream_only() {
    let kafka = Kafka::shared();
    for topic in ["acl-open", "acl-shut"] {
        brokers::wait(kafka.create_topic(topic, 1, &[]));
    }
    kafka.allow("acl-shut", "Describe");
    let gateway = Setup::new()
        .set("FOREBAY_SINK", "kafka")
        .set_all(variables(&kafka.sasl("PLAIN")))
        .set("FOREBAY_STREAMS", "telemetry=acl-open,alarms=acl-shut")
        .without_limits()
        .start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let alarm = Ask::post("x").to("/v1/streams/alarms");
    for _ in 0..10 {
        assert_problem(&client.send(&alarm), 503, "sink-unavailable");
        assert_eq!(client.send(&Ask::post("x")).status, 204);
    }
    let (status, body) = gateway.admin("/readyz");
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("stream alarms") && body.contains("TopicAuthorizationFailed"),
        "{body}"
    );
    let up = ["telemetry", "alarms"].map(|stream| gateway.metric(&sink_up(stream)));
    assert_eq!(up, [1.0, 0.0]);
    kafka.allow("acl-shut", "Write");
    eventually("an alarm that is taken", || {
        client.send(&alarm).status == 204
    });
}

/// One of two topics is not there when the gateway starts: only its stream waits for it, and nobody makes it.
#[test]
fn a_topic_that_is_missing_at_start_keeps_the_gateway_from_its_stream_only() {
    let kafka = Kafka::shared();
    let gateway = brokers::gateway_to("start-there")
        .set(
            "FOREBAY_STREAMS",
            "telemetry=start-there,alarms=start-missing",
        )
        .without_limits()
        .start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let alarm = Ask::post("x").to("/v1/streams/alarms");
    assert_eq!(client.send(&Ask::post("x")).status, 204);
    assert_problem(&client.send(&alarm), 503, "sink-unavailable");
    let (status, body) = gateway.admin("/readyz");
    assert_eq!(status, 200, "{body}");
    assert!(
        body.contains("stream alarms: topic start-missing does not exist"),
        "{body}"
    );
    // It would be there already if anybody had made it.
    brokers::wait(kafka.create_topic("start-missing", 1, &[]));
    eventually("an alarm that is taken", || {
        client.send(&alarm).status == 204
    });
    eventually("a gateway with nothing to tell", || {
        gateway.admin("/readyz") == (200, "ready\n".into())
    });
}

#[test]
fn a_gateway_without_any_stream_lives_unready() {
    let gateway = Setup::new()
        .set("FOREBAY_SINK", "kafka")
        .set_all(variables(&Kafka::shared().plain()))
        .set("FOREBAY_STREAMS", "telemetry=nowhere,alarms=nowhere-too")
        .start_unready();
    eventually("both streams' names", || {
        let (status, body) = gateway.admin("/readyz");
        status == 503 && body.contains("stream telemetry: ") && body.contains("stream alarms: ")
    });
    assert_eq!(gateway.admin("/livez").0, 200);
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    assert_problem(&client.send(&Ask::post("x")), 503, "sink-unavailable");
}

/// Asserts that the operator is told the fault and the setting although he sees no 503: the spool takes the readings.
fn assert_told_although_spooled(gateway: &Gateway, stream: &str, topic: &str, setting: &str) {
    let told = format!("topic {topic}");
    eventually("the topic and its setting", || {
        let (status, body) = gateway.admin("/readyz");
        assert_eq!(status, 200, "{body}");
        body.contains(stream) && body.contains(&told) && body.contains(setting)
    });
    eventually("the same in the log", || {
        let log = gateway.log();
        let mut lines = log.lines();
        lines.any(|line| line.contains("WARN") && line.contains(&told) && line.contains(setting))
    });
}

/// The only topic is not there: what the spool takes waits for it.
#[test]
fn a_topic_that_is_missing_is_told_also_where_a_spool_takes_its_readings() {
    let kafka = Kafka::shared();
    let gateway = Setup::new()
        .set("FOREBAY_SINK", "kafka")
        .set_all(variables(&kafka.plain()))
        .set("FOREBAY_STREAMS", "telemetry=late-topic")
        .with_spool("overflow")
        .start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    assert_eq!(client.send(&Ask::post("early")).status, 204);
    assert_told_although_spooled(
        &gateway,
        "stream telemetry",
        "late-topic",
        "FOREBAY_STREAMS",
    );
    brokers::wait(kafka.create_topic("late-topic", 1, &[]));
    eventually("the reading", || brokers::bodies("late-topic") == ["early"]);
    eventually("a gateway with nothing to tell", || {
        gateway.admin("/readyz") == (200, "ready\n".into())
    });
}

/// An ACL's mistake and a restart: the topic cannot be seen. What the spool bridges stays bridged, and the other stream is well.
#[test]
fn a_topic_that_may_not_be_seen_ends_no_gateway_that_has_a_spool() {
    let kafka = Kafka::shared();
    for topic in ["acl-seen", "acl-hidden"] {
        brokers::wait(kafka.create_topic(topic, 1, &[]));
    }
    kafka.allow("acl-hidden", "Create");
    let gateway = Setup::new()
        .set("FOREBAY_SINK", "kafka")
        .set_all(variables(&kafka.sasl("PLAIN")))
        .set("FOREBAY_STREAMS", "telemetry=acl-seen,alarms=acl-hidden")
        .with_spool("overflow")
        .start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let alarm = Ask::post("kept").to("/v1/streams/alarms");
    assert_eq!(client.send(&alarm).status, 204);
    assert_eq!(client.send(&Ask::post("x")).status, 204);
    assert_told_although_spooled(&gateway, "stream alarms", "acl-hidden", "FOREBAY_STREAMS");
    let gateway = gateway.kill().start();
    assert_told_although_spooled(&gateway, "stream alarms", "acl-hidden", "FOREBAY_STREAMS");
    kafka.allow("acl-hidden", "Write");
    eventually("what was kept", || {
        brokers::bodies("acl-hidden") == ["kept"]
    });
}

/// Its size is learned when the broker is back: by then the spool takes the readings, and goes on.
#[test]
fn a_topic_that_is_found_too_small_later_is_told_also_with_a_spool() {
    let broker = brokers::pausable();
    let small = [("max.message.bytes", "10000")];
    brokers::wait(broker.kafka.create_topic("too-small", 1, &small));
    let setup = broker.gateway_to("beside-too-small");
    let setup = setup.set("FOREBAY_STREAMS", "telemetry=too-small");
    let paused = broker.pause();
    let gateway = setup.with_spool("overflow").start();
    eventually("a broker that is known to be away", || {
        gateway.log().contains("the sink is away")
    });
    drop(paused);
    assert_told_although_spooled(
        &gateway,
        "stream telemetry",
        "too-small",
        "FOREBAY_BODY_BYTES_MAX",
    );
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    assert_eq!(client.send(&Ask::post("kept")).status, 204);
    assert_eq!(gateway.admin("/livez").0, 200);
}
