//! Refusals for other reasons than the request itself, in the form of each door.

use std::fs;

use super::{assert_accepted, assert_refused, carrying, doors, one_of_each, with_doors_to_one};
use crate::brokers;
use crate::harness::client::Quirks;
use crate::harness::curl::parse;
use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Ask, Client, Gateway, Protocol, Via, eventually};
use crate::kafka_faults::set_message_bytes_max;
use crate::status::{assert_problem, assert_retry_after};

fn open(protocol: Protocol, gateway: &Gateway) -> Client {
    Client::open(protocol, gateway, &gateway.device("plc-1"))
}

/// Such a head is refused before it is judged: as its door would, where the line that names the door can be read.
#[test]
fn heads_that_are_not_taken_are_refused_as_their_door_does() {
    let gateway = doors().without_limits().start();
    for (door, ask) in one_of_each("plc-1") {
        for protocol in Protocol::ALL {
            let mut many = ask.clone();
            for index in 0..65 {
                many = many.with(&format!("x-{index}"), "1");
            }
            let reply = open(protocol, &gateway).send(&many);
            assert_refused(door, &reply, 431, "head-too-large");
        }
        for protocol in [Protocol::H2, Protocol::H3] {
            let reply = open(protocol, &gateway).send(&ask.clone().with("x", "a "));
            assert_refused(door, &reply, 400, "malformed-request");
        }
        let raw = |rest: &str| {
            let head = format!("POST {} HTTP/1.1{rest}", ask.path);
            let reply = open(Protocol::H1, &gateway).raw(head.as_bytes());
            reply.expect("an answer")
        };
        let endless = format!("\r\nx: {}", "x".repeat(17 << 10));
        assert_refused(door, &raw(&endless), 431, "head-too-large");
        for rest in [
            "\r\nHost: localhost\n\n",
            "\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
            "\r\nno field\r\n\r\n",
        ] {
            assert_refused(door, &raw(rest), 400, "malformed-request");
        }
    }
    let reply = open(Protocol::H1, &gateway).raw(b"POST\r\n\r\n");
    assert_problem(&reply.expect("an answer"), 400, "malformed-request");
}

#[test]
fn a_body_that_does_not_come_is_refused_by_every_door() {
    let gateway = doors().set("FOREBAY_BODY_TIMEOUT", "1s").start();
    for protocol in Protocol::ALL {
        for (door, ask) in one_of_each("plc-1") {
            let client = open(protocol, &gateway);
            let held = client.hold(&ask.declaring(100));
            let reply = held.wait().expect("an answer");
            assert_refused(door, &reply, 408, "body-timeout");
        }
    }
}

/// One body holds the budget while others ask for it.
#[test]
fn every_door_sheds_what_there_is_no_room_for() {
    let gateway = doors()
        .without_limits()
        .set("FOREBAY_BODY_BYTES_MAX", "64KiB")
        .set("FOREBAY_MEMORY_MAX", "72KiB")
        .start();
    let body = vec![b'x'; 60 << 10];
    let holder = Client::open(Protocol::H1, &gateway, &gateway.device("greedy"));
    let held = holder.hold(&Ask::post(&body[1..]).declaring(body.len()));
    eventually("the reservation", || {
        gateway.metric("forebay_admission_bytes") > body.len() as f64
    });
    for protocol in Protocol::ALL {
        for (door, ask) in one_of_each("plc-1") {
            let reply = open(protocol, &gateway).send(&carrying(&ask, &body[..]));
            assert_refused(door, &reply, 503, "overloaded");
            assert_retry_after(&reply);
        }
    }
    held.release(b"x");
    assert_eq!(held.wait().expect("an answer").status, 204);
}

