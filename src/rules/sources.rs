//! The files that rules are made of: the rules file, its schema, what that refers to, and keys.
//!
//! Each is stamped before it is read, so that what is written meanwhile is seen by the next look.
//! If one of them changes while the others are read, the rules made of them are a mixture that
//! nobody wrote.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::durable::stamp::{Stamp, stamp};

/// No file of rules is larger.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Files of one stream's rules, whether there or not, as they were when they were read.
#[derive(Debug, Default)]
pub(super) struct Sources(Mutex<Vec<(PathBuf, Option<Stamp>)>>);

impl Sources {
    /// Reads a file; an error is a reason without the file's name.
    pub(super) fn read(&self, file: &Path) -> Result<Vec<u8>, String> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((file.to_owned(), stamp(file)));
        drop(seen);
        let bytes = read_start(file).map_err(|error| error.to_string())?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(format!("it has more than {} MiB", FILE_BYTES_MAX >> 20));
        }
        Ok(bytes)
    }

    /// Whether no file has changed since it was read.
    pub(super) fn are_unchanged(&self) -> bool {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().all(|(file, as_read)| stamp(file) == *as_read)
    }
}

/// The first bytes of a file, one more than it may have.
fn read_start(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let opened = File::open(file)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
