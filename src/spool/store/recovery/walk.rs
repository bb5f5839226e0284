//! Finds the end of a segment's records.
//!
//! A finished segment tells it in its last 40 bytes; only an unfinished one is walked, header by
//! header. A walk passes over damage that a header follows, which the reader finds, and ends at
//! damage that none follows. Bodies are read only within the bytes that the last run can have had:
//! earlier ones were synced and are whole, or the reader finds that they are not.
//!
//! Frames that reach past the base of the next segment are dead: they were written there because
//! this segment had failed.

use std::collections::VecDeque;
use std::io;

use crate::spool::disk::DiskFile;
use crate::spool::format::frame::{FrameHeader, MARK_BYTES};
use crate::spool::format::segment::{FRAMES_START, RUN_BYTES_MAX};
use crate::spool::store::opened::Opened;

/// The end of a segment's records, and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The place after the last record.
    pub end: u64,
    /// Offset of the end of the last frame in the file.
    pub bytes: u64,
    pub tail: Tail,
}

/// The bytes behind the last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// The mark of the end, at the end of the file.
    Finished,
    /// A mark that is not at the end of the file, or dead frames: no record was lost.
    Known,
    /// No frame that could be read. `seen` is the place after the last record of which a header is
    /// left, and `seen_bytes` where its frame would end.
    Open { seen: u64, seen_bytes: u64 },
}

impl Extent {
    /// Finds the extent of a segment whose records end before the place `limit`.
    pub(crate) fn find<F: DiskFile>(opened: &Opened<F>, limit: u64) -> io::Result<Self> {
        let file_bytes = opened.bytes()?;
        let mark_at = file_bytes.saturating_sub(MARK_BYTES);
        let mark = match mark_at {
            FRAMES_START.. => opened.frame_at(mark_at, file_bytes)?,
            _ => None,
        };
        match mark {
            Some(mark) if mark.marks_end() && mark.first <= limit => Ok(Self {
                end: mark.first,
                bytes: mark_at,
                tail: Tail::Finished,
            }),
            _ => walk(opened, file_bytes, limit),
        }
    }
}

fn walk<F: DiskFile>(opened: &Opened<F>, file_bytes: u64, limit: u64) -> io::Result<Extent> {
    let mut walk = Walk::new(opened.header.base);
    while let Some((offset, header)) = next_frame(opened, walk.ahead, file_bytes)? {
        if header.marks_end() || header.end() > limit {
            return Ok(Extent {
                end: header.first.min(limit),
                bytes: offset,
                tail: Tail::Known,
            });
        }
        walk.pass(offset, header);
    }
    let ahead = walk.ahead;
    let whole = walk.last_whole(opened)?;
    let seen = last_seen(opened, ahead)?;
    debug_assert!(whole.offset <= seen.offset);
    Ok(Extent {
        end: whole.place,
        bytes: whole.offset,
        tail: Tail::Open {
            seen: seen.place.min(limit),
            seen_bytes: seen.offset,
        },
    })
}

/// An offset in a segment, behind a frame, and the place after its last record.
#[derive(Clone, Copy)]
struct Point {
    offset: u64,
    place: u64,
}

impl Point {
    fn behind(offset: u64, header: &FrameHeader) -> Self {
        Self {
            offset: offset + header.frame_bytes(),
            place: header.end(),
        }
    }
}

/// A walk over the headers of a segment.
struct Walk {
    /// The point behind the last frame that was synced in an earlier run than the last.
    whole: Point,
    /// Headers that the last run can have had, and their offsets.
    recent: VecDeque<(u64, FrameHeader)>,
    /// The point at which the next header is looked for.
    ahead: Point,
}

impl Walk {
    fn new(base: u64) -> Self {
        let start = Point {
            offset: FRAMES_START,
            place: base,
        };
        Self {
            whole: start,
            recent: VecDeque::new(),
            ahead: start,
        }
    }

    fn pass(&mut self, offset: u64, header: FrameHeader) {
        debug_assert!(self.ahead.offset <= offset && self.ahead.place <= header.first);
        self.recent.push_back((offset, header));
        self.ahead = Point::behind(offset, &header);
        while self.recent.len() > 1 && self.recent[0].0 + RUN_BYTES_MAX < self.ahead.offset {
            self.whole = Point::behind(self.recent[0].0, &self.recent[0].1);
            self.recent.pop_front();
        }
    }

    /// Returns the point behind the last frame whose body is whole.
    fn last_whole<F: DiskFile>(mut self, opened: &Opened<F>) -> io::Result<Point> {
        while let Some((offset, header)) = self.recent.pop_back() {
            if opened.body(offset, &header)?.is_some() {
                return Ok(Point::behind(offset, &header));
            }
        }
        Ok(self.whole)
    }
}

/// Returns the end of the last frame of which a header is left, though the file may have lost its
/// body.
fn last_seen<F: DiskFile>(opened: &Opened<F>, ahead: Point) -> io::Result<Point> {
    match opened.frame_at(ahead.offset, u64::MAX)? {
        Some(header) if !header.marks_end() && header.first >= ahead.place => {
            Ok(Point::behind(ahead.offset, &header))
        }
        _ => Ok(ahead),
    }
}

/// Returns the frame that stands ahead, or the first one after damage.
fn next_frame<F: DiskFile>(
    opened: &Opened<F>,
    ahead: Point,
    file_bytes: u64,
) -> io::Result<Option<(u64, FrameHeader)>> {
    match opened.frame_at(ahead.offset, file_bytes)? {
        Some(header) if header.first >= ahead.place => Ok(Some((ahead.offset, header))),
        _ => opened.find_frame(ahead.offset..file_bytes, ahead.place),
    }
}
