//! With a spool a 204 comes, and stays true, while the stream is silent, away, or refuses; and each device's order holds.

use std::collections::HashMap;

use crate::brokers;
use crate::harness::load::{Outcome, Outcomes};
use crate::harness::{Ask, Client, Gateway, Load, Protocol, Setup, eventually};

const SENDERS: usize = 6;

/// Sequential senders on connections that live as long as the first of the two: two of each protocol.
pub fn start_load(gateway: &Gateway, name: &str, pad: usize) -> (Vec<Client>, Load) {
    let open = |n: usize| {
        Client::open(
            Protocol::ALL[n % 3],
            gateway,
            &gateway.device(&format!("sender-{n}")),
        )
    };
    let clients: Vec<Client> = (0..SENDERS).map(open).collect();
    let load = Load::start(name, &clients, pad);
    (clients, load)
}

/// Every 204 is in the stream, first arrivals in the order in which they were sent. Gives the number of duplicates.
pub fn audit(outcomes: &Outcomes, stored: &[String]) -> usize {
    audit_all(&[outcomes], stored)
}

/// The same of loads that followed each other, by the same senders.
pub fn audit_all(loads: &[&Outcomes], stored: &[String]) -> usize {
    let mut first_at = HashMap::new();
    for (at, body) in stored.iter().enumerate() {
        first_at.entry(body.as_str()).or_insert(at);
    }
    for sender in 0..loads[0].senders.len() {
        let accepted: Vec<String> = loads
            .iter()
            .flat_map(|load| load.accepted_of(sender))
            .collect();
        let lost: Vec<_> = accepted
            .iter()
            .filter(|body| !first_at.contains_key(body.as_str()))
            .collect();
        assert!(
            lost.is_empty(),
            "of {} readings, lost: {lost:?}",
            accepted.len()
        );
        let order: Vec<usize> = accepted
            .iter()
            .map(|body| first_at[body.as_str()])
            .collect();
        let inverted = accepted
            .windows(2)
            .zip(order.windows(2))
            .find(|(_, at)| at[0] > at[1]);
        assert!(inverted.is_none(), "out of order: {inverted:?}");
    }
    stored.len() - first_at.len()
}

/// All that was sent was answered 204.
fn assert_all_accepted(outcomes: &Outcomes) {
    let other = outcomes
        .senders
        .iter()
        .flatten()
        .find(|outcome| **outcome != Outcome::Status(204));
    assert_eq!(other, None);
}

pub fn wait_until_drained(gateway: &Gateway) {
    eventually("an empty spool", || {
        gateway.metric("forebay_spool_records") == 0.0
    });
}

/// Bodies in the file sink, oldest first.
pub fn in_files(gateway: &Gateway) -> Vec<String> {
    gateway
        .files("telemetry")
        .iter()
        .map(|line| brokers::text(&line.payload()))
        .collect()
}

#[test]
fn a_silent_broker_costs_no_answer_and_nothing_arrives_twice() {
    let broker = brokers::pausable();
    // So long that reports of what was in flight do come.
    let gateway = broker
        .gateway_to("spooled")
        .without_limits()
        .with_spool("overflow");
    let gateway = gateway.set("FOREBAY_ACK_TIMEOUT", "3m").start();
    let (_clients, load) = start_load(&gateway, "reading", 64);
    load.wait_for(204, 200);
    let paused = broker.pause();
    load.wait_for(204, load.seen(204) + 500);
    assert!(gateway.is_ready(), "its spool takes records");
    eventually("the sink is known to be away", || {
        gateway.metric("forebay_sink_up{stream=\"telemetry\"}") == 0.0
    });
    drop(paused);
    eventually("the sink is back", || {
        gateway.metric("forebay_sink_up{stream=\"telemetry\"}") == 1.0
    });
    load.wait_for(204, load.seen(204) + 200);
    let outcomes = load.stop();
    wait_until_drained(&gateway);
    assert_all_accepted(&outcomes);
    let stored = broker.bodies("spooled");
    assert_eq!(
        audit(&outcomes, &stored),
        0,
        "the reports of what was in flight came in the end"
    );
}

/// Whatever the ack time-out: a record is on disk before its request has waited for too long.
#[test]
fn a_short_ack_timeout_reaches_the_disk_in_time() {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("impatient")
        .without_limits()
        .with_spool("overflow");
    let gateway = gateway.set("FOREBAY_ACK_TIMEOUT", "800ms").start();
    let (_clients, load) = start_load(&gateway, "reading", 64);
    load.wait_for(204, 200);
    let paused = broker.pause();
    load.wait_for(204, load.seen(204) + 500);
    eventually("the sink is known to be away", || {
        gateway.metric("forebay_sink_up") == 0.0
    });
    drop(paused);
    load.wait_for(204, load.seen(204) + 200);
    let outcomes = load.stop();
    wait_until_drained(&gateway);
    assert_all_accepted(&outcomes);
    audit(&outcomes, &broker.bodies("impatient"));
}

