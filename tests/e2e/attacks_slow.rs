//! Devices that send as slowly as they can: heads and bodies have an end, and cost nobody else anything.

use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{interval, timeout};

use crate::harness::raw::{Raw, block_on, frame, tls};
use crate::harness::tunnel::tunnel;
use crate::harness::{PATIENCE, Setup, Siege};

const CONNECTIONS: usize = 100;

/// RFC 9113 section 7.
const ENHANCE_YOUR_CALM: u32 = 11;

/// Each connection sends `begin`, and then one byte of `drip` every so often, until the gateway ends it; what each of them
/// was told.
fn drip(siege: &Siege, protocol: &str, begin: &[u8], drip: u8) -> Vec<Vec<u8>> {
    let tls = tls(
        &siege.gateway,
        Some(&siege.gateway.device("attacker")),
        protocol,
    );
    let to = siege.gateway.address;
    let slow = async |begin: &[u8]| {
        let mut raw = Raw::open(to, tls.clone()).await.expect("a connection");
        raw.send(begin).await.expect("it listens");
        let mut ticks = interval(Duration::from_millis(100));
        let mut said = Vec::new();
        loop {
            tokio::select! {
                bytes = raw.receive() => match bytes {
                    bytes if bytes.is_empty() => return said,
                    bytes => said.extend(bytes),
                },
                _ = ticks.tick() => {}
            }
            // After its end nobody listens.
            let _ = raw.send(&[drip]).await;
        }
    };
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let all = async { join_all((0..CONNECTIONS).map(|_| slow(begin))).await };
            block_on(async { timeout(PATIENCE, all).await })
        });
        siege.good_device_is_served();
        siege.good_device_can_connect();
        let ended = attack.join().expect("no panic");
        ended.expect("all of them end")
    })
}

fn setup() -> Setup {
    Setup::new()
        .set("FOREBAY_HEADER_TIMEOUT", "2s")
        .set("FOREBAY_BODY_TIMEOUT", "2s")
        .set("FOREBAY_IDLE_TIMEOUT", "4s")
}

#[test]
fn a_slow_head_is_cut_off() {
    let siege = Siege::begin(setup());
    let said = drip(
        &siege,
        "http/1.1",
        b"POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\nx: ",
        b'x',
    );
    assert!(
        said.iter().all(Vec::is_empty),
        "a head that is not there has no answer"
    );
    siege.end();
}

/// A head of h2 goes on in CONTINUATION, of which there may be as little as one byte at a time.
#[test]
fn a_slow_head_of_h2_is_cut_off() {
    let siege = Siege::begin(setup().set("FOREBAY_IDLE_TIMEOUT", "10m"));
    let head = frame::frame(frame::HEADERS, 0, 1, &frame::post("1"));
    let more = frame::frame(frame::CONTINUATION, 0, 1, &[b'x'; 16_000]);
    let slow_continuation = [frame::preface(), head, more[..9].to_vec()].concat();
    let slow_headers = frame::frame(frame::HEADERS, 0, 1, &[b'x'; 16_000]);
    let slow_headers = [frame::preface(), slow_headers[..9].to_vec()].concat();
    for begin in [slow_continuation, slow_headers] {
        let said = drip(&siege, "h2", &begin, b'x');
        let is_told = |said: &Vec<u8>| frame::goaway(said) == Some(ENHANCE_YOUR_CALM);
        assert!(said.iter().all(is_told));
    }
    siege.end();
}

#[test]
fn a_slow_body_is_answered_408() {
    let siege = Siege::begin(setup().set("FOREBAY_DEVICE_BURST", 1000));
    let head = b"POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n";
    let said = drip(&siege, "http/1.1", head, b'x');
    assert!(said.iter().all(|said| said.starts_with(b"HTTP/1.1 408 ")));
    siege.end();
}

/// A frame of a body that does not come whole: the request is answered, and the connection ends when it has been idle.
#[test]
fn a_slow_body_of_h2_is_answered_408() {
    let siege = Siege::begin(setup().set("FOREBAY_DEVICE_BURST", 1000));
    let head = frame::frame(frame::HEADERS, frame::END_HEADERS, 1, &frame::post("16000"));
    let data = frame::frame(frame::DATA, 0, 1, &[b'x'; 16_000]);
    let said = drip(
        &siege,
        "h2",
        &[frame::preface(), head, data[..20].to_vec()].concat(),
        b'x',
    );
    // 408 is not in HPACK's static table: it is a literal after the name of `:status`.
    let is_408 = |said: &Vec<u8>| {
        frame::parse(said)
            .iter()
            .any(|(kind, _, payload)| *kind == frame::HEADERS && has(payload))
    };
    assert!(said.iter().all(is_408));
    siege.end();
}

fn has(head: &[u8]) -> bool {
    // Plain, or in Huffman's code (RFC 7541 appendix B: 4 is 011010, 0 is 00000, 8 is 011110).
    const HUFFMAN: [u8; 3] = [0b0110_1000, 0b0000_1111, 0b0_1111111];
    head.windows(3).any(|bytes| bytes == b"408")
        || head.windows(2).any(|bytes| bytes == &HUFFMAN[..2])
}

/// slowhttptest brings the attacks as they are known, slowloris (-H) and R-U-Dead-Yet (-B), and asks meanwhile, as anybody
/// would, whether there is still an answer. It goes on for as long as a connection lives.
#[test]
fn slowhttptest_runs_out_of_connections() {
    let siege = Siege::begin(setup().set("FOREBAY_DEVICE_BURST", 1000));
    let url = format!(
        "http://{}/v1/telemetry",
        tunnel(&siege.gateway, "attacker", "http/1.1")
    );
    let attack = |kind| {
        let options = [
            "-c", "200", "-r", "200", "-l", "60", "-i", "1", "-p", "30", "-s", "8192", "-u", &url,
        ];
        let output = Command::new("slowhttptest")
            .arg(kind)
            .args(options)
            .output()
            .expect("make tools");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for kind in ["-H", "-B"] {
        std::thread::scope(|scope| {
            let attack = scope.spawn(|| attack(kind));
            siege.good_device_is_served();
            siege.good_device_can_connect();
            let said = attack.join().expect("its report");
            assert!(said.contains("No open connections left"), "{kind}: {said}");
            assert!(!said.contains("NO"), "{kind}: it had no answer: {said}");
        });
    }
    assert!(
        siege
            .gateway
            .metric("forebay_http_requests_total{protocol=\"h1\",status=\"408\"}")
            > 100.0
    );
    siege.end();
}

/// Requests sent ahead, whose answers nobody reads: when they do not go out any more, the connection ends.
#[test]
fn answers_that_nobody_takes_are_waited_for_no_longer_than_the_idle_time() {
    let siege = Siege::begin(setup());
    let tls = tls(
        &siege.gateway,
        Some(&siege.gateway.device("attacker")),
        "http/1.1",
    );
    let request =
        b"POST /none HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1".repeat(1000);
    let attack = async {
        let mut raw = Raw::open(siege.gateway.address, tls)
            .await
            .expect("a connection");
        let end = loop {
            if let Err(error) = raw.send(&request).await {
                break error;
            }
        };
        assert_ne!(end.kind(), std::io::ErrorKind::TimedOut, "it is not ended");
    };
    std::thread::scope(|scope| {
        let attack = scope.spawn(|| block_on(attack));
        siege.good_device_is_served();
        attack.join().expect("it ends");
    });
    siege.end();
}
