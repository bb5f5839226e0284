//! The shards of a stream as they are now, of even ranges, and those that were before.

use aws_sdk_kinesis::types::{HashKeyRange, SequenceNumberRange, Shard};

use super::super::broker::Broker;
use super::super::plan::What;

pub(super) struct Shards {
    count: u64,
    /// Number of reshards before: shards of another time have other names.
    pub generation: usize,
}

/// Lists the shards, with those that ended in the latest reshard.
pub(super) fn list(broker: &Broker) -> Vec<Shard> {
    let shards = Shards::of(broker);
    let mut listed = shards.describe_all(false);
    if let Some(generation) = shards.generation.checked_sub(1) {
        let is_split = !broker.faults.has(What::Resharded);
        listed.extend(Shards::new(broker, is_split, generation).describe_all(true));
    }
    listed
}

impl Shards {
    pub(super) fn of(broker: &Broker) -> Self {
        let is_split = broker.faults.has(What::Resharded);
        Self::new(broker, is_split, broker.faults.reshards())
    }

    fn new(broker: &Broker, is_split: bool, generation: usize) -> Self {
        let count = broker.partitions + u64::from(is_split);
        Self { count, generation }
    }

    fn width(&self) -> u128 {
        u128::MAX / u128::from(self.count)
    }

    /// Returns the position of the shard that has this key.
    pub(super) fn find(&self, key: u128) -> u64 {
        u64::try_from(key / self.width()).map_or(self.count - 1, |at| at.min(self.count - 1))
    }

    pub(super) fn name(&self, at: u64) -> String {
        format!("shard-{}-{at}", self.generation)
    }

    fn describe_all(&self, has_ended: bool) -> Vec<Shard> {
        (0..self.count)
            .map(|at| self.describe(at, has_ended))
            .collect()
    }

    fn describe(&self, at: u64, has_ended: bool) -> Shard {
        let first = self.width() * u128::from(at);
        let last = match at + 1 == self.count {
            true => u128::MAX,
            false => first + self.width() - 1,
        };
        let keys = HashKeyRange::builder()
            .starting_hash_key(first.to_string())
            .ending_hash_key(last.to_string());
        let numbers = SequenceNumberRange::builder()
            .starting_sequence_number("1")
            .set_ending_sequence_number(has_ended.then(|| "2".into()));
        let shard = Shard::builder()
            .shard_id(self.name(at))
            .hash_key_range(keys.build().expect("it is whole"))
            .sequence_number_range(numbers.build().expect("it is whole"));
        shard.build().expect("it is whole")
    }
}
