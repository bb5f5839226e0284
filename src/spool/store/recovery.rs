//! What a folder holds when the gateway starts: its cursor and its segments.
//!
//! [`walk`] finds where the records of a segment end, [`torn`] what stands behind them. A torn tail that held records goes
//! to quarantine, is told in the log and counted, and is cut only then: whether its records were answered is not known,
//! since a crash tears what was being written, and a disk damages what was written long ago. Segments whose header is lost
//! go to quarantine as well, other files are left alone. What cannot be read is an error: a record must not be taken for
//! torn because its disk hesitates.

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
use crate::spool::format::segment;
use torn::Torn;
use walk::{Extent, Tail};

/// What was found.
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

/// Why a spool cannot be opened. Nothing was changed that mattered.
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

/// What the engine begins with.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub index: Index,
    pub generation: u64,
    pub next: u64,
    pub next_segment: u64,
    pub recovery: Recovery,
}

pub(crate) fn recover<D: Disk>(disk: &D, dir: &Path, keys: &Keys) -> Result<Recovered, OpenError> {
    let io = |error| OpenError::Io {
        path: dir.to_owned(),
        error,
    };
    disk.claim(dir).map_err(io)?;
    let cursor = Cursor::read(disk, dir).map_err(io)?.unwrap_or_default();
    let names = disk
        .list(dir)
        .map_err(io)?
        .into_iter()
        .map(|entry| entry.name);
    let mut ids: Vec<u64> = names
        .filter_map(|name| segment::parse_file_name(&name))
        .collect();
    ids.sort_unstable();
    let mut recovery = Recovery::default();
    let mut segments = Vec::new();
    for &id in &ids {
        segments.extend(open(disk, dir, id, keys, &mut recovery)?);
    }
    let mut index = Index::new(cursor.low, cursor.done.clone());
    let mut next = cursor.end();
    for (at, opened) in segments.iter().enumerate() {
        let following = segments.get(at + 1).map(|following| &following.header);
        let limit = following.map_or(u64::MAX, |following| following.base);
        let extent = Extent::find(opened, limit).map_err(io)?;
        let answered = answered_end(&opened.header, following, &cursor);
        let torn = Torn::find(opened, &extent, answered, &cursor).map_err(io)?;
        let may_cut = torn
            .as_ref()
            .is_none_or(|torn| torn.keep(disk, dir, opened));
        recovery.note_torn(torn);
        index.add(settle(disk, dir, opened, &extent, may_cut).map_err(io)?);
        next = next.max(extent.end);
    }
    let next_segment = ids
        .last()
        .map_or(0, |last| last + 1)
        .max(cursor.next_segment)
        .max(1);
    recovery = Recovery {
        segments: segments.len(),
        bytes: index.bytes(),
        records: index.records(),
        ..recovery
    };
    Ok(Recovered {
        index,
        generation: cursor.generation,
        next,
        next_segment,
        recovery,
    })
}

/// The segment, unless it holds nothing that could be read.
fn open<D: Disk>(
    disk: &D,
    dir: &Path,
    id: u64,
    keys: &Keys,
    recovery: &mut Recovery,
) -> Result<Option<Opened<D::File>>, OpenError> {
    let path = dir.join(segment::file_name(id));
    let io = |error| OpenError::Io {
        path: path.clone(),
        error,
    };
    let opened = disk
        .open(&path)
        .map_err(NotOpened::from)
        .and_then(|file| Opened::open(file, keys));
    match opened {
        Ok(opened) if opened.header.id == id => return Ok(Some(opened)),
        Err(NotOpened::Blank) => disk.remove(&path).map_err(io)?,
        Ok(_) | Err(NotOpened::Damaged) => {
            tracing::error!(file = %path.display(), "the header of a segment is lost: it goes to {QUARANTINE}");
            Quarantine::new(dir).keep_file(disk, &path).map_err(io)?;
            recovery.lost_segments += 1;
        }
        Err(reason) => return Err(OpenError::Segment { path, reason }),
    }
    Ok(None)
}

/// The place before which all records of a segment had been answered, as far as others know it: the segment that was
/// created next begins there, or the cursor, if it was written while this one was the newest.
fn answered_end(
    header: &segment::Header,
    following: Option<&segment::Header>,
    cursor: &Cursor,
) -> u64 {
    let next_id = header.id + 1;
    match following {
        Some(following) if following.id == next_id => following.base,
        None if cursor.next_segment == next_id => cursor.next,
        _ => 0,
    }
}

/// Cuts what is torn, which also gives back the room that was not used.
fn settle<D: Disk>(
    disk: &D,
    dir: &Path,
    opened: &Opened<D::File>,
    extent: &Extent,
    may_cut: bool,
) -> io::Result<Segment> {
    let segment::Header { id, base, salt, .. } = opened.header;
    let mut allocated_bytes = opened.bytes()?;
    if extent.tail != Tail::Finished && may_cut {
        let file = disk.open_to_write(&dir.join(segment::file_name(id)));
        let cut = file.and_then(|file| mark_end(&file, &salt, extent.bytes, extent.end));
        allocated_bytes = cut.unwrap_or(allocated_bytes);
    }
    let Extent { end, bytes, .. } = *extent;
    Ok(Segment {
        id,
        base,
        end,
        bytes,
        allocated_bytes,
        live: 0,
        active: false,
    })
}