/// Killed, not stopped: connections break, and what it was told is read back from its own log.
#[test]
fn a_broker_that_is_killed_and_started_again_costs_no_answer() {
    let mut broker = brokers::pausable();
    let gateway = broker
        .gateway_to("killed")
        .without_limits()
        .with_spool("overflow")
        .start();
    let (_clients, load) = start_load(&gateway, "reading", 64);
    for _ in 0..2 {
        load.wait_for(204, load.seen(204) + 200);
        broker.kafka.kill();
        load.wait_for(204, load.seen(204) + 500);
        eventually("the sink is known to be away", || {
            gateway.metric("forebay_sink_up{stream=\"telemetry\"}") == 0.0
        });
        broker.kafka.start_again();
        eventually("the sink is back", || {
            gateway.metric("forebay_sink_up{stream=\"telemetry\"}") == 1.0
        });
    }
    load.wait_for(204, load.seen(204) + 200);
    let outcomes = load.stop();
    wait_until_drained(&gateway);
    assert_all_accepted(&outcomes);
    // A batch that the broker had when it was killed is in doubt, and is written again.
    audit(&outcomes, &broker.bodies("killed"));
}

#[test]
fn nothing_is_spooled_while_the_stream_takes_it() {
    let gateway = brokers::gateway_to("not-spooled")
        .without_limits()
        .with_spool("overflow")
        .start();
    let (_clients, load) = start_load(&gateway, "reading", 64);
    load.wait_for(204, 1000);
    let outcomes = load.stop();
    assert_all_accepted(&outcomes);
    assert_eq!(audit(&outcomes, &brokers::bodies("not-spooled")), 0);
    assert_eq!(gateway.metric("forebay_spool_bytes"), 0.0);
}

#[test]
fn always_answers_from_disk_and_the_stream_gets_each_reading_once() {
    let gateway = brokers::gateway_to("always")
        .without_limits()
        .with_spool("always")
        .start();
    let (_clients, load) = start_load(&gateway, "reading", 64);
    load.wait_for(204, 1000);
    let outcomes = load.stop();
    wait_until_drained(&gateway);
    assert_all_accepted(&outcomes);
    assert_eq!(audit(&outcomes, &brokers::bodies("always")), 0);
}

/// Records that the sink does not take by the deadline are on disk; the next process delivers them.
#[test]
fn a_drain_into_a_silent_broker_ends_well_and_a_restart_delivers() {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("drained")
        .without_limits()
        .with_spool("overflow");
    let mut gateway = gateway.set("FOREBAY_DRAIN_TIMEOUT", "1s").start();
    let (_clients, load) = start_load(&gateway, "reading", 64);
    load.wait_for(204, 100);
    let paused = broker.pause();
    load.wait_for(204, load.seen(204) + 200);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0);
    let outcomes = load.stop();
    assert_eq!(outcomes.count(504), 0);
    drop(paused);
    let gateway = gateway.kill().start();
    wait_until_drained(&gateway);
    audit(&outcomes, &broker.bodies("drained"));
}

#[test]
fn a_full_spool_sheds_and_takes_again_when_it_has_drained() {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("full")
        .without_limits()
        .with_spool("overflow");
    let gateway = gateway.set("FOREBAY_SPOOL_BYTES_MAX", "32MiB").start();
    let paused = broker.pause();
    let (_clients, load) = start_load(&gateway, "reading", 200_000);
    load.wait_for(503, 10);
    eventually("unready", || !gateway.is_ready());
    let outcomes = load.stop();
    drop(paused);
    wait_until_drained(&gateway);
    gateway.wait_until_ready();
    audit(&outcomes, &broker.bodies("full"));
    let device = gateway.device("sender-0");
    assert_eq!(
        Client::open(Protocol::H1, &gateway, &device)
            .send(&Ask::post("again"))
            .status,
        204
    );
}

