//! The cost of a devices file of a million rules: a handshake, against one with an empty file, in turns; reading it; memory.

use std::fs;
use std::time::{Duration, Instant};

use super::revocation::{handshake, median};
use crate::harness::{Gateway, Setup, eventually};

const RULES: u32 = 1_000_000;
const ROUNDS: usize = 41;

fn gateway(rules: &str) -> Gateway {
    let setup = Setup::new()
        .without_limits()
        .set("FOREBAY_HANDSHAKE_RATE", 0)
        .set("FOREBAY_WORKERS", 1);
    let file = setup.path("devices");
    fs::write(&file, rules).expect("a file");
    setup
        .set("FOREBAY_DEVICES_FILE", file.display())
        .set("FOREBAY_SINK", "null")
        .start()
}

/// Has the file read at once, and says how long that takes.
fn read_anew(gateway: &Gateway) -> Duration {
    let reloads = || gateway.log().matches("devices file reloaded").count();
    let (before, since) = (reloads(), Instant::now());
    gateway.signal(libc::SIGHUP);
    eventually("the file", || reloads() > before);
    since.elapsed()
}

fn compare(what: &str, rules: &str) {
    let (empty, million) = (gateway(""), gateway(rules));
    let rounds: Vec<[f64; 2]> = (0..ROUNDS)
        .map(|_| [&empty, &million].map(handshake))
        .collect();
    let ratios = rounds.iter().map(|[empty, million]| million / empty);
    let ratio = median(ratios.collect());
    let of = |which: usize| median(rounds.iter().map(|round| round[which]).collect());
    println!(
        "{what}: handshake {:.0} µs with an empty file, {:.0} µs with {RULES} rules, ratio {ratio:.3}",
        of(0),
        of(1)
    );
    let more = |name| million.memory(name).saturating_sub(empty.memory(name)) >> 20;
    println!(
        "{what}: {} MiB more memory, {} MiB at most",
        more("VmRSS"),
        more("VmHWM")
    );
    let took = read_anew(&million);
    println!(
        "{what}: {} MB read again in {took:?}, {} MiB at most then",
        rules.len() / 1_000_000,
        more("VmHWM")
    );
}

#[test]
#[ignore = "a measurement"]
fn devices() {
    let exact = |number| format!("allow urn:example:plant:machine-{number:08} rate=5/20\n");
    compare("exact rules", &(0..RULES).map(exact).collect::<String>());
    let pin =
        |number| format!("pin sha256:{number:064x} as=urn:example:plant:machine-{number:08}\n");
    compare("pins", &(0..RULES).map(pin).collect::<String>());
}
