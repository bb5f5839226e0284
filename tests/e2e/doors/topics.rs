//! The door of AWS IoT Core.

use serde_json::json;

use super::{assert_refused, carrying, doors, last, trace_id};
use crate::encoded::gzip;
use crate::harness::{Ask, Client, Protocol};

#[test]
fn what_is_published_arrives_with_its_topic() {
    let gateway = doors().without_limits().start();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        for (path, stream, topic) in [
            ("dt/7/telemetry?qos=1", "telemetry", "dt/7/telemetry"),
            ("dt/7/telemetry?qos=0", "telemetry", "dt/7/telemetry"),
            ("dt/7/telemetry", "telemetry", "dt/7/telemetry"),
            (
                "dt%2Fa%20b%2ftelemetry?retain=true&qos=1",
                "telemetry",
                "dt/a b/telemetry",
            ),
            ("alarms", "alarms", "alarms"),
            ("alarms/%C3%A4/%252F", "alarms", "alarms/\u{e4}/%2F"),
            ("alarms//records", "alarms", "alarms//records"),
            ("$aws/rules/x", "alarms", "$aws/rules/x"),
        ] {
            let ask = Ask::post("{\"a\":1}").to(&format!("/topics/{path}"));
            let reply = client.send(&ask.with("content-type", "application/json"));
            assert_eq!(reply.status, 200, "{protocol} {path}: {reply:?}");
            assert_eq!(reply.header("content-type"), Some("application/json"));
            let told = reply.problem();
            let record = last(&gateway, stream);
            assert_eq!(
                told,
                json!({ "message": "OK", "traceId": record["record_id"] }),
                "{path}"
            );
            assert_eq!(record["headers"], json!({ "topic": topic }), "{path}");
            assert_eq!(record["device"], "plc-1");
            assert_eq!(record["content_type"], "application/json");
            assert_eq!(record["payload"], json!({ "a": 1 }));
        }
    }
}

/// A record that its device has named is known by that name.
#[test]
fn the_trace_id_is_the_records_name() {
    let gateway = doors().start();
    let client = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    let ask = Ask::post("1")
        .to("/topics/alarms")
        .with("idempotency-key", "k\"\\1");
    let reply = client.send(&ask);
    assert_eq!(trace_id(&reply), "k\"\\1");
    assert_eq!(last(&gateway, "alarms")["record_id"], "k\"\\1");
}

#[test]
fn what_is_no_topic_and_what_has_no_stream_is_refused() {
    let gateway = doors().without_limits().start();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        for (path, status, code) in [
            ("other", 403, "stream-forbidden"),
            ("dt/7/telemetry/x", 403, "stream-forbidden"),
            ("$aws/things/x", 403, "stream-forbidden"),
            ("alarms/%2B", 400, "malformed-request"),
            ("alarms/+", 400, "malformed-request"),
            ("alarms/%23", 400, "malformed-request"),
            ("alarms/a%00", 400, "malformed-request"),
            ("alarms/%FF", 400, "malformed-request"),
            ("alarms/%C3", 400, "malformed-request"),
            ("alarms/%zz", 400, "malformed-request"),
            ("", 400, "malformed-request"),
            ("alarms?qos=2", 400, "malformed-request"),
            ("alarms?qos=", 400, "malformed-request"),
            ("alarms?qos=1&qos=2", 400, "malformed-request"),
            ("other?qos=2", 403, "stream-forbidden"),
        ] {
            // On h1, a request that is malformed ends its connection.
            let client = match protocol {
                Protocol::H1 => &Client::open(protocol, &gateway, &gateway.device("plc-1")),
                _ => &client,
            };
            let reply = client.send(&Ask::post("1").to(&format!("/topics/{path}")));
            assert_refused("iot-core", &reply, status, code);
        }
        let reply = client.send(&Ask::post("").to("/topics/alarms"));
        assert_refused("iot-core", &reply, 400, "empty-body");
    }
}

/// AWS takes 128 KB: so do others not grow used to more.
#[test]
fn a_payload_has_128_kib_at_most_where_more_is_allowed() {
    const BYTES_MAX: usize = 128 << 10;
    let gateway = doors()
        .set("FOREBAY_BODY_BYTES_MAX", "1MiB")
        .without_limits()
        .start();
    for protocol in Protocol::ALL {
        let device = gateway.device("plc-1");
        let open = || Client::open(protocol, &gateway, &device);
        let ask = |bytes: usize| Ask::post(vec![b'x'; bytes]).to("/topics/alarms");
        assert_eq!(open().send(&ask(BYTES_MAX)).status, 200, "{protocol}");
        assert_eq!(open().send(&ask(BYTES_MAX).undeclared()).status, 200);
        let reply = open().send(&ask(BYTES_MAX + 1));
        assert_refused("iot-core", &reply, 413, "body-too-large");
        let reply = open().send(&ask(BYTES_MAX + 1).undeclared());
        assert_refused("iot-core", &reply, 413, "body-too-large");
        // The bound is that of the decoded body.
        let coded = |bytes: usize| {
            let coded = carrying(&ask(0), gzip(&vec![b'x'; bytes]));
            coded.with("content-encoding", "gzip")
        };
        assert_eq!(open().send(&coded(BYTES_MAX)).status, 200, "{protocol}");
        let reply = open().send(&coded(BYTES_MAX + 1));
        assert_refused("iot-core", &reply, 413, "body-too-large");
        assert_eq!(
            open().send(&Ask::post(vec![b'x'; BYTES_MAX + 1])).status,
            204
        );
    }
    let small = doors().set("FOREBAY_BODY_BYTES_MAX", "1KiB").start();
    let client = Client::open(Protocol::H2, &small, &small.device("plc-1"));
    let reply = client.send(&Ask::post(vec![b'x'; 1025]).to("/topics/alarms"));
    assert_refused("iot-core", &reply, 413, "body-too-large");
}

/// Filters stand in the order in which they are asked: a wider one that comes first leaves nothing to those after it.
#[test]
fn of_filters_that_overlap_the_first_one_wins() {
    const FILTERS: [&str; 3] = ["dt/+/telemetry=telemetry", "dt/7/#=alarms", "#=metrics"];
    let streams = |filters: &str| {
        let gateway = doors().set("FOREBAY_TOPICS", filters).start();
        let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
        let mut streams = Vec::new();
        for topic in ["dt/7/telemetry", "dt/7/x", "dt/8/telemetry", "x"] {
            let reply = client.send(&Ask::post("1").to(&format!("/topics/{topic}")));
            let id = trace_id(&reply);
            let has_it = |stream: &&str| {
                let lines = gateway.files(stream);
                lines.iter().any(|line| line.text("record_id") == id)
            };
            let stream = ["telemetry", "alarms", "metrics"].into_iter().find(has_it);
            streams.push(stream.expect("it is somewhere"));
        }
        streams
    };
    let [narrow, seven, all] = FILTERS;
    for (filters, expected) in [
        (
            [narrow, seven, all],
            ["telemetry", "alarms", "telemetry", "metrics"],
        ),
        (
            [seven, narrow, all],
            ["alarms", "alarms", "telemetry", "metrics"],
        ),
        ([all, narrow, seven], ["metrics"; 4]),
    ] {
        assert_eq!(streams(&filters.join(";")), expected, "{filters:?}");
    }
}
