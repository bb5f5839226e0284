//! The cost of a spool while it is empty, and of its draining for live devices: a measurement, not a test.
//! With `FOREBAY_BINARY=$PWD/target/release/forebay`, `cargo test --test e2e spool_figures -- --ignored --nocapture` prints the
//! figures of docs/spool.md.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::time::{Instant, interval};

use crate::brokers;
use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Gateway, Setup, eventually};

const POST: &[u8] =
    b"POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 300\r\n\r\n";
const BODY: [u8; 300] = [b'7'; 300];

async fn open(gateway: &Gateway, device: String) -> Raw {
    let tls = tls(gateway, Some(&gateway.device(&device)), "http/1.1");
    Raw::open(gateway.address, tls).await.expect("a connection")
}

async fn fleet(gateway: &Gateway, devices: usize) -> Vec<Raw> {
    join_all((0..devices).map(|number| open(gateway, format!("device-{number}")))).await
}

async fn post(device: &mut Raw) {
    device
        .send(&[POST, &BODY].concat())
        .await
        .expect("it listens");
    let answer = device.receive().await;
    assert!(
        answer.starts_with(b"HTTP/1.1 204 "),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

/// Each device posts so often, one reading after another.
async fn post_all(devices: &mut [Raw], times: usize) {
    let post_one = async |device: &mut Raw| {
        for _ in 0..times {
            post(device).await;
        }
    };
    join_all(devices.iter_mut().map(post_one)).await;
}

/// Processor time of the same requests, with a spool and without, the least of several turns: what others do on this machine makes
/// it more, never less. The sink takes everything and costs nothing.
#[test]
#[ignore = "a measurement"]
fn of_an_empty_spool() {
    const TURNS: usize = 15;
    const CONNECTIONS: usize = 16;
    const POSTS: usize = 4000;
    let null = || Setup::new().without_limits().set("FOREBAY_SINK", "null");
    let gateways = [null().start(), null().with_spool("overflow").start()];
    let least = block_on(async {
        let mut fleets = [
            fleet(&gateways[0], CONNECTIONS).await,
            fleet(&gateways[1], CONNECTIONS).await,
        ];
        let mut least = [u64::MAX; 2];
        for at in (0..TURNS).flat_map(|_| [0, 1]) {
            let before = gateways[at].processor_time();
            post_all(&mut fleets[at], POSTS).await;
            least[at] = least[at].min(gateways[at].processor_time() - before);
        }
        least.map(|ticks| ticks as f64)
    });
    println!(
        "processor time with an empty spool, to that without one: {:.3}",
        least[1] / least[0]
    );
}

/// Latencies of one post every 20 ms, from when it was to be sent, until it is over.
async fn latencies(device: &mut Raw, is_over: impl Fn() -> bool) -> Vec<Duration> {
    let mut ticks = interval(Duration::from_millis(20));
    let mut latencies = Vec::new();
    while !is_over() {
        let sent_at = ticks.tick().await;
        post(device).await;
        latencies.push(sent_at.elapsed());
    }
    latencies.sort_unstable();
    latencies
}

fn millis(latencies: &[Duration], share: f64) -> f64 {
    latencies[(latencies.len() as f64 * share) as usize].as_secs_f64() * 1e3
}

/// A device that posts all the time and has nothing on disk, and one that has: before an outage, and while the backlog drains.
#[test]
#[ignore = "a measurement"]
fn of_a_spool_that_drains() {
    const DEVICES: usize = 64;
    const POSTS: usize = 3000;
    const QUIET: Duration = Duration::from_secs(20);
    let broker = brokers::pausable();
    let gateway = Arc::new(
        broker
            .gateway_to("figures")
            .without_limits()
            .with_spool("overflow")
            .start(),
    );
    block_on(async {
        let mut fleet = fleet(&gateway, DEVICES).await;
        let (mut live, mut held) = (
            open(&gateway, "live".into()).await,
            open(&gateway, "held".into()).await,
        );
        // The first ones make connections and ask for the topic.
        post_all(std::slice::from_mut(&mut live), 50).await;
        let begun_at = Instant::now();
        let quiet = latencies(&mut live, || begun_at.elapsed() > QUIET).await;
        let paused = broker.pause();
        join(
            post_all(&mut fleet, POSTS),
            post_all(std::slice::from_mut(&mut held), 1),
        )
        .await;
        drop(paused);
        eventually("the sink is back", || {
            gateway.metric("forebay_sink_up{stream=\"telemetry\"}") == 1.0
        });
        let (records, begun_at) = (gateway.metric("forebay_spool_records"), Instant::now());
        let asked = gateway.clone();
        // The device that has something on disk adds to it as it is delivered.
        let little_is_left = move || asked.metric("forebay_spool_records") < 100.0;
        let draining = tokio::task::spawn_blocking(|| eventually("little is left", little_is_left));
        let is_drained = || draining.is_finished();
        let (live, held) = join(
            latencies(&mut live, is_drained),
            latencies(&mut held, is_drained),
        )
        .await;
        println!("{records} records drained in {:?}", begun_at.elapsed());
        for (name, latencies) in [
            ("before the outage", &quiet),
            ("live while it drains", &live),
            ("held back", &held),
        ] {
            let [p50, p99] = [0.5, 0.99].map(|share| millis(latencies, share));
            println!(
                "{name}: {} posts, p50 {p50:.2} ms, p99 {p99:.2} ms",
                latencies.len()
            );
        }
        println!(
            "p99, live to before: {:.2}",
            millis(&live, 0.99) / millis(&quiet, 0.99)
        );
    });
}
