//! Many readings in one request, and bodies that come encoded: what the stream has, and what the device is told.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::brokers::{self, text};
use crate::encoded::{gzip, zstd};
use crate::harness::{Ask, Client, Gateway, Protocol, Reply, Setup, Siege, eventually};

const RECORDS: &str = "/v1/telemetry/records";
const LINES: &str = "application/x-ndjson";
const DELIMITED: &str = "application/vnd.forebay.records";

fn many(content_type: &str, body: impl Into<Vec<u8>>) -> Ask {
    Ask::post(body)
        .to(RECORDS)
        .with("content-type", content_type)
}

fn lines(prefix: &str, count: usize) -> String {
    (0..count)
        .map(|index| format!("{{\"n\":\"{prefix}-{index}\"}}\n"))
        .collect()
}

fn delimited(records: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    for record in records {
        let length = u8::try_from(record.len()).expect("short");
        assert!(length < 0x80, "one byte of length");
        body.push(length);
        body.extend_from_slice(record);
    }
    body
}

fn gateway() -> Gateway {
    Setup::new().without_limits().start()
}

fn assert_problem(reply: &Reply, status: u16, code: &str) {
    assert_eq!(
        (reply.status, &reply.problem()["code"]),
        (status, &json!(code)),
        "{}",
        text(&reply.body)
    );
}

/// Each record's own text, in its order, under its type and name, on every protocol.
#[test]
fn records_arrive_one_by_one_in_their_order() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    let mut told = Vec::new();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        let name = protocol.name();
        let asks = [
            many(LINES, format!("1\r\n\n 2 \n\"{name}\"")),
            many(
                "application/json; charset=utf-8",
                format!(" [3 ,\n{{\"a\": [2,3]}}, \"{name}\"] "),
            ),
            many(DELIMITED, delimited(&[b"4", b"\x00\xff"])).with("forebay-record-type", "x/y"),
            many(DELIMITED, delimited(&[b"5"])).undeclared(),
        ];
        for (number, ask) in asks.into_iter().enumerate() {
            let ask = ask.with("idempotency-key", &format!("{name}-{number}"));
            let reply = client.send(&ask);
            assert_eq!(reply.status, 204, "{protocol} {ask:?}");
            assert_eq!(reply.body, b"");
        }
        let of = |number: usize, index: usize, kind: &str, payload: &[u8]| {
            let id = format!("{name}-{number}/{index}");
            (id, kind.to_owned(), payload.to_vec())
        };
        let quoted = format!("\"{name}\"");
        told.extend([
            of(0, 0, "application/json", b"1"),
            of(0, 1, "application/json", b" 2 "),
            of(0, 2, "application/json", quoted.as_bytes()),
            of(1, 0, "application/json", b"3"),
            of(1, 1, "application/json", b"{\"a\":[2,3]}"),
            of(1, 2, "application/json", quoted.as_bytes()),
            of(2, 0, "x/y", b"4"),
            of(2, 1, "x/y", b"\x00\xff"),
            of(3, 0, "", b"5"),
        ]);
    }
    let line = |line: &crate::harness::gateway::Line| {
        let optional = |field: &str| line.0[field].as_str().unwrap_or_default().to_owned();
        (
            optional("record_id"),
            optional("content_type"),
            line.payload(),
        )
    };
    let stored: Vec<_> = gateway.files("telemetry").iter().map(line).collect();
    assert_eq!(stored, told);
    let verbatim = gateway.file_text("telemetry");
    assert_eq!(verbatim.matches("\"payload\":{\"a\": [2,3]}").count(), 3);
}

/// A body is what it was before it was encoded, on both paths and every protocol.
#[test]
fn encoded_bodies_are_decoded() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    let mut told = Vec::new();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        for (coding, encode) in [
            ("gzip", gzip as fn(&[u8]) -> Vec<u8>),
            ("X-GZIP", gzip),
            ("zstd", zstd),
        ] {
            let one = format!("{{\"one\":\"{protocol} {coding}\"}}");
            let ask = Ask::post(encode(one.as_bytes())).with("content-encoding", coding);
            assert_eq!(client.send(&ask).status, 204);
            assert_eq!(client.send(&ask.undeclared()).status, 204);
            told.extend([one.clone(), one]);
            let (first, rest) = (lines("a", 3), lines(coding, 700));
            let parts = [encode(first.as_bytes()), encode(rest.as_bytes())].concat();
            let ask = many(LINES, parts).with("content-encoding", coding);
            assert_eq!(client.send(&ask).status, 204);
            told.extend(first.lines().chain(rest.lines()).map(str::to_owned));
        }
    }
    let stored = gateway.files("telemetry");
    let stored: Vec<_> = stored.iter().map(|line| text(&line.payload())).collect();
    assert_eq!(stored, told);
}

