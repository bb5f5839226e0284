//! Damaged bytes, kept for whoever wants to look at them: the folder `quarantine`, bounded.
//!
//! A kept piece is named after its segment and offset and begins with the segment's header, without which an encrypted
//! one could not be read. Nothing depends on this folder: what cannot be kept is only told of.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};

use crate::spool::disk::{Disk, DiskFile, write_all_at};
use crate::spool::format::segment;

pub(crate) const QUARANTINE: &str = "quarantine";

/// What the folder holds at most, whole segments aside, which only move there.
const BYTES_MAX: u64 = 256 << 20;
const FILES_MAX: usize = 10_000;

/// What is kept of one piece of damage, at most.
pub(crate) const PIECE_BYTES_MAX: u64 = 64 << 20;

const _: () = assert!(PIECE_BYTES_MAX < BYTES_MAX);

pub(crate) struct Quarantine {
    dir: PathBuf,
}

impl Quarantine {
    /// Of the log in this folder.
    pub(crate) fn new(log_dir: &Path) -> Self {
        Self {
            dir: log_dir.join(QUARANTINE),
        }
    }

    /// Keeps bytes of a segment that stood at `offset`.
    pub(crate) fn keep(
        &self,
        disk: &impl Disk,
        header: &segment::Header,
        offset: u64,
        bytes: &[u8],
    ) -> io::Result<()> {
        self.claim_room(disk, bytes.len() as u64)?;
        let path = self
            .dir
            .join(format!("{}.{offset}", segment::file_name(header.id)));
        let file = match disk.create(&path) {
            // It was kept before a restart.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            created => created?,
        };
        write_all_at(
            &file,
            &mut [IoSlice::new(&header.encode()), IoSlice::new(bytes)],
            0,
        )?;
        file.sync()?;
        disk.sync_folder(&self.dir)
    }

    fn claim_room(&self, disk: &impl Disk, bytes: u64) -> io::Result<()> {
        disk.claim(&self.dir)?;
        let kept = disk.list(&self.dir)?;
        let kept_bytes: u64 = kept.iter().map(|entry| entry.bytes).sum();
        let fits = kept.len() < FILES_MAX && kept_bytes + bytes <= BYTES_MAX;
        if fits {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "the quarantine is full",
            ))
        }
    }

    /// Moves a whole file there.
    pub(crate) fn keep_file(&self, disk: &impl Disk, path: &Path) -> io::Result<()> {
        disk.claim(&self.dir)?;
        disk.rename(
            path,
            &self
                .dir
                .join(path.file_name().unwrap_or(OsStr::new("segment"))),
        )?;
        disk.sync_folder(&self.dir)?;
        disk.sync_folder(path.parent().unwrap_or(Path::new("")))
    }
}
