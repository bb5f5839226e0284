//! The body of a frame: records of one stream.
//!
//! | bytes | content |
//! |---|---|
//! | 2, n | length and name of the stream |
//! | 2, n | length and text of the reason of a dead letter; length 0 for others |
//! | | then each record: |
//! | 1, 1 | 0 and the number of further headers; both are not there where it has none |
//! | | then each further header: |
//! | 2, n | length and text of its name |
//! | 2, n | length and text of its value |
//! | | then, of every record: |
//! | 1, n | length and text of the device id |
//! | 1, n | length of a record id that the client gave, and the id; 0 and 16 bytes for a UUID; the length plus 128 when a trace follows; 127 in the length's place says that the length of an id of more than 64 characters is the next byte |
//! | 55 | its `traceparent`, if it has one |
//! | 8 | when it was received, milliseconds since the epoch |
//! | 2, n | length plus 1 and text of the content type; 0: it has none |
//! | 4, n | length and bytes of the payload |
//!
//! No device id is empty, so a record without further headers is what it was before there were any:
//! an older frame is read by a newer gateway, and a newer one by an older gateway unless it has
//! such headers, or an id of more than 64 characters, which the older one takes for damage.
//!
//! [`decode`] reads back byte for byte what [`Draft`] writes; it refuses anything else, and never
//! panics.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use uuid::Uuid;

use super::frame::{ALIGNMENT, BODY_BYTES_MAX, HEADER_BYTES};
use super::keys::TAG_BYTES;
use crate::config::{BODY_BYTES_LIMIT, SPOOLED_BATCH_BYTES_MAX, SPOOLED_BATCH_RECORDS_MAX};
use crate::record::{
    DEVICE_ID_CHARS_MAX, DeviceId, HEADERS_BYTES_MAX, Headers, Permit, RECORD_ID_CHARS_MAX, Record,
    RecordId, TRACE_PARENT_BYTES, Timestamp, TraceParent,
};

/// A reason is cut to so many bytes.
const REASON_BYTES_MAX: usize = 1024;

/// Bytes of the smallest record: the bound on the allocation for a damaged count.
const RECORD_BYTES_MIN: usize = 16;

/// Bytes of a frame that are left for stream, reason and the content type of the last record.
const BODY_BYTES_SPARE: usize = 160 << 10;

/// Bytes that a record takes beside its payload at most, its content type aside: device, id, trace,
/// time and lengths.
const RECORD_BYTES_EXTRA_MAX: usize =
    1 + DEVICE_ID_CHARS_MAX + 2 + RECORD_ID_CHARS_MAX + TRACE_PARENT_BYTES + 8 + 2 + 4;

// Any batch that the configuration allows is one frame: half of it is for the payloads, the rest
// for the headers and ids beside them.
const _: () = assert!(
    SPOOLED_BATCH_BYTES_MAX + SPOOLED_BATCH_RECORDS_MAX * RECORD_BYTES_EXTRA_MAX + BODY_BYTES_SPARE
        <= BODY_BYTES_MAX
);
const _: () = assert!(BODY_BYTES_LIMIT <= SPOOLED_BATCH_BYTES_MAX);
const _: () =
    assert!(RECORD_BYTES_EXTRA_MAX + u16::MAX as usize + 2 * HEADERS_BYTES_MAX <= BODY_BYTES_SPARE);
const _: () = assert!(HEADERS_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(DEVICE_ID_CHARS_MAX <= u8::MAX as usize);
const _: () =
    assert!(SHORT_ID_CHARS_MAX < LENGTH_FOLLOWS as usize && LENGTH_FOLLOWS < TRACE_FOLLOWS);
const _: () = assert!(RECORD_ID_CHARS_MAX <= u8::MAX as usize);

/// The byte in the place of a device id's length that says that further headers come first.
const HEADERS_FOLLOW: u8 = 0;

/// The flag in the byte before a record id, of which the lower seven bits are a length.
const TRACE_FOLLOWS: u8 = 128;

/// Mark in the lower seven bits: the length of the id, a long one, is a byte of its own.
const LENGTH_FOLLOWS: u8 = 127;

/// Characters of the longest record id whose length stands in the lower seven bits.
const SHORT_ID_CHARS_MAX: usize = 64;

/// The reason why a batch cannot become a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DraftError {
    #[error("a frame holds {BODY_BYTES_MAX} bytes at most")]
    TooLarge,
    #[error("a text is longer than its field")]
    TextTooLong,
    #[error("a frame holds one record at least")]
    Empty,
}

/// A batch on its way to disk: a frame without its header. Holds a copy of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The body, padded to [`ALIGNMENT`].
    padded: Vec<u8>,
    body_bytes: usize,
    records: u32,
}

