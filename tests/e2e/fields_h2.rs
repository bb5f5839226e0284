//! Fields of a request on HTTP/2, by RFC 9113 section 8: which there may be, and of which characters. A malformed request is
//! answered 400 or its stream is reset, and nothing of it is stored; the connection's other requests go on.

use crate::harness::raw::{Raw, block_on, frame, tls};
use crate::harness::{Gateway, Setup};
use frame::{CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, field};

/// RFC 9113 section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

const METHOD: [u8; 1] = [0x83];
const HTTPS: [u8; 1] = [0x87];

/// End of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Answered(u16),
    Reset,
    /// The whole connection has ended, for this reason.
    GoneAway(u32),
}

struct Peer {
    raw: Raw,
    received: Vec<u8>,
}

impl Peer {
    async fn open(gateway: &Gateway) -> Self {
        let device = gateway.device("plc-1");
        let tls = tls(gateway, Some(&device), "h2");
        let mut raw = Raw::open(gateway.address, tls).await.expect("h2");
        raw.send(&frame::preface()).await.expect("it listens");
        Self {
            raw,
            received: Vec::new(),
        }
    }

    async fn send(&mut self, frames: &[Vec<u8>]) {
        // After its end nobody listens, which is found out below.
        let _ = self.raw.send(&frames.concat()).await;
    }

    /// The next thing that is said of this stream, or of the connection.
    async fn next(&mut self, wanted: u32) -> End {
        loop {
            let frames = frame::parse(&self.received);
            let mut parsed = 0;
            for (kind, stream, payload) in frames {
                parsed += 9 + payload.len();
                let end = match kind {
                    HEADERS if stream == wanted => End::Answered(frame::status(&payload)),
                    RST_STREAM if stream == wanted => End::Reset,
                    GOAWAY => End::GoneAway(u32::from_be_bytes(
                        payload[4..8].try_into().expect("four bytes"),
                    )),
                    _ => continue,
                };
                self.received.drain(..parsed);
                return end;
            }
            self.received.drain(..parsed);
            let bytes = self.raw.receive().await;
            assert!(!bytes.is_empty(), "it is told what became of {wanted}");
            self.received.extend(bytes);
        }
    }
}

fn path() -> Vec<u8> {
    field(":path", b"/v1/telemetry")
}

fn authority() -> Vec<u8> {
    field(":authority", b"localhost")
}

/// The fields of a reading that is taken, and these.
fn reading(more: &[Vec<u8>]) -> Vec<u8> {
    [
        [&METHOD[..], &HTTPS, &path(), &authority()].concat(),
        more.concat(),
    ]
    .concat()
}

/// A whole request.
fn request(stream: u32, head: &[u8]) -> [Vec<u8>; 2] {
    [
        frame::frame(HEADERS, END_HEADERS, stream, head),
        frame::frame(DATA, END_STREAM, stream, b"1"),
    ]
}

/// Sends one request on a connection of its own, beside another one that is under way, and returns both ends.
async fn ask(gateway: &Gateway, stream_frames: &[Vec<u8>]) -> (End, End) {
    let mut peer = Peer::open(gateway).await;
    let other = frame::frame(HEADERS, END_HEADERS, 1, &reading(&[]));
    peer.send(&[other]).await;
    peer.send(stream_frames).await;
    let end = peer.next(3).await;
    let rest = frame::frame(DATA, END_STREAM, 1, b"\"other\"");
    if matches!(end, End::GoneAway(_)) {
        return (end, end);
    }
    peer.send(&[rest]).await;
    (end, peer.next(1).await)
}

fn stored(gateway: &Gateway) -> usize {
    let lines = gateway.files("telemetry");
    lines.iter().filter(|line| line.payload() == b"1").count()
}

