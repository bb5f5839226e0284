//! The spool keeps records on local disk while the stream cannot take them, and dead letters, which
//! it refuses for good.
//!
//! Delivery owns a [`Spool`]: two logs of the same making, the backlog in the folder itself and the
//! dead letters in `dead-letters`. One thread commits to both. The layers, from above to below;
//! each uses only those below it:
//!
//! 1. [`commit`] makes drafts safe: the queue, the thread, and an engine a log.
//! 2. [`store`] holds the content of a folder: index, cursor, reader, recovery, quarantine.
//! 3. [`format`] is the layout on disk: frames, bodies, headers of segments, keys. [`disk`] is the
//!    interface to a disk.
//!
//! `docs/spool.md` tells the whole for those who run it.
//!
//! A draft whose answer is `Ok` is synced, and stays until it is retired, dropped to make room
//! where the operator asked for that, or damaged. A failure is an answer, never a wait:
//! [`Refused`]. Numbers on disk are little-endian, checksums CRC32C; readers of damaged bytes
//! answer `None`, never a panic and never other content.

mod commit;
mod disk;
mod format;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use crate::config::{BATCHES_PER_QUOTA, BODY_BYTES_LIMIT, SPOOL_BYTES_MIN, WhenFull};
use crate::telemetry::metrics::SpoolMetrics;
pub use commit::engine::Refused;
use commit::engine::{Engine, LogOptions};
pub use commit::log::Log;
use commit::thread::{self, Commits, Committer};
pub use disk::real::RealDisk;
pub(crate) use disk::wait_for_disk;
pub use disk::{Disk, DiskFile, FolderEntry, write_all_at};
pub use format::body::{Content, Draft, DraftError, decode};
pub use format::frame::{FrameHeader, HEADER_BYTES};
pub use format::keys::{KeyId, Keys};
use format::segment;
pub use format::segment::FRAMES_START;
pub(crate) use store::ledger::State;
use store::look::look_at;
pub use store::opened::{NotOpened, Opened};
pub(crate) use store::quarantine::QUARANTINE;
pub use store::reader::{Frame, ReadError, Reader};
pub use store::recovery::OpenError;
pub(crate) use store::recovery::Recovery;

/// The thread that writes to disk.
pub(crate) const THREAD: &str = "forebay-spool";

/// The folder of the dead letters, within the spool's.
pub(crate) const DEAD_LETTERS: &str = "dead-letters";

/// The quota of the dead letters is a part of the backlog's, on top of it; it is no less than a
/// spool's least.
const DEAD_LETTERS_PART: u64 = 8;

/// Below this a log could not roll its segments over, nor take the largest record.
pub(crate) const QUOTA_BYTES_MIN: u64 = SPOOL_BYTES_MIN;

// A batch has its part of the quota and a record any size that a body may have, and other segments
// have room beside it.
const _: () = assert!(BODY_BYTES_LIMIT as u64 <= QUOTA_BYTES_MIN / 2);
const _: () = assert!(BATCHES_PER_QUOTA >= 2);

/// Whether this program knows the format, and these are the keys, of all that lies in the folder of a
/// spool. Takes nothing and changes nothing: a gateway may be at work there.
pub(crate) fn look(dir: &Path, keys: &Keys) -> Result<(), OpenError> {
    look_at(dir, keys)?;
    look_at(&dir.join(DEAD_LETTERS), keys)
}

/// Settings of a spool: its folder, and its limits.
pub struct Options {
    pub dir: PathBuf,
    /// The quota of the backlog, at least [`QUOTA_BYTES_MIN`]; dead letters may take an eighth of
    /// it in addition, and as much at least.
    pub bytes_max: u64,
    /// Behaviour of a full backlog; full dead letters reject.
    pub when_full: WhenFull,
    pub keys: Keys,
    pub metrics: SpoolMetrics,
}

/// Content of both logs when they were opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub(crate) backlog: Recovery,
    pub(crate) dead_letters: Recovery,
}

/// The disk of the gateway's spool. A test of the library may give it another one.
#[cfg(not(test))]
pub(crate) type GatewayDisk = RealDisk;
#[cfg(test)]
pub(crate) use tests::either::EitherDisk as GatewayDisk;

