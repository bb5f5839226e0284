//! The index of a log, in memory: its segments, and the records that are retired.
//!
//! The engine and the readers share it under a lock that is never held during disk work. Records
//! have places, which count up through all segments; a segment holds those from its base to its
//! end. A record is retired once it is delivered, dead, dropped or damaged; until then it waits. A
//! segment whose records are all retired is for the engine to delete.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use super::ranges::Ranges;

/// A segment, up to its last safe frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub id: u64,
    pub base: u64,
    /// The place after its last safe record.
    pub end: u64,
    /// Offset of the end of its last safe frame in the file.
    pub bytes: u64,
    /// Bytes of the quota that the file takes.
    pub allocated_bytes: u64,
    /// Number of records that wait.
    pub live: u64,
    /// Whether frames are still being appended.
    pub active: bool,
}

impl Segment {
    /// Returns a segment that was just created: its first record will have the place `base`.
    pub(crate) fn begun(id: u64, base: u64, bytes: u64, allocated_bytes: u64) -> Self {
        Self {
            id,
            base,
            end: base,
            bytes,
            allocated_bytes,
            live: 0,
            active: true,
        }
    }

    /// Whether it can be deleted.
    fn is_finished(&self) -> bool {
        self.live == 0 && !self.active
    }
}

/// The segments of a log; they are added in the order of their numbers and of their bases.
#[derive(Debug, Default)]
pub(crate) struct Index {
    segments: VecDeque<Segment>,
    totals: Totals,
    /// Numbers of the segments that can be deleted.
    finished: BTreeSet<u64>,
    done: Ranges,
    /// Place before which everything is retired.
    low: u64,
}

/// The sums over all segments, kept so that they need not be counted under the lock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    records: u64,
    bytes: u64,
    allocated_bytes: u64,
}

impl Totals {
    fn of(segment: &Segment) -> Self {
        Self {
            records: segment.live,
            bytes: if segment.live > 0 { segment.bytes } else { 0 },
            allocated_bytes: segment.allocated_bytes,
        }
    }

    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.allocated_bytes += other.allocated_bytes;
    }

    fn subtract(&mut self, other: Self) {
        self.records -= other.records;
        self.bytes -= other.bytes;
        self.allocated_bytes -= other.allocated_bytes;
    }
}

