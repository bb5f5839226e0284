//! The disk of this machine or the simulated one, for a spool that does not know which.

use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::future::LocalBoxFuture;

use super::sim::{SimDisk, SimHandle};
use crate::config::WhenFull;
use crate::durable::lock::LockError;
use crate::spool::commit::engine::{Engine, LogOptions};
use crate::spool::commit::thread::Commits;
use crate::spool::disk::real::RealDisk;
use crate::spool::disk::{Disk, DiskFile, FolderEntry};
use crate::spool::store::ledger::State;
use crate::spool::{DEAD_LETTERS, GatewayDisk, Keys, Log, OpenError, Spool};
use crate::telemetry::metrics::SpoolMetrics;

pub(crate) enum EitherDisk {
    Real(RealDisk),
    Simulated(SimDisk),
}

pub(crate) enum EitherFile {
    Real(File),
    Simulated(SimHandle),
}

impl EitherDisk {
    pub(crate) fn lock(dir: &Path) -> Result<Self, LockError> {
        RealDisk::lock(dir).map(Self::Real)
    }
}

/// Calls the method of whichever it is.
macro_rules! either {
    ($type:ident, $either:expr, $inner:ident => $call:expr) => {
        match $either {
            $type::Real($inner) => $call,
            $type::Simulated($inner) => $call,
        }
    };
}

/// Calls as [`either!`] does, for calls that return a file.
macro_rules! file_of {
    ($either:expr, $inner:ident => $call:expr) => {
        match $either {
            EitherDisk::Real($inner) => $call.map(EitherFile::Real),
            EitherDisk::Simulated($inner) => $call.map(EitherFile::Simulated),
        }
    };
}

impl Disk for EitherDisk {
    type File = EitherFile;

    fn claim(&self, dir: &Path) -> io::Result<()> {
        either!(EitherDisk, self, disk => disk.claim(dir))
    }

    fn create(&self, path: &Path) -> io::Result<EitherFile> {
        file_of!(self, disk => disk.create(path))
    }

    fn open(&self, path: &Path) -> io::Result<EitherFile> {
        file_of!(self, disk => disk.open(path))
    }

    fn open_to_write(&self, path: &Path) -> io::Result<EitherFile> {
        file_of!(self, disk => disk.open_to_write(path))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<FolderEntry>> {
        either!(EitherDisk, self, disk => disk.list(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        either!(EitherDisk, self, disk => disk.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        either!(EitherDisk, self, disk => disk.remove(path))
    }

    fn sync_folder(&self, dir: &Path) -> io::Result<()> {
        either!(EitherDisk, self, disk => disk.sync_folder(dir))
    }
}

impl DiskFile for EitherFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        either!(EitherFile, self, file => DiskFile::read_at(file, buffer, offset))
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        either!(EitherFile, self, file => DiskFile::write_at(file, slices, offset))
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        either!(EitherFile, self, file => DiskFile::allocate(file, bytes))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        either!(EitherFile, self, file => DiskFile::set_len(file, bytes))
    }

    fn sync(&self) -> io::Result<()> {
        either!(EitherFile, self, file => DiskFile::sync(file))
    }

    fn bytes(&self) -> io::Result<u64> {
        either!(EitherFile, self, file => DiskFile::bytes(file))
    }

    fn is_linked(&self) -> io::Result<bool> {
        either!(EitherFile, self, file => DiskFile::is_linked(file))
    }
}

/// A spool on a simulated disk.
pub(crate) struct Shape {
    pub disk: SimDisk,
    pub bytes_max: u64,
    pub when_full: WhenFull,
    pub is_encrypted: bool,
    pub dead_letter_bytes_max: u64,
    pub metrics: SpoolMetrics,
}

/// Small, so that there are several of them in a life.
pub(crate) const SEGMENT_BYTES: u64 = 32 << 10;

impl Shape {
    /// Opens it, and returns the task that stands in for its thread.
    pub(crate) fn open(
        self,
        disk_turn: impl AsyncFn() + 'static,
    ) -> Result<(Spool, LocalBoxFuture<'static, ()>), OpenError> {
        let disk = Arc::new(EitherDisk::Simulated(self.disk.clone()));
        let dir = PathBuf::from("spool");
        let dead_letters = LogOptions {
            metrics: self.metrics.of_dead_letters(),
            when_full: WhenFull::Reject,
            ..self.log(dir.join(DEAD_LETTERS), self.dead_letter_bytes_max)
        };
        let (mut backlog, _) = Engine::open(disk.clone(), self.log(dir, self.bytes_max))?;
        let (dead_letters, _) = Engine::open(disk, dead_letters)?;
        backlog.probe(tokio::time::Instant::now().into_std());
        let commits = Commits::new(1 << 20);
        let (spool, committer) = Spool::of(vec![backlog, dead_letters], commits);
        Ok((spool, Box::pin(committer.run_as_task(disk_turn))))
    }

    fn log(&self, dir: PathBuf, bytes_max: u64) -> LogOptions {
        let keys = match self.is_encrypted {
            true => Keys::parse(&"ab".repeat(32), Path::new("keys")).unwrap(),
            false => Keys::default(),
        };
        LogOptions {
            dir,
            segment_bytes: SEGMENT_BYTES,
            bytes_max,
            when_full: self.when_full,
            keys: Arc::new(keys),
            metrics: self.metrics.clone(),
        }
    }
}

/// Returns the log of records that were refused for good.
pub(crate) fn dead_letters(spool: &Spool) -> Log<GatewayDisk> {
    spool.dead_letters.clone()
}

/// Whether it takes no more records until some are retired.
pub(crate) fn is_full(log: &Log<GatewayDisk>) -> bool {
    log.state() == State::Full
}
