//! Folders that survive a crash and belong to one gateway.
//!
//! The file sink and the spool use it. A name in a folder is on disk once the folder is synced, not before; a
//! [`Lock`](lock::Lock) keeps a second gateway out of a folder. Every call answers with the disk's own error.

pub mod lock;

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Creates a folder, and those above it, whose names survive a crash.
pub fn create_durably(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_durably(parent)?;
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !path.is_dir() => {
            Err(io::ErrorKind::NotADirectory.into())
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => sync_folder(parent),
    }
}

/// Makes names that were created, renamed or removed in a folder survive a crash.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    File::open(path)?.sync_all()
}
