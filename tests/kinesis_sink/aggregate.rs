//! Aggregates, as AWS's own library takes them apart.

use std::ops::RangeInclusive;

use md5::{Digest, Md5};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::deaggregate::{UserRecord, deaggregate};
use forebay::internals::sink::{UserRecord as Packed, encode};

/// Aggregates that are made up; AWS's library takes a moment to start, and reads them all at once.
const AGGREGATES: usize = 200;

fn reading() -> impl Strategy<Value = UserRecord> {
    let around = |bytes: usize| bytes.saturating_sub(3)..bytes + 3;
    // Lengths around those that take one more byte to write.
    let bytes = prop_oneof![4 => 0..300usize, 2 => around(128), 1 => around(16_384)];
    let data = (any::<u8>(), bytes)
        .prop_map(|(byte, bytes)| (0..bytes).map(|at| byte.wrapping_add(at as u8)).collect());
    ("[A-Za-z0-9._:/@-]{1,128}", "[!-~]{1,64}", data).prop_map(|(partition_key, id, data)| {
        UserRecord {
            partition_key,
            hash_key: 0,
            id,
            data,
        }
    })
}

#[test]
fn aws_s_own_library_reads_what_is_packed() {
    let hash_key = prop_oneof![Just(0), Just(9), Just(u128::MAX), any::<u128>()];
    let aggregate = (hash_key, prop::collection::vec(reading(), 1..300));
    let mut runner = TestRunner::deterministic();
    let made = (0..AGGREGATES).map(|_| {
        aggregate
            .new_tree(&mut runner)
            .expect("an aggregate")
            .current()
    });
    let made: Vec<Vec<UserRecord>> = made
        .map(|(hash_key, records)| {
            records
                .into_iter()
                .map(|record| UserRecord { hash_key, ..record })
                .collect()
        })
        .collect();
    let packed: Vec<_> = made.iter().map(|records| pack(records)).collect();
    for (made, read) in made.into_iter().zip(deaggregate(&packed)) {
        assert!(read == Some(made));
    }
}

fn pack(records: &[UserRecord]) -> Vec<u8> {
    encode(
        records[0].hash_key,
        &records.iter().map(packed).collect::<Vec<_>>(),
    )
}

fn packed(record: &UserRecord) -> Packed<'_> {
    Packed {
        partition_key: &record.partition_key,
        id: &record.id,
        data: &record.data,
    }
}

/// Reads the shards' records, taken apart, with the hash keys of each shard.
async fn read(emulator: &Ferrokinesis) -> Vec<(RangeInclusive<u128>, Vec<UserRecord>)> {
    let mut shards = Vec::new();
    for (shard, records) in emulator.read_shards("readings").await {
        let range = shard.hash_key_range().expect("a range");
        let keys = [range.starting_hash_key(), range.ending_hash_key()]
            .map(|key| key.parse().expect("a number"));
        let data: Vec<_> = records.iter().map(|record| body(record).to_vec()).collect();
        let records = deaggregate(&data)
            .into_iter()
            .flat_map(|read| read.expect("an aggregate"));
        shards.push((keys[0]..=keys[1], records.collect()));
    }
    shards
}

/// In the order of the stream, by device.
fn bodies_by_device(records: &[UserRecord]) -> HashMap<&str, Vec<&[u8]>> {
    let mut devices: HashMap<&str, Vec<&[u8]>> = HashMap::new();
    for record in records {
        devices
            .entry(&record.partition_key)
            .or_default()
            .push(&record.data);
    }
    devices
}

