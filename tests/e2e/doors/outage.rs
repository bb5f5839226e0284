//! The broker falls silent behind the doors, without a spool.
//!
//! `FOREBAY_OUTAGE_SECONDS` is the time for which a fleet finds it away: 1 in every test run, 30 for the long one by hand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{assert_accepted, assert_refused, carrying, one_of_each, with_doors_to_one};
use crate::brokers;
use crate::harness::{Ask, Client, Gateway, Protocol, Reply, Setup, eventually};
use crate::status::assert_retry_after;

/// All doors, and a gateway that is soon out of patience with their stream.
fn all_doors_to(stream: Setup) -> Gateway {
    with_doors_to_one(stream)
        .set("FOREBAY_ACK_TIMEOUT", "1s")
        .without_limits()
        .start()
}

#[test]
fn every_door_says_to_come_back_and_then_takes_it() {
    let broker = brokers::pausable();
    let gateway = all_doors_to(broker.gateway_to("doors-outage"));
    let device = gateway.device("plc-1");
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    let paused = broker.pause();
    // Nobody knows yet that it is away: what becomes of this is not known.
    let (door, ask) = &one_of_each("plc-1")[0];
    let reply = clients[0].send(ask);
    if reply.status == 504 {
        assert_refused(door, &reply, 504, "ack-timeout");
    }
    eventually("the sink is known to be away", || {
        gateway.metric("forebay_sink_up{stream=\"telemetry\"}") == 0.0
    });
    for client in &clients {
        for (door, ask) in one_of_each("plc-1") {
            let reply = client.send(&ask);
            assert_refused(door, &reply, 503, "sink-unavailable");
            assert_retry_after(&reply);
        }
    }
    drop(paused);
    gateway.wait_until_ready();
    for client in &clients {
        for (door, ask) in one_of_each("plc-1") {
            let status = client.send(&ask).status;
            assert!(matches!(status, 200 | 204), "{door}: {status}");
        }
    }
    // A reading whose outcome was unknown may be there too.
    assert!(matches!(broker.bodies("doors-outage").len(), 9 | 10));
}

/// Devices at each door by each protocol.
const DEVICES: usize = 4;

/// A device that sends each record until it is taken, and then the next one.
struct Sender {
    client: Client,
    door: &'static str,
    ask: Ask,
    device: String,
    taken: AtomicUsize,
    refused: AtomicUsize,
}

impl Sender {
    fn fleet(gateway: &Gateway) -> Vec<Self> {
        let mut fleet = Vec::new();
        for protocol in Protocol::ALL {
            for number in 0..DEVICES {
                let device = format!("{protocol}-{number}");
                for (door, ask) in one_of_each(&device) {
                    fleet.push(Self {
                        client: Client::open(protocol, gateway, &gateway.device(&device)),
                        door,
                        ask,
                        device: device.clone(),
                        taken: AtomicUsize::new(0),
                        refused: AtomicUsize::new(0),
                    });
                }
            }
        }
        fleet
    }

    /// Sends until it is told to stop; the records that were taken.
    fn run(&self, stops: &AtomicBool) -> Vec<String> {
        let mut taken = Vec::new();
        while !stops.load(Ordering::Relaxed) {
            let body = format!("{} {} {}", self.device, self.door, taken.len());
            let reply = self.client.send(&carrying(&self.ask, body.clone()));
            if self.is_taken(&reply) {
                taken.push(body);
            } else {
                // The wait of a device, cut short.
                thread::park_timeout(Duration::from_millis(100));
            }
        }
        taken
    }

    fn is_taken(&self, reply: &Reply) -> bool {
        let count = match reply.status {
            504 => {
                assert_refused(self.door, reply, 504, "ack-timeout");
                &self.refused
            }
            503 => {
                assert_refused(self.door, reply, 503, "sink-unavailable");
                assert_retry_after(reply);
                &self.refused
            }
            _ => {
                assert_accepted(self.door, reply);
                &self.taken
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
        reply.status < 300
    }
}

/// Waits until each sender has counted so many more.
fn wait_for_each(fleet: &[Sender], count: usize, of: impl Fn(&Sender) -> &AtomicUsize) {
    let before: Vec<usize> = fleet
        .iter()
        .map(|sender| of(sender).load(Ordering::Relaxed))
        .collect();
    eventually("each device's answers", || {
        let mut counts = fleet.iter().map(&of).zip(&before);
        counts.all(|(now, before)| now.load(Ordering::Relaxed) >= before + count)
    });
}

/// The ledger of a fleet at all doors whose broker is away for a while: what was taken is there.
#[test]
fn a_fleet_at_every_door_loses_nothing_that_was_taken() {
    let seconds = std::env::var("FOREBAY_OUTAGE_SECONDS");
    let seconds = seconds.map_or(1, |seconds| seconds.parse().expect("a number"));
    let broker = brokers::pausable();
    let gateway = all_doors_to(broker.gateway_to("doors-fleet"));
    let fleet = Sender::fleet(&gateway);
    let stops = AtomicBool::new(false);
    let ledger: Vec<String> = thread::scope(|scope| {
        // Where something goes wrong here, its end is the senders' end.
        let _gateway = gateway;
        let run = |sender| {
            let stops = &stops;
            scope.spawn(move || Sender::run(sender, stops))
        };
        let running: Vec<_> = fleet.iter().map(run).collect();
        wait_for_each(&fleet, 10, |sender| &sender.taken);
        let paused = broker.pause();
        let since = Instant::now();
        wait_for_each(&fleet, 2, |sender| &sender.refused);
        while since.elapsed() < Duration::from_secs(seconds) {
            thread::park_timeout(Duration::from_millis(100));
        }
        drop(paused);
        wait_for_each(&fleet, 10, |sender| &sender.taken);
        stops.store(true, Ordering::Relaxed);
        let ledgers = running.into_iter().map(|running| running.join());
        ledgers
            .flat_map(|ledger| ledger.expect("no other answer"))
            .collect()
    });
    let mut stored = HashMap::new();
    for body in broker.bodies("doors-fleet") {
        *stored.entry(body).or_insert(0) += 1;
    }
    let lost: Vec<_> = ledger
        .iter()
        .filter(|body| !stored.contains_key(*body))
        .collect();
    assert!(
        lost.is_empty(),
        "{} of {}: {lost:?}",
        lost.len(),
        ledger.len()
    );
    let refused: usize = fleet
        .iter()
        .map(|sender| sender.refused.load(Ordering::Relaxed))
        .sum();
    let repeated = stored.values().filter(|count| **count > 1).count();
    println!(
        "{} senders, {seconds} s: {} records taken, 0 lost, {refused} answers 503 or 504, {repeated} records there more than once",
        fleet.len(),
        ledger.len()
    );
}
