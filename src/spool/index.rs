//! What the spool holds, in memory: its segments, and which records are done with.
//!
//! The engine and the readers share it under a lock that nobody holds during disk work. Records have places, which count
//! up through all segments; a segment holds those from its base to its end. A record is done with once it is delivered,
//! dead, dropped or damaged. A segment whose records are all done with is for the engine to delete.

use std::collections::VecDeque;
use std::ops::Range;

use super::ranges::Ranges;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub id: u64,
    pub base: u64,
    /// The place after its last safe record.
    pub end: u64,
    /// Where its last safe frame ends in the file.
    pub bytes: u64,
    /// What the file takes of the quota.
    pub allocated_bytes: u64,
    /// Records that are not done with.
    pub live: u64,
    /// Frames are still being appended.
    pub active: bool,
}

#[derive(Debug, Default)]
pub struct Index {
    segments: VecDeque<Segment>,
    done: Ranges,
    /// Everything before this place is done with.
    low: u64,
}

impl Index {
    /// Knows what is done with and no segment yet; segments are added in the order of their bases.
    pub fn new(low: u64, done: Ranges) -> Self {
        Self {
            segments: VecDeque::new(),
            done,
            low,
        }
    }

    pub fn add(&mut self, mut segment: Segment) {
        segment.live = self.count_live(segment.base..segment.end);
        self.segments.push_back(segment);
    }

    fn count_live(&self, range: Range<u64>) -> u64 {
        let from_low = range.start.max(self.low)..range.end.max(self.low);
        if from_low.is_empty() {
            0
        } else {
            self.done
                .gaps(from_low)
                .iter()
                .map(|gap| gap.end - gap.start)
                .sum()
        }
    }

    /// Frames up to this place and offset are safe in the newest segment.
    pub fn grow(&mut self, end: u64, bytes: u64) {
        if let Some(segment) = self.segments.back_mut() {
            segment.live += end - segment.end;
            (segment.end, segment.bytes) = (end, bytes);
        }
    }

    /// No more frames come to the newest segment, whose file has this length now.
    pub fn finish(&mut self, allocated_bytes: u64) {
        if let Some(segment) = self.segments.back_mut() {
            segment.active = false;
            segment.allocated_bytes = allocated_bytes;
        }
    }

    pub fn remove(&mut self, id: u64) {
        self.segments.retain(|segment| segment.id != id);
    }

    /// These records are done with. What is not in the spool, or was done with before, counts no more; gives how many
    /// do.
    pub fn retire(&mut self, range: Range<u64>) -> u64 {
        let mut retired = 0;
        for at in self.at(range.start)..self.segments.len() {
            let Segment { base, end, .. } = self.segments[at];
            if base >= range.end {
                break;
            }
            let part = range.start.max(base).max(self.low)..range.end.min(end);
            if !part.is_empty() {
                let added: u64 = self
                    .done
                    .insert(part)
                    .iter()
                    .map(|added| added.end - added.start)
                    .sum();
                self.segments[at].live -= added;
                retired += added;
            }
        }
        self.advance();
        retired
    }

    /// The first segment that ends after this place.
    fn at(&self, place: u64) -> usize {
        self.segments
            .partition_point(|segment| segment.end <= place)
    }

    /// Whether a segment has this place.
    #[cfg(test)]
    pub fn holds(&self, place: u64) -> bool {
        let segment = self.segments.get(self.at(place));
        segment.is_some_and(|segment| segment.base <= place)
    }

    /// Moves `low` over what is done with, and over places that no segment holds.
    fn advance(&mut self) {
        let waiting = self.segments.iter().find(|segment| segment.live > 0);
        let low = match (waiting, self.segments.back()) {
            (Some(segment), _) => self.done.after(segment.base.max(self.low)),
            (None, Some(newest)) => newest.end,
            (None, None) => return,
        };
        self.low = self.low.max(low);
        self.done.forget_below(self.low);
    }

    pub fn is_done(&self, place: u64) -> bool {
        place < self.low || self.done.contains(place)
    }

    /// Segments that can be deleted.
    pub fn finished(&self) -> Vec<u64> {
        let finished = self
            .segments
            .iter()
            .filter(|segment| segment.live == 0 && !segment.active);
        finished.map(|segment| segment.id).collect()
    }

    pub fn oldest(&self) -> Option<&Segment> {
        self.segments.front()
    }

    pub fn get(&self, id: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.id == id)
    }

    /// The first segment with records to deliver behind the one with this number, or the very first.
    pub fn next_after(&self, id: Option<u64>) -> Option<&Segment> {
        self.segments
            .iter()
            .find(|segment| Some(segment.id) > id && (segment.live > 0 || segment.active))
    }

    pub fn low(&self) -> u64 {
        self.low
    }

    /// The place after the last record.
    pub fn end(&self) -> u64 {
        self.segments
            .back()
            .map_or(self.low, |segment| segment.end.max(self.low))
    }

    pub fn done(&self) -> &Ranges {
        &self.done
    }

    /// Records that are not done with.
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.live).sum()
    }

    /// Bytes of the segments that hold such records.
    pub fn bytes(&self) -> u64 {
        self.segments
            .iter()
            .filter(|segment| segment.live > 0)
            .map(|segment| segment.bytes)
            .sum()
    }

    /// What the segments take of the quota.
    pub fn allocated_bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| segment.allocated_bytes)
            .sum()
    }
}

#[cfg(test)]
mod tests {
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
            (index.retire(5..15), index.retire(0..6), index.low()),
            (10, 5, 15)
        );
        assert_eq!(
            (index.finished(), index.records(), index.bytes()),
            (vec![1], 5, 100)
        );
        assert!(index.is_done(14) && !index.is_done(15));
        assert_eq!(
            (index.retire(0..99), index.low(), index.done().count()),
            (5, 20, 0)
        );
        assert_eq!(index.finished(), [1, 2]);
    }

    #[test]
    fn a_later_segment_may_be_finished_first_and_places_of_no_segment_hold_nothing_up() {
        let mut index = index(&[(1, 0..10), (2, 10..20), (3, 25..30)]);
        index.retire(10..20);
        assert_eq!(index.finished(), [2]);
        index.remove(2);
        index.retire(0..10);
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
        index.add(Segment {
            id: 4,
            base: 7,
            end: 7,
            bytes: 8192,
            allocated_bytes: 9000,
            live: 0,
            active: true,
        });
        index.grow(9, 8300);
        assert_eq!(
            (index.records(), index.retire(7..9), index.finished()),
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
}
