//! Kinesis with the service's limits: a shard takes 1 MiB and 1000 records a second, and refuses the rest one by one.

use std::collections::HashMap;

use crate::brokers::{text, wait};
use crate::ferrokinesis::Ferrokinesis;
use crate::harness::{Client, Gateway, Load, Protocol, Setup, eventually};

/// An emulator of one's own with one stream.
pub struct KinesisStream {
    emulator: Ferrokinesis,
    name: String,
}

impl KinesisStream {
    pub fn start(name: &str, shards: i32) -> Self {
        let emulator = wait(async {
            let emulator = Ferrokinesis::start().await;
            emulator.create_stream(name, shards).await;
            emulator
        });
        Self { emulator, name: name.into() }
    }

    /// A gateway whose one stream is this one.
    pub fn gateway(&self) -> Setup {
        Setup::new()
            .set("FOREBAY_SINK", "kinesis")
            .set("FOREBAY_STREAMS", format!("telemetry={}", self.name))
            .set("AWS_ENDPOINT_URL_KINESIS", format!("http://{}", self.emulator.address()))
            .set("AWS_REGION", "eu-central-1")
            .set("AWS_ACCESS_KEY_ID", "x")
            .set("AWS_SECRET_ACCESS_KEY", "x")
    }

    /// Partition keys and bodies, those of a device in the stream's order.
    pub fn read(&self) -> Vec<(String, Vec<u8>)> {
        let records = wait(self.emulator.read_stream(&self.name));
        records.into_iter().filter_map(|record| Some((record.partition_key?, record.data.into_inner()))).collect()
    }
}

/// A body of so many bytes makes more than a shard takes, from 12 senders at a time.
const BODY_BYTES: usize = 100_000;

fn sender(protocol: Protocol, n: usize) -> String {
    format!("{protocol}-{n}")
}

/// Whether the shard has kept batches waiting: the emulator answers a call in milliseconds, and a refused record has to
/// wait for the shard's next second.
fn was_throttled(gateway: &Gateway) -> bool {
    let quick = gateway.metric("forebay_sink_duration_seconds_bucket{le=\"0.25\"}");
    gateway.metric("forebay_sink_duration_seconds_count") > quick
}

#[test]
fn a_204_stays_true_and_in_order_when_the_shard_throttles() {
    const SENDERS: usize = 4;
    let stream = KinesisStream::start("throttled", 1);
    let gateway = stream.gateway().without_limits().set("FOREBAY_ACK_TIMEOUT", "20s").start();
    let devices: Vec<(Protocol, String)> =
        Protocol::ALL.iter().flat_map(|protocol| (0..SENDERS).map(|n| (*protocol, sender(*protocol, n)))).collect();
    let clients: Vec<Client> =
        devices.iter().map(|(protocol, id)| Client::open(*protocol, &gateway, &gateway.device(id))).collect();
    let load = Load::start("reading", &clients, BODY_BYTES);
    load.wait_for(204, 40);
    eventually("batches that had to wait", || was_throttled(&gateway));
    let outcomes = load.stop();
    let mut stored: HashMap<String, Vec<String>> = HashMap::new();
    for (device, body) in stream.read() {
        stored.entry(device).or_default().push(text(&body));
    }
    for (sender, (_, device)) in devices.iter().enumerate() {
        let accepted = outcomes.accepted_of(sender);
        let stored = &stored[device];
        let lost: Vec<_> = accepted.iter().filter(|body| !stored.contains(body)).collect();
        assert!(lost.is_empty(), "{device}: {lost:?}");
        let number = |body: &String| body.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
        assert!(stored.is_sorted_by_key(number), "{device}: {stored:?}");
    }
}
