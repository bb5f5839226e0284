//! File sink: one JSON object a line, in a folder named after the stream; a stream's target means
//! nothing here.
//!
//! Delivery calls it; lines are rendered there (`line`) and handed to one thread (`writer`), which
//! owns the files (`folder`) and the lock that keeps a second gateway out. Another thread (`probe`)
//! asks the disk when nothing is written.
//!
//! Invariant: `Delivered` means that the line is on disk, by fdatasync, in a file whose name is on
//! disk too. All batches that wait while the disk works share the next write and the next
//! fdatasync. A file is finished at `ROTATION`, by the next batch that comes, and is not opened
//! again.
//!
//! When the disk fails, the append is undone and its records are `Retryable`, or `Unknown` when
//! that fails too or the disk gives no answer within `ack_timeout`; the next batch tries a new
//! file, so the sink recovers with the disk.

mod folder;
pub(crate) mod line;
mod probe;
mod writer;

use std::io;
use std::path::{Component, Path};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use self::folder::Rotation;
use self::probe::{Prober, Proofs};
use self::writer::{Append, Job, Writer};
use super::{SinkError, SinkOptions};
use crate::config::{FileConfig, StreamConfig};
use crate::record::{Outcome, Outcomes, Record, StreamIndex};

const ROTATION: Rotation = Rotation {
    bytes_max: 256 << 20,
    age_max: Duration::from_secs(3600),
};

/// The name of the thread that writes the files.
pub(crate) const THREAD: &str = "file-sink";

/// Batches that wait for the disk; the next ones wait in their order to be handed over.
const JOBS_WAITING_MAX: usize = 64;

/// A disk that takes longer to answer a probe is away.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that a line has beside the body and its device, about; saves growing the buffer.
const LINE_BYTES_EXTRA: usize = 256;

/// Hands batches to the writer thread, which ends when this handle is dropped.
pub struct FileSink {
    /// The lock is fair, and the only one: it keeps the batches in the order of the calls. The
    /// channel alone does not, as a sender that finds room again may overtake a sender that has
    /// been woken for it.
    jobs: Mutex<mpsc::Sender<Job>>,
    /// Number of folders, one for each stream.
    folders: usize,
    proofs: Arc<Proofs>,
    prober: Prober,
    ack_timeout: Duration,
}

impl FileSink {
    /// Takes the folder, mends torn tails and starts the threads. A folder that another gateway
    /// uses, or that this one may not write, is `Misconfigured`; a folder that is away is tried
    /// again later.
    pub fn open(config: &FileConfig, options: SinkOptions) -> Result<Self, SinkError> {
        let mut names = Vec::with_capacity(options.streams.len());
        for stream in &options.streams {
            check_name(stream)?;
            names.push(stream.name.as_str());
        }
        let dir = &config.dir;
        let proofs = Arc::new(Proofs::new(names.len()));
        let mut writer = Writer::new(dir.clone(), &names, ROTATION, proofs.clone());
        match writer.prepare() {
            Err(SinkError::Away(reason)) => tracing::warn!(reason, "the file sink is away"),
            prepared => prepared?,
        }
        let folders = names.iter().map(|name| dir.join(name)).collect();
        let prober = Prober::start(dir.clone(), folders, proofs.clone());
        Ok(Self {
            jobs: Mutex::new(start(writer).map_err(no_thread)?),
            prober: prober.map_err(no_thread)?,
            folders: names.len(),
            proofs,
            ack_timeout: options.ack_timeout,
        })
    }

    /// Checks that every folder can be written: the syncs of the last few seconds prove it, else a
    /// small file is written and removed again.
    pub async fn verify(&self) -> Result<(), SinkError> {
        let slow =
            |_| SinkError::Away(format!("the disk did not answer within {VERIFY_TIMEOUT:?}"));
        timeout(VERIFY_TIMEOUT, self.prove()).await.map_err(slow)?
    }

    async fn prove(&self) -> Result<(), SinkError> {
        if !self.proofs.is_prepared() {
            self.prepare().await?;
        }
        if self.proofs.suffice(Instant::now().into_std()) {
            return Ok(());
        }
        self.prober.ask().await
    }

