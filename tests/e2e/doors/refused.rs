//! Refusals for other reasons than the request itself, in the form of each door.

use super::{assert_refused, doors, one_of_each};
use crate::harness::{Client, Gateway, Protocol};
use crate::status::assert_problem;

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
