//! One PutRecords call, and the smaller ones that find the record which the stream refuses.
//!
//! The dispatcher runs several at a time. A call never outlives the answer deadline of its oldest record, nor
//! [`CALL_TIMEOUT`]. A refused call says nothing of single records, so it is halved until the record that is at fault
//! stands alone: its neighbours are written.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use tokio::time::{Instant, timeout_at};

use super::failure::Failure;
use super::pending::{Entry, Verdict};

/// Records of one call: <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>.
pub(super) const CALL_RECORDS_MAX: usize = 500;

/// Data and partition keys of one call, in bytes. 5 MiB was the service's limit until it was raised to 10 MiB;
/// a larger call gains nothing, and this one is right for both.
pub(super) const CALL_BYTES_MAX: usize = 5 << 20;

/// A call without an answer by then is lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the entries and says what became of each.
pub(super) async fn put(client: &Client, stream: &str, entries: Vec<Entry>) -> Vec<(Entry, Verdict)> {
    let mut settled = Vec::with_capacity(entries.len());
    let mut parts = vec![entries];
    while let Some(mut part) = parts.pop() {
        match put_once(client, stream, &part).await {
            Ok(answer) => settled.extend(part.into_iter().zip(verdicts(answer))),
            Err(Failure::Refused(_)) if part.len() > 1 => {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
            }
            Err(failure) => settled.extend(part.into_iter().map(|entry| (entry, verdict(&failure)))),
        }
    }
    settled
}

async fn put_once(client: &Client, stream: &str, part: &[Entry]) -> Result<PutRecordsOutput, Failure> {
    let now = Instant::now();
    let answer_deadline = part.iter().map(|entry| entry.deadlines.answer).min().unwrap_or(now);
    if answer_deadline <= now {
        return Err(Failure::NotWritten("the time for retries is over".into()));
    }
    let records = part.iter().map(request_entry).collect();
    let call = client.put_records().stream_name(stream).set_records(Some(records)).send();
    let answer = match timeout_at(answer_deadline.min(now + CALL_TIMEOUT), call).await {
        Ok(answer) => answer.map_err(|error| Failure::of(&error))?,
        Err(_) => return Err(Failure::NoAnswer("timeout".into())),
    };
    match answer.records().len() == part.len() {
        true => Ok(answer),
        false => Err(Failure::NoAnswer("the answer does not match the call".into())),
    }
}

fn request_entry(entry: &Entry) -> PutRecordsRequestEntry {
    // Cannot fail: the builder only wants `data`.
    PutRecordsRequestEntry::builder()
        .data(Blob::new(&entry.payload[..]))
        .partition_key(entry.device.as_str())
        .build()
        .expect("data is set")
}

fn verdicts(answer: PutRecordsOutput) -> impl Iterator<Item = Verdict> {
    answer.records.into_iter().map(entry_verdict)
}

/// An entry's error is a throttled shard or an internal failure, never the record itself.
fn entry_verdict(entry: PutRecordsResultEntry) -> Verdict {
    match (entry.sequence_number, entry.error_code) {
        (Some(_), None) => Verdict::Written,
        (_, Some(code)) => Verdict::Failed { reason: code.into(), maybe_written: false },
        (None, None) => Verdict::Failed { reason: "an empty answer".into(), maybe_written: true },
    }
}

fn verdict(failure: &Failure) -> Verdict {
    let reason = failure.reason().clone();
    match failure {
        Failure::NotWritten(_) => Verdict::Failed { reason, maybe_written: false },
        Failure::NoAnswer(_) => Verdict::Failed { reason, maybe_written: true },
        Failure::Refused(_) => Verdict::Refused(reason),
        Failure::Stream(_) => Verdict::Hopeless(reason),
    }
}
