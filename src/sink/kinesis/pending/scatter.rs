//! Hashes places among the shards' keys for a map.
//!
//! A place is a hash already, but whoever chooses names of devices knows it: two halves with a seed
//! each, multiplied, so that nobody can tell which of them share a bucket.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Makes hashers with seeds of their own.
#[derive(Clone, Debug)]
pub(in super::super) struct Scatter([u64; 2]);

/// Has one place, scattered.
pub(in super::super) struct Scattered {
    seeds: [u64; 2],
    hash: u64,
}

impl Scatter {
    pub(crate) fn new() -> Self {
        let random = RandomState::new();
        Self([random.hash_one(0), random.hash_one(1)])
    }
}

impl BuildHasher for Scatter {
    type Hasher = Scattered;

    fn build_hasher(&self) -> Scattered {
        Scattered {
            seeds: self.0,
            hash: 0,
        }
    }
}

impl Hasher for Scattered {
    fn write_u128(&mut self, place: u128) {
        let low = place as u64 ^ self.seeds[0];
        let high = (place >> 64) as u64 ^ self.seeds[1];
        let product = u128::from(low) * u128::from(high);
        self.hash = (product >> 64) as u64 ^ product as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "{} bytes are no place", bytes.len());
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}
