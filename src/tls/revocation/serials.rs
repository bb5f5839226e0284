//! A set of serial numbers, packed: those of one length stand sorted, one after another, without anything between.
//!
//! Made once, asked by binary search. Authorities write serial numbers of one or two lengths, so a million of them cost
//! their own bytes and nothing more.

use std::collections::BTreeMap;

/// Serial numbers without leading zeros.
#[derive(Debug, Default)]
pub(crate) struct Serials {
    /// By their length in bytes; zero, which has none, is kept apart.
    packed: BTreeMap<usize, Box<[u8]>>,
    has_zero: bool,
}

impl Serials {
    /// In any order; what is there twice counts once.
    pub(crate) fn new(mut serials: Vec<&[u8]>) -> Self {
        serials.sort_unstable_by_key(|serial| (serial.len(), *serial));
        serials.dedup();
        let has_zero = serials.first().is_some_and(|serial| serial.is_empty());
        let same_length = serials
            .chunk_by(|one, next| one.len() == next.len())
            .filter(|chunk| !chunk[0].is_empty());
        let packed = same_length
            .map(|chunk| (chunk[0].len(), chunk.concat().into()))
            .collect();
        Self { packed, has_zero }
    }

    pub(crate) fn contains(&self, serial: &[u8]) -> bool {
        if serial.is_empty() {
            return self.has_zero;
        }
        let Some(packed) = self.packed.get(&serial.len()) else {
            return false;
        };
        let (mut from, mut to) = (0, packed.len() / serial.len());
        while from < to {
            let middle = from.midpoint(to);
            match packed[middle * serial.len()..][..serial.len()].cmp(serial) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => from = middle + 1,
                std::cmp::Ordering::Greater => to = middle,
            }
        }
        false
    }

    pub(crate) fn len(&self) -> usize {
        self.packed
            .iter()
            .map(|(length, packed)| packed.len() / length)
            .sum::<usize>()
            + usize::from(self.has_zero)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let zero = self.has_zero.then_some(&[][..]);
        zero.into_iter().chain(
            self.packed
                .iter()
                .flat_map(|(length, packed)| packed.chunks_exact(*length)),
        )
    }
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
