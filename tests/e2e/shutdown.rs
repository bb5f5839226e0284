//! SIGTERM: nothing that was answered 204 is lost, and the gateway goes.

use std::collections::HashSet;
use std::net::TcpStream;

use crate::brokers;
use crate::harness::load::Outcome;
use crate::harness::{Ask, Client, Gateway, Load, Protocol, Setup, eventually};
use crate::spool::wait_until_drained;

/// Enough that a batch is on its way at any time.
const SENDERS: usize = 4;
const READINGS_BEFORE: u64 = 200;

fn senders(gateway: &Gateway, protocol: Protocol) -> Vec<Client> {
    (0..SENDERS)
        .map(|n| {
            Client::open(
                protocol,
                gateway,
                &gateway.device(&format!("{protocol}-{n}")),
            )
        })
        .collect()
}

/// Ends a gateway in the middle of a load, and gives back what the senders saw.
fn terminate_under_load(gateway: &mut Gateway, protocol: Protocol) -> HashSet<String> {
    let clients = senders(gateway, protocol);
    let load = Load::start("reading", &clients, 64);
    load.wait_for(204, READINGS_BEFORE);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0, "{protocol}");
    let outcomes = load.stop();
    for sender in &outcomes.senders {
        let (last, before) = sender.split_last().expect("a sender sends");
        assert!(matches!(last, Outcome::Broken(_)), "{protocol}: {last:?}");
        assert!(
            before
                .iter()
                .all(|outcome| *outcome == Outcome::Status(204)),
            "{protocol}: {before:?}"
        );
    }
    outcomes.accepted().into_iter().collect()
}

fn drains_into_files(protocol: Protocol) {
    let mut gateway = Setup::new().without_limits().start();
    let accepted = terminate_under_load(&mut gateway, protocol);
    let stored = gateway.files("telemetry");
    let stored: HashSet<_> = stored
        .iter()
        .map(|line| String::from_utf8_lossy(&line.payload()).trim().to_owned())
        .collect();
    let lost: Vec<_> = accepted.difference(&stored).collect();
    assert!(lost.is_empty(), "{protocol}: {lost:?}");
}

#[test]
fn an_h1_load_drains_into_files() {
    drains_into_files(Protocol::H1);
}

#[test]
fn an_h2_load_drains_into_files() {
    drains_into_files(Protocol::H2);
}

#[test]
fn an_h3_load_drains_into_files() {
    drains_into_files(Protocol::H3);
}

#[test]
fn a_load_on_each_protocol_drains_into_kafka() {
    for protocol in Protocol::ALL {
        let topic = format!("drain-{protocol}");
        let mut gateway = brokers::gateway_to(&topic).without_limits().start();
        let accepted = terminate_under_load(&mut gateway, protocol);
        let stored: HashSet<_> = brokers::bodies(&topic).into_iter().collect();
        let lost: Vec<_> = accepted.difference(&stored).collect();
        assert!(lost.is_empty(), "{protocol}: {lost:?}");
    }
}

/// A request that has begun is finished; connections that do nothing are ended; nobody new gets in.
#[test]
fn what_is_in_flight_is_finished_and_nothing_new_begins() {
    let mut gateway = Setup::new().start();
    let device = gateway.device("plc-1");
    let idle = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    idle.iter()
        .for_each(|client| assert_eq!(client.send(&Ask::post("1")).status, 204));
    let busy = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    let held = busy
        .each_ref()
        .map(|client| client.hold(&Ask::post("be").declaring(6)));
    let reserved = 3.0 * (6.0 + 1024.0);
    eventually("all three requests", || {
        gateway.metric("forebay_admission_bytes") == reserved
    });
    gateway.terminate();
    idle.iter().for_each(|client| drop(client.closed()));
    assert_eq!(
        gateway.admin("/readyz"),
        (503, "not ready: draining\n".to_owned())
    );
    assert_eq!(gateway.admin("/servez"), (503, "draining\n".to_owned()));
    assert_eq!(gateway.admin("/livez").0, 200);
    let refused = TcpStream::connect(gateway.address)
        .map(|_| ())
        .map_err(|error| error.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::ConnectionRefused));
    for (held, protocol) in held.into_iter().zip(Protocol::ALL) {
        held.release(b"long");
        let reply = held.wait().expect("an answer");
        assert_eq!(reply.status, 204, "{protocol}");
        let close = (protocol == Protocol::H1).then_some("close");
        assert_eq!(reply.header("connection"), close, "{protocol}");
    }
    assert_eq!(gateway.exit_code(), 0);
    let stored = gateway.files("telemetry");
    assert_eq!(
        stored
            .iter()
            .filter(|line| line.payload() == b"belong")
            .count(),
        3
    );
}

/// SIGINT is SIGTERM.
#[test]
fn an_idle_gateway_ends_at_once_by_either_signal() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut gateway = Setup::new().start();
        gateway.signal(signal);
        assert_eq!(gateway.exit_code(), 0);
    }
}

/// The broker does not answer, so the drain would last: the second signal has the requests answered and ends it.
#[test]
fn a_second_signal_hurries() {
    let broker = brokers::pausable();
    let mut gateway = broker
        .gateway_to("hurry")
        .set("FOREBAY_ACK_TIMEOUT", "4m")
        .set("FOREBAY_DRAIN_TIMEOUT", "4m")
        .start();
    let device = gateway.device("plc-1");
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    let paused = broker.pause();
    let sent = clients
        .each_ref()
        .map(|client| client.begin(&Ask::post("1")));
    eventually("all three records", || {
        gateway.metric("forebay_admission_bytes") >= 3.0 * 1024.0
    });
    gateway.terminate();
    eventually("the drain", || {
        gateway.admin("/readyz").1.contains("draining")
    });
    gateway.terminate();
    for (sent, protocol) in sent.into_iter().zip(Protocol::ALL) {
        assert_eq!(sent.wait().expect("an answer").status, 504, "{protocol}");
    }
    assert_eq!(gateway.exit_code(), 0, "every request was answered");
    drop(paused);
}

/// `queued` answers before anything is safe: what the broker does not take by the deadline is lost, and the exit code says so.
#[test]
fn what_was_answered_and_is_lost_is_told_by_the_exit_code() {
    let broker = brokers::pausable();
    let setup = broker
        .gateway_to("queued")
        .set("FOREBAY_ACK", "queued")
        .set("FOREBAY_DRAIN_TIMEOUT", "1s");
    let mut gateway = setup.start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let paused = broker.pause();
    assert_eq!(client.send(&Ask::post("1")).status, 204);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 1);
    drop(paused);
    let mut gateway = gateway.kill().with_spool("overflow").start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let paused = broker.pause();
    assert_eq!(client.send(&Ask::post("2")).status, 204);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0, "the spool has it");
    drop(paused);
    wait_until_drained(&gateway.kill().start());
    assert!(broker.bodies("queued").contains(&"2".to_owned()));
}
