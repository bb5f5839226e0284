//! Putting an edited devices file in the place of the old one, in one step.
//!
//! An edit locks the file; as a rename puts another file in its place, the edit then looks whether
//! the locked one still has the name. The new file has the owner, the group and the mode of the old
//! one, and is on disk before it has its name. Failure leaves the old file.

use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::DevicesError;
use super::edit::{Change, edit};
use super::read::{read_text, unreadable};
use crate::durable::sync_folder;
use crate::record::DeviceId;

/// Time that an edit waits for others, each of which takes as long as a disk needs to sync a file.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

const LOCK_INTERVAL: Duration = Duration::from_millis(5);

/// Why a file could not be edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error(transparent)]
    Devices(#[from] DevicesError),
    #[error("{} is no regular file: an edited one cannot take its place", file.display())]
    Irregular { file: PathBuf },
    #[error("{} is being edited by somebody else for more than {} s", file.display(), LOCK_TIMEOUT.as_secs())]
    Locked { file: PathBuf },
    #[error("cannot write {} in the place of {}: {error}", new.display(), file.display())]
    Unwritable {
        file: PathBuf,
        new: PathBuf,
        error: io::Error,
    },
}

/// Whether a file has been changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edited {
    Changed,
    /// The file said so already.
    Unchanged,
}

/// Leaves exactly one exact rule for a device in a file, the changed one. A file that would be
/// faulty then is not written.
pub(crate) fn rewrite(file: &Path, id: &DeviceId, change: Change) -> Result<Edited, EditError> {
    // A link stays, and what it leads to is edited.
    let path = fs::canonicalize(file).map_err(|error| unreadable(file, error))?;
    refuse_irregular(&path)?;
    let mut locked = lock(&path)?;
    let mut text = Vec::new();
    let read = locked.read_to_end(&mut text);
    read.map_err(|error| unreadable(&path, error))?;
    let edited = edit(&text, id.as_str(), change);
    read_text(&edited, file)?;
    if edited == text {
        return Ok(Edited::Unchanged);
    }
    replace(&path, &locked, &edited)?;
    Ok(Edited::Changed)
}

/// A pipe or a device is not for a file to be put in its place.
fn refuse_irregular(path: &Path) -> Result<(), EditError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, error))?;
    if metadata.is_file() {
        return Ok(());
    }
    Err(EditError::Irregular {
        file: path.to_owned(),
    })
}

/// Opens the file that has the name, and locks it.
fn lock(path: &Path) -> Result<File, EditError> {
    let unreadable = |error| EditError::Devices(unreadable(path, error));
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        let opened = File::open(path).map_err(unreadable)?;
        match opened.try_lock() {
            Ok(()) if is_in_place(&opened, path).map_err(unreadable)? => return Ok(opened),
            Ok(()) | Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(unreadable(error)),
        }
        if Instant::now() > deadline {
            return Err(EditError::Locked {
                file: path.to_owned(),
            });
        }
        wait_a_moment();
    }
}

/// Lets another edit get on.
#[allow(
    clippy::disallowed_methods,
    reason = "a command answers nobody meanwhile, and a lock cannot be awaited for so long only"
)]
fn wait_a_moment() {
    sleep(LOCK_INTERVAL);
}

fn is_in_place(opened: &File, path: &Path) -> io::Result<bool> {
    let inode = |metadata: Metadata| (metadata.dev(), metadata.ino());
    Ok(inode(opened.metadata()?) == inode(fs::metadata(path)?))
}

fn replace(path: &Path, old: &File, text: &[u8]) -> Result<(), EditError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = folder.join(format!(".{name}.new"));
    let replaced = write(&new, old, text)
        .and_then(|()| fs::rename(&new, path))
        .and_then(|()| sync_folder(folder));
    replaced.map_err(|error| {
        // The lock's holder alone makes it.
        let _ = fs::remove_file(&new);
        EditError::Unwritable {
            file: path.to_owned(),
            new,
            error,
        }
    })
}

fn write(new: &Path, old: &File, text: &[u8]) -> io::Result<()> {
    // Left behind by an edit that was killed.
    let _ = fs::remove_file(new);
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(new)?;
    be_like(&file, old)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Gives a file the owner, the group and the mode of another.
fn be_like(file: &File, other: &File) -> io::Result<()> {
    let (made, like) = (file.metadata()?, other.metadata()?);
    if (made.uid(), made.gid()) != (like.uid(), like.gid()) {
        fchown(file, Some(like.uid()), Some(like.gid()))?;
    }
    file.set_permissions(fs::Permissions::from_mode(like.mode() & 0o7777))
}