/// Each fault of a body refuses all of it.
#[test]
fn what_cannot_be_taken_is_refused_whole() {
    let setup = Setup::new().without_limits();
    let gateway = setup
        .set("FOREBAY_RECORDS_MAX", "1000")
        .set("FOREBAY_RECORDS_BYTES_MAX", "1MiB")
        .start();
    let device = gateway.device("plc-1");
    let json = |body: &str| many("application/json", body);
    let encoded = |coding: &str, body: &[u8]| Ask::post(body).with("content-encoding", coding);
    let whole = gzip(b"{\"a\":1}");
    let damaged = [&whole[..whole.len() - 8], &[0; 8]].concat();
    let large_window = [0x28, 0xb5, 0x2f, 0xfd, 0, 14 << 3, 9, 0, 0, b'x'];
    let zeros = vec![0; 8 << 20];
    let cases = [
        (many("text/plain", "1"), 415, "unsupported-media-type"),
        (Ask::post("1").to(RECORDS), 415, "unsupported-media-type"),
        (
            many("text/plain", "1").with("content-encoding", "br"),
            415,
            "unsupported-encoding",
        ),
        (encoded("gzip, gzip", &whole), 415, "unsupported-encoding"),
        (
            encoded("gzip", &whole).with("content-encoding", "gzip"),
            415,
            "unsupported-encoding",
        ),
        (json("[1,2"), 400, "malformed-records"),
        (json("{}"), 400, "malformed-records"),
        (json("[1]]"), 400, "malformed-records"),
        (json(&"[".repeat(10_000)), 400, "malformed-records"),
        (
            json(&format!("[{}1]", "1,".repeat(1000))),
            413,
            "too-many-records",
        ),
        (json(" [ ] "), 400, "empty-body"),
        (many(LINES, "\n\r\n"), 400, "empty-body"),
        (many(LINES, "1\n".repeat(1001)), 413, "too-many-records"),
        (
            many(LINES, vec![b'x'; (1 << 20) + 1]),
            413,
            "body-too-large",
        ),
        (
            many(LINES, vec![b'x'; (1 << 20) + 1]).undeclared(),
            413,
            "body-too-large",
        ),
        (many(DELIMITED, b"\x011\x00"), 400, "malformed-records"),
        (many(DELIMITED, b"\x011\x022"), 400, "malformed-records"),
        (many(DELIMITED, [0xff; 10]), 400, "malformed-records"),
        (
            many(LINES, "1").with("idempotency-key", &"k".repeat(59)),
            400,
            "invalid-idempotency-key",
        ),
        (encoded("gzip", b"{}"), 400, "malformed-encoding"),
        (encoded("zstd", b"{}"), 400, "malformed-encoding"),
        (
            encoded("gzip", &whole[..whole.len() - 1]),
            400,
            "malformed-encoding",
        ),
        (encoded("gzip", &damaged), 400, "malformed-encoding"),
        (
            encoded("gzip", &[&whole[..], b"x"].concat()),
            400,
            "malformed-encoding",
        ),
        (
            encoded("zstd", &[&zstd(b"1")[..], b"x"].concat()),
            400,
            "malformed-encoding",
        ),
        (encoded("zstd", &large_window), 400, "malformed-encoding"),
        (encoded("gzip", &gzip(b"")), 400, "empty-body"),
        (encoded("gzip", &gzip(&zeros)), 413, "body-too-large"),
        (encoded("zstd", &zstd(&zeros)), 413, "body-too-large"),
        (
            encoded("gzip", &gzip(&zeros)).undeclared(),
            413,
            "body-too-large",
        ),
        (
            many(LINES, gzip(&zeros)).with("content-encoding", "gzip"),
            413,
            "body-too-large",
        ),
    ];
    for protocol in Protocol::ALL {
        for (ask, status, code) in &cases {
            let client = Client::open(protocol, &gateway, &device);
            let reply = client.send(ask);
            assert_problem(&reply, *status, code);
            assert_eq!(reply.problem()["records"], Value::Null, "{code}");
            let accepts = reply.header("accept-encoding");
            let is_coding = *code == "unsupported-encoding";
            assert_eq!(accepts, is_coding.then_some("gzip, zstd"));
        }
    }
    assert!(gateway.files("telemetry").is_empty());
    eventually("the memory of what was refused", || {
        gateway.metric("forebay_admission_bytes") == 0.0
    });
}

