//! KPL aggregation: many readings in one Kinesis record, as the Kinesis Producer Library packs
//! them.
//!
//! `put` encodes; nothing here decodes. The format is a magic number, the protobuf (proto2) message
//! `AggregatedRecord`, and the MD5 of that message:
//! <https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md>. It has a
//! table of partition keys, a table of explicit hash keys, and the records with their indexes into
//! both.
//!
//! Invariant: all records of an aggregate carry the one explicit hash key that the whole is put
//! under. A consumer drops an aggregate with a record outside the shard that it was read from; with
//! one key for all there is none, also when the stream is resharded between the packing and the
//! put. The record id travels as the tag `record-id`. [`Size`] says, record by record, exactly how
//! many bytes [`encode`] makes of them.

use md5::{Digest, Md5};

use crate::protobuf::{put_bytes, put_head, put_number};

const MAGIC: [u8; 4] = [0xF3, 0x89, 0x9A, 0xC2];
const DIGEST_BYTES: usize = 16;

/// The tag under which a record's id travels.
pub(crate) const RECORD_ID_TAG: &str = "record-id";

/// Field numbers of the messages `AggregatedRecord`, `Record` and `Tag`.
mod field {
    pub(crate) const PARTITION_KEY_TABLE: u8 = 1;
    pub(crate) const EXPLICIT_HASH_KEY_TABLE: u8 = 2;
    pub(crate) const RECORDS: u8 = 3;
    pub(crate) const PARTITION_KEY_INDEX: u8 = 1;
    pub(crate) const EXPLICIT_HASH_KEY_INDEX: u8 = 2;
    pub(crate) const DATA: u8 = 3;
    pub(crate) const TAGS: u8 = 4;
    pub(crate) const TAG_KEY: u8 = 1;
    pub(crate) const TAG_VALUE: u8 = 2;
}

/// One reading, as it stands in an aggregate.
#[derive(Clone, Copy, Debug)]
pub struct UserRecord<'a> {
    pub partition_key: &'a str,
    pub id: &'a str,
    pub data: &'a [u8],
}

/// The size of an aggregate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    keys: usize,
    bytes: usize,
}

impl Size {
    /// Returns the size of an aggregate without records.
    pub(crate) fn new(hash_key: u128) -> Self {
        let digits = hash_key.checked_ilog10().unwrap_or(0) as usize + 1;
        Self {
            keys: 0,
            bytes: MAGIC.len() + field_bytes(digits) + DIGEST_BYTES,
        }
    }

    /// Returns the size with one more record, whose partition key is `new`, or else that of the
    /// record before it.
    pub(crate) fn with(self, record: &UserRecord<'_>, new: bool) -> Self {
        let keys = self.keys + usize::from(new);
        let key_bytes = if new {
            field_bytes(record.partition_key.len())
        } else {
            0
        };
        debug_assert!(keys > 0, "the first record brings the first key");
        Self {
            keys,
            bytes: self.bytes + key_bytes + field_bytes(record_bytes(keys - 1, record)),
        }
    }

    pub(crate) fn bytes(self) -> usize {
        self.bytes
    }

    fn of(hash_key: u128, records: &[UserRecord<'_>]) -> Self {
        let mut before = None;
        records.iter().fold(Self::new(hash_key), |size, record| {
            size.with(
                record,
                before.replace(record.partition_key) != Some(record.partition_key),
            )
        })
    }
}

/// Encodes the data of the Kinesis record that holds these, to be put with this explicit hash key.
/// Records of one partition key stand together.
pub fn encode(hash_key: u128, records: &[UserRecord<'_>]) -> Vec<u8> {
    let bytes = Size::of(hash_key, records).bytes;
    let mut out = Vec::with_capacity(bytes);
    out.extend_from_slice(&MAGIC);
    for run in runs(records) {
        let partition_key = run[0].partition_key.as_bytes();
        put_bytes(&mut out, field::PARTITION_KEY_TABLE, partition_key);
    }
    let hash_key = hash_key.to_string();
    put_bytes(
        &mut out,
        field::EXPLICIT_HASH_KEY_TABLE,
        hash_key.as_bytes(),
    );
    for (key_index, run) in runs(records).enumerate() {
        for record in run {
            put_record(&mut out, key_index, record);
        }
    }
    let digest = Md5::digest(&out[MAGIC.len()..]);
    out.extend_from_slice(&digest);
    debug_assert_eq!(out.len(), bytes, "the size was reckoned record by record");
    out
}

/// Cuts the records where another partition key begins.
fn runs<'a, 'r>(records: &'r [UserRecord<'a>]) -> impl Iterator<Item = &'r [UserRecord<'a>]> {
    records.chunk_by(|one, next| one.partition_key == next.partition_key)
}

fn put_record(out: &mut Vec<u8>, key_index: usize, record: &UserRecord<'_>) {
    put_head(out, field::RECORDS, record_bytes(key_index, record));
    put_number(out, field::PARTITION_KEY_INDEX, key_index);
    put_number(out, field::EXPLICIT_HASH_KEY_INDEX, 0);
    put_bytes(out, field::DATA, record.data);
    put_head(out, field::TAGS, tag_bytes(record));
    put_bytes(out, field::TAG_KEY, RECORD_ID_TAG.as_bytes());
    put_bytes(out, field::TAG_VALUE, record.id.as_bytes());
}

/// Returns the bytes that [`put_record`] puts behind the head.
fn record_bytes(key_index: usize, record: &UserRecord<'_>) -> usize {
    let indexes_bytes = 1 + varint_bytes(key_index) + 2;
    indexes_bytes + field_bytes(record.data.len()) + field_bytes(tag_bytes(record))
}

fn tag_bytes(record: &UserRecord<'_>) -> usize {
    field_bytes(RECORD_ID_TAG.len()) + field_bytes(record.id.len())
}

fn varint_bytes(number: usize) -> usize {
    (number.max(1).ilog2() / 7 + 1) as usize
}

/// Returns the bytes of a field of wire type 2 with a content of so many bytes.
fn field_bytes(content_bytes: usize) -> usize {
    1 + varint_bytes(content_bytes) + content_bytes
}

#[cfg(test)]
pub(crate) mod tests;
