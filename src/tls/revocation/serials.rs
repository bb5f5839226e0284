//! A set of serial numbers, packed: those of one length stand sorted, one after another, without
//! anything between.
//!
//! Made once, asked by binary search. Authorities write serial numbers of one or two lengths, so a
//! million of them cost their own bytes and nothing more.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Serial numbers without leading zeros.
#[derive(Debug, Default)]
pub(crate) struct Serials {
    /// Serial numbers by their length in bytes; zero, which has none, is kept apart.
    packed: BTreeMap<usize, Box<[u8]>>,
    has_zero: bool,
}

impl Serials {
    /// Packs serial numbers of any order; what is there twice counts once.
    pub(crate) fn new(mut serials: Vec<&[u8]>) -> Self {
        serials.sort_unstable_by_key(|serial| (serial.len(), *serial));
        serials.dedup();
        let mut packed = BTreeMap::new();
        for same_length in serials.chunk_by(|one, next| one.len() == next.len()) {
            packed.insert(same_length[0].len(), same_length.concat().into());
        }
        let has_zero = packed.remove(&0).is_some();
        Self { packed, has_zero }
    }

    pub(crate) fn contains(&self, serial: &[u8]) -> bool {
        if serial.is_empty() {
            return self.has_zero;
        }
        let Some(packed) = self.packed.get(&serial.len()) else {
            return false;
        };
        contains(packed, serial)
    }

    pub(crate) fn len(&self) -> usize {
        let mut len = usize::from(self.has_zero);
        for (length, packed) in &self.packed {
            len += packed.len() / length;
        }
        len
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let zero = self.has_zero.then_some(&[][..]);
        let by_length = self.packed.iter();
        let others = by_length.flat_map(|(length, packed)| packed.chunks_exact(*length));
        zero.into_iter().chain(others)
    }
}

/// Looks for a serial number among sorted ones of its length.
fn contains(packed: &[u8], serial: &[u8]) -> bool {
    debug_assert!(packed.len().is_multiple_of(serial.len()), "all are as long");
    let mut from = 0;
    let mut to = packed.len() / serial.len();
    while from < to {
        let middle = from.midpoint(to);
        match packed[middle * serial.len()..][..serial.len()].cmp(serial) {
            Ordering::Equal => return true,
            Ordering::Less => from = middle + 1,
            Ordering::Greater => to = middle,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::collection::{hash_set, vec};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_set_that_it_was_made_of(
            serials in hash_set(vec(0..4_u8, 0..4), 0..40),
            others in vec(vec(0..4_u8, 0..5), 0..40),
        ) {
            let twice: Vec<&[u8]> = serials.iter().chain(&serials).map(|serial| &serial[..]).collect();
            let set = Serials::new(twice);
            prop_assert_eq!(set.len(), serials.len());
            prop_assert_eq!(set.iter().map(<[u8]>::to_vec).collect::<HashSet<_>>(), serials.clone());
            for serial in serials.iter().chain(&others) {
                prop_assert_eq!(set.contains(serial), serials.contains(serial));
            }
        }
    }
}
