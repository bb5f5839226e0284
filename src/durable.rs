//! Folders that survive a crash and belong to one gateway, and keys that belong to nobody else.
//!
//! The file sink, the spool and the journals use it. What the gateway creates is for its own user
//! and group: files 0640, folders 0750, and less where the umask says so. A name in a folder is on
//! disk once the folder is synced, not before; a [`Lock`](lock::Lock) keeps a second gateway out of
//! a folder. Every call answers with the disk's own error.

pub(crate) mod lock;
pub(crate) mod stamp;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// How a file is opened that may have to be created: whoever is not of the gateway's group does not
/// read it.
pub(crate) fn new_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(FILE_MODE);
    options
}

/// Creates a folder, and those above it, whose names survive a crash.
pub(crate) fn create_durably(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().unwrap_or(Path::new(""));
    create_durably(parent)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !path.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        Err(error) => return Err(error),
    }
    sync_folder(parent)
}

/// Makes names that were created, renamed or removed in a folder survive a crash.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    File::open(path)?.sync_all()
}

/// Warns of a secret that others can read: whoever reads it can do what it is for. No error: the
/// others may be a group made for it.
pub(crate) fn warn_of_other_readers(variable: &'static str, file: &Path) {
    const GROUP_AND_OTHERS: u32 = 0o077;
    let mode = fs::metadata(file).map_or(0, |data| data.mode() & 0o7777);
    if mode & GROUP_AND_OTHERS != 0 {
        let (file, mode) = (file.display(), format!("{mode:03o}"));
        tracing::warn!(variable, %file, mode, "a secret can be read by others: chmod 600");
    }
}
