//! A log as delivery holds it: it hands drafts to the commit thread, gives readers, and retires
//! delivered records.
//!
//! Nothing here waits, not for the disk and not for the thread. Clones are of the same log.

use std::ops::Range;
use std::sync::Arc;

use super::engine::Refused;
use super::thread::Commits;
use crate::spool::disk::Disk;
use crate::spool::format::body::Draft;
use crate::spool::store::ledger::State;
use crate::spool::store::reader::{LogSource, Reader};

/// One log of the spool, for all who append to it, read it and retire its records.
pub struct Log<D: Disk> {
    id: usize,
    source: LogSource<D>,
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
    pub(crate) fn new(id: usize, source: LogSource<D>, commits: Arc<Commits>) -> Self {
        let nudged = commits.clone();
        let nudge = Arc::new(move || nudged.nudge());
        Self {
            id,
            source: LogSource { nudge, ..source },
            commits,
        }
    }

    /// Hands a draft over. The answer comes on the commit thread, once the draft is safe or
    /// refused: record `i` then has place `start + i`. If the queue is full or closed, the answer
    /// comes at once, here. If the thread is lost, the callback is dropped without a call, and all
    /// that it owns with it.
    pub fn append(
        &self,
        draft: Draft,
        answer: impl FnOnce(Result<Range<u64>, Refused>) + Send + 'static,
    ) {
        self.commits.push(self.id, draft, Box::new(answer));
    }

    /// Retires these records: they are not read again, and their room is given back in time.
    pub(crate) fn retire(&self, places: impl IntoIterator<Item = Range<u64>>) {
        self.source.retire(places);
    }

    /// Whether the record at this place is retired.
    pub(crate) fn is_done(&self, place: u64) -> bool {
        self.source.ledger.index().is_done(place)
    }

    /// Returns a reader that begins with the oldest record that waits.
    pub fn reader(&self) -> Reader<D> {
        Reader::new(self.source.clone())
    }

    /// Returns a reader that begins with the oldest record that waits and is not before this place.
    pub(crate) fn reader_from(&self, place: u64) -> Reader<D> {
        Reader::from_place(self.source.clone(), place)
    }

    /// Whether drafts are taken now.
    pub(crate) fn state(&self) -> State {
        self.source.ledger.state()
    }

    /// Returns the places from the first that is not retired to the one after the last.
    pub(crate) fn places(&self) -> Range<u64> {
        let index = self.source.ledger.index();
        debug_assert!(index.low() <= index.end());
        index.low()..index.end()
    }

    /// Records that wait.
    pub fn records(&self) -> u64 {
        self.source.ledger.index().records()
    }
}
