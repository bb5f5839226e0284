//! Readings arrive as they were sent, byte for byte: by each protocol, by two clients that know nothing of each other, into
//! each sink. Each sender waits for its 204, so its readings arrive in their order.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::brokers;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, Via};
use crate::kafka::{Kafka, Stored};
use crate::kinesis::KinesisStream;

const CLIENTS: [(Via, Protocol); 7] = [
    (Via::Curl, Protocol::H1),
    (Via::Httpx, Protocol::H1),
    (Via::Curl, Protocol::H2),
    (Via::Httpx, Protocol::H2),
    (Via::CurlCffi, Protocol::H2),
    (Via::Wire, Protocol::H3),
    (Via::CurlCffi, Protocol::H3),
];

/// Around the sizes of TLS records, HTTP/2 frames and windows.
const SIZES: [usize; 7] = [1, 2, 1023, 16_384, 65_535, 65_537, 300_000];

const CONTENT_TYPE: &str = "application/x-reading; v=\"1\"";

/// A reading as it was sent.
#[derive(Clone, Debug)]
struct Sent {
    body: Vec<u8>,
    /// Not every sender names its readings.
    key: Option<String>,
}

fn gateway(setup: Setup, body_bytes_max: usize) -> Gateway {
    setup
        .without_limits()
        .set("FOREBAY_BODY_BYTES_MAX", format!("{body_bytes_max}B"))
        .start()
}

fn device((via, protocol): (Via, Protocol)) -> String {
    format!("urn:plant/{via:?}-{protocol}")
}

/// Each client sends all sizes, one after another; what was sent, by device.
fn send_all(gateway: &Gateway, body_bytes_max: usize) -> HashMap<String, Vec<Sent>> {
    let send = |(number, client): (usize, (Via, Protocol))| {
        let (via, protocol) = client;
        let connection = Client::open_via(via, protocol, gateway, &gateway.device(&device(client)));
        let sizes = SIZES.into_iter().chain([body_bytes_max]);
        let reading = |size: usize| {
            let body = noise(size, number);
            let key = size.is_multiple_of(2).then(|| format!("{number}-{size}"));
            let ask = Ask::post(body.clone()).with("content-type", CONTENT_TYPE);
            let ask = key
                .iter()
                .fold(ask, |ask, key| ask.with("idempotency-key", key));
            let reply = connection.send(&ask);
            assert_eq!(
                (reply.status, reply.body.len()),
                (204, 0),
                "{client:?}, {size} bytes: {reply:?}"
            );
            Sent { body, key }
        };
        (device(client), sizes.map(reading).collect())
    };
    std::thread::scope(|scope| {
        let senders: Vec<_> = CLIENTS
            .into_iter()
            .enumerate()
            .map(|client| scope.spawn(move || send(client)))
            .collect();
        senders
            .into_iter()
            .map(|sender| sender.join().expect("a sender"))
            .collect()
    })
}

/// Bytes of all values without a pattern: xorshift, see <https://www.jstatsoft.org/article/view/v008i14>.
fn noise(size: usize, seed: usize) -> Vec<u8> {
    let mut state = (size as u64) << 8 | (seed as u64 + 1);
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(size).collect()
}

/// The key that was sent; a UUIDv7 where none was.
fn assert_record_id(id: &str, sent: &Sent) {
    match &sent.key {
        Some(key) => assert_eq!(id, key),
        None => assert_eq!(
            Uuid::parse_str(id).map(|id| id.get_version_num()),
            Ok(7),
            "{id}"
        ),
    }
}

/// Not `assert_eq`: a mebibyte of noise says little.
fn assert_same(stored: &[u8], sent: &Sent, device: &str) {
    assert!(
        stored == sent.body,
        "{device}: {} bytes arrived, {} were sent",
        stored.len(),
        sent.body.len()
    );
}

fn now_millis() -> i64 {
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since_epoch.as_millis()).expect("before the end of time")
}

