//! The disk of this machine, through the standard library and two system calls more: `pwritev` and
//! `fallocate`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{Disk, DiskFile, FolderEntry};
use crate::durable::lock::{Lock, LockError};
use crate::durable::{create_durably, new_file, sync_folder};

const VARIABLE: &str = "FOREBAY_SPOOL_DIR";

/// A folder of this machine that no other process uses.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    lock: Mutex<Lock>,
}

impl RealDisk {
    /// Creates the folder if need be and takes it.
    pub(crate) fn lock(dir: &Path) -> Result<Self, LockError> {
        let lock = Mutex::new(Lock::acquire(dir, VARIABLE)?);
        Ok(Self {
            dir: dir.to_owned(),
            lock,
        })
    }

    /// Takes the lock again: a folder that was removed and made again has lost its lock file, and
    /// this process its claim.
    fn lock_again(&self) -> io::Result<()> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if !lock.is_in_place() {
            *lock = Lock::acquire(&self.dir, VARIABLE).map_err(io::Error::other)?;
        }
        Ok(())
    }
}

impl Disk for RealDisk {
    type File = File;

    fn claim(&self, dir: &Path) -> io::Result<()> {
        self.lock_again()?;
        create_durably(dir)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        new_file().read(true).create_new(true).open(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        File::open(path)
    }

    fn open_to_write(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FolderEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                entries.push(FolderEntry {
                    name,
                    bytes: metadata.len(),
                });
            }
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_folder(&self, dir: &Path) -> io::Result<()> {
        sync_folder(dir)
    }
}

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, slices, offset)?)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, FallocateFlags::empty(), 0, bytes) {
            // The file then grows as it is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            allocated => Ok(allocated?),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() > 0)
    }
}
