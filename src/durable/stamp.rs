//! Noticing that a file has changed, without reading it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Stamp of a file's state: with another stamp it has been replaced or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// When its content last changed, in seconds and nanoseconds.
    modified: (i64, i64),
    /// When the file itself last changed: its name, owner or mode.
    changed: (i64, i64),
}

/// The stamp of a file; `None` for one that is not there.
pub(crate) fn stamp(file: &Path) -> Option<Stamp> {
    let data = fs::metadata(file).ok()?;
    Some(Stamp {
        device: data.dev(),
        inode: data.ino(),
        bytes: data.len(),
        modified: (data.mtime(), data.mtime_nsec()),
        changed: (data.ctime(), data.ctime_nsec()),
    })
}
