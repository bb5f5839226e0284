//! SIGTERM: nothing that was answered 204 is lost, and the gateway goes.

use std::collections::HashSet;
use std::io::Write;
use std::net::TcpStream;

use crate::brokers;
use crate::harness::load::Outcome;
use crate::harness::raw::{self, Raw, block_on, frame};
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

/// Silence of a connection in the middle of an exchange.
struct Silence {
    name: &'static str,
    protocol: &'static str,
    /// Bytes that it sends before it falls silent.
    says: Vec<u8>,
    /// It is silent once it has been told so much.
    hears: usize,
}

fn silence(name: &'static str, protocol: &'static str, says: &[u8], hears: usize) -> Silence {
    Silence {
        name,
        protocol,
        says: says.to_vec(),
        hears,
    }
}

fn silences() -> Vec<Silence> {
    let preface = frame::preface();
    let post = frame::post("9");
    let no_window = frame::frame(frame::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let nowhere = [
        &[0x83, 0x87][..],
        &frame::field(":path", b"/none"),
        &frame::field(":authority", b"localhost"),
    ]
    .concat();
    let refused = |flags| frame::frame(frame::HEADERS, frame::END_HEADERS | flags, 1, &nowhere);
    let refused_head = b"POST /none HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nand no";
    let in_chunks =
        b"POST /none HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc";
    vec![
        silence("h1, nothing", "http/1.1", b"", 0),
        silence("h1, half a head", "http/1.1", b"POST /v1/telem", 0),
        silence("h1, a refused body", "http/1.1", refused_head, 1),
        silence("h1, refused chunks", "http/1.1", in_chunks, 1),
        silence("h2, nothing", "h2", b"", 0),
        silence("h2, half a preface", "h2", b"PRI * HTTP", 0),
        silence("h2, a preface", "h2", &preface, 1),
        silence(
            "h2, half a head",
            "h2",
            &[&preface[..], &frame::frame(frame::HEADERS, 0, 1, &post)].concat(),
            1,
        ),
        silence(
            "h2, no window",
            "h2",
            &[preface.clone(), no_window, refused(frame::END_STREAM)].concat(),
            60,
        ),
        silence(
            "h2, a refused body",
            "h2",
            &[preface, refused(0)].concat(),
            60,
        ),
    ]
}

/// A silent connection has nothing in flight, and holds nobody up.
#[test]
fn nobody_who_is_silent_holds_the_gateway_up() {
    for silence in silences() {
        let mut gateway = Setup::new()
            .without_limits()
            .set("FOREBAY_DRAIN_TIMEOUT", "10m")
            .set("FOREBAY_HEADER_TIMEOUT", "10m")
            .set("FOREBAY_IDLE_TIMEOUT", "10m")
            .start();
        let device = gateway.device("plc-1");
        let raw = block_on(async {
            let tls = raw::tls(&gateway, Some(&device), silence.protocol);
            let mut raw = Raw::open(gateway.address, tls).await.expect("it connects");
            raw.send(&silence.says).await.expect("it listens");
            let mut heard = 0;
            while heard < silence.hears {
                heard += raw.receive().await.len();
            }
            raw
        });
        gateway.terminate();
        assert_eq!(gateway.exit_code(), 0, "{}", silence.name);
        drop(raw);
    }
}

/// The same before there is a connection: whoever has not said all of its hello.
#[test]
fn nobody_who_does_not_shake_hands_holds_the_gateway_up() {
    for hello in [&b""[..], &[0x16, 3, 1, 2, 0, 1]] {
        let mut gateway = Setup::new()
            .set("FOREBAY_DRAIN_TIMEOUT", "10m")
            .set("FOREBAY_HANDSHAKE_TIMEOUT", "10m")
            .start();
        let mut stream = TcpStream::connect(gateway.address).expect("it accepts");
        stream.write_all(hello).expect("it listens");
        gateway.terminate();
        assert_eq!(gateway.exit_code(), 0, "{hello:?}");
    }
}

/// Answers that are not read fill what the kernel holds: the gateway cannot write any more.
#[test]
fn nobody_who_reads_no_answers_holds_the_gateway_up() {
    for protocol in ["http/1.1", "h2"] {
        let mut gateway = Setup::new()
            .without_limits()
            .set("FOREBAY_DRAIN_TIMEOUT", "10m")
            .set("FOREBAY_IDLE_TIMEOUT", "10m")
            .start();
        let device = gateway.device("plc-1");
        let tls = raw::tls(&gateway, Some(&device), protocol);
        let requests: Vec<u8> = match protocol {
            "h2" => frame::frame(frame::PING, 0, 0, b"forebay?").repeat(1000),
            _ => {
                b"POST /none HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1".repeat(1000)
            }
        };
        let raw = block_on(async {
            let mut raw = Raw::open(gateway.address, tls).await.expect("it connects");
            if protocol == "h2" {
                raw.send(&frame::preface()).await.expect("it listens");
            }
            raw.send_until_stuck(&requests).await;
            raw
        });
        gateway.terminate();
        assert_eq!(gateway.exit_code(), 0, "{protocol}");
        drop(raw);
    }
}
