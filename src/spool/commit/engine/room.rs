//! Room for the next segment: the quota, what is deleted to keep it, and the cursor, without which nothing is deleted.
//!
//! The engine calls it, on the commit thread. Records are dropped only while the disk does what makes room of them: a disk
//! that takes neither the cursor nor a deletion costs no record.

use std::io;
use std::time::{Duration, Instant};

use super::{Engine, Refused};
use crate::config::WhenFull;
use crate::spool::disk::Disk;
use crate::spool::format::segment;
use crate::spool::store::cursor::Cursor;
use crate::spool::store::ledger::State;

const CURSOR_INTERVAL: Duration = Duration::from_millis(200);

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
        self.shared.set_state(State::Full);
        Err(Refused::Full)
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.shared.index().allocated_bytes() + bytes <= self.options.bytes_max
    }

    /// Says whether that made room.
    fn drop_oldest(&mut self, now: Instant) -> bool {
        let oldest = {
            let index = self.shared.index();
            let oldest = index.oldest().map(|oldest| oldest.base..oldest.end);
            oldest.filter(|_| !index.has_finished())
        };
        // What could not be deleted before, or a cursor that cannot be written, says that nothing can be deleted now.
        let Some(places) = oldest.filter(|_| self.write_cursor(now, CURSOR_RANGES_MAX)) else {
            return false;
        };
        let records = self.shared.index().retire([places]);
        self.options.metrics.records_dropped(records);
        self.dropped.add(records);
        self.tell_of_dropped(now);
        self.delete_finished(now)
    }

    pub(super) fn tell_of_dropped(&mut self, now: Instant) {
        if let Some(records) = self.dropped.take(now) {
            tracing::warn!(
                records,
                "the spool is full: its oldest records were dropped"
            );
        }
    }

    /// Says whether the cursor is safe.
    pub(super) fn write_cursor(&mut self, now: Instant, ranges_max: usize) -> bool {
        self.shared.set_dirty(false);
        let generation = self.generation + 1;
        let (low, done) = self.shared.done(ranges_max);
        let cursor = Cursor {
            generation,
            low,
            next: self.next,
            next_segment: self.next_segment,
            done,
        };
        self.cursor_due = Some(now + CURSOR_INTERVAL);
        match cursor.write(&*self.disk, &self.options.dir) {
            Ok(()) => self.generation = generation,
            Err(error) => {
                tracing::debug!(%error, "the cursor of the spool could not be written");
                self.shared.set_dirty(true);
                return false;
            }
        }
        true
    }

    /// Deletes segments whose records are all done with; says whether it did.
    pub(super) fn delete_finished(&mut self, now: Instant) -> bool {
        let finished = self.shared.index().finished();
        if finished.is_empty() || !self.write_cursor(now, CURSOR_RANGES_MAX) {
            return false;
        }
        let mut deleted = false;
        for id in finished {
            match self
                .disk
                .remove(&self.options.dir.join(segment::file_name(id)))
            {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!(%error, id, "a segment could not be deleted");
                    self.shared.set_dirty(true);
                }
                _ => {
                    self.shared.index().remove(id);
                    deleted = true;
                }
            }
        }
        // A segment that comes back after a crash is done with, as the cursor says.
        let _ = self.disk.sync_folder(&self.options.dir);
        deleted
    }
}