    /// Writes the records as lines, within `ack_timeout`. Cancelling leaves the outcome unknown.
    pub async fn deliver(&self, stream: StreamIndex, records: &[Record]) -> Outcomes {
        if stream.get() >= self.folders {
            return Outcomes::All(Outcome::Retryable("the stream is not configured".into()));
        }
        if records.is_empty() {
            return Outcomes::DELIVERED;
        }
        Outcomes::All(self.append(stream.get(), render(records)).await)
    }

    /// Hands the lines over and waits for their outcome.
    async fn append(&self, folder: usize, lines: Vec<u8>) -> Outcome {
        debug_assert_eq!(lines.last(), Some(&b'\n'), "only whole lines are appended");
        let deadline = Instant::now() + self.ack_timeout;
        let (outcome, settled) = oneshot::channel();
        let job = Job::Append(Append {
            folder,
            lines,
            outcome,
        });
        let sent = async { self.jobs.lock().await.send(job).await };
        match timeout_at(deadline, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Outcome::Retryable("the writer has ended".into()),
            Err(_) => return Outcome::Retryable("the disk is too slow".into()),
        }
        match timeout_at(deadline, settled).await {
            Ok(Ok(outcome)) => outcome,
            _ => Outcome::Unknown,
        }
    }

    /// Asks the writer to take the folder, which was away at the start.
    async fn prepare(&self) -> Result<(), SinkError> {
        let ended = || SinkError::Away("the writer has ended".into());
        let (answer, answered) = oneshot::channel();
        self.jobs
            .lock()
            .await
            .send(Job::Prepare(answer))
            .await
            .map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

fn start(writer: Writer) -> io::Result<mpsc::Sender<Job>> {
    let (sender, jobs) = mpsc::channel(JOBS_WAITING_MAX);
    let thread = thread::Builder::new().name(THREAD.into());
    thread.spawn(move || writer.run(jobs)).map(|_| sender)
}

fn no_thread(error: io::Error) -> SinkError {
    SinkError::Misconfigured(format!("no thread for the file sink: {error}"))
}

/// Says what a failure means: a disk that refuses for good needs an operator, any other may pass.
fn refused(dir: &Path, error: &io::Error) -> SinkError {
    use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
    let dir = dir.display();
    match error.kind() {
        PermissionDenied | NotADirectory | ReadOnlyFilesystem => {
            SinkError::Misconfigured(format!("cannot write to FOREBAY_FILE_DIR ({dir}): {error}"))
        }
        _ => SinkError::Away(format!("cannot write to {dir}: {error}")),
    }
}

fn render(records: &[Record]) -> Vec<u8> {
    let bytes =
        |record: &Record| record.payload.len() + record.device.as_str().len() + LINE_BYTES_EXTRA;
    let mut lines = Vec::with_capacity(records.iter().map(bytes).sum());
    for record in records {
        line::render(record, &mut lines);
    }
    lines
}

/// Checks that a stream's name is one folder below the sink's: no path, nothing hidden.
fn check_name(StreamConfig { name, .. }: &StreamConfig) -> Result<(), SinkError> {
    let parts: Vec<_> = Path::new(name).components().collect();
    let is_one_folder = matches!(parts[..], [Component::Normal(part)] if *part == **name);
    if is_one_folder && !name.starts_with('.') {
        return Ok(());
    }
    Err(SinkError::Misconfigured(format!(
        "FOREBAY_STREAMS: {name:?} cannot name a folder"
    )))
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::record::Timestamp;

    pub(super) fn record(device: &str, body: &[u8]) -> Record {
        Record::bare(device, body.to_vec(), Timestamp::now())
    }

    #[test]
    fn a_name_is_one_folder() {
        let check = |name: &str| {
            check_name(&StreamConfig {
                name: name.into(),
                target: "anything".into(),
            })
        };
        assert!(check("telemetry").is_ok() && check("plant 7.v2").is_ok());
        for name in [
            "", ".", "..", "../up", "/etc", "a/b", "a/", ".hidden", "a/..",
        ] {
            assert!(
                matches!(check(name), Err(SinkError::Misconfigured(_))),
                "{name}"
            );
        }
    }
}
