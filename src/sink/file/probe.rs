//! Proof that the disk takes the sink's lines: a recent sync, or else a small file.
//!
//! The writer notes every sync and every failure. [`FileSink::verify`](super::FileSink::verify)
//! reads the notes, and asks the probing thread if they do not say enough: about a folder that was
//! never written, one whose last append failed, or, while no stream has anything to write, the one
//! whose proof is the oldest. So a gateway with hundreds of idle streams writes one small file
//! every few seconds, and the writer never waits for a probe. One probe at a time: a disk that does
//! not answer it is away.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::refused;
use crate::durable::{create_durably, new_file};
use crate::sink::SinkError;

/// A sync that is no older than this says that the disk works.
const PROOF_AGE_MAX: Duration = Duration::from_secs(5);

/// Bytes of a probe of a folder without trouble.
const PROBE_BYTES: usize = 4 << 10;

/// Bytes of a probe after a failed append: about a batch, so that a disk with hardly any room is
/// not taken for a working one.
const PROBE_BYTES_AFTER_FAILURE: usize = 1 << 20;

/// The proof of a stream's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    Missing,
    SyncedAt(Instant),
    Failed,
}

/// The proofs of all folders, which the writer and the probing thread share.
#[derive(Debug)]
pub(super) struct Proofs {
    /// The lock is held and torn tails are mended.
    is_prepared: AtomicBool,
    folders: Mutex<Vec<Proof>>,
}

/// A folder that is to be probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Due {
    folder: usize,
    seen: Proof,
    bytes: usize,
}

impl Due {
    fn new(folder: usize, seen: Proof, bytes: usize) -> Self {
        Self {
            folder,
            seen,
            bytes,
        }
    }
}

/// Returns the folder whose sync is the oldest, if none has had one lately.
fn oldest_of_idle(synced: &[(Instant, usize)], now: Instant) -> Option<Due> {
    let (newest, _) = synced.iter().max()?;
    if now.saturating_duration_since(*newest) <= PROOF_AGE_MAX {
        return None;
    }
    let &(at, folder) = synced.iter().min()?;
    Some(Due::new(folder, Proof::SyncedAt(at), PROBE_BYTES))
}

impl Proofs {
    pub(crate) fn new(folders: usize) -> Self {
        Self {
            is_prepared: AtomicBool::new(false),
            folders: Mutex::new(vec![Proof::Missing; folders]),
        }
    }

    pub(crate) fn note_prepared(&self) {
        self.is_prepared.store(true, Ordering::Release);
    }

    pub(crate) fn is_prepared(&self) -> bool {
        self.is_prepared.load(Ordering::Acquire)
    }

    /// Notes that the writer has appended to this folder, or failed to.
    pub(crate) fn note(&self, folder: usize, is_synced: bool, now: Instant) {
        self.lock()[folder] = if is_synced {
            Proof::SyncedAt(now)
        } else {
            Proof::Failed
        };
    }

    /// Says whether nothing has to be probed now.
    pub(crate) fn suffice(&self, now: Instant) -> bool {
        self.due(now).is_empty()
    }

    fn due(&self, now: Instant) -> Vec<Due> {
        let folders = self.lock();
        let mut due: Vec<Due> = Vec::new();
        let mut synced: Vec<(Instant, usize)> = Vec::new();
        for (folder, &seen) in folders.iter().enumerate() {
            match seen {
                Proof::SyncedAt(at) => synced.push((at, folder)),
                Proof::Missing => due.push(Due::new(folder, seen, PROBE_BYTES)),
                Proof::Failed => due.push(Due::new(folder, seen, PROBE_BYTES_AFTER_FAILURE)),
            }
        }
        if due.is_empty() {
            due.extend(oldest_of_idle(&synced, now));
        }
        due
    }

