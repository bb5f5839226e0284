//! The broker falls silent behind the doors, without a spool.

use super::{assert_refused, one_of_each, with_doors};
use crate::brokers;
use crate::harness::{Client, Protocol, eventually};
use crate::status::assert_retry_after;

#[test]
fn every_door_says_to_come_back_and_then_takes_it() {
    let broker = brokers::pausable();
    let gateway = with_doors(broker.gateway_to("doors-outage"))
        .set("FOREBAY_TOPICS", "#=telemetry")
        .set("FOREBAY_OTLP_STREAMS", "traces=telemetry")
        .set("FOREBAY_ACK_TIMEOUT", "1s")
        .without_limits()
        .start();
    let device = gateway.device("plc-1");
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    let paused = broker.pause();
    // Nobody knows yet that it is away: what becomes of this is not known.
    let (door, ask) = &one_of_each("plc-1")[0];
    let reply = clients[0].send(ask);
    if reply.status == 504 {
        assert_refused(door, &reply, 504, "ack-timeout");
    }
    eventually("the sink is known to be away", || {
        gateway.metric("forebay_sink_up{stream=\"telemetry\"}") == 0.0
    });
    for client in &clients {
        for (door, ask) in one_of_each("plc-1") {
            let reply = client.send(&ask);
            assert_refused(door, &reply, 503, "sink-unavailable");
            assert_retry_after(&reply);
        }
    }
    drop(paused);
    gateway.wait_until_ready();
    for client in &clients {
        for (door, ask) in one_of_each("plc-1") {
            let status = client.send(&ask).status;
            assert!(matches!(status, 200 | 204), "{door}: {status}");
        }
    }
    // A reading whose outcome was unknown may be there too.
    assert!(matches!(broker.bodies("doors-outage").len(), 9 | 10));
}
