//! Attacks on HTTP/3, which no client has reason to send: each has a defined end, costs no memory,
//! stores nothing, and leaves the neighbours of the attacker alone.

use crate::harness::pour::{Fate, Pour, Poured, churn, frame_header};
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};

const DATA: u64 = 0x0;
const HEADERS: u64 = 0x1;
const PUSH_PROMISE: u64 = 0x5;
const UNKNOWN: u64 = 0x21;

/// RFC 9114 section 8.1, as a connection ends by it, and a stream.
const NO_ERROR: u64 = 0x100;
const EXCESSIVE_LOAD: u64 = 0x107;
const REQUEST_CANCELLED: u64 = 0x10c;
const MESSAGE_ERROR: u64 = 0x10e;
const CLOSED_BY_EXCESS: &str = "close 263";
const CLOSED_BY_DISORDER: &str = "close 261";

/// A length that nothing has.
const ENDLESS: u64 = 1 << 40;

/// Bytes that each attack would have the gateway keep.
const ATTACK_BYTES: usize = 64 << 20;
const PIECE_BYTES: usize = 64 << 10;
const STREAMS: usize = 16;

/// Requests that a client may give up beyond those that are answered, and have open.
const UNANSWERED_MAX: u64 = 200;
const STREAMS_MAX: u64 = 100;

/// Bytes by which a gateway may grow meanwhile: connections, windows, and the allocator's reserve.
const GROWTH_BYTES_MAX: u64 = 32 << 20;

/// An attacker and its neighbour, served by the same worker.
struct Siege {
    gateway: Gateway,
    neighbour: Client,
    resident_bytes: u64,
    answered: std::cell::Cell<usize>,
}

impl Siege {
    fn begin() -> Self {
        let gateway = Setup::new()
            .without_limits()
            .set("FOREBAY_WORKERS", 1)
            .start();
        let neighbour = Client::open(Protocol::H3, &gateway, &gateway.device("plc-1"));
        let siege = Self {
            resident_bytes: 0,
            gateway,
            neighbour,
            answered: 0.into(),
        };
        siege.neighbour_is_answered();
        Self {
            resident_bytes: siege.gateway.resident_bytes(),
            ..siege
        }
    }

    fn attacker(&self) -> Client {
        Client::open(Protocol::H3, &self.gateway, &self.gateway.device("mallory"))
    }

    fn neighbour_is_answered(&self) {
        assert_eq!(self.neighbour.send(&Ask::post("1")).status, 204);
        self.answered.set(self.answered.get() + 1);
    }

    /// Streams that begin like this and go on for long, all at once, and how they end.
    fn flood(&self, attacker: &Client, start: &Pour, bytes: &[u8]) -> Vec<Fate> {
        let mut piece = bytes.to_vec();
        piece.resize(PIECE_BYTES.max(bytes.len()), 0);
        let times = ATTACK_BYTES / STREAMS / PIECE_BYTES;
        let streams =
            (0..STREAMS).map(|_| start.clone().repeated(piece.clone(), times).to(attacker));
        let streams: Vec<Poured> = streams.collect();
        self.neighbour_is_answered();
        streams.into_iter().map(Poured::fate).collect()
    }

    /// They are counted, as they are on other protocols.
    fn has_ended_floods(&self, floods: f64) {
        eventually("the floods", || {
            self.gateway.metric("forebay_http_floods_ended_total") == floods
        });
    }

    /// The records of the neighbour are all that there is, in not much more memory.
    fn end(self) {
        self.neighbour_is_answered();
        let lines = self.gateway.files("telemetry");
        assert!(
            lines.iter().all(|line| line.text("device") == "plc-1"),
            "{lines:?}"
        );
        assert_eq!(lines.len(), self.answered.get());
        let grown_bytes = self
            .gateway
            .resident_bytes()
            .saturating_sub(self.resident_bytes);
        assert!(
            grown_bytes < GROWTH_BYTES_MAX,
            "grown by {grown_bytes} bytes"
        );
    }
}

fn reset(code: u64) -> Fate {
    Fate {
        status: None,
        stopped: Some(code),
        reset: Some(code),
        closed: None,
    }
}

fn answered(status: u64, stopped: Option<u64>) -> Fate {
    Fate {
        status: Some(status),
        stopped,
        reset: None,
        closed: None,
    }
}

#[test]
fn a_frame_without_end_in_place_of_a_head_is_refused() {
    let siege = Siege::begin();
    let attacker = siege.attacker();
    for kind in [HEADERS, PUSH_PROMISE, UNKNOWN] {
        for fate in siege.flood(&attacker, &Pour::on_request(), &frame_header(kind, ENDLESS)) {
            assert_eq!(fate, reset(EXCESSIVE_LOAD), "{kind}");
        }
    }
    assert_eq!(
        attacker.send(&Ask::post("").to("/none")).status,
        404,
        "the connection goes on"
    );
    siege.end();
}

