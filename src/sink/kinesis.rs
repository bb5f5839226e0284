//! Kinesis sink: PutRecords with data = body and partition key = device id, or KPL aggregates of them.
//!
//! Delivery calls it from one runtime, several batches at a time. Each stream has one dispatcher (a task), which owns
//! what is on its way and keeps up to `CALLS_IN_FLIGHT_MAX` calls running. `pending` decides what goes into the next
//! call, at the `pace` of each shard; `call` makes it; `failure` says what an error means for its records; `stream` knows
//! the shards and sees to credentials; `aggregate` packs.
//!
//! Invariant: a device has at most one put on the wire (a record, or a part of one aggregate), so its records enter the
//! stream in the order of the `deliver` calls, also when the middle of a call fails; other devices fill the rest of the
//! call. A batch of distinct devices is one call; while every call is in flight, batches add up to larger ones.
//!
//! Limits: 500 puts and 5 MiB a call, 1000 puts and 1 MiB a second and shard, and a bound on the records pending. A
//! record is tried again, with jittered back-off, until three quarters of `ack_timeout` are spent: then it is
//! `Retryable`, or `Unknown` when a call with it got no answer. One whose shard has more to do than fits into a quarter is
//! `Retryable` at once. `Permanent` is only what the stream says of the record itself (502). A missing stream or a denied
//! access is `Barred`, a KMS key's state `Retryable`, both at once, and `verify` says what to do. The SDK's own retries are
//! off: they would not know which records failed.

pub mod aggregate;
mod call;
mod credentials;
mod dispatch;
mod entry;
mod failure;
mod pace;
mod pending;
mod queue;
mod shards;
mod stream;

use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader};
use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamStatus};
use futures_util::future::try_join_all;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout, timeout_at};

use self::credentials::{Chain, Clients};
use self::entry::{Deadlines, Entry, Reply};
use self::failure::Failure;
use self::stream::Stream;
use super::{SinkError, SinkOptions};
use crate::config::{KinesisConfig, StreamConfig};
use crate::record::{DEVICE_ID_CHARS_MAX, Outcome, Outcomes, Record, StreamIndex};

/// A connection, TLS included, is there by then or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The description of all streams.
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

/// A client for all streams and one dispatcher for each. Dropping it ends the dispatchers.
pub struct KinesisSink {
    streams: Vec<(StreamConfig, Arc<Stream>)>,
    /// The lock is fair and there is one: it keeps the batches in the order of the calls. The channel alone does not,
    /// a sender that finds room again may overtake one that has been woken for it.
    dispatchers: Vec<Mutex<mpsc::Sender<Vec<Entry>>>>,
    /// Records are aggregated.
    packs: bool,
    body_bytes_max: usize,
    ack_timeout: Duration,
}

impl KinesisSink {
    /// Reads the AWS settings and starts a dispatcher for each stream on the current runtime. Asks nothing of Kinesis.
    pub async fn open(config: &KinesisConfig, options: SinkOptions) -> Result<Self, SinkError> {
        let chain = Chain::default();
        let settings =
            aws_config::defaults(BehaviorVersion::latest()).credentials_provider(chain.clone());
        Self::start(settings, Some(chain), config, options).await
    }

