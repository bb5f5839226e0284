//! One PutRecords call, and the smaller ones that find the record which the stream refuses.
//!
//! The dispatcher runs several at a time. A call never outlives the answer deadline of its oldest
//! record, nor [`CALL_TIMEOUT`]. A refused call says nothing of single records, so it is halved,
//! and then the aggregate that is at fault, until the record stands alone: its neighbours are
//! written.
//!
//! An answer names the shard of each put. Another one than expected means that the stream has been
//! resharded, and the shards are asked for. An aggregate may then have landed beside the shard of
//! some of its devices, where nothing orders it with their later records: those are written again,
//! to their own shard. The shards may take longer to come than the records of the call have time:
//! what is known of these by then is told, and the shards become known when they come.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::operation::put_records::PutRecordsOutput;
use aws_sdk_kinesis::types::PutRecordsResultEntry;
use tokio::time::{Instant, timeout_at};

use super::entry::{Entry, Put, Verdict};
use super::failure::Failure;
use super::shards::{ShardId, Shards};
use super::stream::Stream;
use super::wire;
use crate::record::Outcome;

/// Records of one call:
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html>.
pub(super) const CALL_RECORDS_MAX: usize = 500;

/// Data and partition keys of one call, in bytes. 5 MiB was the service's limit until it was raised
/// to 10 MiB; a larger call gains nothing, and this one is right for both.
pub(super) const CALL_BYTES_MAX: usize = 5 << 20;

/// A call without an answer by then is lost.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The entry's error that says a shard takes no more for now.
const SHARD_IS_FULL: &str = "ProvisionedThroughputExceededException";

/// The verdicts on the records of a call.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub settled: Vec<(Entry, Verdict)>,
    /// The shards that refused a record for their rate.
    pub full_shards: HashSet<ShardId>,
}

/// Sends the puts and returns the verdict on each record.
pub(super) async fn put(stream: Arc<Stream>, puts: Vec<Put>) -> Answer {
    let deadline = answer_deadline(&puts);
    let mut answer = Answer::default();
    let mut displaced = Vec::new();
    let mut parts = vec![puts];
    while let Some(mut part) = parts.pop() {
        if answer.has_failures() {
            part.into_iter()
                .for_each(|put| answer.settle(put, &held_back()));
            continue;
        }
        match put_once(&stream, &part).await {
            Ok(output) => {
                let results = part.into_iter().zip(output.records);
                results.for_each(|(put, result)| answer.read(put, result, &mut displaced));
            }
            Err(Failure::Refused(_)) if halve(&mut part, &mut parts) => {}
            Err(failure) => part
                .into_iter()
                .for_each(|put| answer.settle(put, &verdict(&failure))),
        }
    }
    if !displaced.is_empty() {
        let shards = list_in_time(&stream, deadline).await;
        answer.settle_displaced(shards.as_deref(), displaced);
    }
    answer
}

/// Cuts a call in two that is to be made again; one with a single record cannot be.
fn halve(part: &mut Vec<Put>, parts: &mut Vec<Vec<Put>>) -> bool {
    let second = match &mut part[..] {
        [put] if put.has_one_record() => return false,
        [put] => vec![put.split_off()],
        puts => {
            let half = puts.len() / 2;
            part.split_off(half)
        }
    };
    parts.extend([second, std::mem::take(part)]);
    true
}

/// Makes one call, and waits for its answer until the first of its records is out of time.
async fn put_once(stream: &Stream, part: &[Put]) -> Result<PutRecordsOutput, Failure> {
    debug_assert!(!part.is_empty() && part.len() <= CALL_RECORDS_MAX);
    let now = Instant::now();
    let answer_deadline = answer_deadline(part);
    if answer_deadline <= now {
        return Err(Failure::NotWritten("the time for retries is over".into()));
    }
    let call = stream.service.put(wire::body(&stream.name, part));
    let answer = match timeout_at(answer_deadline.min(now + CALL_TIMEOUT), call).await {
        Ok(answer) => answer?,
        Err(_) => return Err(Failure::NoAnswer("timeout".into())),
    };
    if answer.records().len() != part.len() {
        let reason = "the answer does not match the call";
        return Err(Failure::NoAnswer(reason.into()));
    }
    Ok(answer)
}

