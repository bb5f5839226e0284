//! The shards of a stream, and the key ranges that belong to them.
//!
//! A key's place is its MD5, a number of 128 bits; each open shard has a range of these, and
//! together they have all. The list comes from ListShards. It is old as soon as it has come: a
//! record in another shard than expected is a reason to ask again. Until it is known, there is one
//! shard without a name.

use std::sync::Arc;

use aws_sdk_kinesis::types::Shard as Description;
use md5::{Digest, Md5};

use crate::health::{Shard, Spread};

/// The most shards that are kept apart; a larger stream is one shard for us.
const SHARDS_MAX: usize = 20_000;

/// `shardId-000000000000`.
pub(super) type ShardId = Arc<str>;

/// The open ones, sorted by their first keys; never empty, and the first begins at 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shards(Arc<[Shard]>);

impl Shards {
    /// Returns one shard without a name, which has every key.
    pub(crate) fn unknown() -> Self {
        let shard = Shard {
            first: 0,
            name: "".into(),
        };
        Self([shard].into())
    }

    /// Returns the open shards of those that are described; `None` if they do not cover all keys,
    /// as in the midst of a reshard.
    pub(crate) fn of(descriptions: &[Description]) -> Option<Self> {
        let open = descriptions.iter().filter(|shard| is_open(shard));
        let mut ranges = open.map(Range::of).collect::<Option<Vec<_>>>()?;
        ranges.sort_unstable_by_key(|range| range.first_key);
        if !are_whole(&ranges) || ranges.len() > SHARDS_MAX {
            return None;
        }
        let shards = ranges.into_iter().map(|range| Shard {
            first: range.first_key,
            name: range.id,
        });
        Some(Self(shards.collect()))
    }

    pub(crate) fn are_known(&self) -> bool {
        !self.0[0].name.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &ShardId> {
        self.0.iter().map(|shard| &shard.name)
    }

    /// Returns the position of the shard that has this key.
    pub(crate) fn find(&self, hash_key: u128) -> usize {
        Shard::find(&self.0, hash_key)
    }

    pub(crate) fn id_of(&self, hash_key: u128) -> &ShardId {
        &self.0[self.find(hash_key)].name
    }

    /// Returns the spread of the devices' records over them; `None` while they are not known.
    pub(crate) fn spread(&self) -> Option<Spread> {
        self.are_known().then(|| Spread::Ranged {
            find: place,
            shards: self.0.clone(),
        })
    }
}

/// Returns the place that Kinesis gives a partition key without an explicit hash key.
pub(super) fn hash_key(partition_key: &str) -> u128 {
    place(partition_key.as_bytes())
}

fn place(key: &[u8]) -> u128 {
    u128::from_be_bytes(Md5::digest(key).into())
}

/// Whether the shard is open: one that has been split or merged says where it ends.
fn is_open(shard: &Description) -> bool {
    shard
        .sequence_number_range()
        .is_some_and(|range| range.ending_sequence_number().is_none())
}

/// The keys of one shard, the last one included.
struct Range {
    first_key: u128,
    last_key: u128,
    id: ShardId,
}

impl Range {
    fn of(shard: &Description) -> Option<Self> {
        let range = shard.hash_key_range()?;
        Some(Self {
            first_key: range.starting_hash_key().parse().ok()?,
            last_key: range.ending_hash_key().parse().ok()?,
            id: shard.shard_id().into(),
        })
    }
}

/// Whether sorted ranges have every key once.
fn are_whole(ranges: &[Range]) -> bool {
    let mut next_key = Some(0);
    for range in ranges {
        if next_key != Some(range.first_key) {
            return false;
        }
        next_key = range.last_key.checked_add(1);
    }
    !ranges.is_empty() && next_key.is_none()
}

#[cfg(test)]
pub(super) mod tests {
    use aws_sdk_kinesis::types::{HashKeyRange, SequenceNumberRange};

    use super::*;

    fn shard(id: usize, first: u128, last: u128, ended: bool) -> Description {
        let keys = HashKeyRange::builder()
            .starting_hash_key(first.to_string())
            .ending_hash_key(last.to_string());
        let numbers = SequenceNumberRange::builder().starting_sequence_number("1");
        let numbers = if ended {
            numbers.ending_sequence_number("2")
        } else {
            numbers
        };
        let shard = Description::builder()
            .shard_id(format!("shard-{id}"))
            .hash_key_range(keys.build().unwrap());
        shard
            .sequence_number_range(numbers.build().unwrap())
            .build()
            .unwrap()
    }

    /// Returns so many shards of even ranges.
    pub(crate) fn even(count: usize) -> Shards {
        let width = u128::MAX / count as u128;
        let last = |at: usize| {
            if at + 1 == count {
                u128::MAX
            } else {
                width * (at as u128 + 1) - 1
            }
        };
        Shards::of(
            &(0..count)
                .map(|at| shard(at, width * at as u128, last(at), false))
                .collect::<Vec<_>>(),
        )
        .unwrap()
    }

    #[test]
    fn a_key_belongs_to_the_shard_with_its_range() {
        let shards = even(3);
        let width = u128::MAX / 3;
        for (key, at) in [
            (0, 0),
            (width - 1, 0),
            (width, 1),
            (2 * width - 1, 1),
            (2 * width, 2),
            (u128::MAX, 2),
        ] {
            assert_eq!(shards.find(key), at, "{key}");
        }
        assert_eq!(Shards::unknown().find(u128::MAX), 0);
        assert_eq!(hash_key("hello"), 0x5d41_402a_bc4b_2a76_b971_9d91_1017_c592);
    }

    #[test]
    fn shards_that_have_ended_do_not_count_and_gaps_are_no_list() {
        let half = 1 << 127;
        let (parent, low, high) = (
            shard(0, 0, u128::MAX, true),
            shard(1, 0, half - 1, false),
            shard(2, half, u128::MAX, false),
        );
        let shards = Shards::of(&[high, parent.clone(), low.clone()]).unwrap();
        assert_eq!(
            shards.ids().map(|id| &**id).collect::<Vec<_>>(),
            ["shard-1", "shard-2"]
        );
        assert_eq!(Shards::of(&[parent, low]), None);
        assert_eq!(Shards::of(&[]), None);
    }
}
