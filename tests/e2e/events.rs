//! Fleet events: each connection is told of from its beginning to its end, on each protocol, in the stream that devices do
//! not write; and what usage events add up to is what was answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_rustls::TlsConnector;

use crate::brokers;
use crate::harness::client::Quirks;
use crate::harness::gateway::Line;
use crate::harness::raw::{Raw, block_on, connect, server_name, tls};
use crate::harness::{Ask, Client, Gateway, Load, Protocol, Setup, Via, eventually};
use crate::kafka::{Kafka, Stored};
use crate::kinesis::KinesisStream;
use crate::pki::Identity;
use crate::tools::tools;

const STREAM: &str = "fleet-events";

/// A gateway that tells of its fleet in its file sink.
fn setup() -> Setup {
    telling(Setup::new().set("FOREBAY_STREAMS", "telemetry,fleet-events"))
}

fn telling(setup: Setup) -> Setup {
    setup
        .set("FOREBAY_EVENTS_STREAM", STREAM)
        .set("FOREBAY_REPLICA", "gw-1")
}

/// The events so far, of one type.
fn events(gateway: &Gateway, kind: &str) -> Vec<Value> {
    let kind = format!("forebay.device.{kind}");
    let mut events: Vec<Value> = all_events(gateway);
    events.retain(|event| event["type"] == *kind);
    events
}

/// Every event so far. Each line is looked at: its key is its subject, and its content type that of an event.
fn all_events(gateway: &Gateway) -> Vec<Value> {
    let mut events = Vec::new();
    for line in gateway.file_text(STREAM).lines() {
        // The last one may be on its way.
        let Ok(line) = serde_json::from_str(line).map(Line) else {
            continue;
        };
        assert_eq!(line.text("content_type"), "application/cloudevents+json");
        let event = line.0["payload"].clone();
        assert_eq!(line.0.get("device"), event.get("subject"), "{line:?}");
        assert_eq!(line.text("record_id"), event["id"].as_str().expect("an id"));
        assert_eq!(event["specversion"], "1.0");
        assert_eq!(event["source"], "/forebay/gw-1");
        events.push(event);
    }
    events
}

/// The events of one type and device, once there are so many.
fn wait_for(gateway: &Gateway, kind: &str, device: &str, count: usize) -> Vec<Value> {
    let mut found = Vec::new();
    eventually(&format!("{count} events {kind} of {device}"), || {
        found = events(gateway, kind);
        found.retain(|event| event["subject"] == device);
        found.len() >= count
    });
    assert_eq!(found.len(), count, "{found:?}");
    found
}

/// Connects with a certificate that nobody has signed whom the gateway knows.
fn turn_away(gateway: &Gateway, protocol: Protocol) -> Identity {
    let stranger = gateway.pki.other(protocol.name()).device("plc-1");
    let quirks = Quirks::default();
    let client = Client::try_open(Via::Wire, protocol, gateway, Some(&stranger), quirks);
    // A client of TLS 1.3 finds out later.
    if let Ok(client) = client {
        client.closed();
    }
    stranger
}

/// Returns the reason of the device's one `disconnected` event.
fn reason(gateway: &Gateway, device: &str) -> String {
    let ended = wait_for(gateway, "disconnected", device, 1).remove(0);
    ended["data"]["reason"]
        .as_str()
        .expect("a reason")
        .to_owned()
}

fn sum(events: &[Value], field: &str) -> u64 {
    let count = |event: &Value| event["data"][field].as_u64().expect("a count");
    events.iter().map(count).sum()
}

fn hex(serial: &[u8]) -> String {
    let digits: String = serial.iter().map(|octet| format!("{octet:02x}")).collect();
    digits.trim_start_matches('0').to_owned()
}

