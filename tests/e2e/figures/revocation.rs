//! The cost of a list of a million entries: a handshake, against one with an empty list, in turns; reading it; memory.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Gateway, Setup, eventually};

const ENTRIES: u32 = 1_000_000;
const ROUNDS: usize = 41;
const HANDSHAKES: usize = 100;

fn gateway() -> Gateway {
    let setup = Setup::new()
        .without_limits()
        .set("FOREBAY_HANDSHAKE_RATE", 0)
        .set("FOREBAY_WORKERS", 1);
    let crl = setup.pki.revoke(&[]);
    setup
        .set("FOREBAY_TLS_CRL", crl.display())
        .set("FOREBAY_SINK", "null")
        .start()
}

/// Time on a processor, of all its threads (Documentation/scheduler/sched-stats.rst: the first number).
fn processor_time(gateway: &Gateway) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", gateway.id())).expect("it runs");
    let nanos =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("schedstat")).ok());
    let nanos = nanos.map(|line| {
        line.split(' ')
            .next()
            .and_then(|nanos| nanos.parse::<u64>().ok())
            .expect("a number")
    });
    Duration::from_nanos(nanos.sum())
}

/// Processor time of one full handshake, in microseconds.
pub(super) fn handshake(gateway: &Gateway) -> f64 {
    let tls = tls(gateway, Some(&gateway.device("plc-1")), "http/1.1");
    let before = processor_time(gateway);
    block_on(async {
        for _ in 0..HANDSHAKES {
            let mut config = (*tls).clone();
            config.resumption = rustls::client::Resumption::disabled();
            Raw::open(gateway.address, config.into())
                .await
                .expect("a connection");
        }
    });
    (processor_time(gateway) - before).as_secs_f64() * 1e6 / HANDSHAKES as f64
}

pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Has the list read at once, and says how long that takes.
fn read_anew(gateway: &Gateway) -> Duration {
    let reloads = || gateway.log().matches("CRLs reloaded").count();
    let (before, since) = (reloads(), Instant::now());
    gateway.signal(libc::SIGHUP);
    eventually("the list", || reloads() > before);
    since.elapsed()
}

#[test]
#[ignore = "a measurement"]
fn revocation() {
    let (empty, million) = (gateway(), gateway());
    let stolen = million.device("stolen");
    let (resident, file) = (
        million.memory("VmRSS"),
        million.pki.revoke_many(&[&stolen], ENTRIES),
    );
    eventually("the list", || {
        million
            .log()
            .contains(&format!("\"revoked\":{}", ENTRIES + 1))
    });
    let rounds: Vec<[f64; 2]> = (0..ROUNDS)
        .map(|_| [&empty, &million].map(handshake))
        .collect();
    let ratio = median(
        rounds
            .iter()
            .map(|[empty, million]| million / empty)
            .collect(),
    );
    let of = |which: usize| median(rounds.iter().map(|round| round[which]).collect());
    println!(
        "handshake: {:.0} µs with an empty list, {:.0} µs with {ENTRIES} entries, ratio {ratio:.3}",
        of(0),
        of(1)
    );
    let grown = |name| million.memory(name).saturating_sub(resident) >> 20;
    println!(
        "memory: {} MiB more than without, {} MiB while it was read",
        grown("VmRSS"),
        grown("VmHWM")
    );
    let bytes = fs::metadata(file).expect("the list").len();
    println!(
        "reading {} MB of PEM: {:?}",
        bytes / 1_000_000,
        read_anew(&million)
    );
}
