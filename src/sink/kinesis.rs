//! Kinesis sink: PutRecords with data = body and partition key = device id, or KPL aggregates of
//! them.
//!
//! Delivery calls it from one runtime, several batches at a time. Each stream has one dispatcher (a
//! task), which owns the records in flight and keeps up to `CALLS_IN_FLIGHT_MAX` calls running.
//! `pending` picks the puts of the next call, at the `pace` of each shard; `call` makes it, on one of
//! the `threads`; `failure` says what an error means for its records; `stream` knows the shards;
//! `service` asks AWS, with `credentials` that are good; `aggregate` packs.
//!
//! Invariant: a device has at most one put on the wire (a record, or a part of one aggregate), so
//! its records enter the stream in the order of the `deliver` calls, also when the middle of a call
//! fails; other devices fill the rest of the call. A batch of distinct devices is one call; while
//! every call is in flight, batches add up to larger ones.
//!
//! Limits: 500 puts and 5 MiB a call, 1000 puts and 1 MiB a second and shard, and a bound on the
//! records pending. A record is tried again, with jittered back-off, until three quarters of
//! `ack_timeout` are spent: then it is `Retryable`, or `Unknown` when a call with it got no answer.
//! A record whose shard has more to do than fits into a quarter is `Retryable` at once. `Permanent`
//! is only a stream's refusal of the record itself (502). A missing stream, a denied access and a
//! KMS key's state are `Barred` at once, and `verify` names the remedy where it sees them. The
//! SDK's own retries are off: they would not know which records failed.

pub(crate) mod aggregate;
mod call;
mod credentials;
mod dispatch;
mod entry;
mod failure;
mod overload;
mod pace;
mod pending;
mod queue;
pub(crate) mod service;
mod shards;
mod stream;
pub(crate) mod threads;
mod told;
mod turns;
mod verify;
mod wire;

use std::sync::{Arc, Mutex as StdMutex};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader};
use futures_util::future::join_all;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use self::credentials::{Chain, Clients};
use self::entry::{Deadlines, Entry};
use self::service::Service;
use self::stream::Stream;
use self::threads::CallThreads;
use self::told::Told;
use self::turns::Turns;
use self::verify::away;
use super::{Partitions, Progress, SinkError, SinkOptions};
use crate::config::{KinesisConfig, StreamConfig};
use crate::record::{Outcome, Outcomes, Record, StreamIndex};

/// A connection, TLS included, is made by then or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Bounds the description of a stream, and the wait for its turn.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(5);

/// Finding the region may ask the instance metadata service.
const REGION_TIMEOUT: Duration = Duration::from_secs(10);

/// Finding credentials may ask other services; it ends before a call is taken for sent and lost.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(3);

/// Batches handed over that the dispatcher has not taken yet; the next ones wait, in their order.
const BATCHES_WAITING_MAX: usize = 16;

/// The longest stream name, in characters of `A-Za-z0-9_.-`:
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_CreateStream.html>.
const STREAM_NAME_CHARS_MAX: usize = 128;

/// Record size of a stream that does not say its own, in bytes, partition key included:
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>.
const RECORD_BYTES_MAX_DEFAULT: usize = 1 << 20;

/// Looks at the streams' names, and for a region where no service has to be asked for it.
pub(super) async fn check(options: &SinkOptions) -> Result<Option<&'static str>, SinkError> {
    for stream in &options.streams {
        check_name(stream)?;
    }
    let environment = EnvironmentVariableRegionProvider::new();
    let files = ProfileFileRegionProvider::new();
    let known = RegionProviderChain::first_try(environment).or_else(files);
    Ok(match known.region().await {
        Some(_) => None,
        None => Some(
            "neither AWS_REGION nor a profile names a region: only an instance of AWS can tell one at the start",
        ),
    })
}

/// A stream, and its latest answer.
struct Described {
    config: StreamConfig,
    stream: Arc<Stream>,
    last_answer: StdMutex<LastAnswer>,
}

/// The answer to the latest question that has one.
struct LastAnswer {
    asked_at: Instant,
    answer: Result<(), SinkError>,
}