#[test]
fn every_byte_arrives_in_kafka() {
    let topic = "arrival";
    let gateway = gateway(
        brokers::gateway_with(topic, &[("max.message.bytes", "2000000")]),
        1 << 20,
    );
    let begun = now_millis();
    let sent = send_all(&gateway, 1 << 20);
    let mut stored: HashMap<String, Vec<Stored>> = HashMap::new();
    for record in Kafka::shared().read_topic(topic) {
        let key = String::from_utf8(record.key.clone().expect("a key")).expect("UTF-8");
        stored.entry(key).or_default().push(record);
    }
    assert_eq!(stored.len(), sent.len());
    for (device, sent) in &sent {
        assert_eq!(stored[device].len(), sent.len(), "{device}");
        for (record, sent) in stored[device].iter().zip(sent) {
            assert_same(record.value.as_deref().expect("a value"), sent, device);
            let [(first, content_type), (second, id)] = &record.headers[..] else {
                panic!("{:?}", record.headers)
            };
            assert_eq!(
                (first.as_str(), second.as_str()),
                ("content-type", "record-id")
            );
            assert_eq!(content_type, CONTENT_TYPE.as_bytes());
            assert_record_id(std::str::from_utf8(id).expect("ASCII"), sent);
            assert!(
                (begun..=now_millis()).contains(&record.timestamp.expect("a time")),
                "{:?}",
                record.timestamp
            );
        }
    }
}

#[test]
fn every_byte_arrives_in_files() {
    let gateway = gateway(Setup::new(), 1 << 20);
    let begun = now_millis();
    let sent = send_all(&gateway, 1 << 20);
    let stored = gateway.files("telemetry");
    assert_eq!(stored.len(), sent.values().map(Vec::len).sum::<usize>());
    for (device, sent) in &sent {
        let lines: Vec<_> = stored
            .iter()
            .filter(|line| line.text("device") == device)
            .collect();
        assert_eq!(lines.len(), sent.len(), "{device}");
        for (line, sent) in lines.into_iter().zip(sent) {
            // One digit is JSON, and so is some noise of a byte or two.
            let payload = line.payload();
            assert!(
                payload == sent.body || sent.body.len() <= 2,
                "{device}: {} bytes",
                sent.body.len()
            );
            assert_eq!(line.text("content_type"), CONTENT_TYPE);
            assert_record_id(line.text("record_id"), sent);
            let received_at: jiff::Timestamp = line.text("received_at").parse().expect("RFC 3339");
            assert!(
                (begun..=now_millis()).contains(&received_at.as_millisecond()),
                "{received_at}"
            );
        }
    }
}

fn every_byte_arrives_in_kinesis(aggregate: bool) {
    // A record of Kinesis is a mebibyte with its partition key, for which the gateway reckons 128 bytes.
    const BODY_BYTES_MAX: usize = (1 << 20) - 128;
    let stream = KinesisStream::start("arrival", 8);
    let setup = stream
        .gateway()
        .set("FOREBAY_KINESIS_AGGREGATE", aggregate)
        .set("FOREBAY_ACK_TIMEOUT", "40s");
    let gateway = gateway(setup, BODY_BYTES_MAX);
    let sent = send_all(&gateway, BODY_BYTES_MAX);
    let stored = stream.read();
    assert_eq!(stored.len(), sent.values().map(Vec::len).sum::<usize>());
    for (device, sent) in &sent {
        let readings: Vec<_> = stored
            .iter()
            .filter(|reading| reading.device == *device)
            .collect();
        assert_eq!(readings.len(), sent.len(), "{device}");
        for (reading, sent) in readings.into_iter().zip(sent) {
            assert_same(&reading.body, sent, device);
            reading
                .record_id
                .iter()
                .for_each(|id| assert_record_id(id, sent));
            // The largest one has no room for the aggregate around it.
            assert_eq!(
                reading.record_id.is_some(),
                aggregate && sent.body.len() < BODY_BYTES_MAX
            );
        }
    }
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    assert_eq!(
        client.send(&Ask::post(vec![0; BODY_BYTES_MAX + 1])).status,
        413,
        "more than the stream takes"
    );
}

