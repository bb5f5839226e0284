//! Front doors: what devices of other platforms ask and are answered, and that it is the same service.

mod clients;
mod collector;
mod hub;
mod kills;
mod moved;
mod otlp;
mod outage;
mod refused;
mod same;
mod sdk;
mod topics;

use serde_json::Value;

use crate::harness::{Ask, Client, Gateway, Protocol, Reply, Setup};
use crate::status::assert_problem;

/// A gateway that has all doors, and streams behind them.
fn with_doors(setup: Setup) -> Setup {
    setup
        .set("FOREBAY_FRONT_DOORS", "iot-core,iot-hub,otlp")
        .set(
            "FOREBAY_TOPICS",
            "dt/+/telemetry=telemetry;alarms/#=alarms;$aws/rules/+=alarms",
        )
        .set("FOREBAY_OTLP_STREAMS", "metrics=metrics,traces=traces")
}

/// All doors before this stream, which all of their records are for.
fn with_doors_to_one(stream: Setup) -> Setup {
    with_doors(stream)
        .set("FOREBAY_TOPICS", "#=telemetry")
        .set("FOREBAY_OTLP_STREAMS", "traces=telemetry")
}

fn doors() -> Setup {
    with_doors(Setup::new()).set("FOREBAY_STREAMS", "telemetry,alarms,metrics,traces")
}

/// OpenTelemetry's signals.
const SIGNALS: [&str; 3] = ["logs", "metrics", "traces"];

/// A gateway that has the door of OpenTelemetry, and a topic behind it for each signal: `{topics}-logs` and so on.
fn to_topics(setup: Setup, topics: &str) -> Setup {
    let streams = SIGNALS.map(|signal| format!("{signal}={topics}-{signal}"));
    let signals = SIGNALS.map(|signal| format!("{signal}={signal}"));
    setup
        .set("FOREBAY_STREAMS", streams.join(","))
        .set("FOREBAY_FRONT_DOORS", "otlp")
        .set("FOREBAY_OTLP_STREAMS", signals.join(","))
}

/// A request of each door, and the door that it is of.
fn one_of_each(device: &str) -> [(&'static str, Ask); 3] {
    let hub = format!("/devices/{device}/messages/events?api-version=2020-03-13");
    [
        (
            "iot-core",
            Ask::post("1").to("/topics/dt/7/telemetry?qos=1"),
        ),
        ("iot-hub", Ask::post("1").to(&hub)),
        (
            "otlp",
            Ask::post("\n\u{1}x")
                .to("/v1/traces")
                .with("content-type", "application/x-protobuf"),
        ),
    ]
}

/// The stream that the request of a door goes to, of those in [`one_of_each`].
fn stream_of(door: &str) -> &'static str {
    match door {
        "otlp" => "traces",
        _ => "telemetry",
    }
}

/// The same request with another body, and its length.
fn carrying(ask: &Ask, body: impl Into<Vec<u8>>) -> Ask {
    let body = body.into();
    let ask = ask.clone().declaring(body.len());
    Ask { body, ..ask }
}

/// The answer says that the record is safe, with the status of its door.
fn assert_accepted(door: &str, reply: &Reply) {
    let status = if door == "iot-hub" { 204 } else { 200 };
    assert_eq!(reply.status, status, "{door}: {reply:?}");
}

/// The answer is a refusal in the form of its door, with this status and code.
fn assert_refused(door: &str, reply: &Reply, status: u16, code: &str) {
    let begins = format!("{code}: ");
    match door {
        "iot-core" => {
            assert_eq!(reply.status, status, "{reply:?}");
            assert_eq!(reply.header("content-type"), Some("application/json"));
            let told = reply.problem();
            let text = |name: &str| told[name].as_str().unwrap_or_default();
            assert!(text("message").starts_with(&begins), "{told}");
            assert!(!text("traceId").is_empty(), "{told}");
            assert_eq!(told.as_object().map(serde_json::Map::len), Some(2));
        }
        "iot-hub" => assert_problem(reply, status, code),
        "otlp" => {
            assert_eq!(reply.status, status, "{reply:?}");
            let kind = reply.header("content-type");
            assert_eq!(kind, Some("application/x-protobuf"), "{reply:?}");
            // Field 1 is the code, field 2 the message.
            let [8, _, 18, ..] = reply.body[..] else {
                panic!("no google.rpc.Status: {reply:?}")
            };
            let text = String::from_utf8_lossy(&reply.body[3..]).into_owned();
            assert!(text.contains(&begins), "{text}");
        }
        _ => unreachable!("there are three"),
    }
}

