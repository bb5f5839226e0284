//! The disk as the spool uses it, a trait: [`RealDisk`](real::RealDisk) is one, and the tests have
//! one that fails in every way that disks fail.
//!
//! Names are durable once their folder is synced, bytes once their file is. Nothing is promised of
//! bytes that were written before a sync that failed, and such a file is not synced again.

pub(crate) mod real;

use std::io::{self, IoSlice};
use std::path::Path;

use tokio::task::spawn_blocking;

use crate::durable;

/// Buffers that one gathered write takes (Linux: `IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// A file as its folder lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderEntry {
    pub name: String,
    pub bytes: u64,
}

pub trait Disk: Send + Sync + 'static {
    type File: DiskFile;

    /// Creates the folder if need be, durably, and makes sure that it is this gateway's.
    fn claim(&self, dir: &Path) -> io::Result<()>;

    /// Creates a file, to be read and written; fails if there is one.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens a file that is there, to be read only.
    fn open(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens a file that is there, to be read and written.
    fn open_to_write(&self, path: &Path) -> io::Result<Self::File>;

    /// Lists the files of a folder in no order; folders and names that are not UTF-8 are left out.
    fn list(&self, dir: &Path) -> io::Result<Vec<FolderEntry>>;

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes names durable that were created, changed and removed in the folder.
    fn sync_folder(&self, dir: &Path) -> io::Result<()>;
}

pub trait DiskFile: Send + 'static {
    /// Reads up to the buffer's length; 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes the buffers one after the other, or a part of them, and says how many bytes.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Gives the file this length and the room for it, where the file system can.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes the file's bytes durable. After a failure this descriptor is not to be synced again.
    fn sync(&self) -> io::Result<()>;

    fn bytes(&self) -> io::Result<u64>;

    /// Whether the file still has a name.
    fn is_linked(&self) -> io::Result<bool>;
}

/// Runs blocking disk work on a thread that may wait; `None` if it panicked.
pub(crate) async fn wait_for_disk<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    #[cfg(test)]
    if crate::jitter::seeded::is_seeded() {
        crate::jitter::seeded::disk_turn().await;
        return Some(work());
    }
    spawn_blocking(work).await.ok()
}

/// Fills the buffer; `UnexpectedEof` when the file ends before.
pub(crate) fn read_exact_at(
    file: &impl DiskFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<()> {
    if read_up_to(file, buffer, offset)? < buffer.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Reads until the buffer is full or the file ends, and says how much.
pub(crate) fn read_up_to(
    file: &impl DiskFile,
    buffer: &mut [u8],
    offset: u64,
) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => {
                filled += read;
                debug_assert!(filled <= buffer.len(), "a read stays within its buffer");
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Writes all of the buffers, in as few gathered writes as the disk allows.
pub fn write_all_at(
    file: &impl DiskFile,
    slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    durable::write_all(slices, |rest| {
        let written = file.write_at(&rest[..rest.len().min(SLICES_MAX)], offset)?;
        offset += written as u64;
        Ok(written)
    })
}
