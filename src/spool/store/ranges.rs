//! A set of numbers, kept as the ranges that they form.
//!
//! The index keeps in it which records are retired beyond the first that is not. Its size is the
//! number of gaps, which is at most the number of records that wait.

use std::collections::BTreeMap;
use std::ops::Range;

/// The ranges of a set, start and end of each. None is empty and no two touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds a range and gives the parts of it that were not there.
    pub(crate) fn insert(&mut self, range: Range<u64>) -> Vec<Range<u64>> {
        let added = self.gaps(range.clone());
        if added.is_empty() {
            return added;
        }
        let start = self.start_of_touching(range.start);
        let end = self.take_touching(start..range.end);
        debug_assert!(start <= range.start && range.end <= end);
        debug_assert!(self.after(start) == start, "what touched it was taken out");
        self.0.insert(start, end);
        added
    }

    /// Returns the start of the range that holds `number` or ends right before it; `number` if
    /// there is none.
    fn start_of_touching(&self, number: u64) -> u64 {
        match self.0.range(..=number).next_back() {
            Some((&start, &end)) if end >= number => start,
            _ => number,
        }
    }

    /// Takes out the ranges that begin within `range` or right behind it. Gives the end of all of
    /// them together.
    fn take_touching(&mut self, range: Range<u64>) -> u64 {
        let mut end = range.end;
        while let Some((&next, &next_end)) = self.0.range(range.start..=end).next() {
            self.0.remove(&next);
            end = end.max(next_end);
        }
        end
    }

    /// Returns the parts of a range that are not in the set.
    pub(crate) fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        debug_assert!(range.start <= range.end, "a range does not run backward");
        let mut gaps = Vec::new();
        let mut at = self.after(range.start);
        for (&start, &end) in self.0.range(range.start..range.end) {
            if start > at {
                gaps.push(at..start);
            }
            at = at.max(end);
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    /// Returns the first number from `number` on that is not in the set.
    pub(crate) fn after(&self, number: u64) -> u64 {
        let before = self.0.range(..=number).next_back();
        before.map_or(number, |(_, end)| number.max(*end))
    }

    #[cfg(test)]
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.after(number) != number
    }

    /// Forgets everything below `number`.
    pub(crate) fn forget_below(&mut self, number: u64) {
        while let Some((start, end)) = self.0.pop_first() {
            debug_assert!(start < end, "no range is empty");
            if end > number {
                self.0.insert(start.max(number), end);
                return;
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    /// Ranges that begin at this number or after it.
    pub(crate) fn iter_from(&self, number: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.range(number..).map(|(start, end)| *start..*end)
    }

    /// Returns the number of ranges.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_numbers(inserts in prop::collection::vec((0_u64..60, 0_u64..9), 0..30), below in 0_u64..70) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (start, length) in inserts {
                let added: Vec<u64> = ranges.insert(start..start + length).into_iter().flatten().collect();
                let expected: Vec<u64> = (start..start + length).filter(|number| set.insert(*number)).collect();
                prop_assert_eq!(added, expected);
            }
            ranges.forget_below(below);
            set.retain(|number| *number >= below);
            prop_assert_eq!(ranges.iter().flatten().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            let touching = ranges.iter().zip(ranges.iter().skip(1)).any(|(left, right)| left.end >= right.start);
            prop_assert!(!touching && ranges.count() <= set.len());
            for number in 0..70 {
                prop_assert_eq!(ranges.contains(number), set.contains(&number));
            }
        }
    }
}