    /// Notes that a probe has succeeded, unless the writer has noted something since.
    fn prove(&self, due: Due, now: Instant) {
        let proof = &mut self.lock()[due.folder];
        if *proof == due.seen {
            *proof = Proof::SyncedAt(now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Proof>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the probing thread, which ends when this handle is dropped.
pub(super) struct Prober {
    asks: mpsc::Sender<Ask>,
}

type Ask = oneshot::Sender<Result<(), SinkError>>;

impl Prober {
    /// Starts the thread that probes these folders in `dir`, one for each proof.
    pub(crate) fn start(
        dir: PathBuf,
        folders: Vec<PathBuf>,
        proofs: Arc<Proofs>,
    ) -> io::Result<Self> {
        let (asks, mut asked) = mpsc::channel::<Ask>(1);
        let answer_all = move || {
            while let Some(answer) = asked.blocking_recv() {
                let probed = probe_due(&folders, &proofs).map_err(|error| refused(&dir, &error));
                // The caller has gone if the disk took too long.
                let _ = answer.send(probed);
            }
        };
        let thread = thread::Builder::new().name("file-probe".into());
        thread.spawn(answer_all).map(|_| Self { asks })
    }

    /// Probes the folders that are due. Waits for the disk.
    pub(crate) async fn ask(&self) -> Result<(), SinkError> {
        let (answer, answered) = oneshot::channel();
        if self.asks.try_send(answer).is_err() {
            return Err(SinkError::Away(
                "the disk has not answered an earlier probe".into(),
            ));
        }
        let ended = |_| SinkError::Away("the probe has ended".into());
        answered.await.map_err(ended)?
    }
}

fn probe_due(folders: &[PathBuf], proofs: &Proofs) -> io::Result<()> {
    for due in proofs.due(Instant::now()) {
        probe(&folders[due.folder], due.bytes)?;
        proofs.prove(due, Instant::now());
    }
    Ok(())
}

/// Shows that a file can be written here now: writes one, syncs it and removes it again.
fn probe(folder: &Path, bytes: usize) -> io::Result<()> {
    create_durably(folder)?;
    let path = folder.join(".forebay-probe");
    let written = new_file()
        .truncate(true)
        .create(true)
        .open(&path)
        .and_then(|file| write(file, bytes));
    let removed = fs::remove_file(&path);
    written.and(removed)
}

fn write(mut file: File, bytes: usize) -> io::Result<()> {
    file.write_all(&vec![b'\n'; bytes])?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(proofs: &Proofs, now: Instant) -> Vec<(usize, usize)> {
        let due = proofs.due(now);
        due.iter().map(|due| (due.folder, due.bytes)).collect()
    }

    #[test]
    fn each_folder_is_probed_once_and_then_one_in_a_while() {
        let (proofs, now) = (Proofs::new(3), Instant::now());
        let second = |second| now + Duration::from_secs(second);
        assert_eq!(due(&proofs, now), [(0, 4096), (1, 4096), (2, 4096)]);
        for (due, at) in proofs.due(now).into_iter().zip([2, 0, 1]) {
            proofs.prove(due, second(at));
        }
        assert!(proofs.suffice(second(7)));
        assert_eq!(due(&proofs, second(8)), [(1, 4096)]);
        proofs.note(2, true, second(8));
        assert!(proofs.suffice(second(13)));
    }

    #[test]
    fn a_folder_that_failed_is_probed_with_a_batch_until_it_works() {
        let (proofs, now) = (Proofs::new(2), Instant::now());
        proofs.note(0, true, now);
        proofs.note(1, false, now);
        assert_eq!(due(&proofs, now), [(1, 1 << 20)]);
        let probed = proofs.due(now)[0];
        proofs.note(1, true, now);
        proofs.note(1, false, now);
        proofs.note(1, true, now + Duration::from_secs(1));
        proofs.prove(probed, now);
        assert_eq!(
            proofs.lock()[1],
            Proof::SyncedAt(now + Duration::from_secs(1)),
            "a later note counts more than a probe"
        );
    }
}