impl Draft {
    /// Makes a draft of records of one stream, in their order.
    pub fn new<'a>(
        stream: &str,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Self, DraftError> {
        Self::encode(stream, "", records)
    }

    /// Makes a draft of dead letters: records that their stream refuses for good, and the reason,
    /// which is cut to 1 KiB.
    pub(crate) fn dead<'a>(
        stream: &str,
        reason: &str,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Self, DraftError> {
        let reason = if reason.is_empty() {
            "no reason given"
        } else {
            reason
        };
        let end = reason.floor_char_boundary(REASON_BYTES_MAX);
        Self::encode(stream, &reason[..end], records)
    }

    fn encode<'a>(
        stream: &str,
        reason: &str,
        records: impl IntoIterator<Item = &'a Record>,
    ) -> Result<Self, DraftError> {
        let mut body = Vec::new();
        put_text_u16(&mut body, stream)?;
        put_text_u16(&mut body, reason)?;
        let mut count = 0;
        for record in records {
            put_record(&mut body, record)?;
            count += 1;
        }
        if count == 0 {
            return Err(DraftError::Empty);
        }
        let body_bytes = body.len();
        debug_assert!(
            body_bytes + TAG_BYTES <= BODY_BYTES_MAX,
            "each record was checked"
        );
        body.resize(body_bytes.next_multiple_of(ALIGNMENT as usize), 0);
        Ok(Self {
            padded: body,
            body_bytes,
            records: count,
        })
    }

    pub fn records(&self) -> u32 {
        self.records
    }

    pub fn body(&self) -> &[u8] {
        &self.padded[..self.body_bytes]
    }

    /// Returns the body and its padding.
    pub fn padded(&self) -> &[u8] {
        &self.padded
    }

    /// Returns the bytes that it takes of memory and, about, of the disk.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.padded.len()
    }
}

fn put_record(body: &mut Vec<u8>, record: &Record) -> Result<(), DraftError> {
    let payload = &record.payload;
    if payload.len() + body.len() + TAG_BYTES > BODY_BYTES_MAX - BODY_BYTES_SPARE {
        return Err(DraftError::TooLarge);
    }
    let device = record.device.as_str();
    body.reserve(payload.len() + device.len() + 2 * RECORD_BYTES_MIN);
    put_headers(body, &record.headers)?;
    body.push(u8_length(device.len())?);
    body.extend_from_slice(device.as_bytes());
    put_id(body, &record.id, record.trace.as_ref())?;
    body.extend_from_slice(&record.received_at.0.to_le_bytes());
    put_content_type(body, record.content_type.as_deref())?;
    body.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    body.extend_from_slice(payload);
    Ok(())
}

fn put_id(
    body: &mut Vec<u8>,
    id: &RecordId,
    trace: Option<&TraceParent>,
) -> Result<(), DraftError> {
    let flag = if trace.is_some() { TRACE_FOLLOWS } else { 0 };
    match id {
        RecordId::Uuid(uuid) => {
            body.push(flag);
            body.extend_from_slice(uuid.as_bytes());
        }
        RecordId::Key(key) => {
            put_key_length(body, u8_length(key.len())?, flag);
            body.extend_from_slice(key.as_bytes());
        }
    }
    if let Some(trace) = trace {
        body.extend_from_slice(trace.as_str().as_bytes());
    }
    Ok(())
}

/// Writes the length of an id that is not 0, and in its byte whether a trace follows.
fn put_key_length(body: &mut Vec<u8>, key_bytes: u8, flag: u8) {
    debug_assert!(key_bytes > 0, "a key is not empty");
    debug_assert!(usize::from(key_bytes) <= RECORD_ID_CHARS_MAX);
    if usize::from(key_bytes) <= SHORT_ID_CHARS_MAX {
        body.push(key_bytes | flag);
    } else {
        body.extend_from_slice(&[LENGTH_FOLLOWS | flag, key_bytes]);
    }
}

fn put_headers(body: &mut Vec<u8>, headers: &Headers) -> Result<(), DraftError> {
    if headers.len() == 0 {
        return Ok(());
    }
    body.extend_from_slice(&[HEADERS_FOLLOW, u8_length(headers.len())?]);
    for (name, value) in headers.iter() {
        put_text_u16(body, name)?;
        put_text_u16(body, value)?;
    }
    Ok(())
}

fn put_content_type(body: &mut Vec<u8>, content_type: Option<&str>) -> Result<(), DraftError> {
    let Some(text) = content_type else {
        body.extend_from_slice(&[0; 2]);
        return Ok(());
    };
    body.extend_from_slice(&u16_length(text.len() + 1)?);
    body.extend_from_slice(text.as_bytes());
    Ok(())
}

