//! Faults of Kafka as devices see them: it refuses, falls silent or is away, and a 204 stays true through it.

use std::collections::HashSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use crate::brokers;
use crate::harness::{Ask, Client, Gateway, Load, Protocol, Setup, eventually, within};
use crate::kafka::{Kafka, variables};
use crate::spool::wait_until_drained;
use crate::status::{assert_problem, assert_retry_after};

/// Time that the broker is silent: longer than every time-out that the load meets.
const SILENCE: Duration = Duration::from_secs(15);

/// The topic takes less than it did when the gateway looked: a record that is too large for it is refused alone.
#[test]
fn what_the_topic_refuses_for_good_is_502() {
    let gateway = brokers::gateway_with("shrunk", &[("max.message.bytes", "1000000")])
        .without_limits()
        .start();
    set_message_bytes_max("shrunk", "20000");
    let (small, large) = (vec![b's'; 1000], vec![b'l'; 30_000]);
    for protocol in Protocol::ALL {
        let device = gateway.device(&format!("plc-{protocol}"));
        let clients: [Client; 5] =
            std::array::from_fn(|_| Client::open(protocol, &gateway, &device));
        let large_sent = clients[4].begin(&Ask::post(&large[..]));
        let sent = clients[..4]
            .iter()
            .map(|client| client.begin(&Ask::post(&small[..])))
            .collect::<Vec<_>>();
        let reply = large_sent.wait().expect("an answer");
        assert_problem(&reply, 502, "sink-refused");
        let detail = reply.problem()["detail"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert!(
            detail.to_lowercase().contains("too large") || detail.contains("MessageSizeTooLarge"),
            "{detail}"
        );
        assert_eq!(
            reply.header("retry-after"),
            None,
            "it does not help to come back"
        );
        for sent in sent {
            assert_eq!(sent.wait().expect("an answer").status, 204, "{protocol}");
        }
    }
    assert_eq!(brokers::bodies("shrunk").len(), 12);
}

pub fn set_message_bytes_max(topic: &str, message_bytes_max: &str) {
    let mut config = ClientConfig::new();
    config.extend(Kafka::shared().plain());
    let admin: AdminClient<DefaultClientContext> = config.create().expect("a client");
    let change = AlterConfig::new(ResourceSpecifier::Topic(topic))
        .set("max.message.bytes", message_bytes_max);
    let answers =
        brokers::wait(admin.alter_configs([&change], &AdminOptions::new())).expect("Kafka answers");
    answers[0].as_ref().expect("the topic is altered");
}

/// One of two topics is closed to the gateway for a while, by librdkafka's mock cluster: what was answered 204 waits for it, in
/// order, and holds up nothing. Once the operator takes the stream out, what is left of it is set aside.
#[test]
fn what_a_closed_topic_refuses_waits_until_it_is_open_or_its_stream_is_taken_out() {
    let cluster = MockCluster::new(1).expect("a cluster");
    ["closed", "open"]
        .iter()
        .for_each(|topic| cluster.create_topic(topic, 1, 1).expect("a topic"));
    let properties = vec![("bootstrap.servers".into(), cluster.bootstrap_servers())];
    let setup = Setup::new()
        .set("FOREBAY_SINK", "kafka")
        .set_all(variables(&properties))
        .with_spool("always");
    let mut gateway = setup
        .set("FOREBAY_STREAMS", "telemetry=closed,alarms=open")
        .start();
    eventually("the sink", || {
        gateway.metric("forebay_sink_up{stream=\"telemetry\"}") == 1.0
    });
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let stored = |topic| {
        brokers::bodies_and_ids_at(&properties, topic)
            .into_iter()
            .map(|(body, _)| body)
    };
    let barred = |gateway: &Gateway| {
        gateway.metric("forebay_sink_records_total{stream=\"telemetry\",outcome=\"barred\"}")
    };
    let denied = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
    let open = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
    cluster.topic_error("closed", denied).expect("it is closed");
    cluster.request_errors(RDKafkaApiKey::Produce, &[denied]);
    assert_eq!(client.send(&Ask::post("1")).status, 204);
    eventually("refusals", || barred(&gateway) >= 2.0);
    for body in ["2", "3"] {
        assert_eq!(client.send(&Ask::post(body)).status, 204);
        assert_eq!(
            client
                .send(&Ask::post(body).to("/v1/streams/alarms"))
                .status,
            204
        );
    }
    eventually("the other topic's", || stored("open").eq(["2", "3"]));
    cluster.topic_error("closed", open).expect("it is open");
    wait_until_drained(&gateway);
    assert!(stored("closed").eq(["1", "2", "3"]));
    // A gateway that ends in order leaves no doubt of what was delivered: 4 alone waits later.
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0);
    let gateway = gateway.kill().start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));

    cluster.topic_error("closed", denied).expect("it is closed");
    cluster.request_errors(RDKafkaApiKey::Produce, &[denied]);
    let seen = barred(&gateway);
    assert_eq!(client.send(&Ask::post("4")).status, 204);
    eventually("refusals", || barred(&gateway) > seen);
    let setup = gateway.kill();
    assert!(setup.succeed(&["spool", "ls"]).contains("0 dead letters"));
    let mut gateway = setup.set("FOREBAY_STREAMS", "alarms=open").start();
    wait_until_drained(&gateway);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0);
    let setup = gateway.kill();
    let listed = setup.succeed(&["spool", "ls"]);
    assert!(listed.contains("1 dead letter"), "{listed}");
    cluster.topic_error("closed", open).expect("it is open");
    setup.succeed(&["spool", "replay"]);
    let gateway = setup
        .set("FOREBAY_STREAMS", "telemetry=closed,alarms=open")
        .start();
    wait_until_drained(&gateway);
    assert!(stored("closed").eq(["1", "2", "3", "4"]));
}

