//! The cost of attacks for a good device, in milliseconds: a measurement, not a test, since time on a busy machine proves nothing.
//! `cargo test --test e2e figures -- --ignored --nocapture` prints the table of docs/security.md, of the build that
//! `FOREBAY_BINARY` names. The gateway has a core to itself, and precedence over whatever else runs, if that is a script, `exec
//! chrt -r 1 taskset -c 0 forebay "$@"`, and the tests are run by `taskset -c 1`, as root.

mod devices;
mod quic;
mod revocation;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, interval, sleep_until};

use crate::attacks_handshake::client_hello;
use crate::harness::raw::{Raw, block_on, connect, frame, tls};
use crate::harness::{Gateway, Setup};

const MEASURED: Duration = Duration::from_secs(8);

/// The good device posts this often.
const EVERY: Duration = Duration::from_millis(5);

/// Latencies of the good device's posts, in their order.
async fn post_meanwhile(good: &mut Raw) -> Vec<Duration> {
    let post = b"POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\n\r\n21.5";
    let (until, mut ticks) = (Instant::now() + MEASURED, interval(EVERY));
    let mut latencies = Vec::new();
    loop {
        // From when it was to be sent: a gateway that stalls is not asked less.
        let sent_at = ticks.tick().await;
        if sent_at > until {
            return latencies;
        }
        good.send(post).await.expect("it listens");
        assert!(good.receive().await.starts_with(b"HTTP/1.1 204 "));
        latencies.push(sent_at.elapsed());
    }
}

/// A thread goes before others, where that is permitted; 0 is the one that asks. What is measured is the gateway, not who gets
/// a core when: a time slice is longer than all that the gateway does.
fn give_precedence(thread: i32, sched_priority: i32) {
    let priority = libc::sched_param { sched_priority };
    // SAFETY: it reads the structure, and changes a thread of this test's or of its gateway's.
    if unsafe { libc::sched_setscheduler(thread, libc::SCHED_RR, &raw const priority) } != 0 {
        eprintln!("not root: threads take time from each other");
    }
}

/// The thread that delivers has no core of its own here, and does not wait for the worker's slice to end.
fn give_precedence_to_delivery(gateway: &Gateway) {
    for thread in std::fs::read_dir(format!("/proc/{}/task", gateway.id()))
        .expect("it runs")
        .flatten()
    {
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        if name.trim() == "forebay-sink" {
            let id = thread
                .file_name()
                .into_string()
                .ok()
                .and_then(|id| id.parse().ok());
            give_precedence(id.expect("a number"), 2);
        }
    }
}