#[test]
fn a_connection_is_told_of_from_its_beginning_to_its_end() {
    let gateway = setup().start();
    for protocol in Protocol::ALL {
        let name = format!("urn:plant:{protocol}");
        let device = gateway.device(&name);
        let client = Client::open(protocol, &gateway, &device);
        for body in ["1", "22", "333"] {
            assert_eq!(client.send(&Ask::post(body)).status, 204);
        }
        assert_eq!(client.send(&Ask::post("4444").to("/")).status, 404);
        let quirks = Quirks {
            resumes: Some(client.session()),
            ..Quirks::default()
        };
        let again = Client::try_open(Via::Wire, protocol, &gateway, Some(&device), quirks);
        let again = again.expect("a connection");
        assert_eq!(again.send(&Ask::post("1")).status, 204);
        let connected = wait_for(&gateway, "connected", &name, 2);
        drop(client);
        let ended = wait_for(&gateway, "disconnected", &name, 1).remove(0);
        let seconds = ended["data"]["seconds"].as_f64().expect("seconds");
        assert!((0.0..60.0).contains(&seconds));
        let expected = json!({
            "protocol": protocol.name(), "reason": "closed", "seconds": seconds,
            "accepted": 3, "refused": 1, "bytes": 6,
        });
        assert_eq!(ended["data"], expected);
        let first = &connected[0]["data"];
        assert_eq!(first["protocol"], protocol.name());
        assert_eq!(
            (&first["address"], &first["resumed"]),
            (&json!("127.0.0.1"), &json!(false))
        );
        assert_eq!(first["certificate_serial"], hex(&device.serial()));
        let until = first["certificate_not_after"].as_str().expect("a date");
        assert!(
            until.parse::<jiff::Timestamp>().is_ok() && until.ends_with('Z'),
            "{until}"
        );
        assert!(
            again.is_resumed && connected[1]["data"]["resumed"] == true,
            "{protocol}"
        );
    }
    assert!(events(&gateway, "usage").is_empty(), "there is no interval");
    assert_eq!(gateway.metric("forebay_events_dropped_total"), 0.0);
}

#[test]
fn a_certificate_that_is_turned_away_is_told_of_without_a_key() {
    let gateway = setup().start();
    let mut serials = Vec::new();
    for (count, protocol) in (1..).zip(Protocol::ALL) {
        serials.push(hex(&turn_away(&gateway, protocol).serial()));
        let mut refused = Vec::new();
        eventually("a refusal", || {
            refused = events(&gateway, "refused");
            refused.len() == count
        });
        for (event, serial) in refused.iter().zip(&serials) {
            assert_eq!(event.get("subject"), None);
            let data = json!({ "reason": "unknown_issuer", "certificate_serial": serial });
            assert_eq!(event["data"], data);
        }
    }
    // A client without a certificate makes no event.
    let nobody = Client::try_open(Via::Wire, Protocol::H2, &gateway, None, Quirks::default());
    if let Ok(client) = nobody {
        client.closed();
    }
    assert_eq!(all_events(&gateway).len(), 3);
}

#[test]
fn devices_do_not_write_the_stream_of_events() {
    let setup = setup().set("FOREBAY_STREAM_ACCESS", "fleet-events:*;telemetry:*");
    let file = setup.path("devices");
    fs::write(&file, "allow plc-2 streams=telemetry,fleet-events\n").expect("a file");
    let gateway = setup.set("FOREBAY_DEVICES_FILE", file.display()).start();
    for device in ["plc-1", "plc-2"] {
        for protocol in Protocol::ALL {
            let client = Client::open(protocol, &gateway, &gateway.device(device));
            for path in [
                "/v1/streams/fleet-events",
                "/v1/streams/fleet-events/records",
            ] {
                let reply = client.send(&Ask::post("1").to(path));
                assert_eq!(
                    reply.problem()["code"],
                    "stream-forbidden",
                    "{protocol} {path}"
                );
            }
            assert_eq!(client.send(&Ask::post("1")).status, 204);
        }
    }
}

#[test]
fn what_is_limited_is_told_once_a_minute_and_device() {
    let gateway = setup()
        .set("FOREBAY_DEVICE_RATE", "0.01")
        .set("FOREBAY_DEVICE_BURST", 2)
        .start();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        let statuses = [(); 5].map(|()| client.send(&Ask::post("1")).status);
        assert_eq!(statuses[2..], [429; 3]);
    }
    wait_for(&gateway, "disconnected", "plc-1", 3);
    let limited = wait_for(&gateway, "limited", "plc-1", 1).remove(0);
    assert_eq!(limited["data"], json!({ "scope": "device", "refused": 1 }));
}

#[test]
fn the_end_of_a_certificate_is_told_once_a_connection() {
    const DAY: u64 = 86_400;
    let gateway = setup().set("FOREBAY_EXPIRY_NOTICE", "20d").start();
    let soon = gateway.pki.expiring("soon", 19 * DAY);
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &soon);
        assert_eq!(client.send(&Ask::post("1")).status, 204);
        assert_eq!(client.send(&Ask::post("1")).status, 204);
    }
    Client::open(Protocol::H2, &gateway, &gateway.device("later")).send(&Ask::post("1"));
    wait_for(&gateway, "disconnected", "soon", 3);
    let connected = wait_for(&gateway, "connected", "soon", 3);
    let told = wait_for(&gateway, "certificate-expires", "soon", 3);
    assert_eq!(
        told[0]["data"]["not_after"],
        connected[0]["data"]["certificate_not_after"]
    );
    wait_for(&gateway, "disconnected", "later", 1);
    wait_for(&gateway, "certificate-expires", "later", 0);
}

