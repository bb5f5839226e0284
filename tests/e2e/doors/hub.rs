//! The door of Azure IoT Hub.

use serde_json::json;

use super::{assert_accepted, carrying, doors, last, one_of_each, with_doors_to_one};
use crate::brokers;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};
use crate::kafka::Kafka;
use crate::kinesis::KinesisStream;
use crate::spool::wait_until_drained;
use crate::status::assert_problem;

fn event(id: &str) -> Ask {
    Ask::post("{\"a\":1}").to(&format!(
        "/devices/{id}/messages/events?api-version=2020-03-13"
    ))
}

#[test]
fn a_message_arrives_with_its_properties() {
    let gateway = doors().without_limits().start();
    let long = "m".repeat(128);
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("urn:plant/7"));
        for id in ["urn:plant/7", "urn%3Aplant%2F7", "%75rn:plant%2f7"] {
            let ask = event(id)
                .with("content-type", "text/plain")
                .with("iothub-contenttype", "application/json")
                .with("iothub-contentencoding", "utf-8")
                .with("iothub-messageid", &long)
                .with("iothub-correlationid", "c-1")
                .with("iothub-to", "/devices/x/messages/events")
                .with("iothub-app-line", "7");
            let reply = client.send(&ask);
            assert_eq!(reply.status, 204, "{protocol} {id}: {reply:?}");
            assert!(reply.body.is_empty());
            let record = last(&gateway, "telemetry");
            assert_eq!(record["record_id"], *long);
            assert_eq!(record["device"], "urn:plant/7");
            assert_eq!(record["content_type"], "application/json");
            let headers = json!({
                "iothub-contentencoding": "utf-8", "iothub-correlationid": "c-1",
                "iothub-to": "/devices/x/messages/events", "iothub-app-line": "7",
            });
            assert_eq!(record["headers"], headers);
            assert_eq!(record["payload"], json!({ "a": 1 }));
        }
    }
    let client = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    let ask = event("plc-1").with("content-type", "text/plain");
    assert_eq!(client.send(&ask.with("idempotency-key", "k")).status, 204);
    let record = last(&gateway, "telemetry");
    assert_eq!(record["content_type"], "text/plain");
    assert_eq!(record["record_id"], "k");
    assert_eq!(record.get("headers"), None);
}

#[test]
fn what_the_service_refuses_is_refused() {
    let gateway = doors().without_limits().start();
    for protocol in Protocol::ALL {
        let open = || Client::open(protocol, &gateway, &gateway.device("plc-1"));
        let told = |ask: &Ask, status, code| assert_problem(&open().send(ask), status, code);
        told(&event("plc-2"), 403, "device-mismatch");
        told(&event("plc-1%20"), 403, "device-mismatch");
        told(&event(""), 403, "device-mismatch");
        let path = "/devices/plc-1/messages/events";
        for query in ["", "?", "?api-version=", "?version=1"] {
            let ask = Ask::post("1").to(&format!("{path}{query}"));
            told(&ask, 400, "malformed-request");
        }
        // Another device's path is the earlier fault.
        let other = Ask::post("1").to("/devices/plc-2/messages/events");
        told(&other, 403, "device-mismatch");
        told(&event("plc-1").by("PUT"), 405, "method-not-allowed");
        let below = Ask::post("1").to(&format!("{path}/records?api-version=1"));
        told(&below, 404, "not-found");
        let foreign = event("plc-1").with("iothub-contenttype", "text/\u{e4}");
        told(&foreign, 400, "malformed-request");
        let both = event("plc-1").with("iothub-contenttype", "text/plain");
        told(
            &both.with("iothub-contenttype", "text/plain"),
            400,
            "malformed-request",
        );
        let long = event("plc-1").with("iothub-messageid", &"m".repeat(129));
        told(&long, 400, "invalid-idempotency-key");
        let twice = event("plc-1").with("iothub-messageid", "a");
        told(
            &twice.with("iothub-messageid", "a"),
            400,
            "invalid-idempotency-key",
        );
        let key = event("plc-1").with("idempotency-key", &"m".repeat(65));
        told(&key, 400, "invalid-idempotency-key");
        told(
            &Ask {
                body: Vec::new(),
                ..event("plc-1")
            }
            .declaring(0),
            400,
            "empty-body",
        );
        let mut many = event("plc-1");
        for index in 0..64 {
            many = many.with(&format!("iothub-app-{index}"), "x");
        }
        let reply = open().try_send(&many).map(|reply| reply.status);
        assert_eq!(reply, Ok(431), "{protocol}");
        // Elsewhere such fields mean nothing.
        let own = Ask::post("1").with("iothub-messageid", &"m".repeat(129));
        assert_eq!(open().send(&own).status, 204);
    }
}