#[test]
fn drop_oldest_takes_on_and_counts_what_it_dropped() {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("dropped")
        .without_limits()
        .with_spool("overflow");
    let gateway = gateway
        .set("FOREBAY_SPOOL_BYTES_MAX", "32MiB")
        .set("FOREBAY_SPOOL_FULL", "drop-oldest")
        .start();
    let paused = broker.pause();
    let (_clients, load) = start_load(&gateway, "reading", 200_000);
    eventually("dropped records", || {
        gateway.metric("forebay_spool_dropped_records_total") > 20.0
    });
    assert!(gateway.is_ready());
    let outcomes = load.stop();
    drop(paused);
    wait_until_drained(&gateway);
    assert_all_accepted(&outcomes);
    let (dropped, stored) = (
        gateway.metric("forebay_spool_dropped_records_total"),
        broker.bodies("dropped"),
    );
    let missing = outcomes
        .accepted()
        .iter()
        .filter(|body| !stored.contains(body))
        .count();
    assert!(
        missing > 0 && missing as f64 <= dropped,
        "{missing} are missing, {dropped} were dropped"
    );
}

#[test]
fn a_spool_belongs_to_one_gateway() {
    let gateway = Setup::new().with_spool("overflow").start();
    let other = Setup::new().set("FOREBAY_SPOOL_DIR", gateway.path("spool").display());
    let output = other.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("FOREBAY_SPOOL_DIR") && said.contains(&gateway.id().to_string()),
        "{said}"
    );
}

/// A record that is too large for the topic goes to the dead letters, and its neighbours into the topic.
#[test]
fn what_the_topic_refuses_for_good_is_a_dead_letter_and_can_be_replayed() {
    let gateway =
        brokers::gateway_with("refusing", &[("max.message.bytes", "1000000")]).without_limits();
    let mut gateway = gateway.with_spool("always").start();
    crate::kafka_faults::set_message_bytes_max("refusing", "20000");
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    for body in ["small", &"l".repeat(30_000), "next"] {
        assert_eq!(client.send(&Ask::post(body)).status, 204);
    }
    wait_until_drained(&gateway);
    assert_eq!(brokers::bodies("refusing"), ["small", "next"]);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0);
    let setup = gateway.kill();
    let listed = setup.succeed(&["spool", "ls"]);
    assert!(listed.contains("1 dead letter"), "{listed}");
    crate::kafka_faults::set_message_bytes_max("refusing", "1000000");
    assert!(
        setup
            .succeed(&["spool", "dump", "--dead-letters"])
            .contains("\"device\":\"plc-1\"")
    );
    assert!(
        setup
            .succeed(&["spool", "verify"])
            .contains("dead letters: 1 records read, 0 damaged")
    );
    setup.succeed(&["spool", "replay"]);
    assert!(setup.succeed(&["spool", "ls"]).contains("0 dead letters"));
    let gateway = setup.start();
    wait_until_drained(&gateway);
    eventually("the replayed reading", || {
        brokers::bodies("refusing").len() == 3
    });
    assert_eq!(brokers::bodies("refusing")[2].len(), 30_000);
}

/// Three alerts compare what is in the spool with what it may take.
#[test]
fn the_quota_is_in_the_metrics() {
    let setup = Setup::new().with_spool("overflow");
    let gateway = setup.set("FOREBAY_SPOOL_BYTES_MAX", "64MiB").start();
    assert_eq!(
        gateway.metric("forebay_spool_bytes_max"),
        f64::from(64 << 20)
    );
}

/// If dead letters cannot be written, a refused record waits with its own device; all others go on, after a restart too.
#[test]
fn what_cannot_be_set_aside_holds_up_its_own_device_only() {
    let gateway = brokers::gateway_with("unburied", &[("max.message.bytes", "1000000")])
        .without_limits()
        .with_spool("always");
    let gateway = gateway.start();
    crate::kafka_faults::set_message_bytes_max("unburied", "20000");
    let dead_letters = gateway.path("spool/dead-letters");
    std::fs::remove_dir_all(&dead_letters).expect("it is there");
    std::fs::write(&dead_letters, "in the way").expect("a file");
    let post = |gateway: &Gateway, device: &str, body: &str| {
        let client = Client::open(Protocol::H2, gateway, &gateway.device(device));
        assert_eq!(client.send(&Ask::post(body)).status, 204);
    };
    post(&gateway, "plc-1", &"l".repeat(30_000));
    eventually("a record that cannot be set aside", || {
        gateway.log().contains("cannot be set aside")
    });
    post(&gateway, "plc-1", "behind it");
    post(&gateway, "plc-2", "beside it");
    eventually("the other device's", || {
        brokers::bodies("unburied") == ["beside it"]
    });
    assert_eq!(gateway.metric("forebay_spool_records"), 2.0);
    let setup = gateway.kill();
    std::fs::remove_file(&dead_letters).expect("it is there");
    let setup = setup.set("FOREBAY_BODY_BYTES_MAX", "10KiB");
    let gateway = setup.set("FOREBAY_SPOOL_MODE", "overflow").start();
    wait_until_drained(&gateway);
    assert_eq!(brokers::bodies("unburied"), ["beside it", "behind it"]);
}
