//! Devices that go on sending although they are refused: what is read of them has an end, and so has their connection.

use std::fs;

use crate::harness::raw::{Raw, block_on, frame, tls};
use crate::harness::{Gateway, Setup, eventually};
use frame::{DATA, END_HEADERS, END_STREAM, HEADERS, WINDOW_UPDATE};

/// Bytes of refused bodies that a connection may have taken before it is ended, with those on their way to it.
const TAKEN_BYTES_MAX: usize = 16 << 20;

/// Bytes that a connection takes in the end if nobody ends it.
const SENT_BYTES_MAX: usize = 64 << 20;

const BODY_BYTES: usize = 32 << 10;

/// A gateway that lets a device send once in a day, and keeps an audit log.
fn gateway() -> Gateway {
    Setup::new()
        .set("FOREBAY_DEVICE_RATE", "0.00001")
        .set("FOREBAY_DEVICE_BURST", 1)
        .set("FOREBAY_AUDIT_LOG", "audit.log")
        .start()
}

async fn open(gateway: &Gateway, protocol: &str) -> Raw {
    let attacker = gateway.device("attacker");
    Raw::open(gateway.address, tls(gateway, Some(&attacker), protocol))
        .await
        .expect("a connection")
}

/// The connection was ended as a flood, which was counted and written down.
fn assert_flood_ended(gateway: &Gateway, taken: usize, protocol: &str) {
    assert!(taken < TAKEN_BYTES_MAX, "{protocol} took {taken} bytes");
    eventually("the count of floods", || {
        gateway.metric("forebay_http_floods_ended_total") == 1.0
    });
    eventually("the audit line", || {
        let audit = fs::read_to_string(gateway.path("audit.log")).unwrap_or_default();
        audit.lines().any(|line| {
            line.contains("flood-ended") && line.contains(&format!("\"protocol\":\"{protocol}\""))
        })
    });
}

fn pour_h1(gateway: &Gateway, bytes: &[u8]) -> usize {
    block_on(async {
        let raw = open(gateway, "http/1.1").await;
        raw.pour(bytes, SENT_BYTES_MAX).await
    })
}

