//! Recovery of a folder when the gateway starts: its cursor and its segments.
//!
//! [`walk`] finds the end of a segment's records, [`torn`] the records of the tail behind it. A
//! torn tail that held records goes to quarantine, is logged and counted, and is cut only then:
//! whether its records were answered is not known, since a crash tears bytes that were being
//! written, and a disk damages bytes that were written long ago. Segments whose header is lost go
//! to quarantine as well, other files are left alone. A failed read is an error: a record must not
//! be taken for torn because its disk hesitates.

mod torn;
mod walk;

use std::io;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::index::{Index, Segment};
use super::mark::mark_end;
use super::opened::{NotOpened, Opened};
use super::quarantine::{QUARANTINE, Quarantine};
use crate::spool::disk::Disk;
use crate::spool::format::keys::Keys;
use crate::spool::format::segment::{self, SegmentHeader};
use torn::Torn;
use walk::{Extent, Tail};

/// The findings of a recovery, in figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recovery {
    pub segments: usize,
    /// Bytes of the segments that hold undelivered records.
    pub bytes: u64,
    pub records: u64,
    /// Segments whose header is lost.
    pub lost_segments: u64,
    /// Segments whose tail is torn and held records.
    pub torn_tails: u64,
    /// Records that these tails held, at least.
    pub torn_records: u64,
}

/// The reason why a spool cannot be opened. Nothing was changed that mattered.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Lock(#[from] crate::durable::lock::LockError),
    #[error("the spool in {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{}: {reason}", path.display())]
    Segment { path: PathBuf, reason: NotOpened },
    #[error("the thread of the spool: {0}")]
    Thread(io::Error),
}

impl OpenError {
    fn io(path: &Path, error: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { path, error }
    }
}

impl Recovery {
    /// Pieces of the log that could not be read.
    pub(crate) fn damaged(&self) -> u64 {
        self.lost_segments + self.torn_tails
    }

    fn note_torn(&mut self, torn: Option<Torn>) {
        if let Some(torn) = torn {
            self.torn_tails += 1;
            self.torn_records += torn.records;
        }
    }
}

/// The state that the engine begins with.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub index: Index,
    pub generation: u64,
    pub next: u64,
    pub next_segment: u64,
    pub recovery: Recovery,
}

/// Reads the cursor and the segments of a folder, and leaves every segment ended.
pub(crate) fn recover<D: Disk>(disk: &D, dir: &Path, keys: &Keys) -> Result<Recovered, OpenError> {
    let io = |error| OpenError::io(dir, error);
    let folder = LogFolder { disk, dir, keys };
    let mut recovery = Recovery::default();
    disk.claim(dir).map_err(io)?;
    let cursor = Cursor::read(disk, dir).map_err(io)?.unwrap_or_default();
    let ids = folder.segment_ids().map_err(io)?;
    let opened = folder.open_all(&ids, &mut recovery)?;
    let segments = folder.settle_all(&opened, &cursor, &mut recovery);
    let mut index = Index::new(cursor.low, cursor.done.clone());
    let mut next = cursor.end();
    for segment in segments.map_err(io)? {
        next = next.max(segment.end);
        index.add(segment);
    }
    recovery.segments = opened.len();
    recovery.bytes = index.bytes();
    recovery.records = index.records();
    debug_assert!(index.end() <= next, "a new record's place is a new one");
    Ok(Recovered {
        index,
        generation: cursor.generation,
        next,
        next_segment: next_segment(&ids, &cursor),
        recovery,
    })
}

/// Returns a number that no segment has had, by the folder and its cursor.
fn next_segment(ids: &[u64], cursor: &Cursor) -> u64 {
    let after_last = ids.last().map_or(0, |last| last + 1);
    after_last.max(cursor.next_segment).max(1)
}

/// Returns the place before which all records of a segment had been answered, by the evidence of
/// others: the segment that was created next begins there, or the cursor, if it was written while
/// this one was the newest.
fn answered_end(header: &SegmentHeader, following: Option<&SegmentHeader>, cursor: &Cursor) -> u64 {
    let next_id = header.id + 1;
    match following {
        Some(following) if following.id == next_id => following.base,
        None if cursor.next_segment == next_id => cursor.next,
        _ => 0,
    }
}

