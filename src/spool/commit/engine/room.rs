//! Room for the next segment: the quota, the deletions that keep it, and the cursor, without which
//! nothing is deleted.
//!
//! The engine calls it, on the commit thread. Records are dropped only if that makes room: a disk
//! that takes neither the cursor nor a deletion costs no record.

use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::{Engine, Refused};
use crate::config::WhenFull;
use crate::spool::disk::Disk;
use crate::spool::format::segment;
use crate::spool::store::cursor::Cursor;
use crate::spool::store::ledger::State;

const CURSOR_INTERVAL: Duration = Duration::from_millis(200);

/// The part of the quota that is free when a full spool is said to have room again.
const FREE_AGAIN_PART: u64 = 8;

/// Ranges of a cursor that is written while records flow.
pub(super) const CURSOR_RANGES_MAX: usize = 4096;

impl<D: Disk> Engine<D> {
    /// Sees to it that a file of so many bytes fits.
    pub(super) fn keep_quota(&mut self, bytes: u64, now: Instant) -> Result<(), Refused> {
        if !self.has_room(bytes) {
            self.delete_finished(now);
        }
        while self.options.when_full == WhenFull::DropOldest
            && !self.has_room(bytes)
            && self.drop_oldest(now)
        {}
        if self.has_room(bytes) {
            return Ok(());
        }
        self.ledger.set_state(State::Full);
        Err(Refused::Full)
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.ledger.index().allocated_bytes() + bytes <= self.options.bytes_max
    }

    /// Drops the oldest segment. Says whether that made room.
    fn drop_oldest(&mut self, now: Instant) -> bool {
        let Some(places) = self.oldest_places() else {
            return false;
        };
        if !self.write_cursor(now, CURSOR_RANGES_MAX) {
            return false;
        }
        let records = self.ledger.index().retire([places]);
        self.options.metrics.records_dropped(records);
        self.dropped.add(records);
        self.tell_of_dropped(now);
        self.delete_finished(now)
    }

    /// Returns the places of the oldest segment; `None` if an older one could not be deleted, which
    /// says that no other can.
    fn oldest_places(&self) -> Option<Range<u64>> {
        let index = self.ledger.index();
        if index.has_finished() {
            return None;
        }
        index.oldest().map(|oldest| oldest.base..oldest.end)
    }

    pub(super) fn tell_of_dropped(&mut self, now: Instant) {
        if let Some(records) = self.dropped.take(now) {
            tracing::warn!(
                records,
                "the spool is full: its oldest records were dropped"
            );
        }
    }

    /// Tells when it becomes full, and when so much is free again that it is no news soon after.
    pub(super) fn tell_of_fullness(&mut self) {
        let (dir, bytes_max) = (self.options.dir.display(), self.options.bytes_max);
        let is_full = self.ledger.state() == State::Full;
        if is_full && !self.told_full {
            self.told_full = true;
            tracing::warn!(%dir, bytes_max, "the spool is full: new records are refused until it has room");
        } else if self.told_full && !is_full && self.has_room(bytes_max / FREE_AGAIN_PART) {
            self.told_full = false;
            tracing::info!(%dir, "the spool has room again");
        }
    }

    /// Writes the cursor, with at most so many ranges. Says whether it is safe.
    pub(super) fn write_cursor(&mut self, now: Instant, ranges_max: usize) -> bool {
        self.ledger.set_dirty(false);
        let (low, done) = self.ledger.done(ranges_max);
        debug_assert!(low <= self.next, "what is retired was written");
        let cursor = Cursor {
            generation: self.generation + 1,
            low,
            next: self.next,
            next_segment: self.next_segment,
            done,
        };
        self.cursor_due = Some(now + CURSOR_INTERVAL);
        if let Err(error) = cursor.write(&*self.disk, &self.options.dir) {
            tracing::debug!(%error, "the cursor of the spool could not be written");
            self.ledger.set_dirty(true);
            return false;
        }
        self.generation = cursor.generation;
        true
    }

    /// Deletes the segments whose records are all retired; says whether it did.
    pub(super) fn delete_finished(&mut self, now: Instant) -> bool {
        let finished = self.ledger.index().finished();
        if finished.is_empty() || !self.write_cursor(now, CURSOR_RANGES_MAX) {
            return false;
        }
        let mut deleted = false;
        for id in finished {
            deleted |= self.delete(id);
        }
        // A segment that comes back after a crash is retired, as the cursor says.
        let _ = self.disk.sync_folder(&self.options.dir);
        deleted
    }

    /// Deletes a segment; says whether it is gone.
    fn delete(&self, id: u64) -> bool {
        let file = self.options.dir.join(segment::file_name(id));
        match self.disk.remove(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, id, "a segment could not be deleted");
                self.ledger.set_dirty(true);
                false
            }
            _ => {
                self.ledger.index().remove(id);
                true
            }
        }
    }
}