/// The median second's percentiles: one stall of the machine is not the gateway's.
fn report(name: &str, latencies: &[Duration], gateway: &Gateway, attacks: usize) {
    const A_SECOND: usize = 200;
    let of_second = |second: &[Duration], share: f64| {
        let mut second = second.to_vec();
        second.sort_unstable();
        second[(second.len() as f64 * share) as usize].as_secs_f64() * 1e3
    };
    let millis = |share: f64| {
        let mut seconds: Vec<f64> = latencies
            .chunks_exact(A_SECOND)
            .map(|second| of_second(second, share))
            .collect();
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    let memory = gateway.memory("VmHWM") >> 20;
    println!(
        "| {name} | {attacks} | {:.2} ms | {:.2} ms | {memory} MiB |",
        millis(0.5),
        millis(0.99)
    );
}

/// Measures while `attack` is repeated by a thread of its own, on a gateway of its own; not what `FIGURES` leaves out.
fn measure(name: &str, attack: impl AsyncFn(&Gateway) + Sync) {
    if std::env::var("FIGURES").is_ok_and(|part| !name.contains(&part) && !name.starts_with("none"))
    {
        return;
    }
    let setup = Setup::new()
        .without_limits()
        .set("FOREBAY_HANDSHAKE_RATE", 0)
        .set("FOREBAY_WORKERS", 1);
    let gateway = setup.set("FOREBAY_SINK", "null").start();
    give_precedence_to_delivery(&gateway);
    let (is_over, attacks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let latencies = std::thread::scope(|scope| {
        scope.spawn(|| {
            block_on(async {
                while !is_over.load(Ordering::Relaxed) {
                    attack(&gateway).await;
                    attacks.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        let good = scope.spawn(|| {
            give_precedence(0, 1);
            block_on(async {
                let tls = tls(&gateway, Some(&gateway.device("good")), "http/1.1");
                let mut good = Raw::open(gateway.address, tls).await.expect("a connection");
                post_meanwhile(&mut good).await
            })
        });
        let latencies = good.join();
        is_over.store(true, Ordering::Relaxed);
        latencies.expect("it is answered")
    });
    report(name, &latencies, &gateway, attacks.into_inner());
}

/// A connection of h2 that sends these frames until the gateway ends it.
async fn flood(gateway: &Gateway, frames: &[u8]) {
    let attacker = tls(gateway, Some(&gateway.device("attacker")), "h2");
    let Ok(mut raw) = Raw::open(gateway.address, attacker).await else {
        return;
    };
    let _ = raw.send(&frame::preface()).await;
    raw.flood(frames, ((16 << 20) / frames.len()).max(1)).await;
}

/// So many streams, each begun and then treated so.
fn streams(then: impl Fn(u32) -> Vec<u8>) -> Vec<u8> {
    let head = frame::post("6");
    let begin = |stream| frame::frame(frame::HEADERS, frame::END_HEADERS, stream, &head);
    (0..20_000)
        .map(|number| 2 * number + 1)
        .flat_map(|stream| [begin(stream), then(stream)].concat())
        .collect()
}

#[test]
#[ignore = "a measurement"]
fn figures() {
    println!("| attack | repeated | p50 | p99 | memory, at most |\n|---|---|---|---|---|");
    measure("none", async |_| sleep_until(Instant::now() + EVERY).await);
    handshakes();
    floods();
    quic::measure_all();
    measure("none, again", async |_| {
        sleep_until(Instant::now() + EVERY).await
    });
}

fn handshakes() {
    measure("handshakes without a certificate", async |gateway| {
        let nobody = tls(gateway, None, "h2");
        if let Ok(mut raw) = Raw::open(gateway.address, nobody).await {
            raw.receive().await;
        }
    });
    measure(
        "connections that send garbage, 200 at once",
        async |gateway| {
            say_at_once(gateway, b"GET / HTTP/1.1\r\n\r\n").await;
        },
    );
    // Costs the gateway a key exchange and a signature, and the attacker none.
    measure(
        "hellos that nothing follows, 200 at once",
        async |gateway| {
            say_at_once(gateway, &client_hello(tls(gateway, None, "h2"))).await;
        },
    );
    let silent = std::sync::Mutex::new(Vec::new());
    measure("2,000 silent handshakes", async |gateway| {
        let Ok(stream) = connect(gateway.address).await else {
            return;
        };
        let mut silent = silent.lock().expect("one thread");
        silent.push(stream);
        let oldest = silent.len().saturating_sub(2000);
        silent.drain(..oldest);
    });
}

/// 200 new connections, and then the same bytes on each of them; closed by the attacker.
async fn say_at_once(gateway: &Gateway, bytes: &[u8]) {
    let streams = join_all((0..200).map(|_| connect(gateway.address))).await;
    for mut stream in streams.into_iter().flatten() {
        let _ = stream.write_all(bytes).await;
    }
}

fn floods() {
    let reset = streams(|stream| frame::frame(frame::RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
    measure("rapid reset", async |gateway| flood(gateway, &reset).await);
    let fault = streams(|stream| frame::frame(frame::WINDOW_UPDATE, 0, stream, &[0; 4]));
    measure("MadeYouReset", async |gateway| flood(gateway, &fault).await);
    let begin = frame::frame(frame::HEADERS, 0, 1, &frame::post("6"));
    let endless = [
        begin,
        frame::frame(frame::CONTINUATION, 0, 1, &[0; 16_000]).repeat(1000),
    ]
    .concat();
    measure("CONTINUATION flood", async |gateway| {
        flood(gateway, &endless).await
    });
    let settings = frame::frame(frame::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    measure("SETTINGS flood", async |gateway| {
        flood(gateway, &settings).await
    });
    let ping = frame::frame(frame::PING, 0, 0, b"forebay?");
    measure("PING flood", async |gateway| flood(gateway, &ping).await);
}
