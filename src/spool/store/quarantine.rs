//! Damaged bytes, kept for operators to look at: the folder `quarantine`, bounded.
//!
//! A kept piece is named after its segment and offset and begins with the segment's header, without
//! which an encrypted one could not be read. Nothing depends on this folder: a piece that cannot be
//! kept is only logged.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::opened::Opened;
use crate::spool::disk::{Disk, DiskFile, write_all_at};
use crate::spool::format::segment::{self, SegmentHeader};

pub(crate) const QUARANTINE: &str = "quarantine";

/// Most bytes that the folder holds, whole segments aside, which only move there.
const BYTES_MAX: u64 = 256 << 20;
const FILES_MAX: usize = 10_000;

/// Most bytes that are kept of one piece of damage.
pub(crate) const PIECE_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(PIECE_BYTES_MAX < BYTES_MAX);

/// The quarantine of one log.
pub(crate) struct Quarantine<'a> {
    log_dir: &'a Path,
    dir: PathBuf,
}

impl<'a> Quarantine<'a> {
    /// Returns the quarantine of the log in this folder.
    pub(crate) fn new(log_dir: &'a Path) -> Self {
        Self {
            log_dir,
            dir: log_dir.join(QUARANTINE),
        }
    }

    /// Keeps the bytes at these offsets of a segment, as many as [`piece_bytes`] allows.
    pub(crate) fn keep_piece<D: Disk>(
        &self,
        disk: &D,
        opened: &Opened<D::File>,
        offsets: &Range<u64>,
    ) -> io::Result<()> {
        let raw = opened.raw(offsets.start, piece_bytes(offsets) as usize)?;
        self.keep(disk, &opened.header, offsets.start, &raw)
    }

    fn keep(
        &self,
        disk: &impl Disk,
        header: &SegmentHeader,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.claim_room(disk, bytes.len() as u64)?;
        let name = format!("{}.{offset}", segment::file_name(header.id));
        let file = match disk.create(&self.dir.join(name)) {
            // It was kept before a restart.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            created => created?,
        };
        let header = header.encode();
        write_all_at(&file, &mut [IoSlice::new(&header), IoSlice::new(bytes)], 0)?;
        file.sync()?;
        disk.sync_folder(&self.dir)
    }

    fn claim_room(&self, disk: &impl Disk, bytes: u64) -> io::Result<()> {
        debug_assert!(bytes <= PIECE_BYTES_MAX);
        disk.claim(&self.dir)?;
        let kept = disk.list(&self.dir)?;
        let kept_bytes: u64 = kept.iter().map(|entry| entry.bytes).sum();
        if kept.len() < FILES_MAX && kept_bytes + bytes <= BYTES_MAX {
            return Ok(());
        }
        let full = "the quarantine is full";
        Err(io::Error::new(io::ErrorKind::QuotaExceeded, full))
    }

    /// Moves a segment there whole.
    pub(crate) fn keep_segment(&self, disk: &impl Disk, id: u64) -> io::Result<()> {
        disk.claim(&self.dir)?;
        let name = segment::file_name(id);
        disk.rename(&self.log_dir.join(&name), &self.dir.join(&name))?;
        disk.sync_folder(&self.dir)?;
        disk.sync_folder(self.log_dir)
    }
}

/// Returns how many of these bytes are kept.
pub(crate) fn piece_bytes(offsets: &Range<u64>) -> u64 {
    (offsets.end - offsets.start).min(PIECE_BYTES_MAX)
}
