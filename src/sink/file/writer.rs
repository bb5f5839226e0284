//! The thread that writes: it takes all jobs that wait, appends each stream's lines with one write
//! and one fdatasync, and then answers.
//!
//! The sink starts it and hands it jobs; it ends when the sink is dropped, and gives the folder's
//! lock back. A round is bounded in bytes, so that the first job of a large round does not wait for
//! the last. A job whose caller has gone is not written.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::folder::{AppendError, Folder, Rotation};
use super::probe::Proofs;
use super::refused;
use crate::durable::lock::{Lock, LockError};
use crate::record::Outcome;
use crate::sink::SinkError;

/// A round takes no further job once it has so many bytes.
const ROUND_BYTES_MAX: usize = 8 << 20;

/// A job that the thread is asked to do.
pub(super) enum Job {
    Append(Append),
    /// Takes the folder, if that has not been done.
    Prepare(oneshot::Sender<Result<(), SinkError>>),
}

/// Asks for whole lines to be appended in the folder at an index.
pub(super) struct Append {
    pub folder: usize,
    pub lines: Vec<u8>,
    pub outcome: oneshot::Sender<Outcome>,
}

/// Owns the files of all streams.
pub(super) struct Writer {
    dir: PathBuf,
    folders: Vec<Folder>,
    /// Taken at start, or later if the disk was away then.
    lock: Option<Lock>,
    proofs: Arc<Proofs>,
}

impl Writer {
    /// Writes to a folder in `dir` for each stream.
    pub(crate) fn new(
        dir: PathBuf,
        streams: &[&str],
        rotation: Rotation,
        proofs: Arc<Proofs>,
    ) -> Self {
        let folders = streams
            .iter()
            .map(|stream| Folder::new(&dir, stream, rotation))
            .collect();
        Self {
            dir,
            folders,
            lock: None,
            proofs,
        }
    }

    /// Takes the folder for this gateway and mends the damage of a crash, once.
    pub(crate) fn prepare(&mut self) -> Result<(), SinkError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let lock = Lock::acquire(&self.dir, "FOREBAY_FILE_DIR").map_err(|error| match error {
            LockError::Taken { .. } => SinkError::Misconfigured(error.to_string()),
            LockError::Io { error, .. } => refused(&self.dir, &error),
        })?;
        let prepared = self.folders.iter_mut().try_for_each(Folder::prepare);
        prepared.map_err(|error| refused(&self.dir, &error))?;
        self.lock = Some(lock);
        self.proofs.note_prepared();
        Ok(())
    }

    pub(crate) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.blocking_recv() {
            let mut round: Vec<_> = self.folders.iter().map(|_| Vec::new()).collect();
            let mut bytes = self.sort(job, &mut round);
            while bytes < ROUND_BYTES_MAX
                && let Ok(job) = jobs.try_recv()
            {
                bytes += self.sort(job, &mut round);
            }
            for (folder, appends) in round.into_iter().enumerate() {
                if !appends.is_empty() {
                    self.append(folder, appends);
                }
            }
        }
    }

    fn append_lines(&mut self, folder: usize, lines: &[&[u8]]) -> Outcome {
        debug_assert!(self.lock.is_some(), "the folder is this gateway's");
        let appended = self.folders[folder].append(lines, Instant::now());
        self.proofs.note(folder, appended.is_ok(), Instant::now());
        outcome(appended)
    }

    /// Puts an append to those of its folder and says how many bytes it has; prepares at once.
    fn sort(&mut self, job: Job, round: &mut [Vec<Append>]) -> usize {
        match job {
            Job::Append(append) if append.outcome.is_closed() => 0,
            Job::Append(append) => {
                let bytes = append.lines.len();
                round[append.folder].push(append);
                bytes
            }
            Job::Prepare(answer) => {
                // The caller has gone if it took too long.
                let _ = answer.send(self.prepare());
                0
            }
        }
    }

    /// Appends the round's lines for a folder, and answers.
    fn append(&mut self, folder: usize, appends: Vec<Append>) {
        let lines: Vec<_> = appends.iter().map(|append| &append.lines[..]).collect();
        let outcome = match self.prepare() {
            Ok(()) => self.append_lines(folder, &lines),
            Err(error) => Outcome::Retryable(error.to_string().into()),
        };
        for append in appends {
            // The caller has gone if the disk took too long.
            let _ = append.outcome.send(outcome.clone());
        }
    }
}

/// Says what an append that is over means for its records.
fn outcome(appended: Result<(), AppendError>) -> Outcome {
    match appended {
        Ok(()) => Outcome::Delivered,
        Err(AppendError {
            error,
            maybe_written,
        }) => {
            tracing::warn!(%error, maybe_written, "the file sink cannot write");
            match maybe_written {
                true => Outcome::Unknown,
                false => Outcome::Retryable(error.to_string().into()),
            }
        }
    }
}
