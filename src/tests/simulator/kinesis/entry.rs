//! The entries of a PutRecords call, as its body has them: records, or aggregates of them.

use aws_sdk_kinesis::types::PutRecordsResultEntry;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use serde_json::Value;

use super::super::broker::{Broker, attempt_of};
use super::shards::Shards;
use crate::sink::kinesis::aggregate::tests::decode;

/// One entry of a call.
pub(super) struct Entry {
    key: String,
    /// Key by which an aggregate is placed.
    explicit_hash_key: Option<u128>,
    data: Vec<u8>,
}

/// One record of an entry.
struct Reading {
    attempt: usize,
    /// The place of its partition key, and the one that it is to have.
    own_key: u128,
    hash_key: u128,
}

/// Reads a call: the name of its stream, and its entries.
pub(super) fn read(body: &[u8]) -> (String, Vec<Entry>) {
    let call: Value = serde_json::from_slice(body).expect("the sink writes JSON");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let entry = |entry: &Value| Entry {
        key: text(&entry["PartitionKey"]).expect("each has a key"),
        explicit_hash_key: text(&entry["ExplicitHashKey"])
            .map(|key| key.parse().expect("it is a number")),
        data: STANDARD
            .decode(text(&entry["Data"]).expect("each has data"))
            .expect("it is base64"),
    };
    let entries = call["Records"].as_array().expect("it has records");
    let stream = text(&call["StreamName"]).expect("it names its stream");
    (stream, entries.iter().map(entry).collect())
}

fn place(key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(key).into())
}

impl Entry {
    /// Whether the service takes it: data and partition key have a limit together.
    pub(super) fn fits(&self, broker: &Broker) -> bool {
        self.data.len() + self.key.len() <= broker.record_bytes_max
    }

    fn readings(&self) -> Vec<Reading> {
        let own_key = place(&self.key);
        if self.explicit_hash_key.is_none() {
            let attempt = attempt_of(&self.data);
            return vec![Reading {
                attempt,
                own_key,
                hash_key: own_key,
            }];
        }
        let records = decode(&self.data).into_iter();
        let readings = records.map(|record| Reading {
            attempt: attempt_of(&record.data),
            own_key: place(&record.partition_key),
            hash_key: record.hash_key.parse().expect("it is a number"),
        });
        readings.collect()
    }

    /// Writes it to its shard, unless that takes nothing now.
    pub(super) fn write(&self, broker: &Broker, shards: &Shards) -> PutRecordsResultEntry {
        let key = self.explicit_hash_key.unwrap_or_else(|| place(&self.key));
        let shard = shards.find(key);
        let failed = |code: &str| PutRecordsResultEntry::builder().error_code(code).build();
        if !broker.faults.reaches(shard) {
            return failed("InternalFailure");
        }
        if broker.chance(broker.faults.throttled_percent()) {
            broker.ledger.met("kinesis: an entry is throttled");
            return failed("ProvisionedThroughputExceededException");
        }
        let readings = self.readings();
        if self.explicit_hash_key.is_some() {
            let count = readings.len().min(4);
            broker
                .ledger
                .met(format!("kinesis: an aggregate of {count}"));
        }
        for reading in readings {
            // A consumer drops a record that does not belong to the shard that it reads.
            if shards.find(reading.hash_key) == shard {
                broker.write(&[reading.attempt]);
            }
            if reading.own_key != key && shards.generation > 0 {
                // It may have landed beside its device's others, and is written there again then.
                broker.ledger.unknown(reading.attempt);
            }
        }
        let result = PutRecordsResultEntry::builder().sequence_number("1");
        result.shard_id(shards.name(shard)).build()
    }

    /// Notes that the service never takes its record.
    pub(super) fn note_refused(&self, broker: &Broker) {
        if let [only] = &self.readings()[..] {
            broker.ledger.refused(only.attempt);
        }
    }

    pub(super) fn note_doubt(&self, broker: &Broker) {
        for reading in self.readings() {
            broker.ledger.unknown(reading.attempt);
        }
    }
}
