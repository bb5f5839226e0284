//! What a folder holds when the gateway starts: its cursor and its segments.
//!
//! A finished segment tells where it ends in its last 40 bytes; only one that is not is walked, header by header. A walk
//! passes over damage when a header follows it, and takes it for a torn tail when none does. Bodies are read only within
//! the bytes that the last run can have had: what was synced before is whole or the disk damaged it, which the reader
//! finds. What cannot be read is an error: a record must not be taken for torn because its disk hesitates. Torn tails are
//! cut, segments whose header is lost go to quarantine, other files are left alone.
//!
//! Frames that reach past the base of the next segment are dead: they were written there because this segment had failed.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use super::disk::{Disk, DiskFile};
use super::engine::{RUN_BYTES_MAX, mark_end};
use super::frame::{HEADER_BYTES, Header};
use super::index::{Index, Segment};
use super::keys::Keys;
use super::opened::{NotOpened, Opened};
use super::quarantine::{QUARANTINE, Quarantine};
use super::segment::{self, FRAMES_START};

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    pub segments: usize,
    /// Bytes of the segments that hold undelivered records.
    pub bytes: u64,
    pub records: u64,
    /// Segments whose header is lost.
    pub lost_segments: u64,
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

/// What the engine begins with.
#[derive(Debug)]
pub struct Recovered {
    pub index: Index,
    pub generation: u64,
    pub next: u64,
    pub next_segment: u64,
    pub recovery: Recovery,
}

pub fn recover<D: Disk>(disk: &D, dir: &Path, keys: &Keys) -> Result<Recovered, OpenError> {
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
    let after_cursor = cursor
        .done
        .iter()
        .last()
        .map_or(0, |range| range.end)
        .max(cursor.next)
        .max(cursor.low);
    let mut next = after_cursor;
    for (at, opened) in segments.iter().enumerate() {
        let limit = segments
            .get(at + 1)
            .map_or(u64::MAX, |following| following.header.base);
        let extent = extent(opened, limit).map_err(io)?;
        index.add(settle(disk, dir, opened, &extent).map_err(io)?);
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

/// Where the records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Extent {
    end: u64,
    bytes: u64,
    /// A mark stands at the end of the file.
    finished: bool,
}

fn extent<F: DiskFile>(opened: &Opened<F>, limit: u64) -> io::Result<Extent> {
    let file_bytes = opened.bytes()?;
    let mark_at = file_bytes.saturating_sub(HEADER_BYTES as u64);
    let mark = if mark_at >= FRAMES_START {
        opened.frame_at(mark_at, file_bytes)?
    } else {
        None
    };
    match mark.filter(|mark| mark.marks_end() && mark.first <= limit) {
        Some(mark) => Ok(Extent {
            end: mark.first,
            bytes: mark_at,
            finished: true,
        }),
        None => walk(opened, file_bytes, limit),
    }
}

fn walk<F: DiskFile>(opened: &Opened<F>, file_bytes: u64, limit: u64) -> io::Result<Extent> {
    let mut safe = Extent {
        end: opened.header.base,
        bytes: FRAMES_START,
        finished: false,
    };
    let mut recent: VecDeque<(u64, Header)> = VecDeque::new();
    let (mut at, mut place) = (safe.bytes, safe.end);
    while let Some((offset, header)) = next_frame(opened, at..file_bytes, place)? {
        if header.marks_end() || header.end() > limit {
            return Ok(Extent {
                end: header.first.min(limit),
                bytes: offset,
                finished: false,
            });
        }
        recent.push_back((offset, header));
        (at, place) = after(offset, &header);
        while recent.len() > 1 && recent[0].0 + RUN_BYTES_MAX < at {
            (safe.bytes, safe.end) = after(recent[0].0, &recent[0].1);
            recent.pop_front();
        }
    }
    while let Some((offset, header)) = recent.pop_back() {
        if opened.body(offset, &header)?.is_some() {
            (safe.bytes, safe.end) = after(offset, &header);
            break;
        }
    }
    Ok(safe)
}

fn after(offset: u64, header: &Header) -> (u64, u64) {
    (offset + header.frame_bytes(), header.end())
}

/// The frame at the first of these offsets, or the first one after damage.
fn next_frame<F: DiskFile>(
    opened: &Opened<F>,
    offsets: Range<u64>,
    place: u64,
) -> io::Result<Option<(u64, Header)>> {
    let found = opened.frame_at(offsets.start, offsets.end)?;
    match found.filter(|header| header.first >= place) {
        Some(header) => Ok(Some((offsets.start, header))),
        None => opened.find_frame(offsets, place),
    }
}

/// Cuts what is torn, which also gives back the room that was not used.
fn settle<D: Disk>(
    disk: &D,
    dir: &Path,
    opened: &Opened<D::File>,
    extent: &Extent,
) -> io::Result<Segment> {
    let segment::Header { id, base, salt, .. } = opened.header;
    let mut allocated_bytes = opened.bytes()?;
    if !extent.finished {
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