impl Index {
    /// Returns an index that has retired records and no segment yet.
    pub(crate) fn new(low: u64, done: Ranges) -> Self {
        Self {
            done,
            low,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, mut segment: Segment) {
        debug_assert!(segment.base <= segment.end);
        debug_assert!(self.is_behind_all(&segment), "segments come in their order");
        segment.live = records_in(&self.waiting(segment.base..segment.end));
        self.totals.add(Totals::of(&segment));
        if segment.is_finished() {
            self.finished.insert(segment.id);
        }
        self.segments.push_back(segment);
    }

    fn is_behind_all(&self, segment: &Segment) -> bool {
        let newest = self.segments.back();
        newest.is_none_or(|newest| newest.id < segment.id && newest.end <= segment.base)
    }

    /// Changes the segment at this position, and the totals with it.
    fn change(&mut self, at: usize, change: impl FnOnce(&mut Segment)) {
        let segment = &mut self.segments[at];
        self.totals.subtract(Totals::of(segment));
        change(segment);
        self.totals.add(Totals::of(segment));
        if segment.is_finished() {
            self.finished.insert(segment.id);
        } else {
            self.finished.remove(&segment.id);
        }
    }

    fn change_newest(&mut self, change: impl FnOnce(&mut Segment)) {
        let newest = self.segments.len().checked_sub(1);
        let newest = newest.expect("the engine has added the segment that it writes");
        self.change(newest, change);
    }

    /// Returns the parts of these places that wait.
    pub(crate) fn waiting(&self, places: Range<u64>) -> Vec<Range<u64>> {
        let places = places.start.max(self.low)..places.end;
        if places.is_empty() {
            return Vec::new();
        }
        self.done.gaps(places)
    }

    /// Frames up to this place and offset are safe in the newest segment.
    pub(crate) fn grow(&mut self, end: u64, bytes: u64) {
        self.change_newest(|segment| {
            debug_assert!(segment.active && end >= segment.end);
            debug_assert!(segment.bytes <= bytes && bytes <= segment.allocated_bytes);
            segment.live += end - segment.end;
            segment.end = end;
            segment.bytes = bytes;
        });
    }

    /// Finishes the newest segment, whose file has this length now: it gets no more frames.
    pub(crate) fn finish(&mut self, allocated_bytes: u64) {
        self.change_newest(|segment| {
            debug_assert!(segment.active, "a segment is finished once");
            segment.active = false;
            segment.allocated_bytes = allocated_bytes;
        });
    }

    pub(crate) fn remove(&mut self, id: u64) {
        let was_finished = self.finished.remove(&id);
        debug_assert!(was_finished, "only a segment without records is deleted");
        let removed = self.position(id).and_then(|at| self.segments.remove(at));
        let removed = removed.expect("only the engine removes segments, each once");
        self.totals.subtract(Totals::of(&removed));
    }

    fn position(&self, id: u64) -> Option<usize> {
        let segments = &self.segments;
        segments
            .binary_search_by_key(&id, |segment| segment.id)
            .ok()
    }

    /// Retires these records and gives how many waited: some may not be in the log, or were retired
    /// before.
    pub(crate) fn retire(&mut self, ranges: impl IntoIterator<Item = Range<u64>>) -> u64 {
        let before = self.totals.records;
        for range in ranges {
            self.retire_range(range);
        }
        self.advance();
        before - self.totals.records
    }

    fn retire_range(&mut self, range: Range<u64>) {
        for at in self.at(range.start)..self.segments.len() {
            let Segment { base, end, .. } = self.segments[at];
            if base >= range.end {
                break;
            }
            let part = range.start.max(base).max(self.low)..range.end.min(end);
            if part.is_empty() {
                continue;
            }
            let records = records_in(&self.done.insert(part));
            self.change(at, |segment| {
                debug_assert!(records <= segment.live, "what was retired had waited");
                segment.live -= records;
            });
        }
    }

    /// Returns the first segment that ends after this place.
    fn at(&self, place: u64) -> usize {
        self.segments
            .partition_point(|segment| segment.end <= place)
    }

    /// Whether a segment has this place.
    #[cfg(test)]
    pub(crate) fn holds(&self, place: u64) -> bool {
        let segment = self.segments.get(self.at(place));
        segment.is_some_and(|segment| segment.base <= place)
    }

    /// Moves `low` over retired records, and over places that no segment holds.
    fn advance(&mut self) {
        let waiting = self.segments.iter().find(|segment| segment.live > 0);
        let low = match (waiting, self.segments.back()) {
            (Some(segment), _) => self.done.after(segment.base.max(self.low)),
            (None, Some(newest)) => newest.end,
            (None, None) => return,
        };
        self.low = self.low.max(low);
        self.done.forget_below(self.low);
        debug_assert!(
            self.done.after(self.low) == self.low || self.records() == 0,
            "`low` waits, if anything does"
        );
    }

    pub(crate) fn is_done(&self, place: u64) -> bool {
        self.are_done(place..place + 1)
    }

    /// Whether none of these records waits.
    pub(crate) fn are_done(&self, places: Range<u64>) -> bool {
        self.done.after(places.start.max(self.low)) >= places.end
    }

    /// Numbers of the segments that can be deleted.
    pub(crate) fn finished(&self) -> Vec<u64> {
        self.finished.iter().copied().collect()
    }

    pub(crate) fn has_finished(&self) -> bool {
        !self.finished.is_empty()
    }

    pub(crate) fn oldest(&self) -> Option<&Segment> {
        self.segments.front()
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Segment> {
        self.position(id).map(|at| &self.segments[at])
    }

    /// Returns the first segment with records to deliver behind the one with this number, or the
    /// very first.
    pub(crate) fn next_after(&self, id: Option<u64>) -> Option<&Segment> {
        let first = self
            .segments
            .partition_point(|segment| Some(segment.id) <= id);
        let mut following = self.segments.range(first..);
        following.find(|segment| segment.live > 0 || segment.active)
    }

    pub(crate) fn low(&self) -> u64 {
        self.low
    }

    /// Returns the place after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.segments
            .back()
            .map_or(self.low, |segment| segment.end.max(self.low))
    }

    /// Returns the retired ranges beyond `low` that begin at this place or after it.
    pub(crate) fn done_from(&self, place: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        self.done.iter_from(place)
    }

    /// Records that wait.
    pub(crate) fn records(&self) -> u64 {
        self.totals.records
    }

    /// Bytes of the segments that hold records that wait.
    pub(crate) fn bytes(&self) -> u64 {
        self.totals.bytes
    }

    /// Returns the bytes of the quota that the segments take.
    pub(crate) fn allocated_bytes(&self) -> u64 {
        self.totals.allocated_bytes
    }
}

fn records_in(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn index(segments: &[(u64, Range<u64>)]) -> Index {
        let mut index = Index::default();
        for (id, places) in segments.iter().cloned() {
            let Range { start: base, end } = places;
            index.add(Segment {
                id,
                base,
                end,
                bytes: 100,
                allocated_bytes: 200,
                live: 0,
                active: false,
            });
        }
        index
    }

    #[test]
    fn records_are_done_with_once_and_out_of_order() {
        let mut index = index(&[(1, 0..10), (2, 10..20)]);
        assert_eq!(
            (
                index.retire(Some(5..15)),
                index.retire(Some(0..6)),
                index.low()
            ),
            (10, 5, 15)
        );
        assert_eq!(
            (index.finished(), index.records(), index.bytes()),
            (vec![1], 5, 100)
        );
        assert!(index.is_done(14) && !index.is_done(15));
        assert_eq!(
            (index.retire(Some(0..99)), index.low(), index.done.count()),
            (5, 20, 0)
        );
        assert_eq!(index.finished(), [1, 2]);
    }

    #[test]
    fn a_later_segment_may_be_finished_first_and_places_of_no_segment_hold_nothing_up() {
        let mut index = index(&[(1, 0..10), (2, 10..20), (3, 25..30)]);
        index.retire(Some(10..20));
        assert_eq!(index.finished(), [2]);
        index.remove(2);
        index.retire(Some(0..10));
        assert_eq!(
            (
                index.low(),
                index.next_after(None).map(|segment| segment.id)
            ),
            (25, Some(3))
        );
    }

    #[test]
    fn the_newest_segment_grows_and_is_not_deleted_until_it_is_finished() {
        let mut index = index(&[]);
        index.add(Segment::begun(4, 7, 8192, 9000));
        index.grow(9, 8300);
        assert_eq!(
            (index.records(), index.retire(Some(7..9)), index.finished()),
            (2, 2, vec![])
        );
        index.finish(8300);
        assert_eq!((index.finished(), index.allocated_bytes()), (vec![4], 8300));
    }

    #[test]
    fn what_a_cursor_knew_is_not_live() {
        let mut done = Ranges::default();
        done.insert(6..8);
        let mut index = Index::new(3, done);
        index.add(Segment {
            id: 1,
            base: 0,
            end: 10,
            bytes: 1,
            allocated_bytes: 1,
            live: 0,
            active: false,
        });
        assert_eq!(index.records(), 5);
    }

    /// Checks that the totals, which are kept up to date, are those that counting gives.
    fn check(index: &Index) {
        let mut totals = Totals::default();
        for segment in &index.segments {
            totals.add(Totals::of(segment));
            let waiting = index.waiting(segment.base..segment.end);
            let live: u64 = waiting.iter().map(|gap| gap.end - gap.start).sum();
            assert_eq!(segment.live, live, "segment {}", segment.id);
            assert_eq!(index.get(segment.id), Some(segment));
        }
        assert_eq!(index.totals, totals);
        let finished = index
            .segments
            .iter()
            .filter(|segment| segment.is_finished());
        let finished: Vec<u64> = finished.map(|segment| segment.id).collect();
        assert_eq!(
            (index.finished(), index.has_finished()),
            (finished.clone(), !finished.is_empty())
        );
    }

    proptest! {
        #[test]
        fn sums_and_finished_segments_are_kept_up_to_date(
            retired in prop::collection::vec((0_u64..60, 0_u64..20), 0..20),
            grown in prop::collection::vec(0_u64..9, 4),
        ) {
            let mut index = Index::default();
            let mut retired = retired.chunks(4);
            let mut end = 0;
            for (id, grown) in (1..).zip(grown) {
                index.add(Segment::begun(id, end, 100, 200));
                end += grown;
                index.grow(end, 100 + grown);
                check(&index);
                let ranges = retired.next().unwrap_or_default();
                let ranges = ranges.iter().map(|(start, length)| *start..start + length);
                let waiting = index.records();
                prop_assert_eq!(index.retire(ranges), waiting - index.records());
                index.finish(150);
                check(&index);
                if let Some(finished) = index.finished().first() {
                    index.remove(*finished);
                    check(&index);
                }
            }
            for place in 0..end {
                let is_done = index.waiting(place..place + 1).is_empty();
                prop_assert_eq!(index.is_done(place), is_done);
            }
            prop_assert_eq!(index.are_done(0..end), index.waiting(0..end).is_empty());
        }
    }
}