/// Returns when the first record of a call must have its answer.
fn answer_deadline(part: &[Put]) -> Instant {
    let entries = part.iter().flat_map(|put| &put.entries);
    let deadlines = entries.map(|entry| entry.deadlines.answer);
    deadlines
        .min()
        .expect("a call has a put, and a put a record")
}

/// Asks for the shards, and waits for them for as long as the records of a call have.
async fn list_in_time(stream: &Arc<Stream>, deadline: Instant) -> Option<Arc<Shards>> {
    let stream = stream.clone();
    let listing = tokio::spawn(async move { stream.list_shards().await });
    let listed = timeout_at(deadline, listing).await;
    listed.ok()?.ok()?.ok()
}

impl Answer {
    /// An entry's error is a shard that is full or an internal failure, never the record itself.
    fn read(
        &mut self,
        put: Put,
        result: PutRecordsResultEntry,
        displaced: &mut Vec<(Put, ShardId)>,
    ) {
        match (result.sequence_number, result.error_code) {
            (Some(_), None) => match result.shard_id {
                Some(shard) if is_known_as_other(&put.shard, &shard) => {
                    displaced.push((put, shard.into()))
                }
                _ => self.settle(put, &Verdict::Written),
            },
            (_, Some(code)) => self.settle_failed(put, code),
            (None, None) => self.settle(put, &maybe_written("an empty answer")),
        }
    }

    /// Settles a put that the service says it has not written.
    fn settle_failed(&mut self, put: Put, code: String) {
        if code == SHARD_IS_FULL {
            self.full_shards.insert(put.shard.clone());
        }
        let verdict = Verdict::Failed {
            reason: code.into(),
            maybe_written: false,
        };
        self.settle(put, &verdict);
    }

    /// Whether a record failed. Puts behind it are not sent: they may be the failed device's.
    fn has_failures(&self) -> bool {
        self.settled
            .iter()
            .any(|(_, verdict)| matches!(verdict, Verdict::Failed { .. }))
    }

    fn settle(&mut self, put: Put, verdict: &Verdict) {
        self.settled.extend(
            put.entries
                .into_iter()
                .map(|entry| (entry, verdict.clone())),
        );
    }

    fn settle_displaced(&mut self, shards: Option<&Shards>, displaced: Vec<(Put, ShardId)>) {
        for (put, landed) in displaced {
            // The first record gave the put its key, so it is at home wherever that is.
            let first = put.entries[0].hash_key;
            for entry in put.entries {
                let key = entry.hash_key;
                let shard = shards.map(|shards| shards.id_of(key));
                let is_home = key == first || shard.is_some_and(|shard| *shard == landed);
                let verdict = if is_home {
                    Verdict::Written
                } else {
                    maybe_written("the stream was resharded")
                };
                self.settled.push((entry, verdict));
            }
        }
    }
}

fn is_known_as_other(expected: &ShardId, actual: &str) -> bool {
    !expected.is_empty() && **expected != *actual
}

fn held_back() -> Verdict {
    Verdict::Failed {
        reason: "what stood before it failed".into(),
        maybe_written: false,
    }
}

fn maybe_written(reason: &str) -> Verdict {
    Verdict::Failed {
        reason: reason.into(),
        maybe_written: true,
    }
}

fn verdict(failure: &Failure) -> Verdict {
    let reason = failure.reason().clone();
    match failure {
        Failure::NotWritten(_) | Failure::Expired(_) => Verdict::Failed {
            reason,
            maybe_written: false,
        },
        Failure::NoAnswer(_) => Verdict::Failed {
            reason,
            maybe_written: true,
        },
        Failure::Refused(_) => Verdict::Refused(reason),
        Failure::Stream(_) => Verdict::Hopeless(Outcome::Retryable(reason)),
        Failure::Barred(_) => Verdict::Hopeless(Outcome::Barred(reason)),
    }
}