/// An encoded body may be 1 KiB longer than a decoded one, and codings can be switched off.
#[test]
fn codings_are_the_operators_choice() {
    for (encodings, accepts) in [("none", "identity"), ("zstd", "zstd")] {
        let gateway = Setup::new()
            .set("FOREBAY_CONTENT_ENCODINGS", encodings)
            .start();
        let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
        let reply = client.send(&Ask::post(gzip(b"1")).with("content-encoding", "gzip"));
        assert_problem(&reply, 415, "unsupported-encoding");
        assert_eq!(reply.header("accept-encoding"), Some(accepts));
        let identity = Ask::post("1").with("content-encoding", "Identity");
        assert_eq!(client.send(&identity).status, 204);
    }
    let gateway = Setup::new().set("FOREBAY_BODY_BYTES_MAX", "1KiB").start();
    let client = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    // Stored blocks: as long as the body, and a little more.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
    encoder.write_all(&[b'x'; 1024]).expect("memory");
    let stored = encoder.finish().expect("memory");
    assert!(stored.len() > 1024);
    let encoded = |body: &[u8]| Ask::post(body).with("content-encoding", "gzip");
    assert_eq!(client.send(&encoded(&stored)).status, 204);
    let reply = client.send(&encoded(&[0; 2049]));
    assert_problem(&reply, 413, "body-too-large");
}

/// Each record costs a token, all at once or none, and a device's bursts bound a request.
#[test]
fn records_are_paid_for_one_by_one() {
    let gateway = Setup::new()
        .set("FOREBAY_DEVICE_RATE", "0.5")
        .set("FOREBAY_DEVICE_BURST", "20")
        .set("FOREBAY_DEVICE_BYTE_BURST", "64KiB")
        .start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    // Its head costs a token.
    let too_many = client.send(&many(LINES, lines("x", 21)));
    assert_problem(&too_many, 413, "too-many-records");
    let bomb = gzip(&vec![b'x'; 70_000]);
    let too_large = client.send(&many(LINES, bomb).with("content-encoding", "gzip"));
    assert_problem(&too_large, 413, "body-too-large");
    assert_eq!(client.send(&many(LINES, lines("a", 12))).status, 204);
    // Six are left, and ten needed.
    let reply = client.send(&many(LINES, lines("b", 10)));
    assert_problem(&reply, 429, "rate-limited");
    assert_eq!(reply.problem()["records"], Value::Null);
    let wait: u64 = reply
        .header("retry-after")
        .expect("a time")
        .parse()
        .expect("a number");
    // Five are there once its head has paid: five more take 10 s, less what has refilled meanwhile.
    assert!((8..=10).contains(&wait), "{wait}");
    let limit = reply.header("ratelimit").expect("a bucket");
    assert!(limit.starts_with("\"device\";r=5;"), "{limit}");
    // Nothing but the head's token was taken.
    assert_eq!(client.send(&many(LINES, lines("c", 5))).status, 204);
    assert_eq!(gateway.files("telemetry").len(), 17);
}

/// One record that is too large is rejected alone, with its index.
#[test]
fn a_record_that_is_too_large_is_rejected_alone() {
    let setup = Setup::new().set("FOREBAY_BODY_BYTES_MAX", "1KiB");
    let gateway = setup.start();
    let device = gateway.device("plc-1");
    let large = "x".repeat(1025);
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        let reply = client.send(&many(LINES, format!("{large}\n{protocol}\n{large}\n")));
        assert_problem(&reply, 413, "record-too-large");
        let verdicts = json!({ "accepted": 1, "retry": [], "rejected": [
            { "index": 0, "code": "record-too-large" }, { "index": 2, "code": "record-too-large" },
        ]});
        assert_eq!(reply.problem()["records"], verdicts);
        assert_eq!(reply.header("retry-after"), None);
    }
    let stored = gateway.files("telemetry");
    let stored: Vec<_> = stored.iter().map(|line| text(&line.payload())).collect();
    assert_eq!(stored, ["h1", "h2", "h3"]);
}

