//! `kill -9` under load, again and again: no 204 is lost, no device's order is broken.
//!
//! `FOREBAY_KILL_ROUNDS` sets the number of rounds of each test: 5 in every test run, 50 for the long one by hand.

use std::collections::HashMap;

use crate::brokers;
use crate::harness::load::Outcomes;
use crate::harness::{Gateway, Load, Setup};
use crate::spool::{audit_all, start_load, wait_until_drained};

fn rounds() -> u64 {
    std::env::var("FOREBAY_KILL_ROUNDS").map_or(5, |rounds| rounds.parse().expect("a number"))
}

/// A stored reading's body and record id.
type Stored = (String, String);

/// Rounds of load and `kill -9`, the same devices in each; then what was stored, as `stored` reads it.
fn survive(setup: Setup, disturb: impl Fn(u64, &Load), stored: impl Fn(&Gateway) -> Vec<Stored>) {
    let (mut setup, mut loads) = (setup.without_limits(), Vec::new());
    for round in 0..rounds() {
        let gateway = setup.start();
        let (_clients, load) = start_load(&gateway, &format!("round-{round}"), 64);
        load.wait_for(204, 50);
        disturb(round, &load);
        load.wait_for(204, load.seen(204) + 20 + 37 * (round % 5));
        setup = gateway.kill();
        loads.push(load.stop());
    }
    let gateway = setup.start();
    wait_until_drained(&gateway);
    let stored = stored(&gateway);
    check_ids(&stored);
    let bodies: Vec<String> = stored.into_iter().map(|(body, _)| body).collect();
    let duplicates = audit_all(&loads.iter().collect::<Vec<_>>(), &bodies);
    let sent: usize = loads
        .iter()
        .flat_map(|load| &load.senders)
        .map(Vec::len)
        .sum();
    let accepted: usize = loads.iter().map(|load: &Outcomes| load.count(204)).sum();
    let (rounds, broken) = (loads.len(), sent - accepted);
    println!(
        "{rounds} kills: {accepted} readings answered 204, 0 lost, 0 out of order, {broken} without an answer, {duplicates} \
         stored twice"
    );
}

/// A duplicate has its reading's record id, and no other reading has it.
fn check_ids(stored: &[Stored]) {
    let (mut ids, mut bodies) = (HashMap::new(), HashMap::new());
    for (body, id) in stored {
        assert_eq!(
            ids.entry(body).or_insert(id),
            &id,
            "the record ids of {body}"
        );
        assert_eq!(
            bodies.entry(id).or_insert(body),
            &body,
            "readings with the record id {id}"
        );
    }
}

fn in_files(gateway: &Gateway) -> Vec<Stored> {
    let stored = |line: &crate::harness::gateway::Line| {
        (
            brokers::text(&line.payload()),
            line.text("record_id").to_owned(),
        )
    };
    gateway.files("telemetry").iter().map(stored).collect()
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
    survive(setup, undisturbed, |_| {
        brokers::bodies_and_ids("kills-always")
    });
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
    survive(setup, disturb, |_| broker.bodies_and_ids("kills-overflow"));
}