    /// As [`open`](Self::open), with AWS settings that do not come from the environment.
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
        let SinkOptions {
            streams,
            body_bytes_max,
            ack_timeout,
            ..
        } = options;
        let clients = Arc::new(connect(settings, chain, ack_timeout).await?);
        let stream = |stream: StreamConfig| {
            (
                Arc::new(Stream::new(clients.clone(), &stream.target)),
                stream,
            )
        };
        let streams: Vec<_> = streams
            .into_iter()
            .map(stream)
            .map(|(stream, config)| (config, stream))
            .collect();
        let dispatchers = streams
            .iter()
            .map(|(_, stream)| start_dispatcher(stream, config.aggregate))
            .collect();
        Ok(Self {
            streams,
            dispatchers,
            packs: config.aggregate,
            body_bytes_max,
            ack_timeout,
        })
    }

    /// Describes every stream: is it there, does it take records, does the largest body fit, which shards does it have?
    /// The service allows few of these calls (20 a second and account), so ask about once a second at most.
    pub async fn verify(&self) -> Result<(), SinkError> {
        let checks = try_join_all(
            self.streams
                .iter()
                .map(|(config, stream)| self.verify_stream(config, stream)),
        );
        let slow = |_| SinkError::Away(format!("Kinesis did not answer within {VERIFY_TIMEOUT:?}"));
        timeout(VERIFY_TIMEOUT, checks)
            .await
            .map_err(slow)?
            .map(|_| ())
    }

    /// Resolves within `ack_timeout`. Cancelling drops what has not been sent.
    pub async fn deliver(&self, stream: StreamIndex, records: &[Record]) -> Outcomes {
        let Some(dispatcher) = self.dispatchers.get(stream.get()) else {
            return Outcomes::All(Outcome::Retryable("the stream is not configured".into()));
        };
        if records.is_empty() {
            return Outcomes::DELIVERED;
        }
        let deadlines = Deadlines::from(Instant::now(), self.ack_timeout);
        let (reply, outcomes) = mpsc::channel(records.len());
        let batch = entries(records, deadlines, &reply);
        drop(reply);
        let sent = async { dispatcher.lock().await.send(batch).await };
        match timeout_at(deadlines.last_call, sent).await {
            Ok(Ok(())) => collect(outcomes, records.len(), deadlines.outcome).await,
            Ok(Err(_)) => Outcomes::All(Outcome::Retryable("the dispatcher has ended".into())),
            Err(_) => Outcomes::All(Outcome::Retryable(
                "too many records wait for the stream".into(),
            )),
        }
    }

    async fn verify_stream(&self, config: &StreamConfig, stream: &Stream) -> Result<(), SinkError> {
        let answer = stream
            .client()
            .describe_stream_summary()
            .stream_name(&config.target)
            .send()
            .await;
        let answer = match answer.map_err(|error| stream.failure(&error)) {
            // The account shares a few questions a second among all that ask: no news, and none of the stream.
            Err(failure) if failure.is_throttling() && stream.shards().are_known() => return Ok(()),
            answer => answer.map_err(|failure| not_described(config, &failure))?,
        };
        let summary = answer
            .stream_description_summary()
            .ok_or_else(|| away(config, "an empty description"))?;
        check_status(config, summary.stream_status())?;
        check_distribution(config, summary.record_distribution_strategy())?;
        check_record_size(
            config,
            self.body_bytes_max,
            record_bytes_max(summary.max_record_size_in_kib()),
        )?;
        self.find_shards(config, stream).await
    }

    /// Where they may not be listed, all are one: single records go on, paced by the fullest; aggregates need to know them.
    async fn find_shards(&self, config: &StreamConfig, stream: &Stream) -> Result<(), SinkError> {
        match stream.list_shards().await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_denied() && !self.packs => {
                stream.warn_of_one_shard();
                Ok(())
            }
            Err(failure) => Err(not_described(config, &failure)),
        }
    }
}

