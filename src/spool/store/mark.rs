//! The end of a segment that takes no more frames: nothing stands behind its mark.
//!
//! The segment's writer sets it when it is done, recovery when a crash kept the writer from it.

use std::io::{self, IoSlice};

use crate::spool::disk::{DiskFile, write_all_at};
use crate::spool::format::frame::{ALIGNMENT, MARK_BYTES, end_mark};
use crate::spool::format::keys::Salt;
use crate::spool::format::segment::FRAMES_START;

/// Cuts the file after the mark and says how long it is then. If it fails, recovery walks the
/// segment, no more.
pub(crate) fn mark_end(
    file: &impl DiskFile,
    salt: &Salt,
    offset: u64,
    end: u64,
) -> io::Result<u64> {
    debug_assert!(offset >= FRAMES_START && offset.is_multiple_of(ALIGNMENT));
    file.set_len(offset)?;
    let mark = end_mark(salt, offset, end);
    write_all_at(file, &mut [IoSlice::new(&mark)], offset)?;
    file.sync()?;
    Ok(offset + MARK_BYTES)
}
