//! Kinesis with the service's limits: a shard takes 1 MiB and 1000 records a second, and refuses the rest one by one.

use std::sync::atomic::{AtomicBool, Ordering};

use md5::{Digest, Md5};

use crate::brokers::{text, wait};
use crate::deaggregate::{UserRecord, deaggregate};
use crate::ferrokinesis::Ferrokinesis;
use crate::harness::load::Outcomes;
use crate::harness::{Ask, Client, Gateway, Load, PATIENCE, Protocol, Setup, eventually, within};
use crate::kinesis_proxy::Proxy;

/// An emulator of one's own with one stream, and what goes wrong on the way to it.
pub struct KinesisStream {
    emulator: Ferrokinesis,
    pub proxy: Proxy,
    name: String,
}

/// A reading as a consumer gets it.
pub struct Stored {
    pub device: String,
    pub body: Vec<u8>,
    /// Of those in aggregates.
    pub record_id: Option<String>,
}

impl KinesisStream {
    pub fn start(name: &str, shards: i32) -> Self {
        let emulator = wait(async {
            let emulator = Ferrokinesis::start().await;
            emulator.create_stream(name, shards).await;
            emulator
        });
        let proxy = Proxy::start(emulator.address());
        Self {
            emulator,
            proxy,
            name: name.into(),
        }
    }

    /// A gateway whose one stream is this one.
    pub fn gateway(&self) -> Setup {
        Setup::new()
            .set("FOREBAY_SINK", "kinesis")
            .set("FOREBAY_STREAMS", format!("telemetry={}", self.name))
            .set(
                "AWS_ENDPOINT_URL_KINESIS",
                format!("http://{}", self.proxy.address),
            )
            .set("AWS_REGION", "eu-central-1")
            .set("AWS_ACCESS_KEY_ID", "x")
            .set("AWS_SECRET_ACCESS_KEY", "x")
    }

    /// Every reading, those of a device in the stream's order; aggregates are taken apart.
    pub fn read(&self) -> Vec<Stored> {
        let records = wait(self.emulator.read_stream(&self.name));
        let data: Vec<_> = records
            .iter()
            .map(|record| record.data().as_ref().to_vec())
            .collect();
        let readings = records
            .iter()
            .zip(deaggregate(&data))
            .flat_map(|(record, packed)| match packed {
                Some(packed) => packed.into_iter().map(Stored::from).collect(),
                None => vec![Stored {
                    device: record.partition_key().unwrap_or_default().into(),
                    body: record.data().as_ref().to_vec(),
                    record_id: None,
                }],
            });
        readings.collect()
    }

    /// Records of Kinesis, however many readings they hold.
    fn records(&self) -> usize {
        wait(self.emulator.read_stream(&self.name)).len()
    }

    /// Every accepted reading of these senders is in the stream, byte for byte, and each sender's in their order. Gives the
    /// number of readings that are there twice: what is stands where it stood first.
    pub fn check(&self, outcomes: &Outcomes, devices: &[String], body_bytes: usize) -> usize {
        let stored = self.read();
        let mut repeated = 0;
        for (sender, device) in devices.iter().enumerate() {
            let mut first: Vec<&[u8]> = Vec::new();
            for reading in stored.iter().filter(|reading| reading.device == *device) {
                match first.contains(&&reading.body[..]) {
                    true => repeated += 1,
                    false => first.push(&reading.body),
                }
            }
            let accepted = outcomes.accepted_of(sender);
            let texts: Vec<_> = first.iter().map(|body| text(body)).collect();
            assert!(
                accepted.iter().all(|reading| texts.contains(reading)),
                "{device} lost of {accepted:?}: {texts:?}"
            );
            assert!(
                first.iter().all(|body| body.len() == body_bytes),
                "{device}: bodies of another length"
            );
            let number = |text: &String| {
                text.rsplit('-')
                    .next()
                    .and_then(|number| number.parse::<u32>().ok())
            };
            assert!(texts.is_sorted_by_key(number), "{device}: {texts:?}");
        }
        repeated
    }
}

impl From<UserRecord> for Stored {
    fn from(record: UserRecord) -> Self {
        Self {
            device: record.partition_key,
            body: record.data,
            record_id: Some(record.id),
        }
    }
}

/// So many devices for each protocol, and a connection of each.
pub fn fleet(gateway: &Gateway, of_each: usize, name: &str) -> (Vec<String>, Vec<Client>) {
    let devices = Protocol::ALL
        .iter()
        .flat_map(|protocol| (0..of_each).map(move |n| (*protocol, n)));
    let device = |(protocol, n)| {
        let id = format!("{name}-{protocol}-{n}");
        let client = Client::open(protocol, gateway, &gateway.device(&id));
        (id, client)
    };
    devices.map(device).unzip()
}

