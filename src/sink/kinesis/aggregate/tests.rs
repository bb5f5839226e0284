//! The encoder against a decoder that is written from the format and knows nothing of it.

use proptest::prelude::*;

use super::*;

#[derive(Debug, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) partition_key: String,
    pub(crate) hash_key: String,
    pub(crate) data: Vec<u8>,
    tags: Vec<(String, String)>,
}

enum Value<'a> {
    Number(usize),
    Bytes(&'a [u8]),
}

fn varint(input: &mut &[u8]) -> usize {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let (byte, rest) = input.split_first().unwrap();
        *input = rest;
        number |= usize::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}

fn fields(mut input: &[u8]) -> Vec<(usize, Value<'_>)> {
    let mut fields = Vec::new();
    while !input.is_empty() {
        let head = varint(&mut input);
        let number = varint(&mut input);
        let value = match head & 7 {
            0 => Value::Number(number),
            2 => {
                let (bytes, rest) = input.split_at(number);
                input = rest;
                Value::Bytes(bytes)
            }
            other => panic!("wire type {other}"),
        };
        fields.push((head >> 3, value));
    }
    fields
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.into()).unwrap()
}

fn decode_tag(message: &[u8]) -> (String, String) {
    match &fields(message)[..] {
        [(1, Value::Bytes(key)), (2, Value::Bytes(value))] => (text(key), text(value)),
        _ => panic!("no tag"),
    }
}

pub(crate) fn decode(aggregate: &[u8]) -> Vec<Decoded> {
    let (message, digest) = aggregate[4..].split_at(aggregate.len() - 20);
    assert_eq!(
        (&aggregate[..4], digest),
        (&[0xF3, 0x89, 0x9A, 0xC2][..], &Md5::digest(message)[..])
    );
    let (mut keys, mut hash_keys, mut records) = (Vec::new(), Vec::new(), Vec::new());
    for field in fields(message) {
        match field {
            (1, Value::Bytes(key)) => keys.push(text(key)),
            (2, Value::Bytes(key)) => hash_keys.push(text(key)),
            (3, Value::Bytes(record)) => records.push(record),
            (other, _) => panic!("field {other}"),
        }
    }
    let record = |message: &&[u8]| {
        let mut decoded = Decoded {
            partition_key: String::new(),
            hash_key: String::new(),
            data: Vec::new(),
            tags: Vec::new(),
        };
        for field in fields(message) {
            match field {
                (1, Value::Number(index)) => decoded.partition_key.clone_from(&keys[index]),
                (2, Value::Number(index)) => decoded.hash_key.clone_from(&hash_keys[index]),
                (3, Value::Bytes(data)) => decoded.data = data.into(),
                (4, Value::Bytes(tag)) => decoded.tags.push(decode_tag(tag)),
                (other, _) => panic!("field {other}"),
            }
        }
        decoded
    };
    records.iter().map(record).collect()
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..300),
        1 => (120..140usize).prop_map(|bytes| vec![7; bytes]),
        1 => (16_300..16_500usize).prop_map(|bytes| vec![7; bytes]),
    ]
}

proptest! {
    /// The keys come in runs, as of a device that sends more than one reading at a time.
    #[test]
    fn what_is_encoded_is_decoded_and_has_the_size_that_was_said(
        hash_key in prop_oneof![Just(0), Just(9), Just(10), Just(u128::MAX), any::<u128>()],
        runs in prop::collection::vec(("[A-Za-z0-9._:/@-]{1,128}", prop::collection::vec(("[!-~]{1,64}", data()), 1..4)), 1..200),
    ) {
        let records = runs.iter().flat_map(|(partition_key, records)| {
            records.iter().map(move |(id, data)| UserRecord { partition_key, id, data })
        });
        let records: Vec<_> = records.collect();
        let aggregate = encode(hash_key, &records);
        prop_assert_eq!(aggregate.len(), Size::of(hash_key, &records).bytes());
        let expected: Vec<_> = records.iter().map(|record| Decoded {
            partition_key: record.partition_key.into(),
            hash_key: hash_key.to_string(),
            data: record.data.into(),
            tags: vec![(RECORD_ID_TAG.into(), record.id.into())],
        }).collect();
        prop_assert_eq!(decode(&aggregate), expected);
    }
}

/// One record, byte for byte: the bytes on the wire do not change by accident.
#[test]
fn the_format_is_the_one_that_consumers_read() {
    let record = UserRecord {
        partition_key: "dev",
        id: "7",
        data: b"hi",
    };
    let message = b"\x0a\x03dev\x12\x0242\x1a\x18\x08\x00\x10\x00\x1a\x02hi\x22\x0e\x0a\x09record-id\x12\x017";
    let expected = [&MAGIC[..], message, &Md5::digest(message)].concat();
    assert_eq!(encode(42, &[record]), expected);
}
