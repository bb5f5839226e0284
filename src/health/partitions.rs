//! Which partitions of a stream are away, and which devices write to them.
//!
//! Delivery knows the first, the sink's partitioner the second. A request for a stream of which no
//! partition is away pays for one relaxed load.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

use crate::record::DeviceId;

/// Finds the partition of a key, from 0, among so many.
pub(crate) type Partitioner = fn(key: &[u8], partitions: u32) -> u32;

/// How the records of a stream are spread over its partitions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub find: Partitioner,
    /// At least one.
    pub partitions: u32,
}

impl Spread {
    /// The partition of the device's records.
    pub(crate) fn partition(&self, device: &DeviceId) -> u32 {
        let partition = (self.find)(device.as_str().as_bytes(), self.partitions);
        debug_assert!(partition < self.partitions, "a partition of the stream");
        partition
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
    pub(super) fn set(&self, spread: Option<Spread>, away: &BTreeSet<u32>) {
        let any = !away.is_empty();
        debug_assert!(spread.is_some() || !any);
        let spread = spread.filter(|_| any);
        let which = spread.map(|spread| (spread, away.clone()).into());
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
        let (separator, noun) = (
            if text.is_empty() { "" } else { "; " },
            if which.1.len() == 1 {
                "partition"
            } else {
                "partitions"
            },
        );
        let numbers: Vec<String> = which.1.iter().map(u32::to_string).collect();
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "{separator}stream {stream}: {noun} {} away",
            numbers.join(", ")
        );
    }
}
