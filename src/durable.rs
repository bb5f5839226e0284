//! Folders that survive a crash and belong to one gateway, and keys that belong to nobody else.
//!
//! The file sink, the spool and the journals use it. What the gateway creates is for its own user
//! and group: files 0640, folders 0750, and less where the umask says so. A name in a folder is on
//! disk once the folder is synced, not before; a [`Lock`](lock::Lock) keeps a second gateway out of
//! a folder. Every call answers with the disk's own error.

pub(crate) mod lock;
pub(crate) mod stamp;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

const FILE_MODE: u32 = 0o640;
const FOLDER_MODE: u32 = 0o750;

/// Options of a file that may have to be created; only the gateway's owner and group read it.
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

/// Writes all of the buffers by a call that writes a part of what it is given. The standard library's
/// own is unstable: https://github.com/rust-lang/rust/issues/70436.
pub(crate) fn write_all(
    mut slices: &mut [IoSlice<'_>],
    mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0); // empty ones count for nothing written
    while !slices.is_empty() {
        match write(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Warns of a secret that others can read: whoever reads it can do what it is for. The process's own
/// group may: that is how a file that belongs to root is handed to the gateway. No error: the others
/// may be meant.
pub(crate) fn warn_of_other_readers(variable: &'static str, file: &Path) {
    let Ok(data) = fs::metadata(file) else { return };
    if let Some(who) = other_readers(data.mode(), data.gid(), &own_groups()) {
        let (file, mode) = (file.display(), format!("{:03o}", data.mode() & 0o7777));
        tracing::warn!(variable, %file, mode, who, "a secret can be read by others: chmod 640, chgrp to the gateway's group");
    }
}

/// Names the readers of a file beside its owner and the groups of this process.
fn other_readers(mode: u32, group: u32, own_groups: &[u32]) -> Option<&'static str> {
    const GROUP: u32 = 0o070;
    const WORLD: u32 = 0o007;
    if mode & WORLD != 0 {
        return Some("everybody");
    }
    let is_own = own_groups.contains(&group);
    (mode & GROUP != 0 && !is_own).then_some("a group that is not the gateway's")
}

/// The groups of this process, as the kernel lists them (proc(5)); none where it does not.
fn own_groups() -> Vec<u32> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut groups = Vec::new();
    for name in ["Gid:", "Groups:"] {
        let listed = status.lines().find_map(|line| line.strip_prefix(name));
        let numbers = listed.unwrap_or_default().split_ascii_whitespace();
        groups.extend(numbers.filter_map(|number| number.parse::<u32>().ok()));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_own_group_may_read_a_secret_and_nobody_else() {
        for (mode, group, who) in [
            (0o600, 7, None),
            (0o640, 7, None),
            (0o640, 8, Some("a group that is not the gateway's")),
            (0o644, 7, Some("everybody")),
        ] {
            assert_eq!(other_readers(mode, group, &[7]), who, "{mode:o} {group}");
        }
        assert!(!own_groups().is_empty());
    }
}
