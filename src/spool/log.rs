//! A log as delivery holds it: hands drafts to the commit thread, gives readers, and takes back what is done with.
//!
//! Nothing here waits, not for the disk and not for the thread. Clones are of the same log.

use std::ops::Range;
use std::sync::Arc;

use super::disk::Disk;
use super::engine::Refused;
use super::frame::body::Draft;
use super::reader::{Reader, Source};
use super::shared::State;
use super::thread::Commits;

pub struct Log<D: Disk> {
    id: usize,
    source: Source<D>,
    commits: Arc<Commits>,
}

impl<D: Disk> Clone for Log<D> {
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            source: self.source.clone(),
            commits: self.commits.clone(),
        }
    }
}

impl<D: Disk> Log<D> {
    pub(super) fn new(id: usize, source: Source<D>, commits: Arc<Commits>) -> Self {
        let nudged = commits.clone();
        let source = Source {
            nudge: Arc::new(move || nudged.nudge()),
            ..source
        };
        Self {
            id,
            source,
            commits,
        }
    }

    /// Hands a draft over. The answer comes on the commit thread, once the draft is safe or refused: record `i` then has
    /// place `start + i`. When nothing more can be handed over it comes at once, here. Should the thread be lost it is
    /// dropped without a call, and with it what it owns.
    pub fn append(
        &self,
        draft: Draft,
        answer: impl FnOnce(Result<Range<u64>, Refused>) + Send + 'static,
    ) {
        self.commits.push(self.id, draft, Box::new(answer));
    }

    /// These records are done with: they are not read again, and their room is given back in time.
    pub(crate) fn retire(&self, places: impl IntoIterator<Item = Range<u64>>) {
        self.source.retire(places);
    }

    /// Whether the record at this place is done with.
    pub(crate) fn is_done(&self, place: u64) -> bool {
        self.source.shared.index().is_done(place)
    }

    /// Begins with the oldest record that is not done with.
    pub fn reader(&self) -> Reader<D> {
        Reader::new(self.source.clone())
    }

    /// Begins with the oldest record that is not done with and not before this place.
    pub(crate) fn reader_from(&self, place: u64) -> Reader<D> {
        Reader::from_place(self.source.clone(), place)
    }

    /// Whether drafts are taken now.
    pub(crate) fn state(&self) -> State {
        self.source.shared.state()
    }

    /// From the first place that is not done with to the one after the last.
    pub(crate) fn places(&self) -> Range<u64> {
        let index = self.source.shared.index();
        index.low()..index.end()
    }

    /// Records that are not done with.
    pub fn records(&self) -> u64 {
        self.source.shared.index().records()
    }
}
