//! The simulated service of Kinesis, for the real sink: it reads the calls that the sink writes.
//!
//! What it keeps of the service's rules:
//! - PutRecords (<https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>):
//!   each entry is written or fails by itself, with `ProvisionedThroughputExceededException` or
//!   `InternalFailure`; one that is too large has the whole call refused. An entry belongs to the
//!   shard that has its explicit hash key, or else the MD5 of its partition key, and its answer
//!   names that shard.
//! - Resharding
//!   (<https://docs.aws.amazon.com/streams/latest/dev/kinesis-using-sdk-java-resharding.html>): from
//!   one moment on other shards have the keys, under other names; the old ones stay listed, ended.
//! - Aggregates (<https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md>):
//!   a consumer takes a record of one only if its key belongs to the shard that it reads.
//! - Credentials: those that have expired stay so, whenever they were found:
//!   `ExpiredTokenException`
//!   (<https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html>).
//!
//! It lives on when the gateway dies: a call under way is written or not, whether its sender waits
//! for the answer or is gone.

use std::rc::Rc;

use aws_sdk_kinesis::operation::describe_stream_summary::DescribeStreamSummaryOutput;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{PutRecordsResultEntry, StreamDescriptionSummary, StreamStatus};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use self::entry::Entry;
use self::shards::Shards;
use super::broker::Broker;
use super::plan::What;
use crate::sink::kinesis::service::tests::{Answer, Asked, Question, Refusal};

mod entry;
mod shards;

/// Questions that were not looked at yet.
const QUESTIONS_MAX: usize = 1024;

/// Starts the service of all streams; it answers for as long as somebody may ask.
pub(crate) fn start(broker: Rc<Broker>) -> mpsc::Sender<Question> {
    let (asked, mut questions) = mpsc::channel(QUESTIONS_MAX);
    spawn_local(async move {
        while let Some(question) = questions.recv().await {
            spawn_local(answer(broker.clone(), question));
        }
    });
    asked
}

async fn answer(broker: Rc<Broker>, question: Question) {
    sleep(broker.latency()).await;
    let found_at = question.found_at;
    match question.what {
        Asked::Put(body, answer) => {
            let (stream, entries) = entry::read(&body);
            match refusal(&broker, &stream, found_at) {
                Some(refusal) => reply(answer, Err(refusal)),
                None => put(&broker, &entries, answer).await,
            }
        }
        Asked::Describe(stream, answer) => {
            tell(&broker, &stream, found_at, describe(), answer).await;
        }
        Asked::ListShards(stream, answer) => {
            tell(&broker, &stream, found_at, shards::list(&broker), answer).await;
        }
    }
}

fn reply<T>(answer: Answer<T>, told: Result<T, Refusal>) {
    // The asker may be gone.
    let _ = answer.send(told);
}

/// Returns the reason why the service does nothing for this caller; `None` where it does.
fn refusal(broker: &Broker, stream: &str, found_at: Instant) -> Option<Refusal> {
    let number = stream.rsplit('-').next().and_then(|text| text.parse().ok());
    let number = number.expect("a stream has a number");
    let faults = &broker.faults;
    if faults.has(What::Away) {
        return Some(Refusal::NoConnection);
    }
    let code = if faults.has_expired(found_at) {
        "ExpiredTokenException"
    } else if faults.has(What::Gone(number)) {
        "ResourceNotFoundException"
    } else if faults.has(What::Forbidden(number)) {
        "AccessDeniedException"
    } else {
        return None;
    };
    broker.ledger.met(format!("kinesis: {code}"));
    Some(Refusal::Error(400, code))
}

/// Answers a question that changes nothing.
async fn tell<T>(broker: &Broker, stream: &str, found_at: Instant, told: T, mut answer: Answer<T>) {
    if broker.faults.has(What::Silent) {
        return answer.closed().await;
    }
    let refused = refusal(broker, stream, found_at);
    let is_throttled = broker.chance(broker.faults.throttled_percent());
    let told = match refused {
        Some(refusal) => Err(refusal),
        None if is_throttled => Err(Refusal::Error(400, "LimitExceededException")),
        None => Ok(told),
    };
    reply(answer, told);
}

/// Writes the entries of a call that is let in, or some of them, and answers, or not.
async fn put(broker: &Broker, entries: &[Entry], mut answer: Answer<PutRecordsOutput>) {
    if entries.iter().any(|entry| !entry.fits(broker)) {
        if let [only] = entries {
            only.note_refused(broker);
        }
        reply(answer, Err(Refusal::Error(400, "ValidationException")));
        return;
    }
    let is_lost = broker.faults.has(What::Silent) || answer.is_closed();
    if is_lost && broker.chance(50) {
        // It never came.
        return answer.closed().await;
    }
    let shards = Shards::of(broker);
    let written = |entry: &Entry| entry.write(broker, &shards);
    let results: Vec<PutRecordsResultEntry> = entries.iter().map(written).collect();
    let is_lost = is_lost || broker.chance(broker.faults.lost_percent());
    if is_lost {
        note_doubts(broker, entries, &results);
        if broker.faults.has(What::Silent) {
            answer.closed().await;
        }
        return;
    }
    let output = PutRecordsOutput::builder().set_records(Some(results.clone()));
    let output = output.build().expect("it has records");
    if answer.send(Ok(output)).is_err() {
        note_doubts(broker, entries, &results);
    }
}

/// Notes that nobody is told of what was written.
fn note_doubts(broker: &Broker, entries: &[Entry], results: &[PutRecordsResultEntry]) {
    for (entry, result) in entries.iter().zip(results) {
        if result.error_code().is_none() {
            entry.note_doubt(broker);
        }
    }
}

fn describe() -> DescribeStreamSummaryOutput {
    let summary = StreamDescriptionSummary::builder()
        .stream_name("stream")
        .stream_arn("arn:aws:kinesis:xx:1:stream/stream")
        .stream_status(StreamStatus::Active)
        .retention_period_hours(24)
        .stream_creation_timestamp(DateTime::from_secs(0))
        .set_enhanced_monitoring(Some(Vec::new()))
        .open_shard_count(1);
    let summary = summary.build().expect("it is whole");
    let output = DescribeStreamSummaryOutput::builder().stream_description_summary(summary);
    output.build()
}