fn post(path: &str, framing: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{framing}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn bodies_of_readings_that_are_refused_by_a_limit_end_an_h1_connection() {
    let gateway = gateway();
    let body = vec![b'x'; BODY_BYTES];
    let length = format!("content-length: {BODY_BYTES}");
    let taken = pour_h1(&gateway, &post("/v1/telemetry", &length, &body));
    assert_flood_ended(&gateway, taken, "h1");
}

#[test]
fn chunks_of_readings_that_are_refused_by_a_limit_end_an_h1_connection() {
    let gateway = gateway();
    let chunk = [
        format!("{BODY_BYTES:x}\r\n").as_bytes(),
        &vec![b'x'; BODY_BYTES],
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let request = post("/v1/telemetry", "transfer-encoding: chunked", &chunk);
    let taken = pour_h1(&gateway, &request);
    assert_flood_ended(&gateway, taken, "h1");
}

/// Without a body too: what is refused by a limit costs no token.
#[test]
fn a_device_that_heeds_no_429_is_cut_off_on_h1() {
    let gateway = gateway();
    let taken = pour_h1(&gateway, &post("/v1/telemetry", "content-length: 1", b"1"));
    assert_flood_ended(&gateway, taken, "h1");
}

/// Requests that cost a token, and bodies that cost none.
#[test]
fn bodies_for_nobody_end_an_h1_connection() {
    let gateway = Setup::new()
        .without_limits()
        .set("FOREBAY_AUDIT_LOG", "audit.log")
        .start();
    let body = vec![b'x'; BODY_BYTES];
    let length = format!("content-length: {BODY_BYTES}");
    let taken = pour_h1(&gateway, &post("/none", &length, &body));
    assert_flood_ended(&gateway, taken, "h1");
}

/// RFC 9112 section 2.2 has one empty line before a request in mind.
#[test]
fn empty_lines_without_end_end_an_h1_connection() {
    let gateway = gateway();
    let taken = pour_h1(&gateway, b"\r\n");
    assert_flood_ended(&gateway, taken, "h1");
}

/// A client that keeps to its windows.
struct Polite {
    raw: Raw,
    received: Vec<u8>,
    window: usize,
    answers: usize,
}

impl Polite {
    async fn open(gateway: &Gateway) -> Self {
        let mut raw = open(gateway, "h2").await;
        let window = frame::frame(WINDOW_UPDATE, 0, 0, &0x3fff_ffff_u32.to_be_bytes());
        raw.send(&[frame::preface(), window].concat())
            .await
            .expect("it listens");
        Self {
            raw,
            received: Vec::new(),
            window: 65_535,
            answers: 0,
        }
    }

    /// `false` when the connection has ended.
    async fn listen(&mut self) -> bool {
        let bytes = self.raw.receive().await;
        self.received.extend(&bytes);
        let frames = frame::parse(&self.received);
        let parsed: usize = frames.iter().map(|(.., payload)| 9 + payload.len()).sum();
        self.received.drain(..parsed);
        for (kind, stream, payload) in frames {
            match (kind, stream) {
                (HEADERS, _) => self.answers += 1,
                (WINDOW_UPDATE, 0) => {
                    let more = u32::from_be_bytes(payload[..4].try_into().expect("four bytes"));
                    self.window += more as usize;
                }
                _ => {}
            }
        }
        !bytes.is_empty()
    }
}

/// One reading after another, each answered, until the connection ends.
async fn post_without_end(gateway: &Gateway, path: &str) -> usize {
    let mut client = Polite::open(gateway).await;
    let mut head = vec![0x83, 0x87];
    head.extend(frame::field(":path", path.as_bytes()));
    head.extend(frame::field(":authority", b"localhost"));
    let mut taken = 0;
    for number in 0.. {
        let stream = 2 * number as u32 + 1;
        let mut request = frame::frame(HEADERS, END_HEADERS, stream, &head);
        request.extend(frame::frame(DATA, 0, stream, &[b'x'; BODY_BYTES / 2]));
        request.extend(frame::frame(
            DATA,
            END_STREAM,
            stream,
            &[b'x'; BODY_BYTES / 2],
        ));
        while client.window < BODY_BYTES || client.answers < number {
            if !client.listen().await {
                return taken;
            }
        }
        if taken > SENT_BYTES_MAX || client.raw.send(&request).await.is_err() {
            return taken;
        }
        client.window -= BODY_BYTES;
        taken += request.len();
    }
    taken
}

#[test]
fn bodies_of_readings_that_are_refused_by_a_limit_end_an_h2_connection() {
    let gateway = gateway();
    let taken = block_on(post_without_end(&gateway, "/v1/telemetry"));
    assert_flood_ended(&gateway, taken, "h2");
}

#[test]
fn bodies_for_nobody_end_an_h2_connection() {
    let gateway = Setup::new()
        .without_limits()
        .set("FOREBAY_AUDIT_LOG", "audit.log")
        .start();
    let taken = block_on(post_without_end(&gateway, "/none"));
    assert_flood_ended(&gateway, taken, "h2");
}

/// The other side of it: whoever is accepted sends for as long as it likes.
#[test]
fn readings_that_are_taken_never_end_a_connection() {
    let gateway = Setup::new().without_limits().start();
    let body = vec![b'1'; BODY_BYTES];
    let length = format!("content-length: {BODY_BYTES}");
    let bytes = post("/v1/telemetry", &length, &body);
    let taken = pour_h1(&gateway, &bytes);
    assert!(taken >= SENT_BYTES_MAX, "h1 took {taken} bytes");
    let taken = block_on(post_without_end(&gateway, "/v1/telemetry"));
    assert!(taken >= SENT_BYTES_MAX, "h2 took {taken} bytes");
    assert_eq!(gateway.metric("forebay_http_floods_ended_total"), 0.0);
}
