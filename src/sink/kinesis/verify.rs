//! Verification of a stream: is it there, does it take records, does the largest body fit, and
//! which shards does it have?
//!
//! Delivery's watch asks at the start and in doubt. The service answers an account few of these
//! questions, so each waits for its turn; a question too many leaves the stream as it was. A stream
//! that can never take the largest body is `Misconfigured`; one that is missing, or closed to these
//! credentials, is `Closed` and the text names the remedy.

use std::sync::PoisonError;

use aws_sdk_kinesis::operation::describe_stream_summary::DescribeStreamSummaryOutput;
use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamStatus};
use tokio::time::{Instant, timeout};

use super::failure::Failure;
use super::stream::Stream;
use super::{KinesisSink, LastAnswer, RECORD_BYTES_MAX_DEFAULT, VERIFY_TIMEOUT};
use crate::config::StreamConfig;
use crate::record::{DEVICE_ID_CHARS_MAX, StreamIndex};
use crate::sink::SinkError;

/// The stream could not be asked now: it is as it was.
struct NoNews;

impl KinesisSink {
    pub(super) async fn answer_of(&self, stream: StreamIndex) -> Result<(), SinkError> {
        let described = &self.streams[stream.get()];
        let asked_at = Instant::now();
        let answer = self
            .describe_in_time(&described.config, &described.stream)
            .await;
        let last_answer = described.last_answer.lock();
        let mut last = last_answer.unwrap_or_else(PoisonError::into_inner);
        if let Ok(answer) = answer
            && last.asked_at <= asked_at
        {
            *last = LastAnswer { asked_at, answer };
        }
        last.answer.clone()
    }

    async fn describe_in_time(
        &self,
        config: &StreamConfig,
        stream: &Stream,
    ) -> Result<Result<(), SinkError>, NoNews> {
        let turn = timeout(VERIFY_TIMEOUT, self.turns.next()).await;
        turn.map_err(|_| NoNews)?;
        let described = timeout(VERIFY_TIMEOUT, self.describe(config, stream)).await;
        let slow = format!("Kinesis did not answer within {VERIFY_TIMEOUT:?}");
        described.unwrap_or(Ok(Err(SinkError::Away(slow))))
    }

    /// Asks for the description. The account shares a few questions a second among all that ask:
    /// one too many is no news.
    async fn describe(
        &self,
        config: &StreamConfig,
        stream: &Stream,
    ) -> Result<Result<(), SinkError>, NoNews> {
        match stream.service.describe(&config.target).await {
            Ok(answer) => Ok(self.judge(config, stream, answer).await),
            Err(failure) if failure.is_throttling() => Err(NoNews),
            Err(failure) => Ok(Err(not_described(config, &failure))),
        }
    }

    async fn judge(
        &self,
        config: &StreamConfig,
        stream: &Stream,
        answer: DescribeStreamSummaryOutput,
    ) -> Result<(), SinkError> {
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

    /// Asks for the shards. Where they may not be listed, all are one: single records go on, paced
    /// by the fullest; aggregates need to know them.
    async fn find_shards(&self, config: &StreamConfig, stream: &Stream) -> Result<(), SinkError> {
        match stream.list_shards().await {
            Ok(_) => Ok(()),
            Err(failure) if failure.is_denied() && !self.packs => {
                stream.warn_of_one_shard();
                Ok(())
            }
            Err(failure) if failure.is_throttling() && stream.shards().are_known() => Ok(()),
            Err(failure) => Err(not_described(config, &failure)),
        }
    }
}

fn not_described(stream: &StreamConfig, failure: &Failure) -> SinkError {
    let StreamConfig { name, target } = stream;
    let reason = failure.reason();
    match (failure, &**reason) {
        (Failure::Barred(_), "ResourceNotFoundException") => SinkError::Closed(format!(
            "the Kinesis stream {target} (stream {name}) does not exist in this account and region: create it, or \
             name another one in FOREBAY_STREAMS ({name}=TARGET)"
        )),
        (failure, _) if failure.is_denied() => SinkError::Closed(format!(
            "the Kinesis stream {target} (stream {name}) may not be used with these AWS credentials: they need \
             kinesis:DescribeStreamSummary and kinesis:PutRecords, and with FOREBAY_KINESIS_AGGREGATE \
             kinesis:ListShards"
        )),
        _ => away(stream, reason),
    }
}

pub(super) fn away(stream: &StreamConfig, reason: &str) -> SinkError {
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

/// Refuses a stream that ignores keys: it keeps no device's order, and consumers drop the
/// aggregates in it:
/// <https://docs.aws.amazon.com/streams/latest/dev/service-managed-pk-kpl-aggregation.html>.
fn check_distribution(
    stream: &StreamConfig,
    strategy: Option<&RecordDistributionStrategy>,
) -> Result<(), SinkError> {
    match strategy {
        Some(RecordDistributionStrategy::Auto) => Err(SinkError::Closed(format!(
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
        assert!(matches!(&error, SinkError::Closed(text) if text.contains("kinesis:PutRecords")));
        let error = not_described(
            &stream("s"),
            &Failure::Expired("ExpiredTokenException".into()),
        );
        assert!(matches!(error, SinkError::Away(_)));
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
        assert!(matches!(&error, SinkError::Closed(text) if text.contains("USER_PARTITION_KEY")));
    }

    #[test]
    fn a_stream_in_the_making_is_away() {
        assert!(check_status(&stream("s"), &StreamStatus::Updating).is_ok());
        let error = check_status(&stream("s"), &StreamStatus::Creating).unwrap_err();
        assert!(matches!(&error, SinkError::Away(text) if text.contains("CREATING")));
    }
}