/// A broker that is silent: nobody knows what became of any record. It is told, and once the sink is known to be away
/// they are refused.
#[test]
fn verdicts_tell_of_a_silent_broker() {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("records-silence")
        .without_limits()
        .set("FOREBAY_ACK_TIMEOUT", "1s")
        .start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let batch = |name: &str| many(LINES, lines(name, 3));
    assert_eq!(client.send(&batch("before")).status, 204);
    let paused = broker.pause();
    let reply = client.send(&batch("silent"));
    assert_problem(&reply, 504, "ack-timeout");
    let verdicts = json!({ "accepted": 0, "retry": [0, 1, 2], "rejected": [] });
    assert_eq!(reply.problem()["records"], verdicts);
    eventually("the sink is known to be away", || {
        client.send(&batch("away")).status == 503
    });
    drop(paused);
    gateway.wait_until_ready();
    assert_eq!(client.send(&batch("after")).status, 204);
    let mut seen = broker.bodies("records-silence");
    seen.retain(|body| body.contains("before") || body.contains("after"));
    let told = lines("before", 3) + &lines("after", 3);
    assert_eq!(seen, told.lines().collect::<Vec<_>>());
}

/// In every mode of acks and of the spool, all records arrive, in the order of their request.
#[test]
fn records_keep_their_order_through_an_outage() {
    for (mode, ack) in [
        ("overflow", "durable"),
        ("always", "durable"),
        ("overflow", "queued"),
    ] {
        let broker = brokers::pausable();
        let topic = format!("records-{mode}-{ack}");
        let gateway = broker
            .gateway_to(&topic)
            .without_limits()
            .with_spool(mode)
            .set("FOREBAY_ACK", ack)
            .start();
        let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
        let mut told = Vec::new();
        let mut send = |name: &str| {
            let body = lines(name, 700);
            let ask = many(LINES, zstd(body.as_bytes())).with("content-encoding", "zstd");
            assert_eq!(client.send(&ask).status, 204, "{topic} {name}");
            told.extend(body.lines().map(str::to_owned));
        };
        send("before");
        let paused = broker.pause();
        for number in 0..4 {
            send(&format!("paused-{number}"));
        }
        drop(paused);
        gateway.wait_until_ready();
        send("after");
        crate::spool::wait_until_drained(&gateway);
        eventually("nothing waits in memory", || {
            gateway.metric("forebay_admission_bytes") == 0.0
        });
        let mut stored = broker.bodies(&topic);
        let mut seen = std::collections::HashSet::new();
        stored.retain(|body| seen.insert(body.clone()));
        assert!(
            stored == told,
            "{topic}: {} of {}",
            stored.len(),
            told.len()
        );
    }
}

/// Records answered 204 from the spool survive the gateway, one by one and in their order.
#[test]
fn a_gateway_that_is_killed_loses_no_record() {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("records-killed")
        .without_limits()
        .with_spool("overflow")
        .start();
    let client = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    let paused = broker.pause();
    let mut told = Vec::new();
    for number in 0..5 {
        let body = lines(&format!("killed-{number}"), 600);
        let ask = many(LINES, gzip(body.as_bytes())).with("content-encoding", "gzip");
        assert_eq!(client.send(&ask).status, 204);
        told.extend(body.lines().map(str::to_owned));
    }
    let gateway = gateway.kill().start();
    drop(paused);
    crate::spool::wait_until_drained(&gateway);
    let mut seen = std::collections::HashSet::new();
    let mut stored = broker.bodies("records-killed");
    stored.retain(|body| seen.insert(body.clone()));
    assert!(stored == told, "{} of {}", stored.len(), told.len());
}

/// A client that goes away in the middle takes nothing along: pushed records are delivered, and their memory comes back.
#[test]
fn a_client_that_goes_away_loses_no_record() {
    let broker = brokers::pausable();
    let gateway = broker.gateway_to("records-gone").without_limits().start();
    let client = Client::open(Protocol::H3, &gateway, &gateway.device("plc-1"));
    let paused = broker.pause();
    let sent = client.begin(&many(LINES, lines("gone", 50)));
    eventually("the records are on their way", || {
        gateway.metric("forebay_admission_bytes") > 50.0 * 1024.0
    });
    client.vanish();
    drop(sent);
    drop(paused);
    eventually("the records are in the stream", || {
        broker.bodies("records-gone").len() == 50
    });
    eventually("their memory is back", || {
        gateway.metric("forebay_admission_bytes") == 0.0
    });
}

/// A record that the stream refuses for good is rejected, its neighbours are safe.
#[test]
fn verdicts_tell_of_a_record_that_the_stream_refuses() {
    let topic = "records-refused";
    let gateway = brokers::gateway_with(topic, &[("max.message.bytes", "1000000")])
        .without_limits()
        .start();
    crate::kafka_faults::set_message_bytes_max(topic, "20000");
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let large = "x".repeat(30_000);
    let reply = client.send(&many(LINES, format!("1\n{large}\n3\n")));
    assert_problem(&reply, 502, "sink-refused");
    let verdicts = json!({ "accepted": 2, "retry": [], "rejected": [
        { "index": 1, "code": "sink-refused" },
    ]});
    assert_eq!(reply.problem()["records"], verdicts);
    assert_eq!(brokers::bodies(topic), ["1", "3"]);
}

