//! Floods of HTTP/2, by a device with a good certificate: each connection has an end, and nobody else notices.

use crate::harness::raw::{Raw, block_on, frame, tls};
use crate::harness::{Ask, Client, Protocol, Setup, Siege, eventually};
use frame::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

/// RFC 9113 section 7.
const PROTOCOL_ERROR: u32 = 1;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Streams that a client has reset and the gateway has not looked at, and streams that the gateway resets for a fault.
const PENDING_RESETS_MAX: u32 = 32;
const ERROR_RESETS_MAX: usize = 128;

/// More than the library answers one by one: some floods are ended by a count, others by their bytes.
const FLOOD_BYTES: usize = 16 << 20;

/// A connection that has said its preface.
async fn open(siege: &Siege) -> Raw {
    let attacker = siege.gateway.device("attacker");
    let mut raw = Raw::open(
        siege.gateway.address,
        tls(&siege.gateway, Some(&attacker), "h2"),
    )
    .await
    .expect("h2");
    raw.send(&frame::preface()).await.expect("it listens");
    raw
}

/// Floods while the good device is watched; what the gateway said before it ended the connection.
fn flood(siege: &Siege, frames: &[u8]) -> Vec<u8> {
    let times = (FLOOD_BYTES / frames.len()).max(1);
    std::thread::scope(|scope| {
        let attack =
            scope.spawn(|| block_on(async { open(siege).await.flood(frames, times).await }));
        siege.good_device_is_served();
        attack.join().expect("the connection ends")
    })
}

fn floods_ended(siege: &Siege) -> f64 {
    siege.gateway.metric("forebay_http_floods_ended_total")
}

/// HEADERS of a POST on each of these streams, and what follows on it.
fn requests(streams: impl Iterator<Item = u32>, then: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let head = frame::post("6");
    streams
        .flat_map(|stream| {
            [
                frame::frame(HEADERS, END_HEADERS, stream, &head),
                then(stream),
            ]
            .concat()
        })
        .collect()
}

fn odd(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

#[test]
fn rapid_reset_is_ended() {
    let siege = Siege::begin(Setup::new());
    let cancelled = |stream| frame::frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
    let said = flood_once(&siege, &requests(odd(20_000), cancelled));
    assert_eq!(frame::goaway(&said), Some(ENHANCE_YOUR_CALM));
    // Frames that have come in the same packets are looked at together.
    let streams = frame::last_stream(&said).expect("it names one") / 2;
    assert!(streams < 20 * PENDING_RESETS_MAX, "after {streams}");
    siege.end();
}

/// The bytes once, for those that a connection can hear only once.
fn flood_once(siege: &Siege, bytes: &[u8]) -> Vec<u8> {
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| block_on(async { open(siege).await.flood(bytes, 1).await }));
        siege.good_device_is_served();
        attack.join().expect("the connection ends")
    })
}

/// Streams that the gateway has to reset, for a fault of the client's: a window that grows by nothing.
#[test]
fn made_you_reset_is_ended() {
    let siege = Siege::begin(Setup::new());
    let fault = |stream| frame::frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
    let said = flood_once(&siege, &requests(odd(20_000), fault));
    assert!(
        matches!(
            frame::goaway(&said),
            Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR)
        ),
        "{:?}",
        frame::goaway(&said)
    );
    let frames = frame::parse(&said);
    let resets = frames.iter().filter(|(kind, ..)| *kind == RST_STREAM);
    assert!(resets.count() <= ERROR_RESETS_MAX);
    siege.end();
}

/// A head that does not end (CVE-2024-27316 and its kin).
#[test]
fn a_continuation_flood_is_ended() {
    let siege = Siege::begin(Setup::new());
    let field = [&[0x00, 1, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 16_000]].concat();
    let mut bytes = frame::frame(HEADERS, 0, 1, &frame::post("6"));
    bytes.extend(frame::frame(CONTINUATION, 0, 1, &field).repeat(1000));
    let said = flood_once(&siege, &bytes);
    assert!(frame::goaway(&said).is_some(), "{said:?}");
    siege.end();
}

/// The same with frames of nothing, of which there could be without end in any number of bytes.
#[test]
fn a_flood_of_empty_continuations_is_ended() {
    let siege = Siege::begin(Setup::new());
    let mut bytes = frame::frame(HEADERS, 0, 1, &frame::post("6"));
    bytes.extend(frame::frame(CONTINUATION, 0, 1, &[]).repeat(100_000));
    let said = flood_once(&siege, &bytes);
    assert!(frame::goaway(&said).is_some(), "{said:?}");
    siege.end();
}

