//! The records of a torn tail: the bytes behind the last whole frame of a segment that was not
//! finished.
//!
//! Room that was never used is blank, and a torn mark of the end holds nothing. Any other tail held
//! records: a header without its body, bytes without a header, or no bytes at all although the
//! cursor or the next segment's base say that records were answered. [`recover`](super::recover)
//! asks, and cuts the tail only when its bytes are kept.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::walk::{Extent, Tail};
use crate::spool::disk::{Disk, DiskFile};
use crate::spool::format::frame::{MARK_BYTES, end_mark};
use crate::spool::format::segment;
use crate::spool::store::cursor::Cursor;
use crate::spool::store::opened::Opened;
use crate::spool::store::quarantine::{Quarantine, piece_bytes};

/// A tail that held records.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Torn {
    /// Offsets of its bytes; empty if only the cursor or the next segment tells of its records.
    pub offsets: Range<u64>,
    /// Records in it that waited; one where nothing says how many.
    pub records: u64,
}

impl Torn {
    /// Finds a torn tail; `None` when no record is lost. Records before the place `answered` had
    /// been answered.
    pub(crate) fn find<F: DiskFile>(
        opened: &Opened<F>,
        extent: &Extent,
        answered: u64,
        cursor: &Cursor,
    ) -> io::Result<Option<Self>> {
        let Tail::Open { seen, seen_bytes } = extent.tail else {
            return Ok(None);
        };
        let bytes_end = opened.content_end(extent.bytes..opened.bytes()?)?;
        let lost = cursor.waiting(extent.end..seen.max(answered));
        let has_unseen = bytes_end > seen_bytes && !is_torn_mark(opened, extent, bytes_end)?;
        let records = if has_unseen { lost.max(1) } else { lost };
        debug_assert!(extent.bytes <= bytes_end);
        let offsets = extent.bytes..bytes_end;
        Ok((records > 0).then_some(Self { offsets, records }))
    }

    /// Keeps the bytes and tells of them. Says whether they may be cut off.
    pub(crate) fn keep<D: Disk>(&self, disk: &D, dir: &Path, opened: &Opened<D::File>) -> bool {
        let kept = if self.offsets.is_empty() {
            Ok(())
        } else {
            Quarantine::new(dir).keep_piece(disk, opened, &self.offsets)
        };
        let is_kept = kept.is_ok();
        let file = dir.join(segment::file_name(opened.header.id));
        tracing::error!(
            file = %file.display(),
            offset = self.offsets.start,
            bytes = piece_bytes(&self.offsets),
            records = self.records,
            not_kept = kept.err().map(|error| error.to_string()),
            "a segment ends with records that are torn: a crash tore what was not answered yet, or the disk lost more"
        );
        is_kept
    }
}

/// Whether the tail is a part of the mark of the end.
fn is_torn_mark<F: DiskFile>(
    opened: &Opened<F>,
    extent: &Extent,
    bytes_end: u64,
) -> io::Result<bool> {
    let bytes = bytes_end - extent.bytes;
    if bytes > MARK_BYTES {
        return Ok(false);
    }
    let left = opened.raw(extent.bytes, bytes as usize)?;
    let mark = end_mark(&opened.header.salt, extent.bytes, extent.end);
    let is_part = |(left, mark): (&u8, &u8)| *left == 0 || left == mark;
    Ok(left.iter().zip(&mark).all(is_part))
}
