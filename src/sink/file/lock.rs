//! One gateway a folder: an flock on `.forebay.lock`, which the kernel gives back when its process ends.
//!
//! The writer thread holds it. The file says who has it, for the one that is refused.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::folder::create_durably;

#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    #[error("{} is in use by another gateway ({owner}): end it, or set FOREBAY_FILE_DIR to another folder", dir.display())]
    Taken { dir: PathBuf, owner: String },
    #[error("the lock file in {}: {error}", dir.display())]
    Io { dir: PathBuf, error: io::Error },
}

/// Held until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    pub fn acquire(dir: &Path) -> Result<Self, LockError> {
        let io = |error| LockError::Io { dir: dir.to_owned(), error };
        create_durably(dir).map_err(io)?;
        let mut options = OpenOptions::new();
        let path = dir.join(".forebay.lock");
        let mut file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Taken { dir: dir.to_owned(), owner: owner(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        // Only a help for whoever is refused: a full disk must not keep the gateway from starting.
        let _ = file.set_len(0).and_then(|()| write!(file, "process {}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn owner(file: &mut File) -> String {
    let mut text = String::new();
    match file.take(64).read_to_string(&mut text) {
        Ok(read) if read > 0 => text,
        _ => "it does not say which".to_owned(),
    }
}
