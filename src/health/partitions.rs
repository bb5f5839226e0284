//! The partitions, or shards, of a stream that are away, and the devices that write to them.
//!
//! Delivery knows the first, the sink's spread of its records the second. A request for a stream
//! without a partition that is away pays for one relaxed load.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

use crate::record::DeviceId;

/// Finds the partition of a key, from 0, among so many.
pub(crate) type Partitioner = fn(key: &[u8], partitions: u32) -> u32;

/// Finds a key's place among the places that ranges divide.
pub(crate) type Placer = fn(key: &[u8]) -> u128;

/// The spread of a stream's records over its partitions, or shards, by their devices.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "kafka"), allow(dead_code))] // Kafka alone hashes
pub(crate) enum Spread {
    /// Over partitions, of which there is at least one.
    Hashed { find: Partitioner, partitions: u32 },
    /// Over shards: the first one's range begins at 0, and each ends where the next one's begins.
    #[cfg_attr(not(feature = "kinesis"), allow(dead_code))] // Kinesis alone has shards
    Ranged { find: Placer, shards: Arc<[Shard]> },
}

/// A part of a stream that has a range of its keys' places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shard {
    pub first: u128,
    pub name: Arc<str>,
}

impl Shard {
    /// Returns the position of the shard that has this place.
    pub(crate) fn find(shards: &[Self], place: u128) -> usize {
        let behind = shards.partition_point(|shard| shard.first <= place);
        debug_assert!(behind > 0, "the first shard begins at 0");
        behind - 1
    }
}

impl Spread {
    /// Returns the number of the stream's parts that take requests of their own: a request to
    /// Kinesis has records of all shards.
    pub(crate) fn apart(&self) -> u32 {
        match self {
            Self::Hashed { partitions, .. } => *partitions,
            Self::Ranged { .. } => 1,
        }
    }

    /// Returns the partition, counted from 0, that the device's records go to.
    pub(crate) fn partition(&self, device: &DeviceId) -> u32 {
        let key = device.as_str().as_bytes();
        match self {
            Self::Hashed { find, partitions } => {
                let partition = find(key, *partitions);
                debug_assert!(partition < *partitions, "a partition of the stream");
                partition
            }
            Self::Ranged { find, shards } => Shard::find(shards, find(key)) as u32,
        }
    }

    /// Whether devices go where they go by the other one. A stream has one way to find them.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Hashed { partitions, .. },
                Self::Hashed {
                    partitions: others, ..
                },
            ) => partitions == others,
            (Self::Ranged { shards, .. }, Self::Ranged { shards: others, .. }) => {
                Arc::ptr_eq(shards, others) || shards == others
            }
            (Self::Hashed { .. }, Self::Ranged { .. })
            | (Self::Ranged { .. }, Self::Hashed { .. }) => false,
        }
    }

    /// Names these partitions.
    pub(crate) fn names(&self, partitions: &BTreeSet<u32>) -> String {
        let noun = match self {
            Self::Hashed { .. } => "partition",
            Self::Ranged { .. } => "shard",
        };
        let plural = if partitions.len() == 1 { "" } else { "s" };
        let name = |partition: &u32| match self {
            Self::Hashed { .. } => partition.to_string(),
            Self::Ranged { shards, .. } => shards[*partition as usize].name.to_string(),
        };
        let names: Vec<String> = partitions.iter().map(name).collect();
        format!("{noun}{plural} {}", names.join(", "))
    }
}

/// The partitions of one stream that are away.
#[derive(Debug, Default)]
pub(super) struct PartitionsAway {
    any: AtomicBool,
    which: ArcSwapOption<(Spread, BTreeSet<u32>)>,
}

impl PartitionsAway {
    /// `spread` is known where any is away.
    pub(super) fn set(&self, spread: Option<&Spread>, away: &BTreeSet<u32>) {
        let any = !away.is_empty();
        debug_assert!(spread.is_some() || !any);
        let spread = spread.filter(|_| any);
        let which = spread.map(|spread| (spread.clone(), away.clone()).into());
        self.which.store(which);
        self.any.store(any, Ordering::Relaxed);
    }

    /// Whether the device's records go to one of them.
    pub(super) fn has(&self, device: &DeviceId) -> bool {
        if !self.any.load(Ordering::Relaxed) {
            return false;
        }
        let which = self.which.load();
        let mut which = which.as_deref().into_iter();
        which.any(|(spread, away)| away.contains(&spread.partition(device)))
    }

    /// Adds which they are to a text about the stream of this name.
    pub(super) fn spell(&self, stream: &str, text: &mut String) {
        let Some(which) = self.which.load_full() else {
            return;
        };
        let separator = if text.is_empty() { "" } else { "; " };
        let names = which.0.names(&which.1);
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}stream {stream}: {names} away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(key: &[u8]) -> u128 {
        key.len() as u128
    }

    #[test]
    fn shards_are_found_by_their_ranges_and_told_by_their_names() {
        let shard = |first, name: &str| Shard {
            first,
            name: name.into(),
        };
        let spread = Spread::Ranged {
            find: length,
            shards: [shard(0, "low"), shard(3, "middle"), shard(5, "high")].into(),
        };
        let partition = |name| spread.partition(&DeviceId::parse(name).unwrap());
        assert_eq!(["ab", "abc", "abcd", "abcde"].map(partition), [0, 1, 1, 2]);
        let away = PartitionsAway::default();
        away.set(Some(&spread), &[0, 2].into());
        assert!(away.has(&DeviceId::parse("ab").unwrap()));
        assert!(!away.has(&DeviceId::parse("abc").unwrap()));
        let mut text = "stream b: gone".to_owned();
        away.spell("a", &mut text);
        assert_eq!(text, "stream b: gone; stream a: shards low, high away");
    }
}