#[test]
fn who_says_nothing_is_idle() {
    let gateway = setup().set("FOREBAY_IDLE_TIMEOUT", "1s").start();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device(protocol.name()));
        assert_eq!(client.send(&Ask::post("1")).status, 204);
        client.closed();
        assert_eq!(reason(&gateway, protocol.name()), "idle", "{protocol}");
    }
}

#[test]
fn who_is_revoked_or_denied_is_told_to_be() {
    let setup = setup();
    let crl = setup.pki.revoke(&[]);
    let file = setup.path("devices");
    fs::write(&file, "# nobody\n").expect("a file");
    let gateway = setup
        .set("FOREBAY_TLS_CRL", crl.display())
        .set("FOREBAY_DEVICES_FILE", file.display())
        .start();
    let mut live = Vec::new();
    for protocol in Protocol::ALL {
        for fate in ["revoked", "denied"] {
            let device = gateway.device(&format!("{fate}-{protocol}"));
            let client = Client::open(protocol, &gateway, &device);
            assert_eq!(client.send(&Ask::post("1")).status, 204);
            live.push((fate, device, client));
        }
    }
    let revoked = live.iter().filter(|(fate, ..)| *fate == "revoked");
    let revoked: Vec<&Identity> = revoked.map(|(_, device, _)| device).collect();
    gateway.pki.revoke(&revoked);
    fs::write(&file, "deny denied-*\n").expect("a file");
    for (fate, _, client) in &live {
        client.closed();
        let name = format!("{fate}-{}", client.protocol);
        assert_eq!(reason(&gateway, &name), *fate, "{name}");
    }
    // One that is denied before it comes is told of as any other.
    let knocks = gateway.device("denied-later");
    let client = Client::open(Protocol::H1, &gateway, &knocks);
    assert_eq!(client.send(&Ask::post("1")).status, 403);
    client.closed();
    let ended = wait_for(&gateway, "disconnected", "denied-later", 1).remove(0);
    assert_eq!(
        (&ended["data"]["reason"], &ended["data"]["refused"]),
        (&json!("denied"), &json!(1))
    );
}

#[test]
fn who_comes_with_a_certificate_that_ends_is_expired() {
    let gateway = setup().start();
    for protocol in Protocol::ALL {
        let device = gateway.pki.expiring(protocol.name(), 4);
        let client = Client::open(protocol, &gateway, &device);
        eventually("the certificate's end", || {
            client.send(&Ask::post("1")).status == 403
        });
        client.closed();
        assert_eq!(reason(&gateway, protocol.name()), "expired");
    }
}

#[test]
fn a_flood_is_told_to_be_one() {
    let gateway = setup().start();
    let config = tls(&gateway, Some(&gateway.device("flood")), "http/1.1");
    block_on(async {
        let raw = Raw::open(gateway.address, config)
            .await
            .expect("a connection");
        raw.flood(b"\r\n", 4 << 20).await;
    });
    assert_eq!(reason(&gateway, "flood"), "flood");
}

/// Resets a connection after a request, or in the middle of one.
async fn reset(
    to: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    request: &[u8],
    is_there: impl Fn(),
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = connect(to).await.expect("a connection");
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the pointer is to a valid linger, of the size that is told.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
    assert_eq!(set, 0);
    let mut stream = TlsConnector::from(config)
        .connect(server_name(), socket)
        .await
        .expect("a handshake");
    stream.write_all(request).await.expect("it reads");
    stream.flush().await.expect("it reads");
    if request.ends_with(b"1") {
        assert!(stream.read(&mut [0; 4096]).await.expect("an answer") > 0);
    }
    // A reset overtakes what was sent before it.
    is_there();
}

