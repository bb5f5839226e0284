//! File sink: one JSON object a line, in a folder named after the stream's target.
//!
//! Delivery calls it; lines are rendered there (`line`) and handed to one thread (`writer`), which owns the files
//! (`folder`) and the lock that keeps a second gateway out.
//!
//! Invariant: `Delivered` means that the line is on disk, by fdatasync, in a file whose name is on disk too. All
//! batches that wait while the disk works share the next write and the next fdatasync. A file is finished at
//! `ROTATION`, by the next batch that comes, and is not opened again.
//!
//! When the disk fails, the append is undone and its records are `Retryable`, or `Unknown` when that fails too or the
//! disk gives no answer within `ack_timeout`; the next batch tries a new file, so the sink recovers with the disk.

mod folder;
pub mod line;
mod writer;

use std::path::{Component, Path};
use std::thread;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use self::folder::Rotation;
use self::writer::{Append, Job, Writer};
use super::{SinkError, SinkOptions};
use crate::config::{FileConfig, StreamConfig};
use crate::record::{Outcome, Outcomes, Record, StreamIndex};

const ROTATION: Rotation = Rotation {
    bytes_max: 256 << 20,
    age_max: Duration::from_secs(3600),
};

/// Batches that wait for the disk; the next ones wait in their order to be handed over.
const JOBS_WAITING_MAX: usize = 64;

/// A disk that takes longer to take a probe file is away.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a line beside the body and its device, about; saves growing the buffer.
const LINE_BYTES_EXTRA: usize = 256;

/// The handle to the writer thread, which ends when it is dropped.
pub struct FileSink {
    /// The lock is fair and there is one: it keeps the batches in the order of the calls. The channel alone does not,
    /// a sender that finds room again may overtake one that has been woken for it.
    jobs: Mutex<mpsc::Sender<Job>>,
    /// The writer's folder of each stream; streams with the same target share one.
    folders: Vec<usize>,
    ack_timeout: Duration,
}

impl FileSink {
    /// Takes the folder, mends torn tails and starts the writer. A folder that another gateway uses, or that this one
    /// may not write, is `Misconfigured`; one that is away is tried again later.
    pub fn open(config: &FileConfig, options: SinkOptions) -> Result<Self, SinkError> {
        let SinkOptions {
            streams,
            ack_timeout,
            ..
        } = options;
        streams.iter().try_for_each(check_target)?;
        let mut targets: Vec<_> = streams
            .iter()
            .map(|stream| stream.target.as_str())
            .collect();
        targets.sort_unstable();
        targets.dedup();
        let folders = streams
            .iter()
            .map(|stream| targets.partition_point(|target| **target < *stream.target))
            .collect();
        let mut writer = Writer::new(config.dir.clone(), &targets, ROTATION);
        match writer.prepare() {
            Err(SinkError::Away(reason)) => tracing::warn!(reason, "the file sink is away"),
            prepared => prepared?,
        }
        Ok(Self {
            jobs: Mutex::new(start(writer)?),
            folders,
            ack_timeout,
        })
    }

    /// Writes a small file in every folder and removes it again.
    pub async fn verify(&self) -> Result<(), SinkError> {
        let slow =
            |_| SinkError::Away(format!("the disk did not answer within {VERIFY_TIMEOUT:?}"));
        timeout(VERIFY_TIMEOUT, self.ask_writer())
            .await
            .map_err(slow)?
    }

    /// Resolves within `ack_timeout`. Cancelling leaves the outcome unknown.
    pub async fn deliver(&self, stream: StreamIndex, records: &[Record]) -> Outcomes {
        let Some(&folder) = self.folders.get(stream.get()) else {
            return Outcomes::All(Outcome::Retryable("the stream is not configured".into()));
        };
        if records.is_empty() {
            return Outcomes::DELIVERED;
        }
        let deadline = Instant::now() + self.ack_timeout;
        let (outcome, settled) = oneshot::channel();
        let job = Job::Append(Append {
            folder,
            lines: render(records),
            outcome,
        });
        let sent = async { self.jobs.lock().await.send(job).await };
        Outcomes::All(match timeout_at(deadline, sent).await {
            Ok(Ok(())) => match timeout_at(deadline, settled).await {
                Ok(Ok(outcome)) => outcome,
                _ => Outcome::Unknown,
            },
            Ok(Err(_)) => Outcome::Retryable("the writer has ended".into()),
            Err(_) => Outcome::Retryable("the disk is too slow".into()),
        })
    }

    async fn ask_writer(&self) -> Result<(), SinkError> {
        let ended = || SinkError::Away("the writer has ended".into());
        let (answer, answered) = oneshot::channel();
        self.jobs
            .lock()
            .await
            .send(Job::Verify(answer))
            .await
            .map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }
}

fn start(writer: Writer) -> Result<mpsc::Sender<Job>, SinkError> {
    let (sender, jobs) = mpsc::channel(JOBS_WAITING_MAX);
    let thread = thread::Builder::new()
        .name("file-sink".into())
        .spawn(move || writer.run(jobs));
    thread
        .map(|_| sender)
        .map_err(|error| SinkError::Misconfigured(format!("no thread for the file sink: {error}")))
}

fn render(records: &[Record]) -> Vec<u8> {
    let bytes =
        |record: &Record| record.payload.len() + record.device.as_str().len() + LINE_BYTES_EXTRA;
    let mut lines = Vec::with_capacity(records.iter().map(bytes).sum());
    records
        .iter()
        .for_each(|record| line::render(record, &mut lines));
    lines
}

/// A target is one folder below the sink's: no path, nothing hidden.
fn check_target(StreamConfig { name, target }: &StreamConfig) -> Result<(), SinkError> {
    let mut parts = Path::new(target).components();
    let one_folder = matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if *part == **target);
    if one_folder && !target.starts_with('.') {
        return Ok(());
    }
    Err(SinkError::Misconfigured(format!(
        "FOREBAY_STREAMS: {target:?} (stream {name}) cannot name a folder"
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::record::{DeviceId, Permit, RecordId, Timestamp};

    static RESERVED_BYTES: AtomicUsize = AtomicUsize::new(0);

    pub(super) fn record(device: &str, body: &[u8]) -> Record {
        Record {
            device: DeviceId::parse(device).unwrap(),
            payload: body.to_vec().into(),
            content_type: None,
            id: RecordId::new(Timestamp::now()),
            trace: None,
            received_at: Timestamp::now(),
            permit: Permit::holding(&RESERVED_BYTES, 0),
        }
    }

    #[test]
    fn a_target_is_one_folder() {
        let check = |target: &str| {
            check_target(&StreamConfig {
                name: "s".into(),
                target: target.into(),
            })
        };
        assert!(check("telemetry").is_ok() && check("plant 7.v2").is_ok());
        for target in [
            "", ".", "..", "../up", "/etc", "a/b", "a/", ".hidden", "a/..",
        ] {
            assert!(
                matches!(check(target), Err(SinkError::Misconfigured(_))),
                "{target}"
            );
        }
    }
}
