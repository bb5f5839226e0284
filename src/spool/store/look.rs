//! A look at a folder of segments that may be another process's: does this program know the format,
//! and has it the keys, of all of them?
//!
//! `forebay check` asks, by [`crate::spool::look`]. Nothing is taken, changed or kept. A segment that
//! is gone, unfinished or damaged is no fault: a start does without it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::opened::{NotOpened, Opened};
use super::recovery::OpenError;
use crate::spool::format::keys::Keys;
use crate::spool::format::segment;

/// Looks at the header of each segment; a folder that is not there has none.
pub(crate) fn look_at(dir: &Path, keys: &Keys) -> Result<(), OpenError> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_segment = name.to_str().and_then(segment::parse_file_name).is_some();
        if !is_segment {
            continue;
        }
        let path = entry.path();
        if let Some(reason) = what_refuses(&path, keys) {
            return Err(OpenError::Segment { path, reason });
        }
    }
    Ok(())
}

/// Why a start would be refused because of this segment.
fn what_refuses(path: &Path, keys: &Keys) -> Option<NotOpened> {
    let file = File::open(path).map_err(NotOpened::from);
    match file.and_then(|file| Opened::open(file, keys)) {
        Ok(_) | Err(NotOpened::Blank | NotOpened::Damaged) => None,
        Err(NotOpened::Io(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Err(reason) => Some(reason),
    }
}
