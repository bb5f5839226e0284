//! `FOREBAY_ACK=queued`: a 204 comes before the reading is safe, and yet none is lost in silence or out of order.

use std::collections::HashSet;

use crate::brokers;
use crate::harness::load::Outcomes;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};
use crate::spool::{audit, start_load, wait_until_drained};

/// Less than the broker is silent for.
const ACK_TIMEOUT: &str = "1s";

fn queued(setup: Setup) -> Setup {
    setup
        .without_limits()
        .set("FOREBAY_ACK", "queued")
        .set("FOREBAY_ACK_TIMEOUT", ACK_TIMEOUT)
}

/// Records that the sink gave back although it may take them another time.
fn given_back(gateway: &Gateway) -> f64 {
    let of = |outcome| {
        gateway.metric(&format!(
            "forebay_sink_records_total{{stream=\"telemetry\",outcome=\"{outcome}\"}}"
        ))
    };
    of("retryable") + of("unknown")
}

fn assert_accepted(outcomes: &Outcomes) {
    let all: usize = outcomes.senders.iter().map(Vec::len).sum();
    assert_eq!(outcomes.count(204), all, "memory takes them");
}

/// A load that goes on through a silence which outlasts librdkafka's patience, and what is in the topic then.
fn pour_through_a_silence(topic: &str, with_spool: bool) {
    let broker = brokers::pausable();
    let mut setup = queued(broker.gateway_to(topic));
    if with_spool {
        setup = setup.with_spool("overflow");
    }
    let mut gateway = setup.start();
    let (_clients, load) = start_load(&gateway, "reading", 64);
    load.wait_for(204, 200);
    let paused = broker.pause();
    load.wait_for(204, load.seen(204) + 200);
    eventually("records that were given back", || {
        given_back(&gateway) > 0.0
    });
    eventually("the sink is known to be away", || {
        gateway.metric("forebay_sink_up") == 0.0
    });
    load.wait_for(204, load.seen(204) + 200);
    drop(paused);
    gateway.wait_until_ready();
    load.wait_for(204, load.seen(204) + 200);
    let outcomes = load.stop();
    wait_until_drained(&gateway);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0, "all of it is safe");
    assert_accepted(&outcomes);
    audit(&outcomes, &broker.bodies(topic));
}

#[test]
fn a_silence_is_kept_in_memory_and_inverts_no_device() {
    pour_through_a_silence("queued-silence", false);
}

#[test]
fn a_silence_is_spooled_and_inverts_no_device() {
    pour_through_a_silence("queued-spooled", true);
}

/// A record for which memory has no room is 503; none that it had room for is lost.
#[test]
fn the_memory_budget_is_the_bound() {
    let broker = brokers::pausable();
    let gateway = queued(broker.gateway_to("queued-full"))
        .set("FOREBAY_MEMORY_MAX", "4MiB")
        .set("FOREBAY_BODY_BYTES_MAX", "64KiB")
        .start();
    let paused = broker.pause();
    let (_clients, load) = start_load(&gateway, "reading", 20_000);
    load.wait_for(204, 50);
    load.wait_for(503, 10);
    let outcomes = load.stop();
    assert_eq!(outcomes.count(504), 0);
    drop(paused);
    gateway.wait_until_ready();
    eventually("an empty memory", || {
        gateway.metric("forebay_admission_bytes") == 0.0
    });
    audit(&outcomes, &broker.bodies("queued-full"));
}

/// The drain time-out is there to be used: the broker comes back within it.
#[test]
fn a_drain_tries_until_its_time_is_up() {
    let broker = brokers::pausable();
    let setup = queued(broker.gateway_to("queued-drain"));
    let mut gateway = setup.set("FOREBAY_DRAIN_TIMEOUT", "4m").start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let paused = broker.pause();
    let sent: Vec<String> = (0..20).map(|number| format!("reading-{number}")).collect();
    for body in &sent {
        assert_eq!(client.send(&Ask::post(body.as_str())).status, 204);
    }
    gateway.terminate();
    eventually("records that were given back", || {
        given_back(&gateway) > 0.0
    });
    drop(paused);
    assert_eq!(gateway.exit_code(), 0);
    let mut seen = HashSet::new();
    let stored = broker.bodies("queued-drain").into_iter();
    let first: Vec<_> = stored.filter(|body| seen.insert(body.clone())).collect();
    assert_eq!(first, sent);
}

/// A gateway that leaves records behind tells their number and `"clean":false`, and exits with 1.
#[test]
fn what_a_drain_leaves_behind_is_counted() {
    let broker = brokers::pausable();
    let setup = queued(broker.gateway_to("queued-left"));
    let mut gateway = setup.set("FOREBAY_DRAIN_TIMEOUT", "1s").start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let _paused = broker.pause();
    for number in 0..7 {
        assert_eq!(client.send(&Ask::post(number.to_string())).status, 204);
    }
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 1);
    let log = gateway.log();
    let told = log.lines().find(|line| line.contains("are lost"));
    let told = told.unwrap_or_else(|| panic!("nothing is told:\n{log}"));
    let told: serde_json::Value = serde_json::from_str(told).expect("JSON");
    assert_eq!(told["records"], 7);
    assert!(log.contains("\"clean\":false"), "{log}");
}