#[test]
fn a_malformed_request_is_no_reading() {
    let gateway = Setup::new().without_limits().start();
    let without_path = [&METHOD[..], &HTTPS, &field("host", b"localhost")].concat();
    let strange = |scheme: &[u8]| {
        [
            &METHOD[..],
            &field(":scheme", scheme),
            &path(),
            &authority(),
        ]
        .concat()
    };
    let late = [
        &METHOD[..],
        &HTTPS,
        &authority(),
        &field("x", b"1"),
        &path(),
    ]
    .concat();
    let heads = [
        ("a leading blank", reading(&[field("x", b" 1")])),
        ("a leading tab", reading(&[field("x", b"\t1")])),
        ("a trailing blank", reading(&[field("x", b"1 ")])),
        (
            "a trailing tab",
            reading(&[field("content-type", b"a/b\t")]),
        ),
        ("only a blank", reading(&[field("x", b" ")])),
        ("NUL", reading(&[field("x", b"a\0b")])),
        ("CR", reading(&[field("x", b"a\rb")])),
        ("LF", reading(&[field("x", b"a\nb")])),
        ("a name in upper case", reading(&[field("X", b"1")])),
        ("a colon in a name", reading(&[field("x:y", b"1")])),
        ("a scheme that nobody knows", strange(b"gopher")),
        ("a scheme that is none", strange(b"h t")),
        ("no path", without_path),
        (
            "an empty path",
            [&METHOD[..], &HTTPS, &field(":path", b""), &authority()].concat(),
        ),
        ("no scheme", [&METHOD[..], &path(), &authority()].concat()),
        ("no method", [&HTTPS[..], &path(), &authority()].concat()),
        ("two methods", [&METHOD[..], &reading(&[])].concat()),
        ("two paths", [&path()[..], &reading(&[])].concat()),
        (
            "two authorities",
            [&authority()[..], &reading(&[])].concat(),
        ),
        ("a late pseudo-header", late),
        (
            "a status",
            [&field(":status", b"200")[..], &reading(&[])].concat(),
        ),
        ("te", reading(&[field("te", b"gzip")])),
        ("connection", reading(&[field("connection", b"close")])),
        ("keep-alive", reading(&[field("keep-alive", b"1")])),
        (
            "proxy-connection",
            reading(&[field("proxy-connection", b"close")]),
        ),
        (
            "transfer-encoding",
            reading(&[field("transfer-encoding", b"chunked")]),
        ),
        ("upgrade", reading(&[field("upgrade", b"h2c")])),
        ("another host", reading(&[field("host", b"example.com")])),
        (
            "two hosts",
            reading(&[field("host", b"localhost"), field("host", b"localhost")]),
        ),
    ];
    for (what, head) in heads {
        let (end, other) = block_on(ask(&gateway, &request(3, &head)));
        assert_ne!(end, End::Answered(204), "{what}");
        // A fault of HPACK may end the connection (RFC 9113 section 5.4.1): its table may not be the same any more.
        let is_whole = matches!(end, End::Answered(400) | End::Reset);
        let is_octet = ["NUL", "CR", "LF"].contains(&what) || what.contains("name");
        assert!(is_whole || is_octet, "{what}: {end:?}");
        if is_whole {
            assert_eq!(other, End::Answered(204), "{what}");
        }
    }
    assert_eq!(stored(&gateway), 0);
}

#[test]
fn what_is_not_malformed_is_taken() {
    let gateway = Setup::new().without_limits().start();
    let heads = [
        reading(&[field("te", b"trailers")]),
        reading(&[field("x", b"")]),
        reading(&[field("x", b"a b\tc")]),
        reading(&[field("host", b"LOCALHOST")]),
        reading(&[field("host", b"localhost:443")]),
        [&METHOD[..], &HTTPS, &path(), &field("host", b"localhost")].concat(),
    ];
    let count = heads.len();
    for head in heads {
        let ends = block_on(ask(&gateway, &request(3, &head)));
        assert_eq!(ends, (End::Answered(204), End::Answered(204)), "{head:?}");
    }
    assert_eq!(stored(&gateway), count);
}