#[test]
fn a_frame_without_end_after_a_head_or_a_body_is_refused() {
    let siege = Siege::begin();
    let attacker = siege.attacker();
    let body = [&frame_header(DATA, 1)[..], b"1"].concat();
    for kind in [HEADERS, UNKNOWN] {
        for before in [&b""[..], &body] {
            let bytes = [before, &frame_header(kind, ENDLESS)].concat();
            for fate in siege.flood(&attacker, &Pour::after(Ask::post("1").undeclared()), &bytes) {
                assert_eq!(
                    fate,
                    answered(400, Some(EXCESSIVE_LOAD)),
                    "{kind} after {} bytes",
                    before.len()
                );
            }
        }
    }
    siege.end();
}

/// As a whole it is bounded by the header time-out, however slowly it comes.
#[test]
fn a_head_that_does_not_end_is_given_up() {
    let gateway = Setup::new()
        .without_limits()
        .set("FOREBAY_HEADER_TIMEOUT", "1s")
        .start();
    let client = Client::open(Protocol::H3, &gateway, &gateway.device("plc-1"));
    for bytes in [
        vec![],
        frame_header(HEADERS, 100),
        [frame_header(HEADERS, 100), vec![0; 10]].concat(),
    ] {
        let fate = Pour::on_request()
            .bytes([&frame_header(UNKNOWN, 0)[..], &bytes].concat())
            .to(&client)
            .fate();
        assert_eq!(fate, reset(REQUEST_CANCELLED), "{} bytes", bytes.len());
    }
    assert_eq!(client.send(&Ask::post("1")).status, 204);
}

#[test]
fn frames_without_a_meaning_are_few() {
    let siege = Siege::begin();
    let attacker = siege.attacker();
    let many = |kind| frame_header(kind, 0).repeat(1000);
    assert_eq!(
        Pour::on_request().bytes(many(UNKNOWN)).to(&attacker).fate(),
        reset(EXCESSIVE_LOAD)
    );
    for kind in [DATA, UNKNOWN] {
        let in_a_body = Pour::after(Ask::post("1").undeclared())
            .bytes(many(kind))
            .to(&attacker)
            .fate();
        assert_eq!(in_a_body, answered(400, Some(EXCESSIVE_LOAD)), "{kind}");
    }
    drop(Pour::on_request().bytes(many(DATA)).to(&attacker));
    let closed = attacker.closed();
    assert!(closed.starts_with(CLOSED_BY_DISORDER), "{closed}");
    siege.end();
}

#[test]
fn a_control_frame_without_end_ends_the_connection() {
    let siege = Siege::begin();
    for kind in [UNKNOWN, 0x4, 0xd] {
        let attacker = siege.attacker();
        let mut piece = frame_header(kind, ENDLESS);
        piece.resize(PIECE_BYTES, 0);
        let stream = Pour::on_control()
            .repeated(piece, ATTACK_BYTES / PIECE_BYTES)
            .to(&attacker);
        siege.neighbour_is_answered();
        drop(stream);
        let closed = attacker.closed();
        assert!(closed.starts_with(CLOSED_BY_EXCESS), "{kind}: {closed}");
    }
    siege.end();
}

#[test]
fn streams_of_one_direction_without_end_end_the_connection() {
    let siege = Siege::begin();
    let attacker = siege.attacker();
    let streams: Vec<_> = (0..100)
        .map(|_| Pour::on_uni().bytes([0x21]).ending().to(&attacker))
        .collect();
    siege.neighbour_is_answered();
    drop(streams);
    let closed = attacker.closed();
    assert!(closed.starts_with(CLOSED_BY_EXCESS), "{closed}");
    siege.end();
}

/// Like HTTP/2's rapid reset: each costs the gateway a task and the attacker a few bytes.
#[test]
fn requests_that_are_given_up_without_end_end_the_connection() {
    let siege = Siege::begin();
    let attacker = siege.attacker();
    let (closed, begun) = churn(&attacker, &Ask::post("1"), 20_000);
    assert!(closed.starts_with(CLOSED_BY_EXCESS), "{closed}");
    // As many streams as it may have open are on their way when the connection is closed.
    let at_most = UNANSWERED_MAX + 3 * STREAMS_MAX;
    assert!((UNANSWERED_MAX..at_most).contains(&begun), "{begun}");
    siege.has_ended_floods(1.0);
    siege.end();
}

#[test]
fn a_pseudo_header_that_is_repeated_is_no_way_around_a_check() {
    let siege = Siege::begin();
    let attacker = siege.attacker();
    for (name, value) in [
        (":path", "/none"),
        (":authority", "example.com"),
        (":method", "PUT"),
    ] {
        let bytes = [&frame_header(DATA, 1)[..], b"1"].concat();
        let fate = Pour::after(Ask::post("1").with(name, value))
            .bytes(bytes)
            .ending()
            .to(&attacker)
            .fate();
        let is_refused =
            matches!(fate.status, Some(404 | 405 | 421)) || fate.reset == Some(MESSAGE_ERROR);
        assert!(is_refused, "{name}: {fate:?}");
    }
    siege.end();
}

