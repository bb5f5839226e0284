//! One gateway a folder: an flock on `.forebay.lock`, which the kernel gives back when its process
//! ends.
//!
//! The process that writes in the folder holds the lock. The file names the holder for a process
//! that is refused.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{create_durably, new_file};

/// Why a folder could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("{} is in use by another gateway ({owner}): end it, or set {variable} to another folder", dir.display())]
    Taken {
        dir: PathBuf,
        owner: String,
        variable: &'static str,
    },
    #[error("the lock file in {}: {error}", dir.display())]
    Io { dir: PathBuf, error: io::Error },
}

/// A folder that no other process takes until this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Creates the folder if need be and takes it. `variable` is where it was configured, for the
    /// one that is refused.
    pub(crate) fn acquire(dir: &Path, variable: &'static str) -> Result<Self, LockError> {
        let io = |error| LockError::Io {
            dir: dir.to_owned(),
            error,
        };
        create_durably(dir).map_err(io)?;
        let path = dir.join(".forebay.lock");
        let mut file = open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Taken {
                    dir: dir.to_owned(),
                    owner: owner(&mut file),
                    variable,
                });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        // Only a help for whoever is refused: a full disk must not keep the gateway from starting.
        let _ = note_owner(&mut file);
        Ok(Self { file, path })
    }

    /// Whether the lock file is still where it was made: not so when the folder has been removed.
    pub(crate) fn is_in_place(&self) -> bool {
        let inode = |metadata: Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(held), Ok(found)) => inode(held) == inode(found),
            _ => false,
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = new_file();
    options.read(true).create(true).truncate(false);
    options.open(path)
}

fn note_owner(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    write!(file, "process {}", std::process::id())
}

/// The process that has written itself into the file; whatever else stands there is not shown.
fn owner(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(64).read_to_string(&mut text);
    let process = text.strip_prefix("process ");
    match process.and_then(|process| process.parse::<u32>().ok()) {
        Some(process) if read.is_ok() => format!("process {process}"),
        _ => "it does not say which".to_owned(),
    }
}
