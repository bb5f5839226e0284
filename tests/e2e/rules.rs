//! The rules of a stream: what a device is told, what arrives, and what changes while the gateway runs.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::brokers;
use crate::harness::{Ask, Client, Gateway, Protocol, Reply, Setup, eventually};
use crate::kafka::Stored;

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// HMAC-SHA-256 of `p-1` by that key.
const CODE: &str = "d4823dde9a18f1a3f321f5344a9cb5d2a1b785507f955ae774d392c3a75dc063";

const SCHEMA: &str = r#"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["device"],
    "properties": {"temp": {"type": "number", "maximum": 200}}
}"#;

const RULES: &str = r#"
schema = "telemetry.schema.json"
device_field = "/device"
[[edit]]
op = "remove"
path = "/patient/ssn"
[[edit]]
op = "hmac"
path = "/patient/id"
key_file = "hmac.key"
"#;

/// A file as editors and Kubernetes write it: there is no moment without it.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("a file");
    fs::rename(new, file).expect("it is replaced");
}

/// Rules for the default stream, and the files beside them.
fn with_rules(setup: Setup, rules: &str) -> Setup {
    for (name, text) in [
        ("telemetry.toml", rules),
        ("telemetry.schema.json", SCHEMA),
        ("hmac.key", KEY),
    ] {
        fs::write(setup.path(name), text).expect("a file");
    }
    let rules = format!("telemetry={}", setup.path("telemetry.toml").display());
    setup.set("FOREBAY_STREAM_RULES", rules).without_limits()
}

fn told(reply: &Reply) -> (u16, String, String) {
    let problem = reply.problem();
    let text = |member: &str| problem[member].as_str().unwrap_or_default().to_owned();
    (reply.status, text("code"), text("detail"))
}

fn rejected(gateway: &Gateway, code: &str) -> f64 {
    gateway.metric(&format!(
        "forebay_ingest_rejected_total{{stream=\"telemetry\",code=\"{code}\"}}"
    ))
}

/// Payloads in the file sink, as they stand there.
fn payloads(gateway: &Gateway) -> Vec<String> {
    let payload = |line: &str| match line.split_once(",\"payload\":") {
        Some((_, payload)) => payload.strip_suffix('}').expect("its end").to_owned(),
        // A number of 400 digits is beyond what every reader of the line could take.
        None => {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let text = line["payload_base64"].as_str().expect("the body");
            String::from_utf8(BASE64.decode(text).expect("base64")).expect("UTF-8")
        }
    };
    gateway
        .file_text("telemetry")
        .lines()
        .map(payload)
        .collect()
}