#[test]
fn every_byte_arrives_in_kinesis_by_single_records() {
    every_byte_arrives_in_kinesis(false);
}

#[test]
fn every_byte_arrives_in_kinesis_by_aggregates() {
    every_byte_arrives_in_kinesis(true);
}

/// Nothing is added that was not sent, and trailers, cookies and the rest stay out.
#[test]
fn a_record_has_no_content_type_of_its_own() {
    let gateway = brokers::gateway_to("bare").start();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let ask = Ask::post(&b"\0\xff"[..])
            .with("x-other", "1")
            .with("cookie", "a=b");
        assert_eq!(
            Client::open(protocol, &gateway, &device).send(&ask).status,
            204
        );
    }
    let stored = Kafka::shared().read_topic("bare");
    assert_eq!(stored.len(), 3);
    for record in stored {
        let names: Vec<_> = record
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            (names, record.value),
            (vec!["record-id"], Some(b"\0\xff".to_vec()))
        );
    }
}

/// A trace goes on where the record goes; what is no `traceparent` is as none.
#[test]
fn a_trace_is_passed_on() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const NO_TRACES: [&str; 3] = [
        "",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4BF9-1-01",
    ];
    let (to_topic, to_files) = (brokers::gateway_to("traced").start(), Setup::new().start());
    let traced = |gateway: &Gateway| {
        for protocol in Protocol::ALL {
            let client = Client::open(protocol, gateway, &gateway.device("plc-1"));
            assert_eq!(
                client
                    .send(&Ask::post("1").with("traceparent", TRACE))
                    .status,
                204
            );
            for text in NO_TRACES {
                assert_eq!(
                    client
                        .send(&Ask::post("1").with("traceparent", text))
                        .status,
                    204,
                    "{text}"
                );
            }
        }
    };
    traced(&to_topic);
    let stored = Kafka::shared().read_topic("traced");
    let headers = stored
        .iter()
        .flat_map(|record| &record.headers)
        .filter(|(name, _)| name == "traceparent");
    assert_eq!(
        (
            stored.len(),
            headers.map(|(_, value)| &value[..]).collect::<Vec<_>>()
        ),
        (12, vec![TRACE.as_bytes(); 3])
    );
    traced(&to_files);
    assert_eq!(
        to_files
            .file_text("telemetry")
            .matches(&format!(",\"traceparent\":\"{TRACE}\","))
            .count(),
        3
    );
}

/// A body without a declared length, in pieces, is the same reading.
#[test]
fn pieces_are_joined() {
    let gateway = Setup::new().without_limits().start();
    let body = noise(200_000, 1);
    let (begin, rest) = body.split_at(70_001);
    for protocol in Protocol::ALL {
        let client = Client::open(
            protocol,
            &gateway,
            &gateway.device(&format!("plc-{protocol}")),
        );
        let sent = client.hold(&Ask::post(begin).undeclared());
        sent.release(rest);
        assert_eq!(sent.wait().expect("an answer").status, 204, "{protocol}");
    }
    let stored = gateway.files("telemetry");
    assert!(stored.len() == 3 && stored.iter().all(|line| line.payload() == body));
}

/// JSON stands in the line as it was written, and a record in it is never two lines.
#[test]
fn json_is_kept_verbatim_in_files() {
    let gateway = Setup::new().start();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        for body in ["{\"t\":  1.50, \"t\": 1e2}", "{\"t\":\n2}"] {
            assert_eq!(client.send(&Ask::post(body)).status, 204);
        }
    }
    let text = gateway.file_text("telemetry");
    assert_eq!(
        text.matches(",\"payload\":{\"t\":  1.50, \"t\": 1e2}}\n")
            .count(),
        3,
        "{text}"
    );
    assert_eq!(
        (
            text.lines().count(),
            text.matches("\"payload_base64\":").count()
        ),
        (6, 3)
    );
}