/// Trailers are fields like others. A reading whose length is declared is not whole before they have come either.
#[test]
fn malformed_trailers_spoil_a_reading() {
    let gateway = Setup::new().without_limits().start();
    let trailers = [
        field("x", b" 1"),
        field("x", b"1\t"),
        field("connection", b"close"),
        field("te", b"gzip"),
    ];
    for head in [reading(&[]), reading(&[field("content-length", b"1")])] {
        for trailer in &trailers {
            let frames = [
                frame::frame(HEADERS, END_HEADERS, 3, &head),
                frame::frame(DATA, 0, 3, b"1"),
                frame::frame(HEADERS, END_HEADERS | END_STREAM, 3, trailer),
            ];
            let (end, other) = block_on(ask(&gateway, &frames));
            assert!(matches!(end, End::Answered(400) | End::Reset), "{end:?}");
            assert_eq!(other, End::Answered(204));
        }
    }
    assert_eq!(stored(&gateway), 0);
    let frames = [
        frame::frame(HEADERS, END_HEADERS, 3, &reading(&[])),
        frame::frame(DATA, 0, 3, b"1"),
        frame::frame(HEADERS, END_HEADERS | END_STREAM, 3, &field("x", b"1")),
    ];
    let ends = block_on(ask(&gateway, &frames));
    assert_eq!(ends, (End::Answered(204), End::Answered(204)));
}

/// From so many bytes on a head ends its connection.
const HEAD_LIST_BYTES: usize = 64 << 10;

/// A head of this many bytes, in frames as large as they may be.
fn head_of(bytes: usize) -> Vec<Vec<u8>> {
    const FRAME_BYTES: usize = 16 << 10;
    let line = field("x-large", &[b'y'; 100]);
    let block = reading(&vec![line.clone(); bytes / line.len()]);
    let pieces: Vec<_> = block.chunks(FRAME_BYTES).collect();
    let frame = |(number, piece): (usize, &&[u8])| {
        let kind = if number == 0 { HEADERS } else { CONTINUATION };
        let is_last = number + 1 == pieces.len();
        let flags = if is_last { END_HEADERS } else { 0 };
        frame::frame(kind, flags, 3, piece)
    };
    let mut frames: Vec<_> = pieces.iter().enumerate().map(frame).collect();
    frames.push(frame::frame(DATA, END_STREAM, 3, b"1"));
    frames
}

#[test]
fn a_head_that_is_too_large_costs_no_other_request() {
    let gateway = Setup::new().without_limits().start();
    for bytes in [
        17 << 10,
        24 << 10,
        33 << 10,
        40 << 10,
        HEAD_LIST_BYTES - 1024,
    ] {
        let ends = block_on(ask(&gateway, &head_of(bytes)));
        assert_eq!(ends, (End::Answered(431), End::Answered(204)), "{bytes}");
    }
    let counted = gateway.metric("forebay_http_requests_total{protocol=\"h2\",status=\"431\"}");
    assert!(counted > 0.0, "a 431 is counted");
    for bytes in [HEAD_LIST_BYTES + 1024, 5 * HEAD_LIST_BYTES] {
        let (end, _) = block_on(ask(&gateway, &head_of(bytes)));
        assert_eq!(end, End::GoneAway(ENHANCE_YOUR_CALM), "{bytes}");
    }
    assert_eq!(stored(&gateway), 0);
}

/// A client that waits to be told to send its body is told so once its head has been admitted, and not before.
#[test]
fn a_body_that_is_to_be_asked_for_is_asked_for() {
    let gateway = Setup::new().without_limits().start();
    let expects = field("expect", b"100-continue");
    let nowhere = [
        &METHOD[..],
        &HTTPS,
        &field(":path", b"/none"),
        &authority(),
        &expects,
    ]
    .concat();
    block_on(async {
        let mut peer = Peer::open(&gateway).await;
        let head = reading(&[expects, field("content-length", b"1")]);
        peer.send(&[frame::frame(HEADERS, END_HEADERS, 1, &head)])
            .await;
        assert_eq!(peer.next(1).await, End::Answered(100));
        peer.send(&[frame::frame(DATA, END_STREAM, 1, b"1")]).await;
        assert_eq!(peer.next(1).await, End::Answered(204));
        peer.send(&[frame::frame(HEADERS, END_HEADERS, 3, &nowhere)])
            .await;
        assert_eq!(peer.next(3).await, End::Answered(404));
        // Nobody has to be asked for what has come already.
        peer.send(&request(5, &head)).await;
        assert_eq!(peer.next(5).await, End::Answered(204));
    });
    assert_eq!(stored(&gateway), 2);
}
