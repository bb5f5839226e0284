//! Faults of HTTP/3: each ends its request or its connection with the code that RFC 9114 and RFC
//! 9204 have for it. Nothing of it is stored, nothing panics, and the neighbours of the faulty one
//! are served.

use crate::harness::pour::{Fate, Pour, frame_header};
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;

/// RFC 9114 section 8.1 and RFC 9204 section 6.
const STREAM_CREATION_ERROR: u64 = 0x103;
const CLOSED_CRITICAL_STREAM: u64 = 0x104;
const FRAME_ERROR: u64 = 0x106;
const ID_ERROR: u64 = 0x108;
const MESSAGE_ERROR: u64 = 0x10e;
const DECOMPRESSION_FAILED: u64 = 0x200;
const ENCODER_STREAM_ERROR: u64 = 0x201;
const DECODER_STREAM_ERROR: u64 = 0x202;

/// Pseudo-header fields that every request begins with, in any order.
const PSEUDO: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "localhost"),
    (":path", "/v1/telemetry"),
];

type Fields<'a> = Vec<(&'a str, &'a str)>;

struct Bench {
    gateway: Gateway,
    neighbour: Client,
}

impl Bench {
    fn begin() -> Self {
        let gateway = Setup::new()
            .without_limits()
            .set("FOREBAY_WORKERS", 1)
            .start();
        let neighbour = Client::open(Protocol::H3, &gateway, &gateway.device("plc-1"));
        Self { gateway, neighbour }
    }

    fn faulty(&self) -> Client {
        Client::open(Protocol::H3, &self.gateway, &self.gateway.device("mallory"))
    }

    /// So many good readings are stored, that of the neighbour among them, and no other.
    fn end(self, good: usize) {
        assert_eq!(self.neighbour.send(&Ask::post("1")).status, 204);
        assert_eq!(self.gateway.files("telemetry").len(), good + 1);
    }
}

fn assert_closed(client: &Client, code: u64, what: &str) {
    let closed = client.closed();
    assert!(
        closed.starts_with(&format!("close {code} ")),
        "{what}: {closed}"
    );
}

fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [&frame_header(kind, payload.len() as u64), payload].concat()
}

/// A field section in literals, without Huffman's code (RFC 9204 section 4.5.6).
fn section(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut section = vec![0, 0];
    for (name, value) in fields {
        match name.len() as u8 {
            bytes @ 0..7 => section.push(0x20 | bytes),
            bytes => section.extend([0x27, bytes - 7]),
        }
        section.extend(name.as_bytes());
        section.push(value.len() as u8);
        section.extend(value.as_bytes());
    }
    section
}

/// A request with this head, a body of one byte, and these trailers.
fn send(client: &Client, head: &[(&str, &str)], trailers: &[(&str, &str)]) -> Fate {
    let mut bytes = [frame(HEADERS, &section(head)), frame(DATA, b"1")].concat();
    if !trailers.is_empty() {
        bytes.extend(frame(HEADERS, &section(trailers)));
    }
    Pour::on_request().bytes(bytes).ending().to(client).fate()
}

fn assert_malformed(fate: &Fate, what: &str) {
    let is_refused = fate.status == Some(400) || fate.reset == Some(MESSAGE_ERROR);
    assert!(is_refused && fate.closed.is_none(), "{what}: {fate:?}");
}

/// RFC 9114 section 7.1. The stream ends cleanly, in the middle of a frame.
#[test]
fn a_frame_that_is_cut_off_is_a_frame_error() {
    let bench = Bench::begin();
    for (kind, sent) in [
        (DATA, &b""[..]),
        (DATA, b"abc"),
        (HEADERS, b""),
        (HEADERS, &[0, 0]),
    ] {
        let faulty = bench.faulty();
        let bytes = [&frame_header(kind, 10), sent].concat();
        let ask = Ask::post("").undeclared();
        drop(Pour::after(ask).bytes(bytes).ending().to(&faulty));
        assert_closed(&faulty, FRAME_ERROR, &format!("{kind} {sent:?}"));
    }
    bench.end(0);
}

#[test]
fn a_body_in_several_frames_is_as_long_as_declared() {
    let bench = Bench::begin();
    let client = bench.faulty();
    let post = |parts: &[&str], declared: usize| {
        let bytes: Vec<u8> = parts
            .iter()
            .flat_map(|part| frame(DATA, part.as_bytes()))
            .collect();
        let ask = Ask::post("").declaring(declared);
        Pour::after(ask).bytes(bytes).ending().to(&client).fate()
    };
    for (parts, declared) in [
        (&["ab", "c"][..], 2),
        (&["a", "b", "c"], 2),
        (&["ab", "", "c"], 2),
        (&["ab", "c"], 4),
        (&["ab"], 1),
    ] {
        let fate = post(parts, declared);
        assert_eq!(fate.status, Some(400), "{parts:?} of {declared}: {fate:?}");
    }
    assert_eq!(post(&["a", "b", "", "c"], 3).status, Some(204));
    bench.end(1);
}

