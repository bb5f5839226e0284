//! The frame codec: frames as written read back, damaged ones do not.

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::body::{Draft, DraftError, decode};
use super::frame::*;
use super::keys::{KeyId, Salt};
use super::segment::SegmentHeader;
use crate::record::{DeviceId, Headers, Permit, Record, RecordId, Timestamp, TraceParent};

prop_compose! {
    fn records()(record in (
        "[A-Za-z0-9._:/@-]{1,128}",
        prop::option::of("[!-~]{1,128}"),
        prop::option::of("[ -~]{0,40}"),
        any::<u64>(),
        prop::collection::vec(any::<u8>(), 0..300),
        prop::option::of("00-[1-9a-f]{32}-[1-9a-f]{16}-[0-9a-f]{2}"),
        prop::collection::vec(("[a-z-]{1,20}", ".{0,60}"), 0..4),
    )) -> Record {
        let (device, key, content_type, received_at, payload, trace, further) = record;
        let mut headers = Headers::default();
        further.iter().for_each(|(name, value)| headers.add(name, value));
        let received_at = Timestamp(received_at);
        Record {
            device: DeviceId::parse(&device).unwrap(),
            payload: payload.into(),
            content_type: content_type.map(Into::into),
            id: key.map_or_else(|| RecordId::new(Timestamp::now()), |key| RecordId::from_key(key.as_bytes()).unwrap()),
            trace: trace.map(|trace| TraceParent::parse(trace.as_bytes()).unwrap()),
            headers,
            received_at,
            permit: Permit::without_budget(),
        }
    }
}

fn same(left: &Record, right: &Record) -> bool {
    let of = |record: &Record| {
        (
            record.device.clone(),
            record.payload.clone(),
            record.content_type.clone(),
        )
    };
    of(left) == of(right)
        && left.id == right.id
        && left.trace == right.trace
        && left.headers == right.headers
        && left.received_at == right.received_at
}