#[test]
fn a_body_that_is_not_as_long_as_declared_is_refused() {
    let siege = Siege::begin();
    let attacker = siege.attacker();
    for (sent, declared) in [("abc", 2), ("abc", 4), ("a", 0), ("a", 1 << 10)] {
        let bytes = [&frame_header(DATA, sent.len() as u64)[..], sent.as_bytes()].concat();
        let fate = Pour::after(Ask::post(sent).declaring(declared))
            .bytes(bytes)
            .ending()
            .to(&attacker)
            .fate();
        assert_eq!(
            (fate.status, fate.reset),
            (Some(400), None),
            "{sent} as {declared}"
        );
        assert!(matches!(fate.stopped, None | Some(NO_ERROR)), "{fate:?}");
    }
    siege.end();
}

/// A body goes on after an empty frame; but not after trailers, which end the connection that has
/// more.
#[test]
fn a_body_is_taken_whole_or_not_at_all() {
    let siege = Siege::begin();
    let device = siege.gateway.device("plc-1");
    let client = Client::open(Protocol::H3, &siege.gateway, &device);
    let part = |text: &str| [&frame_header(DATA, text.len() as u64)[..], text.as_bytes()].concat();
    let whole = [part("on"), part(""), part("e")].concat();
    let fate = Pour::after(Ask::post("1").undeclared())
        .bytes(whole)
        .ending()
        .to(&client)
        .fate();
    assert_eq!(fate, answered(204, None));
    siege.answered.set(siege.answered.get() + 1);
    assert!(
        siege
            .gateway
            .files("telemetry")
            .iter()
            .any(|line| line.payload() == b"one")
    );
    let trailers = [&frame_header(HEADERS, 2)[..], &[0, 0]].concat();
    let split = [part("on"), trailers, part("e")].concat();
    drop(
        Pour::after(Ask::post("1").undeclared())
            .bytes(split)
            .ending()
            .to(&client),
    );
    let closed = client.closed();
    assert!(closed.starts_with(CLOSED_BY_DISORDER), "{closed}");
    siege.end();
}

/// quinn holds a client to its bounds: open streams, bytes that are not read yet, and no datagrams.
#[test]
fn a_connection_is_told_its_bounds() {
    let siege = Siege::begin();
    let told = siege.attacker().told();
    let bounds = [
        "requests",
        "streams_of_one_direction",
        "stream_bytes",
        "connection_bytes",
        "datagram_bytes",
    ];
    assert_eq!(
        bounds.map(|bound| told[bound].as_u64()),
        [8, 8, 64 << 10, 1 << 20, 0].map(Some),
        "{told}"
    );
    siege.end();
}

/// It is told of them while it opens the first few, which are all that an idle connection keeps places for.
#[test]
fn a_client_may_have_a_hundred_requests_open() {
    let gateway = Setup::new().without_limits().start();
    let client = Client::open(Protocol::H3, &gateway, &gateway.device("plc-1"));
    let ask = Ask::post("x").declaring(2);
    let held: Vec<_> = (0..STREAMS_MAX).map(|_| client.hold(&ask)).collect();
    let least_bytes = (STREAMS_MAX * 1024) as f64;
    eventually("all heads", || {
        gateway.metric("forebay_admission_bytes") > least_bytes
    });
    held.iter().for_each(|held| held.release(b"x"));
    for held in held {
        assert_eq!(held.wait().expect("an answer").status, 204);
    }
}

/// Each is a frame that a client may send, and says nothing new.
#[test]
fn a_flood_of_control_frames_ends_the_connection() {
    let siege = Siege::begin();
    let attacker = siege.attacker();
    let flood = [0xd, 1, 0x3f].repeat(PIECE_BYTES / 3);
    let stream = Pour::on_control()
        .repeated(flood, ATTACK_BYTES / PIECE_BYTES)
        .to(&attacker);
    siege.neighbour_is_answered();
    drop(stream);
    let closed = attacker.closed();
    assert!(closed.starts_with(CLOSED_BY_EXCESS), "{closed}");
    siege.has_ended_floods(1.0);
    siege.end();
}

/// A device that is refused costs what it sends all the same, be it heads or bodies.
#[test]
fn a_device_that_heeds_no_429_is_cut_off() {
    let setup = Setup::new().set("FOREBAY_DEVICE_RATE", 0.001);
    let gateway = setup.set("FOREBAY_DEVICE_BURST", 1).start();
    for (device, body_bytes) in [("heads", 0), ("bodies", 200_000)] {
        let client = Client::open(Protocol::H3, &gateway, &gateway.device(device));
        assert_eq!(client.send(&Ask::post("1")).status, 204);
        let head = "x".repeat(8_000);
        let refused = Ask::post(vec![b'x'; body_bytes]).with("x-padding", &head);
        let answers = (0..1000).map_while(|_| client.try_send(&refused).ok());
        assert!(answers.into_iter().all(|answer| answer.status == 429));
        let closed = client.closed();
        assert!(closed.starts_with(CLOSED_BY_EXCESS), "{device}: {closed}");
    }
    eventually("both floods", || {
        gateway.metric("forebay_http_floods_ended_total") == 2.0
    });
}