#[test]
fn a_connection_that_breaks_is_lost() {
    const HEAD: &str = "POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Length: ";
    let gateway = setup().start();
    let requests = [
        ("whole", format!("{HEAD}1\r\n\r\n1")),
        ("in-head", HEAD.to_owned()),
        ("in-body", format!("{HEAD}9\r\n\r\nhalf")),
    ];
    for (name, request) in requests {
        let config = tls(&gateway, Some(&gateway.device(name)), "http/1.1");
        let is_there = || drop(wait_for(&gateway, "connected", name, 1));
        block_on(reset(gateway.address, config, request.as_bytes(), is_there));
        assert_eq!(reason(&gateway, name), "lost", "{name}");
    }
    // Half a request, and then nothing more, is no end that a client has in mind.
    let held = Client::open(Protocol::H2, &gateway, &gateway.device("h2"));
    let _half = held.hold(&Ask::post("ha").declaring(4));
    eventually("a body on its way", || {
        gateway.metric("forebay_admission_bytes") > 0.0
    });
    drop(held);
    assert_eq!(reason(&gateway, "h2"), "lost");
}

/// Adds up the events of all connections, by device: the pairs of `connected` and `disconnected`, and the requests.
fn audit(gateway: &Gateway) -> BTreeMap<String, (usize, usize)> {
    let mut seen = BTreeSet::new();
    let mut devices = BTreeMap::<String, (usize, usize)>::new();
    for event in all_events(gateway) {
        assert!(seen.insert(event["id"].to_string()), "told twice: {event}");
        let Some(device) = event["subject"].as_str() else {
            continue;
        };
        let (came, went) = devices.entry(device.to_owned()).or_default();
        *came += usize::from(event["type"] == "forebay.device.connected");
        *went += usize::from(event["type"] == "forebay.device.disconnected");
    }
    devices
}

/// Asserts that all who came went, and that what they are told to have sent is what the gateway has answered.
fn assert_exact(gateway: &Gateway, accepted: u64, refused: u64) {
    for (device, (came, went)) in audit(gateway) {
        assert_eq!(came, went, "{device}");
    }
    for kind in ["usage", "disconnected"] {
        let told = events(gateway, kind);
        assert_eq!(sum(&told, "accepted"), accepted, "{kind}");
        assert_eq!(sum(&told, "refused"), refused, "{kind}");
    }
    let usage = events(gateway, "usage");
    assert!(
        usage
            .iter()
            .all(|event| event["data"]["from"].as_str() <= event["data"]["to"].as_str())
    );
    let bodies = gateway.files("telemetry");
    let bytes: usize = bodies.iter().map(|line| line.payload().len()).sum();
    assert!(
        sum(&usage, "bytes") <= bytes as u64,
        "a reading whose client has gone is in the stream"
    );
}

/// Requests that the gateway has answered so far: with 204, and otherwise.
fn answered(gateway: &Gateway) -> (u64, u64) {
    let metrics = gateway.admin("/metrics").1;
    let requests = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("forebay_http_requests_total{"));
    let (mut accepted, mut refused) = (0, 0);
    for line in requests {
        let (labels, count) = line.rsplit_once(' ').expect("a value");
        let count = count.parse::<f64>().expect("a number") as u64;
        match labels.contains("status=\"204\"") {
            true => accepted += count,
            false => refused += count,
        }
    }
    (accepted, refused)
}

/// Devices that come and go, are reset and vanish, while files are read again; then the gateway drains.
#[test]
fn usage_adds_up_to_what_was_answered() {
    let mut gateway = setup()
        .without_limits()
        .set("FOREBAY_USAGE_INTERVAL", "300ms")
        .set("FOREBAY_IDLE_TIMEOUT", "2s")
        .start();
    let staying: Vec<Client> = Protocol::ALL
        .iter()
        .map(|protocol| {
            Client::open(
                *protocol,
                &gateway,
                &gateway.device(&format!("stays-{protocol}")),
            )
        })
        .collect();
    let load = Load::start("load", &staying, 8);
    let device = gateway.device("comes-and-goes");
    for round in 0..6 {
        let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
        for client in &clients {
            assert_eq!(client.send(&Ask::post("12")).status, 204);
            assert_eq!(
                client.send(&Ask::post("12").to("/v1/streams/none")).status,
                403
            );
        }
        if round == 2 {
            clients[2].vanish();
        }
        let resets = gateway.device(&format!("reset-{round}"));
        let config = tls(&gateway, Some(&resets), "http/1.1");
        let request =
            b"POST /v1/telemetry HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1";
        block_on(reset(gateway.address, config, request, || ()));
        gateway.signal(libc::SIGHUP);
    }
    eventually("usage of those who stay", || {
        let usage = events(&gateway, "usage");
        let of = |protocol: &Protocol| format!("stays-{protocol}");
        Protocol::ALL.iter().all(|protocol| {
            usage
                .iter()
                .filter(|event| event["subject"] == of(protocol))
                .count()
                >= 2
        })
    });
    load.stop();
    let (accepted, refused) = answered(&gateway);
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0);
    assert!(accepted > 30 && refused == 18);
    assert_exact(&gateway, accepted, refused);
    let reasons = events(&gateway, "disconnected");
    let drained = reasons
        .iter()
        .filter(|event| event["data"]["reason"] == "drain");
    assert!(
        drained.count() >= 3,
        "those who stayed are told to have been sent away"
    );
}