/// Not there at start: the gateway waits, not ready, and sheds; the order of checks holds meanwhile.
#[test]
fn a_broker_that_is_away_is_503() {
    // It keeps the port from anybody else, and answers nothing.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let gateway = Setup::new()
        .set("FOREBAY_SINK", "kafka")
        .set(
            "FOREBAY_KAFKA_BOOTSTRAP_SERVERS",
            nobody.local_addr().expect("its address"),
        )
        .set("FOREBAY_DEVICE_BYTE_RATE", "1B")
        .set("FOREBAY_DEVICE_BYTE_BURST", "10B")
        .start_unready();
    assert_eq!(gateway.admin("/readyz").0, 503);
    assert_eq!(gateway.admin("/servez").0, 200);
    assert_eq!(gateway.admin("/livez").0, 200);
    assert_eq!(gateway.metric("forebay_sink_up{stream=\"telemetry\"}"), 0.0);
    for protocol in Protocol::ALL {
        let client = Client::open(
            protocol,
            &gateway,
            &gateway.device(&format!("plc-{protocol}")),
        );
        assert_eq!(
            client.send(&Ask::post("")).status,
            400,
            "400 comes before 503"
        );
        let reply = client.send(&Ask::post("123456789"));
        assert_problem(&reply, 503, "sink-unavailable");
        assert_retry_after(&reply);
        assert_eq!(
            client.send(&Ask::post("123456789")).status,
            429,
            "429 comes before 503"
        );
    }
}

/// 504 while nobody knows; 503 once the broker is known to be away; then as before, without a restart.
#[test]
fn a_broker_that_falls_silent_is_504_and_then_503() {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("silent")
        .without_limits()
        .set("FOREBAY_ACK_TIMEOUT", "1s")
        .start();
    let device = gateway.device("plc-1");
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    clients
        .iter()
        .for_each(|client| assert_eq!(client.send(&Ask::post("before")).status, 204));
    let paused = broker.pause();
    let sent = clients
        .each_ref()
        .map(|client| client.begin(&Ask::post("meanwhile")));
    for sent in sent {
        assert_problem(&sent.wait().expect("an answer"), 504, "ack-timeout");
    }
    eventually("a gateway that is not ready", || !gateway.is_ready());
    for client in &clients {
        let reply = client.send(&Ask::post("refused"));
        assert_problem(&reply, 503, "sink-unavailable");
        assert_retry_after(&reply);
    }
    drop(paused);
    gateway.wait_until_ready();
    clients
        .iter()
        .for_each(|client| assert_eq!(client.send(&Ask::post("after")).status, 204));
    let stored = broker.bodies("silent");
    let count = |body: &str| stored.iter().filter(|stored| *stored == body).count();
    assert_eq!(
        (count("before"), count("refused"), count("after")),
        (3, 0, 3)
    );
}

/// A load that goes on through the silence: whatever was answered 204 is in the topic.
#[test]
fn a_204_stays_true_when_the_broker_falls_silent_under_load() {
    const SENDERS: usize = 4;
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("silent-load")
        .without_limits()
        .set("FOREBAY_ACK_TIMEOUT", "2s")
        .start();
    let clients: Vec<Client> = Protocol::ALL
        .iter()
        .flat_map(|protocol| (0..SENDERS).map(move |n| (*protocol, n)))
        .map(|(protocol, n)| {
            Client::open(
                protocol,
                &gateway,
                &gateway.device(&format!("{protocol}-{n}")),
            )
        })
        .collect();
    let load = Load::start("reading", &clients, 64);
    load.wait_for(204, 500);
    let paused = broker.pause();
    eventually("a gateway that is not ready", || !gateway.is_ready());
    load.wait_for(504, 1);
    load.wait_for(503, 1);
    let accepted = load.seen(204);
    // Not to wait for anything: the silence outlasts what librdkafka and the gateway are patient for.
    assert!(
        !within(SILENCE, || gateway.is_ready()),
        "ready while the broker is stopped"
    );
    assert!(load.seen(204) <= accepted + clients.len() as u64);
    drop(paused);
    gateway.wait_until_ready();
    let accepted = load.seen(204);
    load.wait_for(204, accepted + 500);
    let outcomes = load.stop();
    let stored = broker.bodies("silent-load");
    for sender in 0..clients.len() {
        let accepted = outcomes.accepted_of(sender);
        // A duplicate stands where its record stood first.
        let mut seen = HashSet::new();
        let in_order = stored
            .iter()
            .filter(|body| accepted.contains(body) && seen.insert(*body));
        assert!(in_order.eq(&accepted), "lost or out of order: {accepted:?}");
    }
    let answers = outcomes.count(204) + outcomes.count(503) + outcomes.count(504);
    assert_eq!(
        answers,
        outcomes.senders.iter().map(Vec::len).sum::<usize>(),
        "{:?}",
        outcomes.senders
    );
}
