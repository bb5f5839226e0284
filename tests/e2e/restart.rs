//! A gateway takes the place of another on the same port, under load: no reading fails, and none is lost.

use std::collections::BTreeMap;

use crate::brokers;
use crate::harness::load::Outcome;
use crate::harness::{Client, Gateway, Load, Protocol, eventually};
use crate::spool::audit;

const SENDERS: usize = 4;
const RESTARTS: usize = 3;

fn restarts_cost_nothing(protocol: Protocol) {
    let topic = format!("restart-{protocol}");
    // Gateways that have gone stay for their files.
    let mut gateways = vec![
        brokers::gateway_to(&topic)
            .without_limits()
            .set("FOREBAY_REUSE_PORT", true)
            .start(),
    ];
    let client = |n: usize| {
        Client::open(
            protocol,
            &gateways[0],
            &gateways[0].device(&format!("{protocol}-{n}")),
        )
    };
    let clients: Vec<Client> = (0..SENDERS).map(client).collect();
    let load = Load::roaming("reading", &clients, 64);
    for _ in 0..RESTARTS {
        load.wait_for(204, load.seen(204) + 200);
        let next = gateways[0].beside().start();
        let last = gateways.last_mut().expect("there is one");
        last.terminate();
        assert_eq!(last.exit_code(), 0);
        eventually("readings at the next one", || accepted(&next) >= 100.0);
        gateways.push(next);
    }
    let outcomes = load.stop();
    let other = outcomes
        .senders
        .iter()
        .flatten()
        .filter(|outcome| **outcome != Outcome::Status(204));
    let mut others = BTreeMap::new();
    other.for_each(|outcome| *others.entry(format!("{outcome:?}")).or_insert(0) += 1);
    assert_eq!(others, BTreeMap::new());
    assert_eq!(audit(&outcomes, &brokers::bodies(&topic)), 0);
}

fn accepted(gateway: &Gateway) -> f64 {
    let of = |protocol: Protocol| {
        gateway.metric(&format!(
            "forebay_http_requests_total{{protocol=\"{protocol}\",status=\"204\"}}"
        ))
    };
    Protocol::ALL.map(of).iter().sum()
}

#[test]
fn restarts_cost_an_h1_fleet_nothing() {
    restarts_cost_nothing(Protocol::H1);
}

#[test]
fn restarts_cost_an_h2_fleet_nothing() {
    restarts_cost_nothing(Protocol::H2);
}

#[test]
fn restarts_cost_an_h3_fleet_nothing() {
    restarts_cost_nothing(Protocol::H3);
}