/// A client that does not go holds the drain up until its deadline: it is told of all the same.
#[test]
fn who_is_left_when_the_gateway_hurries_is_told_of() {
    let mut gateway = setup()
        .set("FOREBAY_USAGE_INTERVAL", "1h")
        .set("FOREBAY_DRAIN_TIMEOUT", "1s")
        .set("FOREBAY_BODY_RATE_MIN", 0)
        .start();
    let clients = Protocol::ALL.map(|protocol| {
        let client = Client::open(protocol, &gateway, &gateway.device(protocol.name()));
        assert_eq!(client.send(&Ask::post("12")).status, 204);
        client
    });
    let _held = clients
        .each_ref()
        .map(|client| client.hold(&Ask::post("be").declaring(6)));
    eventually("three bodies on their way", || {
        gateway.metric("forebay_admission_bytes") >= 3.0 * 1024.0
    });
    gateway.terminate();
    gateway.exit_code();
    for protocol in Protocol::ALL {
        let ended = wait_for(&gateway, "disconnected", protocol.name(), 1).remove(0);
        assert_eq!(ended["data"]["accepted"], 1, "{protocol}");
        let usage = wait_for(&gateway, "usage", protocol.name(), 1);
        assert_eq!(sum(&usage, "accepted"), 1, "{protocol}");
    }
}

/// Kafka's key is null where there is no device, and a topic for events that is missing costs readings nothing.
#[test]
fn events_are_records_of_their_topic() {
    let kafka = Kafka::shared();
    let streams = "telemetry=events-readings,fleet-events=events-of-a-fleet,gone=events-gone";
    brokers::gateway_to("events-of-a-fleet");
    let setup = brokers::gateway_to("events-readings").set("FOREBAY_STREAMS", streams);
    let gateway = telling(setup).start();
    let device = gateway.device("plc-7");
    let client = Client::open(Protocol::H2, &gateway, &device);
    assert_eq!(client.send(&Ask::post("1")).status, 204);
    drop(client);
    turn_away(&gateway, Protocol::H2);
    let mut stored = Vec::new();
    eventually("three events", || {
        stored = kafka.read_topic("events-of-a-fleet");
        stored.len() >= 3
    });
    for record in &stored {
        assert_record(record);
    }
    let without_key = stored.iter().filter(|record| record.key.is_none()).count();
    assert_eq!((stored.len(), without_key), (3, 1));
}

fn assert_record(record: &Stored) {
    let event: Value =
        serde_json::from_slice(record.value.as_deref().expect("a value")).expect("JSON");
    let key = record
        .key
        .as_deref()
        .map(|key| String::from_utf8_lossy(key).into_owned());
    assert_eq!(event["subject"].as_str(), key.as_deref());
    let id = event["id"].as_str().expect("an id").as_bytes().to_vec();
    let content_type = b"application/cloudevents+json".to_vec();
    let expected = [
        ("content-type".into(), content_type),
        ("record-id".into(), id),
    ];
    assert_eq!(record.headers, expected);
}

/// A stream of events that is away: readings are answered, and the gateway that leaves does not wait for it.
#[test]
fn a_stream_of_events_that_is_away_holds_up_nobody() {
    let setup = brokers::gateway_to("events-beside").set(
        "FOREBAY_STREAMS",
        "telemetry=events-beside,fleet-events=events-nowhere",
    );
    let mut gateway = telling(setup)
        .set("FOREBAY_USAGE_INTERVAL", "1s")
        .set("FOREBAY_KAFKA_ALLOW_AUTO_CREATE_TOPICS", "false")
        .start();
    eventually("a stream that is missing", || {
        gateway.admin("/readyz").1.contains("fleet-events")
    });
    assert!(gateway.is_ready(), "for readings");
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        assert_eq!(client.send(&Ask::post("1")).status, 204);
    }
    let asked_at = std::time::Instant::now();
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0);
    assert!(
        asked_at.elapsed().as_secs() < 25,
        "the drain has thirty seconds"
    );
    assert!(
        gateway
            .log()
            .contains("events of the fleet could not be delivered")
    );
}