/// Sixteen times the records that the shards take in a second, and some more than the bytes.
#[tokio::test]
async fn aggregates_hold_every_record_once_in_the_order_of_its_device() {
    let emulator = Ferrokinesis::start().await;
    emulator.create_stream("readings", 2).await;
    let sink = open(emulator.settings(), Duration::from_secs(30), true).await;
    verify(&sink).await.unwrap();
    let batches: Vec<Vec<_>> = (0..8u8)
        .map(|batch| {
            (0..4000)
                .map(|device| {
                    record(
                        &format!("urn:{device}"),
                        [&[batch][..], &[255; 60]].concat(),
                    )
                })
                .collect()
        })
        .collect();
    let outcomes = join_all(batches.iter().map(|batch| sink.deliver(STREAM, batch))).await;
    assert!(
        outcomes
            .iter()
            .all(|outcomes| *outcomes == Outcomes::DELIVERED)
    );
    let stored: Vec<_> = read(&emulator)
        .await
        .into_iter()
        .flat_map(|(_, records)| records)
        .collect();
    let ids: HashMap<_, _> = stored.iter().map(|record| (&*record.id, record)).collect();
    assert_eq!((stored.len(), ids.len()), (32_000, 32_000));
    for sent in batches.iter().flatten() {
        let record = ids[sent.id.as_str(&mut [0; 36])];
        assert_eq!(
            (&*record.partition_key, &record.data[..]),
            (sent.device.as_str(), &sent.payload[..])
        );
    }
    for (device, bodies) in bodies_by_device(&stored) {
        assert!(bodies.is_sorted(), "{device}");
    }
}

/// The sink learns of it by the answers: what it packs meanwhile has records of both halves.
#[tokio::test]
async fn no_consumer_drops_a_record_after_a_reshard() {
    let emulator = Ferrokinesis::start().await;
    emulator.create_stream("readings", 1).await;
    let sink = open(emulator.settings(), Duration::from_secs(20), true).await;
    verify(&sink).await.unwrap();
    let batch = |number: u8| -> Vec<_> {
        (0..100)
            .map(|device| record(&format!("device-{device}"), vec![number]))
            .collect()
    };
    assert_eq!(sink.deliver(STREAM, &batch(0)).await, Outcomes::DELIVERED);
    let split = emulator
        .client
        .split_shard()
        .stream_name("readings")
        .shard_to_split("shardId-000000000000");
    split
        .new_starting_hash_key((1u128 << 127).to_string())
        .send()
        .await
        .expect("it splits");
    emulator.wait_until_active("readings").await;
    for number in 1..4 {
        assert_eq!(
            sink.deliver(STREAM, &batch(number)).await,
            Outcomes::DELIVERED
        );
    }
    let shards = read(&emulator).await;
    assert_eq!(shards.len(), 3, "the one that was split is still read");
    for (keys, records) in &shards {
        // KCL drops what does not belong into the shard that it comes from.
        assert!(records.iter().all(|record| keys.contains(&record.hash_key)));
    }
    for (keys, records) in &shards[1..] {
        for (device, bodies) in bodies_by_device(records)
            .into_iter()
            .filter(|(device, _)| keys.contains(&home(device)))
        {
            let mut numbers: Vec<u8> = bodies.iter().map(|body| body[0]).collect();
            numbers.dedup();
            assert_eq!(
                numbers,
                [1, 2, 3],
                "{device}: what was written to the other half is written again, to its own"
            );
        }
    }
}

/// Returns the hash key by which Kinesis places a device's records.
fn home(device: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(device).into())
}

/// The limit is for the whole record, so one that just fits goes as it is; one that does not is refused alone.
#[tokio::test]
async fn a_record_as_large_as_the_stream_takes_goes_by_itself() {
    let emulator = Ferrokinesis::start().await;
    emulator.create_stream("readings", 1).await;
    let sink = open(emulator.settings(), Duration::from_secs(20), true).await;
    verify(&sink).await.unwrap();
    let largest = vec![7; (1 << 20) - "large".len()];
    let records = [
        record("a", "1"),
        record("large", largest.clone()),
        record("larger", vec![7; (1 << 20) + 1]),
    ];
    let outcomes = sink.deliver(STREAM, &records).await;
    assert_eq!(
        (outcomes.get(0), outcomes.get(1)),
        (&Outcome::Delivered, &Outcome::Delivered)
    );
    assert_eq!(
        *outcomes.get(2),
        Outcome::Permanent("ValidationException".into())
    );
    let stored = emulator.read_stream("readings").await;
    let by_itself: Vec<_> = stored
        .iter()
        .filter(|record| body(record) == largest)
        .collect();
    assert_eq!(
        (stored.len(), by_itself.len(), by_itself[0].partition_key()),
        (2, 1, Some("large"))
    );
}