proptest! {
    #[test]
    fn a_body_reads_back(batch in prop::collection::vec(records(), 1..9), reason in ".{0,600}", dead in any::<bool>()) {
        let draft = if dead { Draft::dead("alarms", &reason, &batch) } else { Draft::new("alarms", &batch) }.unwrap();
        let body = Bytes::copy_from_slice(draft.body());
        let content = decode(body.clone(), draft.records()).unwrap();
        prop_assert_eq!(&*content.stream, "alarms");
        prop_assert_eq!(content.reason.is_some(), dead);
        prop_assert!(content.records.len() == batch.len() && content.records.iter().zip(&batch).all(|(l, r)| same(l, r)));
        prop_assert!(decode(body.slice(..body.len() - 1), draft.records()).is_none());
        prop_assert!(decode(body.clone(), draft.records() + 1).is_none() && decode(body, draft.records() - 1).is_none());
    }

    #[test]
    fn any_bytes_are_refused_or_are_a_body(bytes in prop::collection::vec(any::<u8>(), 0..200), records in 0_u32..5) {
        if let Some(content) = decode(bytes.clone().into(), records) && content.reason.is_none() && records > 0 {
            let draft = Draft::new(&content.stream, &content.records).unwrap();
            prop_assert_eq!(draft.body(), &bytes);
        }
    }

    #[test]
    fn a_header_counts_where_it_was_written_and_whole(
        salt in any::<Salt>(), first in 0_u64..1 << 60, records in any::<u32>(), body in prop::collection::vec(any::<u8>(), 0..99),
        offset in any::<u64>(), bit in 0..HEADER_BYTES * 8,
    ) {
        let body_crc = body_crc(&salt, &body);
        let header = FrameHeader { records, first, number: 1, body_bytes: body.len() as u32, body_crc };
        let bytes = header.encode(&salt, offset);
        prop_assert_eq!(FrameHeader::parse(&bytes, &salt, offset), Some(header));
        prop_assert_eq!(FrameHeader::parse(&bytes, &salt, offset ^ 8), None);
        let mut other_salt = salt;
        other_salt[bit % 16] ^= 1;
        prop_assert!(FrameHeader::parse(&bytes, &other_salt, offset).is_none() && !header.fits(&other_salt, &body));
        let mut flipped = bytes;
        flipped[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(FrameHeader::parse(&flipped, &salt, offset).is_none());
        prop_assert!(header.fits(&salt, &body));
    }
}

#[test]
fn a_batch_without_records_is_no_frame() {
    assert_eq!(Draft::new("telemetry", []), Err(DraftError::Empty));
}

/// The bytes were made from the tables in the headers of the modules, by another program.
#[test]
fn what_lies_on_disk_stays_as_it_is() {
    let salt: Salt = std::array::from_fn(|at| at as u8 + 1);
    let frame = FrameHeader {
        records: 2,
        first: 5,
        number: 3,
        body_bytes: 7,
        body_crc: 0x0102_0304,
    };
    assert_eq!(
        hex(&frame.encode(&salt, 8192)),
        "46426631020000000500000000000000030000000000000007000000040302010000000042012951"
    );
    let segment = SegmentHeader {
        id: 7,
        base: 9,
        salt,
        key: KeyId([8; 8]),
        created_at: Timestamp(11),
    };
    assert_eq!(
        hex(&segment.encode()),
        "666f726562617901070000000000000009000000000000000102030405060708090a0b0c0d0e0f10\
         08080808080808080b00000000000000bb30f583"
    );
    let draft = Draft::dead("alarms", "why", &two_records()).unwrap();
    assert_eq!(
        hex(draft.body()),
        "0600616c61726d730300776879026d37836b657930302d3131313131313131313131313131313131\
         3131313131313131313131313131312d323232323232323232323232323232322d30310500000000\
         0000000400612f62020000006869026d3700000102030405060708090a0b0c0d0e0f060000000000\
         000000000100000021"
    );
}

fn two_records() -> [Record; 2] {
    let trace = format!("00-{}-{}-01", "1".repeat(32), "2".repeat(16));
    let first = Record {
        device: DeviceId::parse("m7").unwrap(),
        payload: "hi".into(),
        content_type: Some("a/b".into()),
        id: RecordId::from_key(b"key").unwrap(),
        trace: TraceParent::parse(trace.as_bytes()),
        headers: Headers::default(),
        received_at: Timestamp(5),
        permit: Permit::without_budget(),
    };
    let second = Record {
        device: DeviceId::parse("m7").unwrap(),
        payload: "!".into(),
        content_type: None,
        id: RecordId::Uuid(Uuid::from_bytes(std::array::from_fn(|at| at as u8))),
        trace: None,
        headers: Headers::default(),
        received_at: Timestamp(6),
        permit: Permit::without_budget(),
    };
    [first, second]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The length of a longer id, as a property of another platform may be, is a byte of its own: older
/// frames, without such ids, are read as ever.
#[test]
fn a_long_id_has_its_length_behind_the_mark() {
    for (chars, with_trace, head) in [
        (64, false, "40"),
        (65, false, "7f41"),
        (127, false, "7f7f"),
        (128, false, "7f80"),
        (128, true, "ff80"),
    ] {
        let [mut record, _] = two_records();
        record.id = RecordId::from_key("k".repeat(chars).as_bytes()).unwrap();
        record.trace = record.trace.filter(|_| with_trace);
        let draft = Draft::new("a", [&record]).unwrap();
        let id = format!("026d37{head}{}", "6b".repeat(chars));
        assert!(hex(draft.body()).contains(&id), "{chars}");
        let content = decode(Bytes::copy_from_slice(draft.body()), 1).unwrap();
        assert!(same(&content.records[0], &record), "{chars}");
    }
    assert!(RecordId::from_key(&[b'k'; 129]).is_none());
}

/// Bytes that no draft writes: a long length of a short id, and a short one of a long id.
#[test]
fn a_length_of_an_id_in_the_wrong_place_is_damage() {
    let [mut record, _] = two_records();
    record.trace = None;
    let body = |id: &[u8]| {
        let draft = Draft::new("a", [&record]).unwrap();
        let body = draft.body().to_vec();
        let at = body
            .windows(4)
            .position(|bytes| bytes == b"\x03key")
            .unwrap();
        [&body[..at], id, &body[at + 4..]].concat()
    };
    assert!(decode(body(b"\x03key").into(), 1).is_some());
    assert!(decode(body(b"\x7f\x03key").into(), 1).is_none());
    let long = [&[65][..], &[b'k'; 65]].concat();
    assert!(decode(body(&long).into(), 1).is_none());
}

/// A record that has headers says so where a device id's length would be 0.
#[test]
fn further_headers_lie_before_the_device() {
    let [mut record, _] = two_records();
    record.trace = None;
    record.headers.add("schema-violation", "/type");
    let draft = Draft::new("a", [&record]).unwrap();
    assert_eq!(
        hex(draft.body()),
        "010061000000011000736368656d612d76696f6c6174696f6e05002f74797065026d37036b65790500000000\
         0000000400612f62020000006869"
    );
    let body = Bytes::copy_from_slice(draft.body());
    let content = decode(body, 1).unwrap();
    assert!(same(&content.records[0], &record));
}