/// A block of code of docs/fleets.md in this language, the one at this place.
fn block(language: &str, place: usize) -> String {
    let page = fs::read_to_string("docs/fleets.md").expect("the page");
    let blocks = page.split("```").skip(1).step_by(2);
    let mut found = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    found.nth(place).expect("a block").to_owned()
}

/// Runs a Python program on these lines and parses what it prints.
fn python(program: &str, arguments: &[&str], lines: &str) -> Value {
    let mut python = Command::new(tools().join("venv/bin/python"))
        .args(["-c", program])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`make tools` installs it");
    let mut stdin = python.stdin.take().expect("piped");
    stdin.write_all(lines.as_bytes()).expect("it reads");
    drop(stdin);
    let output = python.wait_with_output().expect("it ends");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// The questions of the page, asked as it says of what is in a topic.
#[test]
fn the_questions_of_the_page_are_answered_by_the_topic() {
    const ASK: &str = "import json, sqlite3, sys\n\
        fleet = sqlite3.connect(sys.argv[1])\n\
        at = {'before': '9', 'since': ''}\n\
        print(json.dumps(fleet.execute(sys.stdin.read(), at).fetchall()))";
    let streams = "telemetry=questions-readings,fleet-events=questions-fleet";
    brokers::gateway_to("questions-fleet");
    let setup = brokers::gateway_to("questions-readings").set("FOREBAY_STREAMS", streams);
    let gateway = telling(setup).set("FOREBAY_USAGE_INTERVAL", "1h").start();
    let visit = |device: &str, body: &str| {
        let client = Client::open(Protocol::H2, &gateway, &gateway.device(device));
        assert_eq!(client.send(&Ask::post(body)).status, 204);
        client
    };
    drop(visit("silent", "1"));
    drop(visit("loud", "a long reading"));
    let _stays = [visit("loud", "another long reading"), visit("stays", "1")];
    let mut topic = Vec::new();
    eventually("two who have gone, and what they have sent", || {
        topic = Kafka::shared().read_topic("questions-fleet");
        topic.len() == 4 + 2 * 2
    });
    let mut lines = String::new();
    for record in &topic {
        lines += str::from_utf8(record.value.as_deref().expect("a value")).expect("UTF-8");
        lines.push('\n');
    }
    let table = gateway.path("fleet.db").display().to_string();
    // An event that is read twice counts once.
    for _ in 0..2 {
        python(&block("python", 0), &[&table], &lines);
    }
    let ask = |place| python(ASK, &[&table], &block("sql", place));
    let (silent, costs, ends) = (ask(0), ask(1), ask(2));
    assert_eq!(
        (silent[0][0].as_str(), silent.as_array().map(Vec::len)),
        (Some("silent"), Some(1))
    );
    assert_eq!(costs, json!([["loud", 1, 0, 14], ["silent", 1, 0, 1]]));
    let mut devices = Vec::new();
    for row in ends.as_array().expect("rows") {
        devices.push(row[0].as_str().expect("a device"));
        assert!(
            row[1]
                .as_str()
                .expect("a date")
                .parse::<jiff::Timestamp>()
                .is_ok()
        );
    }
    devices.sort_unstable();
    assert_eq!(devices, ["loud", "silent", "stays"]);
}

/// Kinesis has the event's id as the partition key where there is no device, in aggregates too.
#[test]
fn events_have_their_partition_key() {
    for aggregates in ["false", "true"] {
        let fleet = KinesisStream::start("fleet", 2);
        let setup = fleet
            .gateway()
            .set("FOREBAY_STREAMS", "telemetry=nowhere,fleet-events=fleet")
            .set("FOREBAY_KINESIS_AGGREGATE", aggregates);
        let gateway = telling(setup).start_unready();
        turn_away(&gateway, Protocol::H2);
        let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-7"));
        assert_eq!(client.send(&Ask::post("1")).status, 503);
        drop(client);
        let mut stored = Vec::new();
        eventually("three events", || {
            stored = fleet.read();
            stored.len() >= 3
        });
        for record in &stored {
            let event: Value = serde_json::from_slice(&record.body).expect("JSON");
            let expected = event["subject"].as_str().or(event["id"].as_str());
            assert_eq!(Some(record.device.as_str()), expected, "{aggregates}");
        }
        assert!(!gateway.is_ready(), "no device is served");
    }
}
