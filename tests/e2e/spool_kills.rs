//! `kill -9` under load, again and again: no 204 is lost, no device's order is broken.
//!
//! `FOREBAY_KILL_ROUNDS` sets the number of rounds of each test: 5 in every test run, 50 for the long one by hand.

use crate::brokers;
use crate::harness::{Gateway, Load, Setup};
use crate::spool::{audit, in_files, start_load, wait_until_drained};

fn rounds() -> u64 {
    std::env::var("FOREBAY_KILL_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number"))
}

/// Rounds of load and `kill -9`; then what was stored, as `stored` reads it.
fn survive(setup: Setup, disturb: impl Fn(u64, &Load), stored: impl Fn(&Gateway) -> Vec<String>) {
    let (mut setup, mut rounds_seen, mut broken) = (setup.without_limits(), Vec::new(), 0);
    for round in 0..rounds() {
        let gateway = setup.start();
        let (_clients, load) = start_load(&gateway, &format!("round-{round}"), 64);
        load.wait_for(204, 50);
        disturb(round, &load);
        load.wait_for(204, load.seen(204) + 20 + 37 * (round % 5));
        setup = gateway.kill();
        let outcomes = load.stop();
        broken += outcomes.senders.iter().map(Vec::len).sum::<usize>() - outcomes.count(204);
        rounds_seen.push(outcomes);
    }
    let gateway = setup.start();
    wait_until_drained(&gateway);
    let stored = stored(&gateway);
    let duplicates = rounds_seen.iter().map(|outcomes| audit(outcomes, &stored)).max().unwrap_or(0);
    let accepted: usize = rounds_seen.iter().map(|outcomes| outcomes.count(204)).sum();
    println!("{accepted} readings answered 204, 0 lost, {broken} without an answer, {duplicates} stored twice");
}

fn undisturbed(_: u64, _: &Load) {}

#[test]
fn files_without_a_spool() {
    survive(Setup::new(), undisturbed, in_files);
}

#[test]
fn files_behind_a_spool_that_takes_everything() {
    survive(Setup::new().with_spool("always"), undisturbed, in_files);
}

#[test]
fn kafka_behind_a_spool_that_takes_everything() {
    let setup = brokers::gateway_to("kills-always").with_spool("always");
    survive(setup, undisturbed, |_| brokers::bodies("kills-always"));
}

/// In every other round the broker falls silent before the gateway is killed.
#[test]
fn kafka_with_a_spool_for_what_it_does_not_take() {
    let broker = brokers::pausable();
    let setup = broker.gateway_to("kills-overflow").with_spool("overflow");
    let disturb = |round: u64, load: &Load| {
        if round.is_multiple_of(2) {
            let _paused = broker.pause();
            load.wait_for(204, load.seen(204) + 100);
        }
    };
    survive(setup, disturb, |_| broker.bodies("kills-overflow"));
}