/// Both logs and their thread.
#[cfg_attr(test, allow(private_interfaces))] // a test's disk is nobody else's
pub struct Spool<D: Disk = GatewayDisk> {
    pub backlog: Log<D>,
    pub(crate) dead_letters: Log<D>,
    commits: Arc<Commits>,
    thread: Option<JoinHandle<()>>,
}

impl Spool {
    /// Claims the folder, reads its content and starts the thread. A disk that cannot be written is
    /// no error: the backlog is then [`State::Down`] until it can.
    pub fn open(options: Options) -> Result<(Self, Found), OpenError> {
        Self::open_within(options, usize::MAX)
    }

    /// Opens the spool as [`open`](Self::open) does, in a process where records that are not safe
    /// may have so much memory: the queue to the disk gets a part of it.
    pub fn open_within(
        options: Options,
        memory_bytes_max: usize,
    ) -> Result<(Self, Found), OpenError> {
        let disk = GatewayDisk::lock(&options.dir)?;
        let commits = Commits::new(thread::queue_bytes_within(memory_bytes_max));
        Self::open_on(Arc::new(disk), options, commits)
    }
}

impl<D: Disk> Spool<D> {
    fn open_on(
        disk: Arc<D>,
        options: Options,
        commits: Commits,
    ) -> Result<(Self, Found), OpenError> {
        let (backlog, dead_letters) = logs(options);
        let (mut backlog, in_backlog) = Engine::open(disk.clone(), backlog)?;
        let (dead_letters, in_dead_letters) = Engine::open(disk, dead_letters)?;
        let found = Found {
            backlog: in_backlog,
            dead_letters: in_dead_letters,
        };
        backlog.probe(Instant::now());
        let spool = Self::start(vec![backlog, dead_letters], commits)?;
        Ok((spool, found))
    }

    /// Starts the thread over both logs, the backlog first.
    fn start(engines: Vec<Engine<D>>, commits: Commits) -> Result<Self, OpenError> {
        let (mut spool, committer) = Self::of(engines, commits);
        let builder = std::thread::Builder::new().name(THREAD.into());
        let thread = builder.spawn(move || committer.run());
        spool.thread = Some(thread.map_err(OpenError::Thread)?);
        Ok(spool)
    }

    /// Builds both logs, the backlog first, and the committer that serves them.
    fn of(engines: Vec<Engine<D>>, commits: Commits) -> (Self, Committer<D>) {
        assert_eq!(engines.len(), 2);
        let commits = Arc::new(commits);
        let log = |id: usize| Log::new(id, engines[id].source(), commits.clone());
        let spool = Self {
            backlog: log(0),
            dead_letters: log(1),
            commits: commits.clone(),
            thread: None,
        };
        (spool, Committer::new(commits, engines))
    }

    /// Answers all queued drafts, leaves the folder in order and frees it. Waits for the disk.
    /// Dropping does the same.
    pub fn close(self) {}
}

impl<D: Disk> Drop for Spool<D> {
    fn drop(&mut self) {
        self.commits.close();
        // A thread that panicked has told of it.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Returns the options of the backlog and of the dead letters.
fn logs(options: Options) -> (LogOptions, LogOptions) {
    let keys = Arc::new(options.keys);
    let bytes_max = options.bytes_max.max(QUOTA_BYTES_MIN);
    let dead_bytes_max = (bytes_max / DEAD_LETTERS_PART).max(QUOTA_BYTES_MIN);
    let dead_letters = LogOptions {
        dir: options.dir.join(DEAD_LETTERS),
        segment_bytes: segment::bytes_for(dead_bytes_max),
        bytes_max: dead_bytes_max,
        when_full: WhenFull::Reject,
        keys: keys.clone(),
        metrics: options.metrics.of_dead_letters(),
    };
    let backlog = LogOptions {
        dir: options.dir,
        segment_bytes: segment::bytes_for(bytes_max),
        bytes_max,
        when_full: options.when_full,
        keys,
        metrics: options.metrics,
    };
    debug_assert!(dead_letters.bytes_max <= backlog.bytes_max);
    (backlog, dead_letters)
}
