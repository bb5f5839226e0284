//! The memory budget: it is reserved as bodies arrive, comes back on every path, and no device has all of it.

use crate::harness::client::{Client, Sent};
use crate::harness::{Ask, Gateway, Protocol, Setup, eventually};
use crate::status::{assert_problem, assert_retry_after};

const BODY_BYTES_MAX: usize = 64 << 10;

/// Their bodies would take more than the budget of their test, 768 KiB.
const HEADS: usize = 12;

fn setup() -> Setup {
    Setup::new()
        .without_limits()
        .set("FOREBAY_BODY_BYTES_MAX", "64KiB")
        .set("FOREBAY_MEMORY_MAX", "256KiB")
}

fn reserved_bytes(gateway: &Gateway) -> usize {
    gateway.metric("forebay_admission_bytes") as usize
}

/// A connection each on h1; h2 and h3 ask side by side on one.
fn clients(protocol: Protocol, gateway: &Gateway, device: &str, requests: usize) -> Vec<Client> {
    let device = gateway.device(device);
    let connections = if protocol == Protocol::H1 {
        requests
    } else {
        1
    };
    (0..connections)
        .map(|_| Client::open(protocol, gateway, &device))
        .collect()
}

/// Heads with one byte of their bodies, declared or not, and then silence.
#[test]
fn a_head_reserves_nothing_for_its_body() {
    let gateway = setup().set("FOREBAY_MEMORY_MAX", "768KiB").start();
    let body = vec![b'x'; BODY_BYTES_MAX];
    for protocol in Protocol::ALL {
        for ask in [
            Ask::post("x").undeclared(),
            Ask::post("x").declaring(BODY_BYTES_MAX),
        ] {
            let clients = clients(protocol, &gateway, "greedy", HEADS);
            let mut held: Vec<Sent> = Vec::new();
            for number in 0..HEADS {
                held.push(clients[number % clients.len()].hold(&ask));
                eventually("the head", || reserved_bytes(&gateway) > held.len() * 1024);
            }
            assert!(
                reserved_bytes(&gateway) <= HEADS * 2 * 1024,
                "{protocol} {ask:?}"
            );
            let other = Client::open(protocol, &gateway, &gateway.device("other"));
            assert_eq!(other.send(&Ask::post(&body[..])).status, 204, "{protocol}");
            drop(clients);
            eventually("all of it back", || reserved_bytes(&gateway) == 0);
        }
    }
}

/// One device sends all that it can of bodies that do not end, until it is told that it has enough.
#[test]
fn one_device_leaves_room_for_the_others() {
    let gateway = setup().start();
    let body = vec![b'x'; BODY_BYTES_MAX];
    let most = &body[1..];
    for protocol in Protocol::ALL {
        let greedy = clients(protocol, &gateway, "greedy", 3);
        let ask = Ask::post(most).declaring(BODY_BYTES_MAX);
        let held = greedy[0].hold(&ask);
        eventually("the body", || reserved_bytes(&gateway) > BODY_BYTES_MAX);
        let refused = greedy[1 % greedy.len()].send(&Ask::post(&body[..]));
        assert_problem(&refused, 503, "device-overloaded");
        assert_retry_after(&refused);
        let undeclared = greedy[2 % greedy.len()].send(&Ask::post(&body[..]).undeclared());
        assert_problem(&undeclared, 503, "device-overloaded");
        let other = Client::open(protocol, &gateway, &gateway.device("other"));
        assert_eq!(other.send(&Ask::post(&body[..])).status, 204, "{protocol}");
        held.release(b"x");
        assert_eq!(held.wait().expect("an answer").status, 204, "{protocol}");
        eventually("all of it back", || reserved_bytes(&gateway) == 0);
    }
}

/// However a request ends, nothing of the budget is left with it.
#[test]
fn what_was_reserved_comes_back_on_every_path() {
    let gateway = setup()
        .set("FOREBAY_DEVICE_BYTE_RATE", "1KiB")
        .set("FOREBAY_DEVICE_BYTE_BURST", "128KiB")
        .set("FOREBAY_BODY_TIMEOUT", "1s")
        .start();
    let body = vec![b'x'; BODY_BYTES_MAX + 1];
    let largest = &body[1..];
    for protocol in Protocol::ALL {
        let open = |id: &str| {
            let device = gateway.device(&format!("{id}-{protocol}"));
            Client::open(protocol, &gateway, &device)
        };
        let slow = open("slow");
        let held = slow.hold(&Ask::post(&largest[1..]).declaring(BODY_BYTES_MAX));
        assert_problem(&held.wait().expect("an answer"), 408, "body-timeout");
        let too_large = open("large").send(&Ask::post(&body[..]).undeclared());
        assert_problem(&too_large, 413, "body-too-large");
        let eager = open("eager");
        assert_eq!(eager.send(&Ask::post(largest)).status, 204);
        assert_eq!(eager.send(&Ask::post(&largest[1..])).status, 204);
        let limited = eager.send(&Ask::post(largest).undeclared());
        assert_problem(&limited, 429, "rate-limited");
        let gone = open("gone");
        let held = gone.hold(&Ask::post(&largest[1..]).declaring(BODY_BYTES_MAX));
        eventually("the body", || reserved_bytes(&gateway) > BODY_BYTES_MAX);
        drop((gone, held));
        eventually("all of it back", || reserved_bytes(&gateway) == 0);
    }
}

/// A record's memory counts what it keeps of its head: all of it on h2 and h3, the content type on h1.
#[test]
fn a_head_that_waits_is_counted() {
    const HEAD_BYTES: usize = 8 << 10;
    const RECKONED_BYTES: usize = 512;
    // Bytes that any request reserves, and those of a head beside the long field.
    const OTHER_BYTES: usize = 2 * 1024 + 300;
    let gateway = setup().start();
    for protocol in Protocol::ALL {
        let name = match protocol {
            Protocol::H1 => "content-type",
            Protocol::H2 | Protocol::H3 => "x-large",
        };
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        let ask = Ask::post("x").declaring(2);
        let held = client.hold(&ask.with(name, &"x".repeat(HEAD_BYTES)));
        let least = HEAD_BYTES - RECKONED_BYTES;
        eventually("the head", || reserved_bytes(&gateway) > least);
        assert!(reserved_bytes(&gateway) < least + OTHER_BYTES, "{protocol}");
        held.release(b"x");
        assert_eq!(held.wait().expect("an answer").status, 204, "{protocol}");
        eventually("all of it back", || reserved_bytes(&gateway) == 0);
    }
}