/// Two gateways that know nothing of each other write more into one shard than it takes.
fn a_204_stays_true_and_in_order_when_the_shard_throttles(aggregate: bool, body_bytes: usize) {
    let stream = KinesisStream::start("throttled", 1);
    let setup = || {
        stream
            .gateway()
            .without_limits()
            .set("FOREBAY_KINESIS_AGGREGATE", aggregate)
    };
    let gateways = [(); 2].map(|()| setup().set("FOREBAY_ACK_TIMEOUT", "20s").start());
    let fleets = [0, 1].map(|n| fleet(&gateways[n], 6, &format!("gateway-{n}")));
    let loads = fleets
        .each_ref()
        .map(|(_, clients)| Load::start("reading", clients, body_bytes));
    loads.iter().for_each(|load| load.wait_for(204, 25));
    eventually("entries that the shard refuses", || {
        stream.proxy.refused() > 0
    });
    let outcomes = loads.map(Load::stop);
    let repeated: usize = outcomes
        .iter()
        .zip(&fleets)
        .map(|(outcomes, (devices, _))| stream.check(outcomes, devices, body_bytes))
        .sum();
    assert_eq!(repeated, 0, "what is refused is written once in the end");
    let readings = outcomes
        .iter()
        .map(|outcomes| outcomes.accepted().len())
        .sum::<usize>();
    assert_eq!(
        stream.records() < readings,
        aggregate,
        "{} records of {readings} readings",
        stream.records()
    );
}

#[test]
fn a_204_stays_true_and_in_order_when_the_shard_throttles_single_records() {
    a_204_stays_true_and_in_order_when_the_shard_throttles(false, 100_000);
}

#[test]
fn a_204_stays_true_and_in_order_when_the_shard_throttles_aggregates() {
    a_204_stays_true_and_in_order_when_the_shard_throttles(true, 15_000);
}

/// Devices send what the shard takes in ten seconds as fast as the disk does: all of it is answered 204, and comes in the end.
#[test]
fn what_a_throttled_shard_does_not_take_is_spooled_and_comes_in_order() {
    const BODY_BYTES: usize = 40_000;
    let stream = KinesisStream::start("spooled", 1);
    let gateway = stream
        .gateway()
        .without_limits()
        .with_spool("overflow")
        .start();
    let (devices, clients) = fleet(&gateway, 6, "device");
    let load = Load::start("reading", &clients, BODY_BYTES);
    load.wait_for(204, 250);
    let outcomes = load.stop();
    assert_eq!(
        outcomes.count(204),
        outcomes.senders.iter().map(Vec::len).sum::<usize>(),
        "{:?}",
        outcomes.senders
    );
    eventually("an empty spool", || {
        gateway.metric("forebay_spool_records") == 0.0
    });
    assert!(stream.proxy.refused() > 0, "the shard refuses some");
    assert_eq!(stream.check(&outcomes, &devices, BODY_BYTES), 0);
}

/// So many devices whose readings go to this one of two shards, which have half of all keys each.
fn clients_of(gateway: &Gateway, protocol: Protocol, shard: u8, count: usize) -> Vec<Client> {
    let names = (0..).map(|number| format!("press-{number}"));
    let names = names.filter(|name| Md5::digest(name)[0] >> 7 == shard);
    let open = |name: String| Client::open(protocol, gateway, &gateway.device(&name));
    names.take(count).map(open).collect()
}

/// One reading of each of these devices, all at once: more than their shard takes in four seconds. Gives the answers.
fn round(clients: &[Client]) -> Vec<u16> {
    let ask = Ask::post(vec![b'x'; 200_000]);
    let sent: Vec<_> = clients.iter().map(|client| client.begin(&ask)).collect();
    let answers = sent.into_iter().map(|sent| sent.wait().expect("an answer"));
    answers.map(|answer| answer.status).collect()
}

/// Twenty-four devices send more into one of two shards than it takes. It is known by its name, its devices are refused, or spooled,
/// and the other shard's never are.
fn a_shard_over_its_limit_is_away(has_spool: bool) {
    let stream = KinesisStream::start("lopsided", 2);
    let setup = stream.gateway().without_limits();
    // Spooled records come at the shard's pace.
    let (gateway, rounds_max) = match has_spool {
        true => (setup.with_spool("overflow").start(), 3),
        false => (setup.start(), 200),
    };
    // Their connections last as long as they do.
    let clients = clients_of(&gateway, Protocol::H1, 0, 4);
    let others = Load::start("other", &clients, 300);
    let over = clients_of(&gateway, Protocol::H2, 1, 24);
    let away = || gateway.metric("forebay_sink_partitions_away{stream=\"telemetry\"}");
    let is_named = || {
        let told = gateway.admin("/readyz").1;
        told.contains("shard shardId-000000000001 away") && away() == 1.0
    };
    let is_enough = AtomicBool::new(false);
    let (was_named, answers) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut answers = Vec::new();
            for _ in 0..rounds_max {
                answers.extend(round(&over));
                if is_enough.load(Ordering::Relaxed) {
                    break;
                }
            }
            answers
        });
        let was_named = within(PATIENCE, is_named);
        is_enough.store(true, Ordering::Relaxed);
        (was_named, sending.join().expect("no panic"))
    });
    assert!(was_named, "{answers:?}");
    others.wait_for(204, 100);
    let outcomes = others.stop();
    let readings = outcomes.senders.iter().map(Vec::len).sum::<usize>();
    assert_eq!(outcomes.count(204), readings, "{:?}", outcomes.senders);
    assert!(
        answers
            .iter()
            .all(|status| *status == 204 || (*status == 503 && !has_spool)),
        "{answers:?}"
    );
    eventually("the shard has caught up", || away() == 0.0);
    eventually("nothing waits", || {
        !has_spool || gateway.metric("forebay_spool_records") == 0.0
    });
    assert_eq!(gateway.admin("/readyz"), (200, "ready\n".into()));
}

#[test]
fn a_shard_over_its_limit_is_away_and_refused() {
    a_shard_over_its_limit_is_away(false);
}

#[test]
fn a_shard_over_its_limit_is_away_and_spooled() {
    a_shard_over_its_limit_is_away(true);
}