/// A gateway that has been told twice to go takes nothing more: not what has begun to come, either.
#[test]
fn a_gateway_that_goes_away_says_so_at_every_door() {
    let mut gateway = doors().set("FOREBAY_DRAIN_TIMEOUT", "4m").start();
    let tls = tls(&gateway, Some(&gateway.device("plc-1")), "http/1.1");
    let asks = one_of_each("plc-1");
    let mut answers = Vec::new();
    block_on(async {
        let mut begun = Vec::new();
        for (_, ask) in &asks {
            let mut raw = Raw::open(gateway.address, tls.clone()).await.expect("TLS");
            // Once the first one is answered, the beginning of the next one has come.
            let post =
                "POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1";
            let next = format!("POST {} HTTP/1.1\r\nHost: localhost\r\n", ask.path);
            raw.send(format!("{post}{next}").as_bytes())
                .await
                .expect("it is read");
            assert!(raw.receive().await.starts_with(b"HTTP/1.1 204 "));
            begun.push(raw);
        }
        gateway.terminate();
        eventually("the drain", || {
            gateway.admin("/readyz").1.contains("draining")
        });
        gateway.terminate();
        eventually("the hurry", || gateway.log().contains("a second signal"));
        for raw in &mut begun {
            let rest = "Content-Length: 1\r\nContent-Type: application/x-protobuf\r\n\r\n1";
            raw.send(rest.as_bytes()).await.expect("it is read");
        }
        for mut raw in begun {
            answers.push(raw.receive_all().await);
        }
    });
    for ((door, _), answer) in asks.iter().zip(&answers) {
        assert_refused(door, &parse(answer), 503, "draining");
    }
    assert_eq!(gateway.exit_code(), 0);
}

/// The identity is judged before the door: it is the door all the same that tells of it.
#[test]
fn who_may_not_speak_is_told_so_by_every_door() {
    let setup = doors().without_limits();
    let devices = setup.path("devices");
    fs::write(&devices, "deny stolen\n").expect("a file");
    let gateway = setup.set("FOREBAY_DEVICES_FILE", devices.display()).start();
    let nameless = gateway.pki.device_with_uris("nameless", &[]);
    let stolen = gateway.device("stolen");
    for (device, code) in [(nameless, "invalid-identity"), (stolen, "device-denied")] {
        for protocol in Protocol::ALL {
            for (door, ask) in one_of_each("stolen") {
                let client = Client::open(protocol, &gateway, &device);
                assert_refused(door, &client.send(&ask), 403, code);
                client.closed();
            }
        }
    }
}

/// A certificate that is revoked while it is in use is cut off, or told why: no door takes its records.
#[test]
fn no_door_takes_records_of_a_revoked_certificate() {
    let setup = doors().without_limits();
    let crl = setup.pki.revoke(&[]);
    let gateway = setup.set("FOREBAY_TLS_CRL", crl.display()).start();
    let device = gateway.device("plc-1");
    let quirks = Quirks::default;
    let mut live = Vec::new();
    for protocol in Protocol::ALL {
        for (door, ask) in one_of_each("plc-1") {
            let client = Client::open(protocol, &gateway, &device);
            assert_accepted(door, &client.send(&ask));
            live.push((client, door, ask));
        }
    }
    gateway.pki.revoke(&[&device]);
    for (client, door, ask) in &live {
        eventually("the end of what it may do", || match client.try_send(ask) {
            Ok(reply) if reply.status == 403 => {
                assert_refused(door, &reply, 403, "certificate-revoked");
                true
            }
            Ok(reply) => {
                assert_accepted(door, &reply);
                false
            }
            Err(_) => true,
        });
        client.closed();
        let again = Client::try_open(
            Via::Wire,
            client.protocol,
            &gateway,
            Some(&device),
            quirks(),
        );
        if let Ok(again) = again {
            again.closed();
        }
    }
}

/// A client of OTLP sends again after 502, and for ever what can never pass: it is told 400.
#[test]
fn what_the_stream_refuses_for_good_is_not_sent_again() {
    let settings = [("max.message.bytes", "1000000")];
    let gateway = with_doors_to_one(brokers::gateway_with("doors-shrunk", &settings))
        .without_limits()
        .start();
    set_message_bytes_max("doors-shrunk", "20000");
    for protocol in Protocol::ALL {
        let client = open(protocol, &gateway);
        for (door, ask) in one_of_each("plc-1") {
            let reply = client.send(&carrying(&ask, vec![b'x'; 30_000]));
            let status = if door == "otlp" { 400 } else { 502 };
            assert_refused(door, &reply, status, "sink-refused");
            assert_eq!(reply.header("retry-after"), None);
        }
    }
}
