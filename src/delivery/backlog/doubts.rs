//! Records on disk that the sink has as well and has not answered for.

use std::collections::BTreeMap;
use std::ops::Range;

/// Places that are in doubt.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Start and end of their places.
    ranges: BTreeMap<u64, u64>,
    /// Appends of such records, by a place before which they get none; with their number.
    appending_from: BTreeMap<u64, usize>,
    /// The places, from the first to the last, that may be in doubt no longer, for the drain to
    /// look at.
    cleared: Option<Range<u64>>,
}

impl Doubts {
    /// Records in doubt are on their way to disk: they get no place before this one.
    pub(super) fn begin(&mut self, from: u64) {
        *self.appending_from.entry(from).or_default() += 1;
    }

    /// Notes that an append that began at `from` has got these places, or none.
    pub(super) fn end(&mut self, from: u64, places: Option<&Range<u64>>) {
        let appends = self.appending_from.get_mut(&from);
        let appends = appends.expect("an append that ends has begun");
        *appends -= 1;
        if *appends == 0 {
            self.appending_from.remove(&from);
        }
        if let Some(places) = places {
            debug_assert!(places.start >= from, "places count up");
            self.ranges.insert(places.start, places.end);
        }
        // Waves that waited for the places to be known look again.
        self.look_again(from..u64::MAX);
    }

    /// Ends the doubt about the records at these places: the sink has answered for them.
    pub(super) fn clear(&mut self, places: &Range<u64>) {
        let end = self.ranges.remove(&places.start);
        debug_assert_eq!(end, Some(places.end), "a doubt is cleared once, and whole");
        self.look_again(places.clone());
    }

    fn look_again(&mut self, places: Range<u64>) {
        let known = self.cleared.take().unwrap_or(places.clone());
        self.cleared = Some(known.start.min(places.start)..known.end.max(places.end));
    }

    /// Places that were in doubt when they were asked for, and may be no longer; told once.
    pub(super) fn take_cleared(&mut self) -> Option<Range<u64>> {
        self.cleared.take()
    }

    pub(super) fn contain(&self, place: u64) -> bool {
        let appending = self.appending_from.first_key_value();
        let range = self.ranges.range(..=place).next_back();
        appending.is_some_and(|(from, _)| place >= *from)
            || range.is_some_and(|(_, end)| place < *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubt_lasts_until_it_is_cleared() {
        let mut doubts = Doubts::default();
        doubts.begin(5);
        doubts.begin(5);
        assert!(!doubts.contain(4) && doubts.contain(5) && doubts.contain(99));
        doubts.end(5, Some(&(7..9)));
        assert!(doubts.contain(5), "another append is on its way");
        doubts.end(5, None);
        let in_doubt: Vec<u64> = (0..20).filter(|place| doubts.contain(*place)).collect();
        assert_eq!(in_doubt, [7, 8]);
        assert_eq!(doubts.cleared.take(), Some(5..u64::MAX));
        doubts.clear(&(7..9));
        assert!(!doubts.contain(7));
        assert_eq!(doubts.cleared.take(), Some(7..9));
    }
}
