//! Behind every door it is the same service: encodings, rules, the devices file and fleet events hold there too.

use std::fs;

use serde_json::{Value, json};

use super::{
    assert_accepted, assert_refused, carrying, doors, last, one_of_each, stream_of, with_doors,
};
use crate::encoded::{gzip, zstd};
use crate::harness::{Client, Gateway, Protocol, Setup, eventually};

#[test]
fn every_door_takes_encoded_bodies_and_passes_on_the_decoded_ones() {
    let gateway = doors().without_limits().start();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        for (door, ask) in one_of_each("plc-1") {
            for (coding, pack) in [("gzip", gzip as fn(&[u8]) -> _), ("zstd", zstd)] {
                let body = format!("{door} by {protocol} in {coding}");
                let packed = carrying(&ask, pack(body.as_bytes()));
                let packed = packed.with("content-encoding", coding);
                for ask in [packed.clone(), packed.undeclared()] {
                    assert_accepted(door, &client.send(&ask));
                    let lines = gateway.files(stream_of(door));
                    let line = lines.last().expect("a record");
                    assert_eq!(line.payload(), body.as_bytes());
                }
            }
        }
    }
}

const SCHEMA: &str = r#"{"properties": {"temp": {"type": "number"}}}"#;

const RULES: &str = r#"
schema = "schema.json"
device_field = "/device"
[[edit]]
op = "remove"
path = "/secret"
"#;

/// All doors, rules for the streams behind them, and events of the fleet.
fn ruled() -> Setup {
    let setup = with_doors(Setup::new()).set(
        "FOREBAY_STREAMS",
        "telemetry,alarms,metrics,traces,fleet-events",
    );
    let rules = setup.path("rules.toml");
    fs::write(&rules, RULES).expect("a file");
    fs::write(setup.path("schema.json"), SCHEMA).expect("a file");
    let rules = rules.display().to_string();
    setup
        .set(
            "FOREBAY_STREAM_RULES",
            format!("telemetry={rules};traces={rules}"),
        )
        .set("FOREBAY_EVENTS_STREAM", "fleet-events")
        .set("FOREBAY_USAGE_INTERVAL", "1h")
        .without_limits()
}

/// The data of a device's one event of this type, once it is there.
fn event(gateway: &Gateway, kind: &str, device: &str) -> Value {
    let kind = format!("forebay.device.{kind}");
    let mut found = Vec::new();
    eventually(&kind, || {
        let text = gateway.file_text("fleet-events");
        // The last one may be on its way.
        let lines = text
            .lines()
            .map_while(|line| serde_json::from_str(line).ok());
        found = lines.map(|line: Value| line["payload"].clone()).collect();
        found.retain(|event| event["type"] == *kind && event["subject"] == device);
        !found.is_empty()
    });
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)["data"].clone()
}

#[test]
fn rules_and_events_hold_behind_every_door() {
    const SOUND: &str = r#"{"temp":1,"secret":2}"#;
    let gateway = ruled().start();
    for protocol in Protocol::ALL {
        // On h1, what is malformed may end its connection: none of this does.
        let device = format!("plc-{protocol}");
        let client = Client::open(protocol, &gateway, &gateway.device(&device));
        for (door, ask) in one_of_each(&device) {
            for (body, status, code) in [
                ("no JSON", 400, "not-json"),
                (r#"{"temp":"high"}"#, 400, "schema-violation"),
                (r#"{"device":"plc-2"}"#, 403, "device-mismatch"),
            ] {
                let reply = client.send(&carrying(&ask, body));
                assert_refused(door, &reply, status, code);
            }
            assert_accepted(door, &client.send(&carrying(&ask, SOUND)));
            let record = last(&gateway, stream_of(door));
            assert_eq!(record["payload"], json!({ "temp": 1, "device": device }));
        }
        drop(client);
        let bytes = 3 * SOUND.len();
        for kind in ["disconnected", "usage"] {
            let data = event(&gateway, kind, &device);
            let counted = ["accepted", "refused", "bytes"].map(|count| &data[count]);
            assert_eq!(counted, [&json!(3), &json!(9), &json!(bytes)], "{kind}");
        }
    }
}
