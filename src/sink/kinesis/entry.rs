//! A record on its way, and one entry of a PutRecords call: a record, or an aggregate of several.
//!
//! `pending` packs the puts, `call` sends them, and the stream's answer for a put holds for each of
//! its records.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::RECORD_BYTES_MAX_DEFAULT;
use super::aggregate::{self, Size, UserRecord};
use super::pace::Load;
use super::shards::{self, ShardId};
use super::told::Reply;
use crate::record::{DeviceId, Outcome, Reason, Record, RecordId};

/// The size to which aggregates are filled, as the Kinesis Producer Library does: two of the units
/// of 25 KiB that a provisioned stream bills. Larger ones would save next to nothing more, and cost
/// more when one is refused.
pub(super) const AGGREGATE_BYTES_MAX: usize = 50 << 10;

/// Deadline of a record's outcome, and the ones that follow from it. The gaps between them leave a
/// call that begins late time for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// A record that would wait for its shard until after it is not taken in: others wait for its
    /// batch.
    pub turn: Instant,
    /// No call with the record begins after it.
    pub last_call: Instant,
    /// A call with the record is lost when it has no answer by then.
    pub answer: Instant,
    /// The caller goes on without an outcome.
    pub outcome: Instant,
}

impl Deadlines {
    pub(crate) fn from(start: Instant, ack_timeout: Duration) -> Self {
        let after = |percent| start + ack_timeout * percent / 100;
        Self {
            turn: after(25),
            last_call: after(75),
            answer: after(95),
            outcome: after(100),
        }
    }
}

/// A record in flight, or waiting to be.
#[derive(Debug)]
pub(super) struct Entry {
    pub device: DeviceId,
    /// The device's place among the shards' keys.
    pub hash_key: u128,
    pub deadlines: Deadlines,
    /// Calls that failed with it.
    pub failures: u32,
    /// The reason why it is not written yet.
    pub reason: Option<Reason>,
    pub maybe_written: bool,
    payload: Bytes,
    id: RecordId,
    reply: Reply,
}

/// The verdict on one record of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Written,
    Refused(Reason),
    /// Not written, and waiting does not help: the outcome of this record and of its device's later
    /// ones.
    Hopeless(Outcome),
    /// Worth another try; `maybe_written` when the call got no answer.
    Failed {
        reason: Reason,
        maybe_written: bool,
    },
}

impl Entry {
    pub(crate) fn new(record: &Record, deadlines: Deadlines, reply: Reply) -> Self {
        Self {
            device: record.device.clone(),
            hash_key: shards::hash_key(record.device.as_str()),
            deadlines,
            failures: 0,
            reason: None,
            maybe_written: false,
            payload: record.payload.clone(),
            id: record.id.clone(),
            reply,
        }
    }

    /// Counts the bytes that the stream's limits count of a plain record: data and partition key.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.len() + self.device.as_str().len()
    }

    /// Returns the record as an aggregate has it.
    fn user_record<'a>(&'a self, id: &'a mut [u8; 36]) -> UserRecord<'a> {
        UserRecord {
            partition_key: self.device.as_str(),
            id: self.id.as_str(id),
            data: &self.payload,
        }
    }

    /// Whether its caller has gone.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.reply.is_unwanted()
    }

    pub(crate) fn report(self, outcome: Outcome) {
        self.reply.send(outcome);
    }

    /// Reports that it is not delivered; `Unknown` if a call may have written it.
    pub(crate) fn give_up(self, outcome: Outcome) {
        let outcome = if self.maybe_written {
            Outcome::Unknown
        } else {
            outcome
        };
        self.report(outcome);
    }

    #[cfg(test)]
    pub(crate) fn index(&self) -> u32 {
        self.reply.index()
    }
}

/// One entry of a call: a plain record, or an aggregate of one or more of one shard, those of a
/// device in their order.
#[derive(Debug)]
pub(super) struct Put {
    /// Never empty.
    pub entries: Vec<Entry>,
    /// The shard that it should be written to; without a name while the shards are not known.
    pub shard: ShardId,
    /// Size of the aggregate; `None` for a plain record.
    packed: Option<Size>,
}

impl Put {
    /// Begins with a record. With `packed` it becomes an aggregate, unless there is room for it
    /// only as it is.
    pub(crate) fn new(entry: Entry, shard: ShardId, packed: bool) -> Self {
        let size = Size::new(entry.hash_key).with(&entry.user_record(&mut [0; 36]), true);
        let fits = size.bytes() + entry.device.as_str().len() <= RECORD_BYTES_MAX_DEFAULT;
        Self {
            entries: vec![entry],
            shard,
            packed: (packed && fits).then_some(size),
        }
    }

    /// Adds a record if there is room; else gives it back.
    pub(crate) fn push(&mut self, entry: Entry, bytes_max: usize) -> Option<Entry> {
        let Some(size) = self.packed else {
            return Some(entry);
        };
        let is_new = self
            .entries
            .last()
            .is_none_or(|last| last.device != entry.device);
        let size = size.with(&entry.user_record(&mut [0; 36]), is_new);
        if size.bytes() + self.key().len() > bytes_max.min(AGGREGATE_BYTES_MAX) {
            return Some(entry);
        }
        self.packed = Some(size);
        self.entries.push(entry);
        None
    }

    /// Returns its load on the stream: one record, of at most so many bytes.
    pub(crate) fn load(&self) -> Load {
        let bytes = self.packed.map_or_else(
            || self.entries[0].bytes(),
            |size| size.bytes() + self.key().len(),
        );
        Load { records: 1, bytes }
    }

    /// Takes the second half of its records off. There are two or more.
    pub(crate) fn split_off(&mut self) -> Self {
        debug_assert!(self.entries.len() >= 2, "neither half is empty");
        let entries = self.entries.split_off(self.entries.len() / 2);
        Self {
            entries,
            shard: self.shard.clone(),
            packed: self.packed,
        }
    }

    pub(crate) fn has_one_record(&self) -> bool {
        self.entries.len() == 1
    }

    /// Returns the partition key: that of the first record, which all records of an aggregate take
    /// on.
    pub(crate) fn key(&self) -> &str {
        self.entries[0].device.as_str()
    }

    /// Returns the key by which an aggregate is placed.
    pub(crate) fn explicit_hash_key(&self) -> Option<u128> {
        self.packed.map(|_| self.entries[0].hash_key)
    }

    /// Returns what the stream is to store.
    pub(crate) fn data(&self) -> Cow<'_, [u8]> {
        debug_assert!(
            self.packed.is_some() || self.has_one_record(),
            "only an aggregate has more"
        );
        match self.explicit_hash_key() {
            Some(hash_key) => self.pack(hash_key).into(),
            None => (&self.entries[0].payload[..]).into(),
        }
    }

    fn pack(&self, hash_key: u128) -> Vec<u8> {
        let mut ids = vec![[0; 36]; self.entries.len()];
        let records = self
            .entries
            .iter()
            .zip(&mut ids)
            .map(|(entry, id)| entry.user_record(id));
        aggregate::encode(hash_key, &records.collect::<Vec<_>>())
    }
}