/// A spool that has no room for all of a request: what is in `accepted` is safe, what is in `retry` is sent again, and
/// in the end each record is there.
#[test]
fn verdicts_are_true_where_the_spool_is_full() {
    let broker = brokers::pausable();
    let gateway = broker
        .gateway_to("records-full")
        .without_limits()
        .with_spool("overflow")
        .set("FOREBAY_SPOOL_BYTES_MAX", "32MiB")
        .start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    let paused = broker.pause();
    let pad = "x".repeat(90_000);
    let (mut told, mut left) = (Vec::new(), Vec::<String>::new());
    for number in 0.. {
        let batch: Vec<_> = (0..10)
            .map(|index| format!("{number}-{index}-{pad}"))
            .collect();
        let reply = client.send(&many(LINES, batch.join("\n")));
        told.extend(batch.clone());
        if reply.status != 204 {
            left = still_to_send(&reply, &batch);
            break;
        }
    }
    assert!(!left.is_empty(), "the spool was full");
    drop(paused);
    crate::spool::wait_until_drained(&gateway);
    gateway.wait_until_ready();
    assert_eq!(client.send(&many(LINES, left.join("\n"))).status, 204);
    let stored: std::collections::HashSet<_> = broker.bodies("records-full").into_iter().collect();
    assert!(told.iter().all(|record| stored.contains(record)));
}

/// Returns the readings that a 503 leaves to be sent again.
fn still_to_send(reply: &Reply, batch: &[String]) -> Vec<String> {
    assert_eq!(reply.status, 503, "{}", text(&reply.body));
    let verdicts = &reply.problem()["records"];
    let Some(retry) = verdicts["retry"].as_array() else {
        return batch.to_vec(); // refused by its head
    };
    assert_eq!(verdicts["rejected"], json!([]));
    let accepted = verdicts["accepted"].as_u64().expect("a number") as usize;
    assert_eq!(accepted + retry.len(), batch.len());
    let of = |index: &Value| batch[index.as_u64().expect("an index") as usize].clone();
    retry.iter().map(of).collect()
}

/// Through Kinesis too, each record by itself or in aggregates, in the order of their request.
#[test]
fn records_keep_their_order_in_kinesis() {
    // By itself a record waits for the one before it of its device.
    for (aggregate, count) in [("false", 20), ("true", 500)] {
        let stream = crate::kinesis::KinesisStream::start("records", 2);
        let gateway = stream
            .gateway()
            .without_limits()
            .set("FOREBAY_KINESIS_AGGREGATE", aggregate)
            .start();
        let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
        let body = lines("kinesis", count);
        let ask = many(LINES, gzip(body.as_bytes())).with("content-encoding", "gzip");
        assert_eq!(client.send(&ask).status, 204);
        let stored = stream.read();
        let stored: Vec<_> = stored.iter().map(|stored| text(&stored.body)).collect();
        assert_eq!(stored, body.lines().collect::<Vec<_>>(), "{aggregate}");
    }
}

/// Bombs come to nothing: who sends none is served as ever, and memory stays within its budget.
#[test]
fn bombs_hold_nobody_up() {
    let siege = Siege::begin(Setup::new().set("FOREBAY_MEMORY_MAX", "64MiB"));
    let zeros = vec![0; 8 << 20];
    let many_members = gzip(b"").repeat(12_000);
    let deep = "[".repeat(1 << 20);
    let bombs = [
        Ask::post(gzip(&zeros)).with("content-encoding", "gzip"),
        Ask::post(zstd(&zeros)).with("content-encoding", "zstd"),
        many(LINES, gzip(&zeros)).with("content-encoding", "gzip"),
        many("application/json", gzip(deep.as_bytes())).with("content-encoding", "gzip"),
        Ask::post(many_members).with("content-encoding", "gzip"),
    ];
    for protocol in Protocol::ALL {
        for (number, bomb) in bombs.iter().enumerate() {
            let device = siege.gateway.device(&format!("bomber-{number}"));
            for _ in 0..5 {
                // HTTP/1.1 closes after a body that is too large.
                let client = Client::open(protocol, &siege.gateway, &device);
                let reply = client.send(bomb);
                assert!((400..500).contains(&reply.status), "{reply:?}");
            }
        }
        siege.good_device_is_served();
    }
    siege.end();
}