/// Properties count as a part of the message, as they do there: a record fits its stream with them.
#[test]
fn many_properties_leave_less_room_for_the_body() {
    let gateway = doors()
        .set("FOREBAY_BODY_BYTES_MAX", "4KiB")
        .without_limits()
        .start();
    for protocol in Protocol::ALL {
        let ask = |body_bytes: usize| {
            let body = vec![b'x'; body_bytes];
            let declared = body_bytes.to_string();
            let ask = Ask {
                body,
                ..event("plc-1")
            }
            .declaring(declared);
            ask.with(
                "iothub-app-x",
                &"x".repeat(2048 + 100 - "iothub-app-x".len()),
            )
        };
        let open = || Client::open(protocol, &gateway, &gateway.device("plc-1"));
        assert_eq!(open().send(&ask(4096 - 100)).status, 204, "{protocol}");
        assert_problem(&open().send(&ask(4096 - 99)), 413, "body-too-large");
    }
}

/// The gateway says at start that Kinesis drops the properties.
#[test]
fn with_kinesis_the_loss_of_headers_is_said_at_start() {
    let setup = |doors: &str| {
        let setup = Setup::new()
            .set("FOREBAY_SINK", "kinesis")
            .set("AWS_ENDPOINT_URL_KINESIS", "http://127.0.0.1:1")
            .set("AWS_REGION", "eu-central-1")
            .set("AWS_ACCESS_KEY_ID", "x")
            .set("AWS_SECRET_ACCESS_KEY", "x");
        match doors {
            "" => setup,
            doors => setup.set("FOREBAY_FRONT_DOORS", doors),
        }
    };
    const WARNING: &str = "Kinesis keeps no headers";
    assert!(setup("iot-hub").start_unready().log().contains(WARNING));
    assert!(!setup("").start_unready().log().contains(WARNING));
}

/// A record that came with headers is one without them there, and nothing else of it is lost.
#[test]
fn a_record_reaches_kinesis_without_its_headers() {
    for is_aggregated in [false, true] {
        let stream = KinesisStream::start("doors", 1);
        let gateway = with_doors_to_one(stream.gateway())
            .set("FOREBAY_KINESIS_AGGREGATE", is_aggregated)
            .start();
        let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
        for (door, ask) in one_of_each("plc-1") {
            let body = format!("from {door}");
            let ask = carrying(&ask, body.clone()).with("iothub-app-line", "7");
            let reply = client.send(&ask.with("idempotency-key", door));
            assert_accepted(door, &reply);
            let stored = stream.read();
            let record = stored.last().expect("a record");
            assert_eq!(brokers::text(&record.body), body);
            assert_eq!(record.device, "plc-1");
            let known = record.record_id.as_deref();
            assert_eq!(known, is_aggregated.then_some(door));
        }
        assert_eq!(stream.read().len(), 3);
    }
}

/// Through Kafka and through the spool, a record keeps its long name and its headers.
#[test]
fn headers_reach_kafka_also_by_way_of_the_spool() {
    for (topic, mode) in [("hub-direct", None), ("hub-spooled", Some("always"))] {
        let setup = brokers::gateway_to(topic)
            .set("FOREBAY_FRONT_DOORS", "iot-core,iot-hub")
            .set("FOREBAY_TOPICS", "#=telemetry");
        let setup = match mode {
            Some(mode) => setup.with_spool(mode),
            None => setup,
        };
        let gateway: Gateway = setup.without_limits().start();
        let long = "m".repeat(128);
        let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
        let ask = event("plc-1")
            .with("iothub-messageid", &long)
            .with("iothub-app-a", "b");
        assert_eq!(client.send(&ask).status, 204);
        let published = Ask::post("1").to("/topics/dt/%C3%A4");
        assert_eq!(client.send(&published).status, 200);
        if mode.is_some() {
            wait_until_drained(&gateway);
        }
        let mut stored = Vec::new();
        eventually("both records", || {
            stored = Kafka::shared().read_topic(topic);
            stored.len() == 2
        });
        let header = |record: usize, name: &str| {
            let mut headers = stored[record].headers.iter();
            let found = headers.find(|(known, _)| known == name);
            found.map(|(_, value)| String::from_utf8(value.clone()).expect("UTF-8"))
        };
        assert_eq!(header(0, "record-id"), Some(long), "{topic}");
        assert_eq!(header(0, "iothub-app-a").as_deref(), Some("b"), "{topic}");
        assert_eq!(header(1, "topic").as_deref(), Some("dt/\u{e4}"), "{topic}");
    }
}