impl Described {
    /// Describes a stream of which nothing is known yet.
    fn unasked(config: StreamConfig, service: Service) -> Self {
        Self {
            stream: Arc::new(Stream::new(service, &config.target)),
            last_answer: StdMutex::new(LastAnswer {
                asked_at: Instant::now(),
                answer: Err(away(&config, "its turn has not come yet")),
            }),
            config,
        }
    }
}

/// Has a client for all streams and one dispatcher for each. Dropping it ends the dispatchers.
pub struct KinesisSink {
    streams: Vec<Described>,
    /// The lock is fair, and the only one: it keeps the batches in the order of the calls. The
    /// channel alone does not, as a sender that finds room again may overtake a sender that has
    /// been woken for it.
    dispatchers: Vec<Mutex<mpsc::Sender<Vec<Entry>>>>,
    /// Turns of the streams to be described.
    turns: Turns,
    /// Records are aggregated.
    packs: bool,
    body_bytes_max: usize,
    ack_timeout: Duration,
}

impl KinesisSink {
    /// Reads the AWS settings and starts a dispatcher for each stream on the current runtime. Asks
    /// nothing of Kinesis.
    pub async fn open(config: &KinesisConfig, options: SinkOptions) -> Result<Self, SinkError> {
        let chain = Chain::default();
        let settings =
            aws_config::defaults(BehaviorVersion::latest()).credentials_provider(chain.clone());
        Self::start(settings, Some(chain), config, options).await
    }

    /// Does as [`open`](Self::open), with AWS settings that do not come from the environment.
    pub async fn open_with(
        settings: ConfigLoader,
        config: &KinesisConfig,
        options: SinkOptions,
    ) -> Result<Self, SinkError> {
        Self::start(settings, None, config, options).await
    }

    async fn start(
        settings: ConfigLoader,
        chain: Option<Chain>,
        config: &KinesisConfig,
        options: SinkOptions,
    ) -> Result<Self, SinkError> {
        for stream in &options.streams {
            check_name(stream)?;
        }
        let threads = CallThreads::start(options.threads)
            .map_err(|error| SinkError::Misconfigured(format!("threads for Kinesis: {error}")))?;
        let clients = connect(settings, chain, options.ack_timeout).await?;
        let service = Service::Aws(Arc::new(clients));
        Ok(Self::of(service, config, options, threads))
    }

    /// Starts a dispatcher for each stream on the current runtime, all of which ask this service, on
    /// these threads.
    pub(crate) fn of(
        service: Service,
        config: &KinesisConfig,
        options: SinkOptions,
        threads: CallThreads,
    ) -> Self {
        let threads = Arc::new(threads);
        let mut streams = Vec::with_capacity(options.streams.len());
        let mut dispatchers = Vec::with_capacity(options.streams.len());
        for stream in options.streams {
            let described = Described::unasked(stream, service.clone());
            dispatchers.push(start_dispatcher(
                &described.stream,
                &threads,
                config.aggregate,
            ));
            streams.push(described);
        }
        Self {
            streams,
            dispatchers,
            turns: Turns::new(Instant::now()),
            packs: config.aggregate,
            body_bytes_max: options.body_bytes_max,
            ack_timeout: options.ack_timeout,
        }
    }

    /// Describes these streams: is each there, does it take records, does the largest body fit,
    /// which shards does it have? The service allows an account few of these calls, so ask in doubt
    /// only; more than `turns` allow wait.
    pub async fn verify(&self, streams: &[StreamIndex]) -> Vec<Result<(), SinkError>> {
        join_all(streams.iter().map(|stream| self.answer_of(*stream))).await
    }

    /// Returns the shards of the stream, and those that are overloaded now; `None` while they are
    /// not known.
    pub(crate) fn partitions(&self, stream: StreamIndex) -> Option<Partitions> {
        self.streams[stream.get()].stream.partitions()
    }

    /// Whether several records of a device share a put.
    pub(crate) fn aggregates(&self) -> bool {
        self.packs
    }