/// The folder of a log that is being recovered.
struct LogFolder<'a, D> {
    disk: &'a D,
    dir: &'a Path,
    keys: &'a Keys,
}

impl<D: Disk> LogFolder<'_, D> {
    /// Returns the numbers of the segments, in their order. Other files are left alone.
    fn segment_ids(&self) -> io::Result<Vec<u64>> {
        let mut ids = Vec::new();
        for entry in self.disk.list(self.dir)? {
            ids.extend(segment::parse_file_name(&entry.name));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Opens the segments that can be read.
    fn open_all(
        &self,
        ids: &[u64],
        recovery: &mut Recovery,
    ) -> Result<Vec<Opened<D::File>>, OpenError> {
        let mut segments = Vec::with_capacity(ids.len());
        for &id in ids {
            segments.extend(self.open(id, recovery)?);
        }
        Ok(segments)
    }

    /// Opens a segment; sets aside a segment of which nothing could be read.
    fn open(&self, id: u64, recovery: &mut Recovery) -> Result<Option<Opened<D::File>>, OpenError> {
        let path = self.dir.join(segment::file_name(id));
        let file = self.disk.open(&path).map_err(NotOpened::from);
        let set_aside = match file.and_then(|file| Opened::open(file, self.keys)) {
            Ok(opened) if opened.header.id == id => return Ok(Some(opened)),
            Ok(_) | Err(NotOpened::Damaged) => {
                recovery.lost_segments += 1;
                self.set_lost_aside(id)
            }
            Err(NotOpened::Blank) => self.disk.remove(&path),
            Err(reason) => return Err(OpenError::Segment { path, reason }),
        };
        set_aside.map_err(|error| OpenError::io(&path, error))?;
        Ok(None)
    }

    fn set_lost_aside(&self, id: u64) -> io::Result<()> {
        let file = self.dir.join(segment::file_name(id));
        tracing::error!(file = %file.display(), "the header of a segment is lost: it goes to {QUARANTINE}");
        Quarantine::new(self.dir).keep_segment(self.disk, id)
    }

    fn settle_all(
        &self,
        opened: &[Opened<D::File>],
        cursor: &Cursor,
        recovery: &mut Recovery,
    ) -> io::Result<Vec<Segment>> {
        let mut segments = Vec::with_capacity(opened.len());
        for (at, segment) in opened.iter().enumerate() {
            let following = opened.get(at + 1).map(|following| &following.header);
            segments.push(self.settle(segment, following, cursor, recovery)?);
        }
        Ok(segments)
    }

    /// Finds the end of a segment that is not written any more. A torn tail is logged and cut.
    fn settle(
        &self,
        opened: &Opened<D::File>,
        following: Option<&SegmentHeader>,
        cursor: &Cursor,
        recovery: &mut Recovery,
    ) -> io::Result<Segment> {
        debug_assert!(following.is_none_or(|following| opened.header.id < following.id));
        let limit = following.map_or(u64::MAX, |following| following.base);
        let extent = Extent::find(opened, limit)?;
        let answered = answered_end(&opened.header, following, cursor);
        let torn = Torn::find(opened, &extent, answered, cursor)?;
        let is_kept = match &torn {
            Some(torn) => torn.keep(self.disk, self.dir, opened),
            None => true,
        };
        recovery.note_torn(torn);
        let mut allocated_bytes = opened.bytes()?;
        if extent.tail != Tail::Finished && is_kept {
            allocated_bytes = self.cut(opened, &extent).unwrap_or(allocated_bytes);
        }
        Ok(Segment {
            id: opened.header.id,
            base: opened.header.base,
            end: extent.end,
            bytes: extent.bytes,
            allocated_bytes,
            live: 0,
            active: false,
        })
    }

    /// Cuts a torn tail, which also gives back unused room. Returns the length of the file.
    fn cut(&self, opened: &Opened<D::File>, extent: &Extent) -> io::Result<u64> {
        let SegmentHeader { id, salt, .. } = opened.header;
        let path = self.dir.join(segment::file_name(id));
        let file = self.disk.open_to_write(&path)?;
        mark_end(&file, &salt, extent.bytes, extent.end)
    }
}