fn put_text_u16(body: &mut Vec<u8>, text: &str) -> Result<(), DraftError> {
    body.extend_from_slice(&u16_length(text.len())?);
    body.extend_from_slice(text.as_bytes());
    Ok(())
}

fn u8_length(length: usize) -> Result<u8, DraftError> {
    u8::try_from(length).map_err(|_| DraftError::TextTooLong)
}

fn u16_length(length: usize) -> Result<[u8; 2], DraftError> {
    let length = u16::try_from(length).map_err(|_| DraftError::TextTooLong)?;
    Ok(length.to_le_bytes())
}

/// The records of a body, with their common stream and reason.
#[derive(Debug)]
pub struct Content {
    pub stream: Arc<str>,
    /// The reason of dead letters; `None` for other records.
    pub reason: Option<Arc<str>>,
    pub records: Vec<Record>,
}

/// Parses a body of so many records; `None` for any bytes that no [`Draft`] made.
pub fn decode(mut body: Bytes, records: u32) -> Option<Content> {
    let stream = take_text_u16(&mut body)?;
    let reason = take_text_u16(&mut body)?;
    let mut decoded = Vec::with_capacity((records as usize).min(body.len() / RECORD_BYTES_MIN));
    for _ in 0..records {
        decoded.push(take_record(&mut body)?);
    }
    body.is_empty().then_some(Content {
        stream,
        reason: Some(reason).filter(|reason| !reason.is_empty()),
        records: decoded,
    })
}

fn take_record(body: &mut Bytes) -> Option<Record> {
    let headers = take_headers(body)?;
    let device = take_device(body)?;
    let (id, trace) = take_id(body)?;
    let received_at = Timestamp(body.try_get_u64_le().ok()?);
    let content_type = match body.try_get_u16_le().ok()? {
        0 => None,
        length => Some(take_text(body, usize::from(length) - 1)?),
    };
    let payload_bytes = body.try_get_u32_le().ok()?;
    let payload = take(body, payload_bytes as usize)?;
    Some(Record {
        device,
        payload,
        content_type,
        id,
        trace,
        headers,
        received_at,
        permit: Permit::without_budget(),
    })
}

/// Reads further headers of a record, as they were written: one at least, no name twice.
fn take_headers(body: &mut Bytes) -> Option<Headers> {
    let mut headers = Headers::default();
    if body.first() != Some(&HEADERS_FOLLOW) {
        return Some(headers);
    }
    body.advance(1);
    let count = body.try_get_u8().ok()?;
    for _ in 0..count {
        let (name, value) = (take_text_u16(body)?, take_text_u16(body)?);
        if name.is_empty() || headers.bytes() + name.len() + value.len() > HEADERS_BYTES_MAX {
            return None;
        }
        headers.add(&name, &value);
    }
    let is_as_written = count > 0 && headers.len() == usize::from(count);
    is_as_written.then_some(headers)
}

fn take_device(body: &mut Bytes) -> Option<DeviceId> {
    let length = body.try_get_u8().ok()?;
    let text = take(body, length.into())?;
    DeviceId::parse(std::str::from_utf8(&text).ok()?)
}

fn take_id(body: &mut Bytes) -> Option<(RecordId, Option<TraceParent>)> {
    let head = body.try_get_u8().ok()?;
    let id = match head & !TRACE_FOLLOWS {
        0 => RecordId::Uuid(Uuid::from_slice(&take(body, 16)?).ok()?),
        LENGTH_FOLLOWS => {
            let length = usize::from(body.try_get_u8().ok()?);
            let is_as_written = length > SHORT_ID_CHARS_MAX;
            take_key(body, is_as_written.then_some(length)?)?
        }
        length => {
            let length = usize::from(length);
            let is_as_written = length <= SHORT_ID_CHARS_MAX;
            take_key(body, is_as_written.then_some(length)?)?
        }
    };
    let trace = match head & TRACE_FOLLOWS {
        0 => None,
        _ => Some(TraceParent::parse(&take(body, TRACE_PARENT_BYTES)?)?),
    };
    Some((id, trace))
}

fn take_key(body: &mut Bytes, length: usize) -> Option<RecordId> {
    RecordId::from_key(&take(body, length)?)
}

fn take_text(body: &mut Bytes, length: usize) -> Option<Arc<str>> {
    let bytes = take(body, length)?;
    std::str::from_utf8(&bytes).ok().map(Arc::from)
}

fn take_text_u16(body: &mut Bytes) -> Option<Arc<str>> {
    let length = body.try_get_u16_le().ok()?;
    take_text(body, length.into())
}

fn take(body: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= body.len()).then(|| body.split_to(length))
}