    /// Puts the records, within `ack_timeout`. A cancelled call drops the records that were not
    /// sent.
    pub async fn deliver(&self, stream: StreamIndex, records: &[Record]) -> Outcomes {
        let nobody = Progress::default();
        self.deliver_with(stream, records, &nobody).await
    }

    /// Delivers as [`deliver`](Self::deliver) does; `progress` tells of the records that are
    /// written.
    pub(crate) async fn deliver_with(
        &self,
        stream: StreamIndex,
        records: &[Record],
        progress: &Progress,
    ) -> Outcomes {
        let Some(dispatcher) = self.dispatchers.get(stream.get()) else {
            return none_written("the stream is not configured");
        };
        if records.is_empty() {
            return Outcomes::DELIVERED;
        }
        let deadlines = Deadlines::from(Instant::now(), self.ack_timeout);
        let told = Told::nothing_of(records.len());
        let waiting = told.wait();
        let batch = entries(records, deadlines, &told);
        let sent = async { dispatcher.lock().await.send(batch).await };
        match timeout_at(deadlines.last_call, sent).await {
            Ok(Ok(())) => {
                progress.follow(told);
                waiting.outcomes(deadlines.outcome).await
            }
            Ok(Err(_)) => none_written("the dispatcher has ended"),
            Err(_) => none_written("too many records wait for the stream"),
        }
    }
}

fn none_written(reason: &str) -> Outcomes {
    Outcomes::All(Outcome::Retryable(reason.into()))
}

async fn connect(
    settings: ConfigLoader,
    chain: Option<Chain>,
    ack_timeout: Duration,
) -> Result<Clients, SinkError> {
    const _: () = assert!(CREDENTIALS_TIMEOUT.as_secs() < VERIFY_TIMEOUT.as_secs());
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT.min(ack_timeout))
        .operation_timeout(VERIFY_TIMEOUT.max(ack_timeout))
        .build();
    let settings = settings
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts);
    let config = timeout(REGION_TIMEOUT, settings.load()).await.ok();
    match config {
        Some(config) if config.region().is_some() => Ok(Clients::new(
            config,
            chain,
            CREDENTIALS_TIMEOUT.min(ack_timeout / 2),
        )),
        _ => Err(SinkError::Misconfigured(
            "Kinesis needs a region: set AWS_REGION, or region in the AWS profile".into(),
        )),
    }
}

fn start_dispatcher(
    stream: &Arc<Stream>,
    threads: &Arc<CallThreads>,
    packed: bool,
) -> Mutex<mpsc::Sender<Vec<Entry>>> {
    let (sender, batches) = mpsc::channel(BATCHES_WAITING_MAX);
    let (stream, threads) = (stream.clone(), threads.clone());
    tokio::spawn(dispatch::run(stream, threads, packed, batches));
    Mutex::new(sender)
}

/// Makes the records' entries, each with its place in the batch to reply for.
fn entries(records: &[Record], deadlines: Deadlines, told: &Told) -> Vec<Entry> {
    let mut entries = Vec::with_capacity(records.len());
    for (index, record) in (0..).zip(records) {
        entries.push(Entry::new(record, deadlines, told.reply(index)));
    }
    entries
}

fn check_name(stream: &StreamConfig) -> Result<(), SinkError> {
    let StreamConfig { name, target } = stream;
    let fits = (1..=STREAM_NAME_CHARS_MAX).contains(&target.len());
    if fits
        && target
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    {
        return Ok(());
    }
    Err(SinkError::Misconfigured(format!(
        "FOREBAY_STREAMS: {target:?} (stream {name}) is no Kinesis stream name: 1 to 128 characters of A-Z a-z 0-9 _ . -"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(target: &str) -> StreamConfig {
        StreamConfig {
            name: "telemetry".into(),
            target: target.into(),
        }
    }

    #[test]
    fn a_stream_that_cannot_exist_is_named() {
        assert!(check_name(&stream("plant-7_telemetry.v2")).is_ok());
        for target in ["", "a/b", "ü", &"x".repeat(129)] {
            let error = check_name(&stream(target)).unwrap_err();
            assert!(
                matches!(&error, SinkError::Misconfigured(text) if text.contains("FOREBAY_STREAMS"))
            );
        }
    }
}