#[test]
fn readings_are_judged_alike_on_all_protocols() {
    let gateway = with_rules(Setup::new(), RULES).start();
    let digits = "7".repeat(400);
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        for body in [
            "hello",
            r#"{"a":1,"a":2}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1} {}"#,
            "\u{feff}{}",
            &deep,
        ] {
            let (status, code, _) = told(&client.send(&Ask::post(body)));
            assert_eq!(
                (status, &*code),
                (400, "not-json"),
                "{protocol}: {body:.30}"
            );
        }
        for body in [r#"{"device":"plc-2"}"#, r#"{"device":1}"#, "[]"] {
            let (status, code, _) = told(&client.send(&Ask::post(body)));
            assert_eq!(
                (status, &*code),
                (403, "device-mismatch"),
                "{protocol}: {body}"
            );
        }
        for (body, place) in [
            (r#"{"temp":"secret-value"}"#, "/properties/temp/type"),
            (r#"{"temp":201}"#, "/properties/temp/maximum"),
        ] {
            let expected = (400, "schema-violation".to_owned(), place.to_owned());
            assert_eq!(told(&client.send(&Ask::post(body))), expected, "{protocol}");
        }
        let good = format!(
            r#"{{ "z": -{digits}.50, "patient": {{"ssn": "1", "id": "p-1"}}, "temp": 2e1 }}"#
        );
        assert_eq!(client.send(&Ask::post(good)).status, 204, "{protocol}");
        assert_eq!(
            client.send(&Ask::post(good_for("plc-1"))).status,
            204,
            "{protocol}"
        );
    }
    let first =
        format!(r#"{{"z":-{digits}.50,"patient":{{"id":"{CODE}"}},"temp":2e1,"device":"plc-1"}}"#);
    let second = r#"{"device":"plc-1","b":[1,2.0],"a":null}"#.to_owned();
    assert_eq!(payloads(&gateway), vec![[first, second]; 3].concat());
    assert_eq!(rejected(&gateway, "not-json"), 18.0);
    assert_eq!(rejected(&gateway, "device-mismatch"), 9.0);
    assert_eq!(rejected(&gateway, "schema-violation"), 6.0);
    assert_eq!(rejected(&gateway, "record-too-large"), 0.0);
    let log = gateway.log();
    assert!(
        !log.contains(&KEY[8..]) && !log.contains("secret-value"),
        "{log}"
    );
}

fn good_for(device: &str) -> String {
    format!(r#"{{"device": "{device}", "b": [1, 2.0], "a": null}}"#)
}

/// A record that no rule changes goes on as it came, and another stream takes anything.
#[test]
fn a_reading_that_nothing_changes_goes_on_byte_for_byte() {
    let gateway = with_rules(Setup::new(), "device_field = '/device'")
        .set("FOREBAY_STREAMS", "telemetry,free")
        .start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let body = r#"{ "device" : "plc\u002d1", "t" : 1.50 }"#;
    assert_eq!(client.send(&Ask::post(body)).status, 204);
    assert_eq!(payloads(&gateway), [body]);
    let free = client.send(&Ask::post("hello").to("/v1/streams/free"));
    assert_eq!(free.status, 204);
}

#[test]
fn what_edits_add_counts_for_the_largest_record() {
    let gateway = with_rules(Setup::new(), "device_field = '/device'")
        .set("FOREBAY_BODY_BYTES_MAX", "1KiB")
        .start();
    let client = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    let body = |bytes: usize| {
        let pad = "x".repeat(bytes - r#"{"t":"","device":"plc-1"}"#.len());
        Ask::post(format!(r#"{{"t":"{pad}"}}"#))
    };
    assert_eq!(client.send(&body(1024)).status, 204);
    let (status, code, _) = told(&client.send(&body(1025)));
    assert_eq!((status, &*code), (413, "record-too-large"));
    assert_eq!(rejected(&gateway, "record-too-large"), 1.0);
}

#[test]
fn a_tagged_reading_says_so_in_its_line() {
    let rules = "schema = 'telemetry.schema.json'\non_violation = 'tag'";
    let gateway = with_rules(Setup::new(), rules).start();
    let client = Client::open(Protocol::H3, &gateway, &gateway.device("plc-1"));
    assert_eq!(client.send(&Ask::post("[]")).status, 204);
    assert_eq!(client.send(&Ask::post(good_for("x"))).status, 204);
    let lines = gateway.files("telemetry");
    assert_eq!(lines[0].text("schema_violation"), "/type");
    assert_eq!(lines[1].0.get("schema_violation"), None);
    assert_eq!(rejected(&gateway, "schema-violation"), 1.0);
}

fn header(stored: &Stored, name: &str) -> Option<String> {
    let mut headers = stored.headers.iter();
    let found = headers.find(|(known, _)| known == name);
    found.map(|(_, value)| brokers::text(value))
}

/// The tag goes through the spool and over a restart to Kafka's headers, as it does without them.
#[test]
fn a_tag_reaches_kafka_also_by_way_of_the_disk() {
    let broker = brokers::pausable();
    let rules = "schema = 'telemetry.schema.json'\non_violation = 'tag'\ndevice_field = '/device'";
    let setup = broker.gateway_to("tagged").with_spool("overflow");
    let gateway = with_rules(setup, rules).start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    assert_eq!(client.send(&Ask::post(r#"{"temp":1000}"#)).status, 204);
    let paused = broker.pause();
    assert_eq!(client.send(&Ask::post(r#"{"temp":"hot"}"#)).status, 204);
    assert_eq!(client.send(&Ask::post(r#"{"temp":1}"#)).status, 204);
    let setup = gateway.kill();
    drop(paused);
    let gateway = setup.start();
    eventually("the spool is empty", || {
        gateway.metric("forebay_spool_records") == 0.0
    });
    let mut stored = broker.kafka.read_topic("tagged");
    stored.sort_by_key(|record| record.timestamp);
    let of = |body: &str| {
        let is_it = |record: &&Stored| record.value.as_deref() == Some(body.as_bytes());
        stored.iter().find(is_it).expect("it arrived")
    };
    for (body, violation) in [
        (
            r#"{"temp":1000,"device":"plc-1"}"#,
            Some("/properties/temp/maximum"),
        ),
        (
            r#"{"temp":"hot","device":"plc-1"}"#,
            Some("/properties/temp/type"),
        ),
        (r#"{"temp":1,"device":"plc-1"}"#, None),
    ] {
        let violation = violation.map(str::to_owned);
        assert_eq!(header(of(body), "schema-violation"), violation, "{body}");
        assert!(header(of(body), "record-id").is_some());
    }
}

/// Ends the load, also where the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two generations of rules, each of a file and of what it names. A reading is judged by one of them, whole.
#[test]
fn rules_change_as_one_step_under_load() {
    const FAILURES: &str = "forebay_tls_reload_failures_total{what=\"rules\"}";
    let generation = |letter: &str| {
        format!(
            "schema = '{letter}.json'\n[[edit]]\nop = 'add'\npath = '/by'\nvalue = '{letter}'\n\
             [[edit]]\nop = 'remove'\npath = '/{letter}'\n"
        )
    };
    let setup = with_rules(Setup::new(), &generation("a"));
    fs::write(setup.path("a.json"), r#"{"required": ["a"]}"#).expect("a file");
    fs::write(setup.path("b.json"), r#"{"required": ["b"]}"#).expect("a file");
    let gateway = setup.start();
    let file = gateway.path("telemetry.toml");
    let clients = Protocol::ALL
        .map(|protocol| Client::open(protocol, &gateway, &gateway.device(protocol.name())));
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _over = Over(&is_over);
        for client in &clients {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(client.send(&Ask::post(r#"{"a":1,"b":2}"#)).status, 204);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let reloaded = || gateway.log().matches("rules reloaded").count();
        for round in 0..6 {
            let before = reloaded();
            replace(&file, &generation(if round % 2 == 0 { "b" } else { "a" }));
            gateway.signal(1);
            eventually("the rules are in force", || reloaded() > before);
            let seen = answered.load(Ordering::Relaxed);
            eventually("readings are judged by them", || {
                answered.load(Ordering::Relaxed) >= seen + 20
            });
        }
    });
    let by = |letter: &str, kept: &str| {
        payloads(&gateway)
            .iter()
            .filter(|body| **body == format!(r#"{{{kept},"by":"{letter}"}}"#))
            .count()
    };
    let (by_a, by_b) = (by("a", r#""b":2"#), by("b", r#""a":1"#));
    assert!(by_a > 0 && by_b > 0, "{by_a} by a, {by_b} by b");
    assert_eq!(by_a + by_b, payloads(&gateway).len());

    // Without a signal: a schema that is of no use, then one that is.
    assert_eq!(gateway.metric(FAILURES), 0.0);
    replace(&gateway.path("a.json"), "{");
    eventually("a bad schema is told", || gateway.metric(FAILURES) == 1.0);
    eventually("the log says where", || {
        gateway.log().contains("telemetry.toml, line 1: schema: ")
    });
    let send = |body: &str| told(&clients[0].send(&Ask::post(body)));
    assert_eq!(
        send(r#"{"b":2}"#).2,
        "/required",
        "the last good one is in force"
    );
    replace(&gateway.path("a.json"), r#"{"maxProperties": 1}"#);
    eventually("the new schema is in force", || send(r#"{"b":2}"#).0 == 204);
    assert_eq!(send(r#"{"a":1,"b":2}"#).2, "/maxProperties");
    assert_eq!(gateway.metric(FAILURES), 1.0);
}

/// The exit code, and what it says, of a gateway that must not start.
fn complaint(setup: &Setup) -> (i32, String) {
    let output = setup.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("an exit code"), said)
}

#[test]
fn a_faulty_file_is_an_error_at_start_that_names_file_line_and_key() {
    for (rules, sink, says) in [
        (
            "\nshcema = 'x'",
            "file",
            "telemetry.toml, line 2: shcema: is no key",
        ),
        ("schema = \n", "file", "telemetry.toml, line 1: "),
        (
            "schema = 'none.json'",
            "file",
            "telemetry.toml, line 1: schema: ",
        ),
        (
            "on_violation = 'tag'",
            "kinesis",
            "telemetry.toml, line 1: on_violation: \"tag\" needs",
        ),
    ] {
        let (code, said) = complaint(&with_rules(Setup::new(), rules).set("FOREBAY_SINK", sink));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("FOREBAY_STREAM_RULES: "), "{said}");
        assert!(said.contains(says), "{said}");
    }
    for (value, says) in [
        ("telemetry", "has an entry without ="),
        (
            "alarms=a.toml",
            "names a stream that FOREBAY_STREAMS does not",
        ),
        ("telemetry=a.toml;telemetry=b.toml", "names a stream twice"),
    ] {
        let (code, said) = complaint(&Setup::new().set("FOREBAY_STREAM_RULES", value));
        assert_eq!(code, 2, "{said}");
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn rules_are_tried_before_a_gateway_has_them() {
    let setup = with_rules(Setup::new(), RULES);
    for (name, text) in [
        ("good.json", r#"{"patient": {"ssn": 1, "id": "p-1"}}"#),
        ("bad.json", r#"{"temp": 1000}"#),
        ("other.json", r#"{"device": "plc-1"}"#),
        ("text", "hello"),
    ] {
        fs::write(setup.path(name), text).expect("a file");
    }
    let check = |arguments: &[&str]| {
        let output = setup.run(&[&["rules", "check"], arguments].concat());
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, said, _) = check(&["telemetry.toml", "good.json"]);
    let record = format!(r#"{{"patient":{{"id":"{CODE}"}},"device":"device"}}"#);
    assert_eq!(
        (code, said),
        (Some(0), format!("good.json: accepted\n{record}\n"))
    );
    let (code, said, _) = check(&[
        "telemetry.toml",
        "good.json",
        "bad.json",
        "other.json",
        "text",
    ]);
    assert_eq!(code, Some(1));
    for line in [
        "bad.json: refused, schema-violation at \"/properties/temp/maximum\"",
        "other.json: refused, device-mismatch",
        "text: refused, not-json",
    ] {
        assert!(said.lines().any(|said| said == line), "{said}");
    }
    let (code, said, _) = check(&["telemetry.toml", "other.json", "--device", "plc-1"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(check(&["telemetry.toml"]).0, Some(0));
    fs::write(setup.path("telemetry.toml"), "schema = 7").expect("a file");
    let (code, _, said) = check(&["telemetry.toml", "good.json"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("telemetry.toml, line 1: schema: "), "{said}");
}