/// A client's GOAWAY takes back pushes, of which there are none.
#[test]
fn a_client_that_goes_away_gets_its_answers() {
    let bench = Bench::begin();
    let client = bench.faulty();
    let held = client.hold(&Ask::post("be").declaring(6));
    eventually("the request", || {
        bench.gateway.metric("forebay_admission_bytes") == 1030.0
    });
    drop(Pour::on_control().bytes([0x7, 1, 0]).to(&client));
    held.release(b"long");
    assert_eq!(held.wait().expect("an answer").status, 204);
    bench.end(1);
}

#[test]
fn a_malformed_head_is_no_request() {
    let bench = Bench::begin();
    let client = bench.faulty();
    let mut malformed: Vec<Fields> = Vec::new();
    for (place, pseudo) in PSEUDO.into_iter().enumerate() {
        let mut without = PSEUDO.to_vec();
        without.remove(place);
        malformed.push(without.clone());
        malformed.push([&PSEUDO[..], &[pseudo]].concat());
        malformed.push([&without[..], &[("x", "1"), pseudo]].concat());
        without.insert(place, (pseudo.0, ""));
        malformed.push(without);
    }
    for field in [
        (":status", "200"),
        (":protocol", "websocket"),
        (":x", "1"),
        ("connection", "close"),
        ("keep-alive", "1"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("X-Upper", "1"),
        ("x y", "1"),
        ("x", "a\nb"),
        ("x", "a\0b"),
    ] {
        malformed.push([&PSEUDO[..], &[field]].concat());
    }
    malformed.push([&[(":status", "200")], &PSEUDO[..]].concat());
    for head in malformed {
        assert_malformed(&send(&client, &head, &[]), &format!("{head:?}"));
    }
    for trailer in [
        (":path", "/"),
        (":status", "200"),
        ("connection", "close"),
        ("X", "1"),
    ] {
        let fate = send(&client, &PSEUDO, &[trailer]);
        assert_malformed(&fate, &format!("trailer {trailer:?}"));
    }
    let good = [&PSEUDO[..], &[("te", "trailers"), ("x", "1")]].concat();
    assert_eq!(send(&client, &good, &[("x", "1")]).status, Some(204));
    bench.end(1);
}

#[test]
fn a_field_section_that_cannot_be_decoded_ends_the_connection() {
    let bench = Bench::begin();
    for section in [
        &[][..],
        &[0],
        &[1, 0],
        &[0, 0, 0x80],
        &[0, 0, 0xff],
        &[0xff; 12],
    ] {
        let faulty = bench.faulty();
        drop(
            Pour::on_request()
                .bytes(frame(HEADERS, section))
                .to(&faulty),
        );
        assert_closed(&faulty, DECOMPRESSION_FAILED, &format!("{section:?}"));
    }
    bench.end(0);
}

/// There is no dynamic table, neither here nor there.
#[test]
fn instructions_without_a_table_end_the_connection() {
    let bench = Bench::begin();
    for (side, bytes, code) in [
        ("encoder", &[0x3f, 0x01][..], ENCODER_STREAM_ERROR),
        ("encoder", &[0xc0, 0], ENCODER_STREAM_ERROR),
        ("encoder", &[0x00], ENCODER_STREAM_ERROR),
        ("decoder", &[0x80], DECODER_STREAM_ERROR),
        ("decoder", &[0x01], DECODER_STREAM_ERROR),
    ] {
        let faulty = bench.faulty();
        drop(Pour::on_qpack(side).bytes(bytes).to(&faulty));
        assert_closed(&faulty, code, &format!("{side} {bytes:?}"));
    }
    bench.end(0);
}

#[test]
fn a_critical_stream_is_there_once_and_stays_open() {
    let bench = Bench::begin();
    for on in [
        Pour::on_control(),
        Pour::on_qpack("encoder"),
        Pour::on_qpack("decoder"),
    ] {
        let faulty = bench.faulty();
        drop(on.ending().to(&faulty));
        assert_closed(&faulty, CLOSED_CRITICAL_STREAM, "its end");
    }
    let faulty = bench.faulty();
    faulty.stop_critical(0x100);
    assert_closed(&faulty, CLOSED_CRITICAL_STREAM, "STOP_SENDING");
    for kind in 0..=3 {
        let faulty = bench.faulty();
        drop(Pour::on_uni().bytes([kind, 0]).to(&faulty));
        assert_closed(&faulty, STREAM_CREATION_ERROR, &format!("another {kind}"));
    }
    bench.end(0);
}

#[test]
fn a_control_frame_that_goes_back_on_another_ends_the_connection() {
    let bench = Bench::begin();
    for (bytes, code) in [
        (&[0xd, 1, 0x3f, 0xd, 1, 0x3e][..], ID_ERROR),
        (&[0x7, 1, 5, 0x7, 1, 6], ID_ERROR),
        (&[0x3, 1, 0], ID_ERROR),
        (&[0xd, 2, 0, 0], FRAME_ERROR),
        (&[0x7, 0], FRAME_ERROR),
    ] {
        let faulty = bench.faulty();
        drop(Pour::on_control().bytes(bytes).to(&faulty));
        assert_closed(&faulty, code, &format!("{bytes:?}"));
    }
    bench.end(0);
}
