//! Where the records of a segment end.
//!
//! A finished segment tells it in its last 40 bytes; only one that is not is walked, header by header. A walk passes over
//! damage when a header follows it, which the reader finds, and ends where none follows. Bodies are read only within the
//! bytes that the last run can have had: what was synced before is whole, or the reader finds that it is not.
//!
//! Frames that reach past the base of the next segment are dead: they were written there because this segment had failed.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use crate::spool::disk::DiskFile;
use crate::spool::format::frame::{HEADER_BYTES, Header};
use crate::spool::format::segment::{FRAMES_START, RUN_BYTES_MAX};
use crate::spool::store::opened::Opened;

/// Where the records of a segment end, and what follows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The place after the last record.
    pub end: u64,
    /// Where the last frame ends in the file.
    pub bytes: u64,
    pub tail: Tail,
}

/// What stands behind the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// The mark of the end, at the end of the file.
    Finished,
    /// A mark that is not at the end of the file, or dead frames: no record was lost.
    Known,
    /// No frame that could be read. `seen` is the place after the last record of which a header is left, and
    /// `seen_bytes` where its frame would end.
    Open { seen: u64, seen_bytes: u64 },
}

impl Extent {
    /// Of a segment whose records end before the place `limit`.
    pub(crate) fn find<F: DiskFile>(opened: &Opened<F>, limit: u64) -> io::Result<Self> {
        let file_bytes = opened.bytes()?;
        let mark_at = file_bytes.saturating_sub(HEADER_BYTES as u64);
        let mark = if mark_at >= FRAMES_START {
            opened.frame_at(mark_at, file_bytes)?
        } else {
            None
        };
        match mark.filter(|mark| mark.marks_end() && mark.first <= limit) {
            Some(mark) => Ok(Self {
                end: mark.first,
                bytes: mark_at,
                tail: Tail::Finished,
            }),
            None => walk(opened, file_bytes, limit),
        }
    }
}

fn walk<F: DiskFile>(opened: &Opened<F>, file_bytes: u64, limit: u64) -> io::Result<Extent> {
    let (mut bytes, mut end) = (FRAMES_START, opened.header.base);
    let mut recent: VecDeque<(u64, Header)> = VecDeque::new();
    let (mut at, mut place) = (bytes, end);
    while let Some((offset, header)) = next_frame(opened, at..file_bytes, place)? {
        if header.marks_end() || header.end() > limit {
            return Ok(Extent {
                end: header.first.min(limit),
                bytes: offset,
                tail: Tail::Known,
            });
        }
        recent.push_back((offset, header));
        (at, place) = after(offset, &header);
        while recent.len() > 1 && recent[0].0 + RUN_BYTES_MAX < at {
            (bytes, end) = after(recent[0].0, &recent[0].1);
            recent.pop_front();
        }
    }
    while let Some((offset, header)) = recent.pop_back() {
        if opened.body(offset, &header)?.is_some() {
            (bytes, end) = after(offset, &header);
            break;
        }
    }
    let (seen_bytes, seen) = last_seen(opened, at, place)?;
    Ok(Extent {
        end,
        bytes,
        tail: Tail::Open {
            seen: seen.min(limit),
            seen_bytes,
        },
    })
}

fn after(offset: u64, header: &Header) -> (u64, u64) {
    (offset + header.frame_bytes(), header.end())
}

/// The header of a frame whose body the file has lost says how far it went.
fn last_seen<F: DiskFile>(opened: &Opened<F>, at: u64, place: u64) -> io::Result<(u64, u64)> {
    let header = opened.frame_at(at, u64::MAX)?;
    let of_records = header.filter(|header| !header.marks_end() && header.first >= place);
    Ok(of_records.map_or((at, place), |header| after(at, &header)))
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
