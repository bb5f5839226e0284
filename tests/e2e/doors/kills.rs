//! `kill -9` under every door, with a spool: nothing that was acknowledged is lost.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{carrying, doors, one_of_each, stream_of};
use crate::brokers;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};
use crate::spool::wait_until_drained;

const ROUNDS: usize = 3;

/// Records that each sender has had acknowledged when the gateway is killed, at least.
const RECORDS: usize = 20;

/// Sends one record after the other, until the gateway is gone; the bodies that it took.
fn send_on(client: &Client, ask: &Ask, name: &str, count: &AtomicUsize) -> Vec<String> {
    let mut taken = Vec::new();
    loop {
        let body = format!("{name}-{}", taken.len());
        match client.try_send(&carrying(ask, body.clone())) {
            Ok(reply) if matches!(reply.status, 200 | 204) => taken.push(body),
            Ok(reply) => panic!("{name}: {reply:?}"),
            Err(_) => return taken,
        }
        count.store(taken.len(), Ordering::Relaxed);
    }
}

/// Kills the gateway under senders at each door by each protocol; the streams and bodies of what it took.
fn kill(gateway: Gateway, round: usize) -> (Setup, Vec<(&'static str, String)>) {
    let mut senders = Vec::new();
    for protocol in Protocol::ALL {
        for (door, ask) in one_of_each("plc-1") {
            let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
            let name = format!("round {round} by {door} and {protocol}");
            senders.push((client, door, ask, name, AtomicUsize::new(0)));
        }
    }
    thread::scope(|scope| {
        let mut sending = Vec::new();
        for (client, door, ask, name, count) in &senders {
            let taken = scope.spawn(move || send_on(client, ask, name, count));
            sending.push((stream_of(door), taken));
        }
        eventually("records of every sender", || {
            let mut counts = senders.iter().map(|(.., count)| count);
            counts.all(|count| count.load(Ordering::Relaxed) >= RECORDS)
        });
        let setup = gateway.kill();
        let mut all = Vec::new();
        for (stream, taken) in sending {
            let taken = taken.join().expect("no refusal");
            all.extend(taken.into_iter().map(|body| (stream, body)));
        }
        (setup, all)
    })
}

#[test]
fn nothing_that_a_door_acknowledged_is_lost() {
    let mut setup = doors().with_spool("always").without_limits();
    let mut taken = Vec::new();
    for round in 0..ROUNDS {
        let (killed, more) = kill(setup.start(), round);
        setup = killed;
        taken.extend(more);
    }
    let gateway = setup.start();
    wait_until_drained(&gateway);
    let mut stored = HashSet::new();
    for stream in ["telemetry", "traces"] {
        for line in gateway.files(stream) {
            stored.insert((stream, brokers::text(&line.payload())));
        }
    }
    let lost: Vec<_> = taken
        .iter()
        .filter(|record| !stored.contains(record))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {}: {lost:?}",
        lost.len(),
        taken.len()
    );
    println!(
        "{ROUNDS} kills: {} records acknowledged, none lost",
        taken.len()
    );
}