#[test]
fn a_flood_of_settings_is_ended() {
    let siege = Siege::begin(Setup::new());
    flood(&siege, &frame::frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]));
    eventually("a flood that is counted", || floods_ended(&siege) == 1.0);
    siege.end();
}

#[test]
fn a_flood_of_pings_is_ended() {
    let siege = Siege::begin(Setup::new());
    flood(&siege, &frame::frame(PING, 0, 0, b"forebay?"));
    eventually("a flood that is counted", || floods_ended(&siege) == 1.0);
    siege.end();
}

/// Windows that grow by one byte, and data of none, on a stream that stays open.
#[test]
fn floods_within_a_request_are_ended() {
    let siege = Siege::begin(Setup::new());
    for frames in [
        frame::frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
        frame::frame(0x77, 0, 0, b"unknown"),
    ] {
        flood(&siege, &frames);
    }
    let empty = frame::frame(DATA, 0, 1, &[]).repeat(FLOOD_BYTES / 9);
    flood_once(&siege, &requests(odd(1), |_| empty.clone()));
    eventually("two floods that are counted", || {
        floods_ended(&siege) >= 2.0
    });
    siege.end();
}

/// A hundred requests at a time, each answered, until the connection ends.
async fn ask_without_end(mut raw: Raw) {
    let head = frame::post("6");
    let post = |stream| {
        [
            frame::frame(HEADERS, END_HEADERS, stream, &head),
            frame::frame(DATA, END_STREAM, stream, b"attack"),
        ]
        .concat()
    };
    let (mut said, mut answered) = (Vec::new(), 0);
    for batch in 1.. {
        let requests: Vec<u8> = odd(100 * batch)
            .skip(100 * (batch as usize - 1))
            .flat_map(post)
            .collect();
        // After its end nobody listens, and it is read below.
        let _ = raw.send(&requests).await;
        while answered < 100 * batch as usize {
            match raw.receive().await {
                bytes if bytes.is_empty() => return,
                bytes => said.extend(bytes),
            }
            let frames = frame::parse(&said);
            answered += frames.iter().filter(|(kind, ..)| *kind == HEADERS).count();
            said.drain(
                ..frames
                    .iter()
                    .map(|(.., payload)| 9 + payload.len())
                    .sum::<usize>(),
            );
        }
    }
}

/// A device that goes on although it is told 429.
#[test]
fn a_device_that_heeds_no_429_is_cut_off() {
    let siege = Siege::begin(Setup::new());
    // Its first hundred requests have tokens: they are in the sink, as any newcomer's are.
    let attacker = siege.gateway.device("newcomer");
    let tls = tls(&siege.gateway, Some(&attacker), "h2");
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            block_on(async {
                let mut raw = Raw::open(siege.gateway.address, tls).await.expect("h2");
                let window = frame::frame(WINDOW_UPDATE, 0, 0, &0x3fff_ffff_u32.to_be_bytes());
                raw.send(&[frame::preface(), window].concat())
                    .await
                    .expect("it listens");
                ask_without_end(raw).await;
            });
        });
        siege.good_device_is_served();
        attack.join().expect("the connection ends");
    });
    assert!(
        siege
            .gateway
            .metric("forebay_limits_refused_total{scope=\"device\"}")
            > 1000.0
    );
    eventually("tokens", || {
        let client = Client::open(Protocol::H1, &siege.gateway, &attacker);
        client.send(&Ask::post("1")).status == 204
    });
    siege.end();
}