async fn connect(
    settings: ConfigLoader,
    chain: Option<Chain>,
    ack_timeout: Duration,
) -> Result<Clients, SinkError> {
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

fn start_dispatcher(stream: &Arc<Stream>, packed: bool) -> Mutex<mpsc::Sender<Vec<Entry>>> {
    let (sender, batches) = mpsc::channel(BATCHES_WAITING_MAX);
    tokio::spawn(dispatch::run(stream.clone(), packed, batches));
    Mutex::new(sender)
}

fn entries(
    records: &[Record],
    deadlines: Deadlines,
    reply: &mpsc::Sender<(u32, Outcome)>,
) -> Vec<Entry> {
    let entry = |(index, record)| Entry::new(record, deadlines, Reply::new(index, reply.clone()));
    (0..).zip(records).map(entry).collect()
}

/// Gathers the outcomes; what is not reported by `deadline` is unknown.
async fn collect(
    mut reported: mpsc::Receiver<(u32, Outcome)>,
    records: usize,
    deadline: Instant,
) -> Outcomes {
    let mut outcomes = vec![Outcome::Unknown; records];
    while let Ok(Some((index, outcome))) = timeout_at(deadline, reported.recv()).await {
        outcomes[index as usize] = outcome;
    }
    match outcomes
        .iter()
        .all(|outcome| *outcome == Outcome::Delivered)
    {
        true => Outcomes::DELIVERED,
        false => Outcomes::Each(outcomes),
    }
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

fn not_described(stream: &StreamConfig, failure: &Failure) -> SinkError {
    let StreamConfig { name, target } = stream;
    let reason = failure.reason();
    match (failure, &**reason) {
        (Failure::Barred(_), "ResourceNotFoundException") => SinkError::Misconfigured(format!(
            "the Kinesis stream {target} (stream {name}) does not exist in this account and region: create it, or \
             name another one in FOREBAY_STREAMS ({name}=TARGET)"
        )),
        (failure, _) if failure.is_denied() => SinkError::Misconfigured(format!(
            "the Kinesis stream {target} (stream {name}) may not be used with these AWS credentials: they need \
             kinesis:DescribeStreamSummary and kinesis:PutRecords, and with FOREBAY_KINESIS_AGGREGATE \
             kinesis:ListShards"
        )),
        _ => away(stream, reason),
    }
}

fn away(stream: &StreamConfig, reason: &str) -> SinkError {
    SinkError::Away(format!(
        "the Kinesis stream {} cannot be asked: {reason}",
        stream.target
    ))
}

fn check_status(stream: &StreamConfig, status: &StreamStatus) -> Result<(), SinkError> {
    match status {
        StreamStatus::Active | StreamStatus::Updating => Ok(()),
        status => Err(SinkError::Away(format!(
            "the Kinesis stream {} is {status}",
            stream.target
        ))),
    }
}

/// A stream that ignores keys keeps no device's order, and consumers drop the aggregates in it:
/// <https://docs.aws.amazon.com/streams/latest/dev/service-managed-pk-kpl-aggregation.html>.
fn check_distribution(
    stream: &StreamConfig,
    strategy: Option<&RecordDistributionStrategy>,
) -> Result<(), SinkError> {
    match strategy {
        Some(RecordDistributionStrategy::Auto) => Err(SinkError::Misconfigured(format!(
            "the Kinesis stream {} ignores partition keys, so a device's readings would lose their order: set its record \
             distribution strategy to USER_PARTITION_KEY",
            stream.target
        ))),
        _ => Ok(()),
    }
}

fn record_bytes_max(kib: Option<i32>) -> usize {
    let kib = kib
        .and_then(|kib| usize::try_from(kib).ok())
        .filter(|kib| *kib > 0);
    kib.map_or(RECORD_BYTES_MAX_DEFAULT, |kib| kib * 1024)
}

fn check_record_size(
    stream: &StreamConfig,
    body_bytes_max: usize,
    record_bytes_max: usize,
) -> Result<(), SinkError> {
    if body_bytes_max + DEVICE_ID_CHARS_MAX <= record_bytes_max {
        return Ok(());
    }
    let body_bytes_fit = record_bytes_max - DEVICE_ID_CHARS_MAX;
    Err(SinkError::Misconfigured(format!(
        "FOREBAY_BODY_BYTES_MAX is {body_bytes_max}, but a record of the Kinesis stream {} holds {record_bytes_max} \
         bytes, {DEVICE_ID_CHARS_MAX} of them for the device id: set it to {body_bytes_fit} or less, or raise the \
         stream's record size",
        stream.target
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
    fn a_body_and_its_key_must_fit_a_record() {
        let limit = RECORD_BYTES_MAX_DEFAULT;
        assert!(check_record_size(&stream("s"), limit - 128, limit).is_ok());
        let error = check_record_size(&stream("s"), limit - 127, limit).unwrap_err();
        assert!(
            matches!(&error, SinkError::Misconfigured(text) if text.contains("FOREBAY_BODY_BYTES_MAX"))
        );
    }

    #[test]
    fn a_stream_says_its_record_size_or_has_the_default() {
        assert_eq!(
            [Some(10_240), Some(0), None].map(record_bytes_max),
            [10 << 20, 1 << 20, 1 << 20]
        );
    }

    #[test]
    fn missing_rights_are_not_an_absence() {
        let error = not_described(
            &stream("s"),
            &Failure::Barred("AccessDeniedException".into()),
        );
        assert!(
            matches!(&error, SinkError::Misconfigured(text) if text.contains("kinesis:PutRecords"))
        );
        let error = not_described(
            &stream("s"),
            &Failure::Expired("ExpiredTokenException".into()),
        );
        assert!(matches!(error, SinkError::Away(_)));
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

    #[test]
    fn a_stream_that_ignores_keys_is_not_taken() {
        assert!(
            check_distribution(
                &stream("s"),
                Some(&RecordDistributionStrategy::UserPartitionKey)
            )
            .is_ok()
        );
        let error =
            check_distribution(&stream("s"), Some(&RecordDistributionStrategy::Auto)).unwrap_err();
        assert!(
            matches!(&error, SinkError::Misconfigured(text) if text.contains("USER_PARTITION_KEY"))
        );
    }

    #[test]
    fn a_stream_in_the_making_is_away() {
        assert!(check_status(&stream("s"), &StreamStatus::Updating).is_ok());
        let error = check_status(&stream("s"), &StreamStatus::Creating).unwrap_err();
        assert!(matches!(&error, SinkError::Away(text) if text.contains("CREATING")));
    }
}