fn trace_id(reply: &Reply) -> String {
    let told: Value = reply.problem();
    told["traceId"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_door_that_is_not_configured_is_not_there() {
    let shut = Setup::new().start();
    let hub_alone = Setup::new()
        .set("FOREBAY_FRONT_DOORS", "iot-hub")
        .set("FOREBAY_STREAM_ACCESS", "telemetry:*")
        .start();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &shut, &shut.device("plc-1"));
        for (_, ask) in one_of_each("plc-1") {
            assert_problem(&client.send(&ask), 404, "not-found");
        }
        let client = Client::open(protocol, &hub_alone, &hub_alone.device("plc-1"));
        let statuses = one_of_each("plc-1").map(|(_, ask)| client.send(&ask).status);
        assert_eq!(statuses, [404, 204, 404], "{protocol}");
    }
}

#[test]
fn a_door_without_what_it_needs_is_an_error_at_start() {
    let said = |setup: Setup| {
        let output = setup.run(&["serve"]);
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said_of = |door: &str| said(Setup::new().set("FOREBAY_FRONT_DOORS", door));
    let core = said_of("iot-core");
    assert!(
        core.contains("FOREBAY_TOPICS: must be set where FOREBAY_FRONT_DOORS names iot-core"),
        "{core}"
    );
    let otlp = said_of("iot-hub,otlp");
    assert!(
        otlp.contains("FOREBAY_OTLP_STREAMS: must be set where FOREBAY_FRONT_DOORS names otlp"),
        "{otlp}"
    );
    for (name, value, fault) in [
        ("FOREBAY_FRONT_DOORS", "mqtt", "none of iot-core"),
        ("FOREBAY_FRONT_DOORS", "iot-hub,iot-hub", "a door twice"),
        ("FOREBAY_FRONT_DOORS", "", "is empty"),
        ("FOREBAY_TOPICS", "dt/#/x=telemetry", "a # that is not"),
        ("FOREBAY_TOPICS", "dt/a+=telemetry", "a + beside other"),
        ("FOREBAY_TOPICS", "=telemetry", "an empty topic filter"),
        (
            "FOREBAY_TOPICS",
            "dt/#=none",
            "a stream that FOREBAY_STREAMS",
        ),
        ("FOREBAY_TOPICS", "dt/#", "without ="),
        ("FOREBAY_TOPICS", "a=telemetry;a=telemetry", "filter twice"),
        (
            "FOREBAY_OTLP_STREAMS",
            "spans=telemetry",
            "a signal that is",
        ),
        (
            "FOREBAY_OTLP_STREAMS",
            "logs=none",
            "a stream that FOREBAY_STREAMS",
        ),
        (
            "FOREBAY_OTLP_STREAMS",
            "logs=telemetry,logs=telemetry",
            "a signal twice",
        ),
    ] {
        let said = said(Setup::new().set(name, value));
        let begins = format!("{name}: \"{value}\" ");
        assert!(said.contains(&begins) && said.contains(fault), "{said}");
    }
}

/// The requests of all doors and of the service's own path take from one bucket, on all protocols.
#[test]
fn a_device_has_one_bucket_whatever_door_it_comes_by() {
    let gateway = doors()
        .set("FOREBAY_DEVICE_RATE", "0.001")
        .set("FOREBAY_DEVICE_BURST", 4)
        .start();
    let device = gateway.device("plc-1");
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    for (client, (door, ask)) in clients.iter().zip(one_of_each("plc-1")) {
        let status = client.send(&ask).status;
        assert!(matches!(status, 200 | 204), "{door}: {status}");
    }
    assert_eq!(clients[0].send(&Ask::post("1")).status, 204);
    for client in &clients {
        for (door, ask) in one_of_each("plc-1") {
            let reply = client.send(&ask);
            assert_refused(door, &reply, 429, "rate-limited");
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
            let limit = reply.header("ratelimit").expect("RateLimit");
            assert!(limit.starts_with("\"device\";r=0;t="), "{limit}");
        }
        assert_eq!(client.send(&Ask::post("1")).status, 429);
    }
}

/// The checks of every request, refused in the form of each door: their order is the service's own.
#[test]
fn every_door_refuses_in_its_own_form() {
    let gateway = doors()
        .set("FOREBAY_STREAM_ACCESS", "telemetry:plc-*;traces:plc-*")
        .without_limits()
        .start();
    for protocol in Protocol::ALL {
        // A refusal may end the connection.
        let device = gateway.device("plc-1");
        let open = || Client::open(protocol, &gateway, &device);
        for (door, ask) in one_of_each("plc-1") {
            let told = |ask: &Ask, status, code| {
                let reply = open().send(ask);
                assert_refused(door, &reply, status, code);
                reply
            };
            told(&ask.clone().at("example.com"), 421, "misdirected");
            let get = Ask {
                body: Vec::new(),
                ..ask.clone()
            }
            .by("GET")
            .declaring(0);
            let reply = told(&get, 405, "method-not-allowed");
            assert_eq!(reply.header("allow"), Some("POST"), "{reply:?}");
            let coded = ask.clone().with("content-encoding", "br");
            let reply = told(&coded, 415, "unsupported-encoding");
            assert_eq!(reply.header("accept-encoding"), Some("gzip, zstd"));
            let damaged = ask.clone().with("content-encoding", "gzip");
            told(&damaged, 400, "malformed-encoding");
            told(
                &ask.clone().with("idempotency-key", "a b"),
                400,
                "invalid-idempotency-key",
            );
            let large = Ask {
                body: vec![b'x'; 257 << 10],
                ..ask.clone()
            };
            told(&large.clone().declaring(257 << 10), 413, "body-too-large");
            let status = open()
                .try_send(&large.undeclared())
                .map(|reply| reply.status);
            assert!(matches!(status, Ok(413) | Err(_)), "{status:?}");
        }
        let client = Client::open(protocol, &gateway, &gateway.device("stranger"));
        for (door, ask) in one_of_each("stranger") {
            assert_refused(door, &client.send(&ask), 403, "stream-forbidden");
        }
    }
    let counted = |code| gateway.metric(&format!("forebay_http_refusals_total{{code=\"{code}\"}}"));
    assert_eq!(counted("misdirected"), 9.0);
    assert_eq!(counted("stream-forbidden"), 9.0);
    assert_eq!(gateway.files("telemetry").len(), 0);
}

/// Counts of answers and the access log tell of doors as of everything else.
#[test]
fn answers_are_counted_by_their_own_status() {
    let gateway = doors();
    let log = gateway.path("access.log");
    let gateway = gateway
        .set("FOREBAY_ACCESS_LOG", log.display())
        .set("FOREBAY_ACCESS_LOG_SAMPLE", 1)
        .start();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        for (_, ask) in one_of_each("plc-1") {
            client.send(&ask);
        }
    }
    for protocol in Protocol::ALL {
        let of = |status| {
            let labels = format!("protocol=\"{protocol}\",status=\"{status}\"");
            gateway.metric(&format!("forebay_http_requests_total{{{labels}}}"))
        };
        assert_eq!((of(200), of(204)), (2.0, 1.0), "{protocol}");
    }
    crate::harness::eventually("nine lines", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let count = |status: &str| text.lines().filter(|line| line.contains(status)).count();
        (count("\"status\":200"), count("\"status\":204")) == (6, 3)
    });
}

/// The headers of the last record of a stream in the file sink.
fn last(gateway: &Gateway, stream: &str) -> Value {
    let lines = gateway.files(stream);
    lines.last().expect("a record").0.clone()
}