/// Answers that nobody takes: the connection ends when it has been idle for too long.
#[test]
fn a_window_of_zero_is_waited_for_no_longer_than_the_idle_time() {
    let siege = Siege::begin(Setup::new().set("FOREBAY_IDLE_TIMEOUT", "3s"));
    let head = frame::post("0");
    let refused =
        odd(100).flat_map(|stream| frame::frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
    let bytes = [
        frame::frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
        refused.collect(),
    ]
    .concat();
    let said = flood_once(&siege, &bytes);
    assert!(
        frame::parse(&said).iter().all(|(kind, ..)| *kind != DATA),
        "it had no window"
    );
    siege.end();
}

/// Four kilobytes in the table, and sixteen thousand references of one byte: 64 MiB, if it were unpacked.
#[test]
fn an_hpack_bomb_does_not_go_off() {
    let siege = Siege::begin(Setup::new());
    let entry = [&[0x40, 1, b'x', 0x7f, 0xd1, 0x1e][..], &[b'y'; 4000 - 16]].concat();
    let bomb = [&entry[..], &[0xbe; 12_000]].concat();
    let said = std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            block_on(async {
                let mut raw = open(&siege).await;
                for stream in odd(100) {
                    let bytes = frame::frame(HEADERS, END_HEADERS | END_STREAM, stream, &bomb);
                    if raw.send(&bytes).await.is_err() {
                        break;
                    }
                }
                // Not decoded any more, the connection is at its end; answered 431, it is not: it is asked for one.
                let _ = raw.send(&frame::frame(PING, 0, 0, b"anybody?")).await;
                let mut said = Vec::new();
                let answered =
                    |said: &[u8]| frame::parse(said).iter().any(|(kind, ..)| *kind == PING);
                while !answered(&said) {
                    match raw.receive().await {
                        bytes if bytes.is_empty() => break,
                        bytes => said.extend(bytes),
                    }
                }
                said
            })
        });
        siege.good_device_is_served();
        attack.join().expect("it is answered, or ended")
    });
    let frames = frame::parse(&said);
    let is_end = |(kind, _, payload): &(u8, u32, Vec<u8>)| match *kind {
        HEADERS | RST_STREAM => true,
        frame::GOAWAY => {
            [PROTOCOL_ERROR, COMPRESSION_ERROR, ENHANCE_YOUR_CALM].contains(&code(payload))
        }
        _ => false,
    };
    assert!(frames.iter().any(is_end), "{frames:?}");
    siege.end();
}

fn code(goaway: &[u8]) -> u32 {
    u32::from_be_bytes(goaway[4..8].try_into().expect("four bytes"))
}

/// A head that stops in the middle is bounded like a connection that says nothing.
#[test]
fn a_head_that_stops_ends_with_the_idle_time() {
    let siege = Siege::begin(Setup::new().set("FOREBAY_IDLE_TIMEOUT", "3s"));
    let heads = std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            block_on(async {
                let mut open_heads = Vec::new();
                for _ in 0..50 {
                    let mut raw = open(&siege).await;
                    raw.send(&frame::frame(HEADERS, 0, 1, &frame::post("6")))
                        .await
                        .expect("it listens");
                    open_heads.push(raw);
                }
                for raw in &mut open_heads {
                    raw.receive_all().await;
                }
                open_heads.len()
            })
        });
        siege.good_device_is_served();
        attack.join().expect("all of them end")
    });
    assert_eq!(heads, 50);
    siege.end();
}

/// The bounds that the library holds a client to; h2spec shows that it does.
#[test]
fn a_connection_is_told_its_bounds() {
    let siege = Siege::begin(Setup::new());
    let said = block_on(async {
        let (mut raw, mut said) = (open(&siege).await, Vec::new());
        while frame::parse(&said)
            .iter()
            .all(|(kind, ..)| *kind != WINDOW_UPDATE)
        {
            said.extend(raw.receive().await);
        }
        said
    });
    let frames = frame::parse(&said);
    let settings = frames[0].2.chunks_exact(6).map(|setting| {
        (
            u16::from_be_bytes([setting[0], setting[1]]),
            u32::from_be_bytes(setting[2..].try_into().expect("four bytes")),
        )
    });
    let settings: std::collections::BTreeMap<_, _> = settings.collect();
    // RFC 9113 section 6.5.2. A head that is smaller than the largest list of fields, but larger than 16 KiB, is answered
    // 431, and costs no other request. A frame and the table of HPACK are the defaults of the protocol where nothing is said.
    let (table, streams, window, frame, head) = (1, 3, 4, 5, 6);
    let told = |setting, default| *settings.get(&setting).unwrap_or(&default);
    assert_eq!(
        [streams, window, head].map(|setting| told(setting, u32::MAX)),
        [128, 64 << 10, 64 << 10]
    );
    assert_eq!((told(frame, 16 << 10), told(table, 4096)), (16 << 10, 4096));
    // The connection's window is the protocol's 65,535 and what is added to it.
    let added = frames
        .iter()
        .find(|(kind, ..)| *kind == WINDOW_UPDATE)
        .map(|(.., payload)| payload.clone());
    assert_eq!(added, Some(((1 << 20) - 65_535_u32).to_be_bytes().to_vec()));
    siege.end();
}
