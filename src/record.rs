//! The vocabulary: records that devices sent, and their outcomes.
//!
//! A [`Record`] is one payload of one device. Records of one stream are sealed into a [`Batch`],
//! which travels whole from a worker to the sink and, with an [`Outcome`] for each record, back to
//! the same worker. A batch that is dropped on the way tells its worker that the outcomes are
//! unknown: no request is left waiting.
//!
//! Every other room may use this one; it uses none but the hand-over queue that batches travel in.

mod batch;
mod headers;
mod permit;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::HeaderValue;
use uuid::{Builder, Uuid};

use crate::sync::AtomicUsize;
pub(crate) use batch::Receipt;
pub use batch::{Batch, Settled};
pub use headers::Headers;
pub(crate) use headers::{HEADERS_BYTES_MAX, SCHEMA_VIOLATION};
pub(crate) use permit::Reserved;
pub use permit::{DeviceMemory, Permit};

/// The name of a device, taken from its certificate: 1 to 128 characters of `A-Za-z0-9._:/@-`.
/// Cloning shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

/// The longest device id, in characters.
pub(crate) const DEVICE_ID_CHARS_MAX: usize = 128;

impl DeviceId {
    /// Parses a device id; `None` if the text is empty, longer than 128 characters, or has a
    /// character outside `A-Za-z0-9._:/@-`.
    pub fn parse(text: &str) -> Option<Self> {
        is_device_id(text).then(|| Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether [`DeviceId::parse`] would take the text.
pub(crate) fn is_device_id(text: &str) -> bool {
    let fits = (1..=DEVICE_ID_CHARS_MAX).contains(&text.len());
    fits && text.bytes().all(is_device_id_byte)
}

fn is_device_id_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._:/@-".contains(&byte)
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The position of a stream in `FOREBAY_STREAMS`; 0 is the default stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamIndex(pub u16);

impl StreamIndex {
    pub fn get(self) -> usize {
        usize::from(self.0)
    }
}

/// A time, in milliseconds since the Unix epoch: when the gateway received the head of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    pub fn now() -> Self {
        let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH);
        Self(since_epoch.map_or(0, |elapsed| elapsed.as_millis() as u64))
    }

    /// Returns the time in RFC 3339, in UTC and whole seconds; the last such time if it is beyond
    /// that.
    pub(crate) fn rfc3339(self) -> String {
        let seconds = i64::try_from(self.0 / 1000).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
        format!("{at:.0}")
    }

    /// Returns the time in RFC 3339, in UTC, with milliseconds; the last such time if it is beyond
    /// that.
    pub(crate) fn rfc3339_millis(self) -> String {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        let at = jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX);
        format!("{at:.3}")
    }

    /// Returns the time as HTTP writes it (RFC 9110 section 5.6.7). The last date that has four
    /// digits for its year is the latest, in certificates too.
    pub fn http_date(self) -> HeaderValue {
        const YEAR_9999_ENDS: u64 = 253_402_300_799;
        let at = UNIX_EPOCH + Duration::from_secs((self.0 / 1000).min(YEAR_9999_ENDS));
        let date = HeaderValue::try_from(httpdate::fmt_http_date(at));
        date.expect("a date is visible ASCII")
    }
}

/// The name of one record for good: the client's own, or a UUIDv7 (RFC 9562) made at receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordId {
    Uuid(Uuid),
    /// 1 to 128 visible ASCII characters, as the client sent them.
    Key(Box<str>),
}

/// The length of a UUID as text.
const UUID_CHARS: usize = 36;

/// The longest name that a client may give a record, in characters: by which field it comes decides
/// whether it may be as long.
pub(crate) const RECORD_ID_CHARS_MAX: usize = 128;

impl RecordId {
    /// Makes a UUIDv7: the time of receipt and 74 random bits. `Uuid::now_v7` would add a counter
    /// behind a lock.
    pub fn new(received_at: Timestamp) -> Self {
        let random = Uuid::new_v4().into_bytes();
        let mut bits = [0; 10];
        // A random UUID's bytes 6 and 8 hold its version and variant.
        bits[..6].copy_from_slice(&random[..6]);
        bits[6..].copy_from_slice(&random[9..13]);
        Self::Uuid(Builder::from_unix_timestamp_millis(received_at.0, &bits).into_uuid())
    }

    /// Takes a client's key; `None` unless it is 1 to 128 visible ASCII characters.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let fits = (1..=RECORD_ID_CHARS_MAX).contains(&key.len());
        let text = std::str::from_utf8(key).ok()?;
        (fits && key.iter().all(u8::is_ascii_graphic)).then(|| Self::Key(text.into()))
    }

    /// Returns the id of one of the records that a key names together: the key, `/` and its index.
    pub(crate) fn of_part(&self, index: usize) -> Self {
        let mut buffer = [0; 36];
        Self::Key(format!("{}/{index}", self.as_str(&mut buffer)).into())
    }

    /// Returns the id in place of a device, for a record that has none. No device has it: it is the
    /// record's own.
    pub(crate) fn as_device(&self) -> DeviceId {
        let mut buffer = [0; UUID_CHARS];
        DeviceId(self.as_str(&mut buffer).into())
    }

    /// Returns the id as text, written into `buffer` if it has to be made.
    pub fn as_str<'a>(&'a self, buffer: &'a mut [u8; 36]) -> &'a str {
        match self {
            Self::Uuid(uuid) => uuid.hyphenated().encode_lower(buffer),
            Self::Key(key) => key,
        }
    }
}

/// The trace that a record belongs to: a `traceparent` of W3C Trace Context, as the client sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(Box<[u8; TRACE_PARENT_BYTES]>);

/// The length of version 00, which every later one begins with.
pub(crate) const TRACE_PARENT_BYTES: usize = 55;

impl TraceParent {
    /// Parses a `traceparent`; `None` unless it is `00-<32 hex>-<16 hex>-<2 hex>`, in lower case,
    /// neither id all zeros.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let bytes: &[u8; TRACE_PARENT_BYTES] = text.try_into().ok()?;
        let is_framed = bytes.starts_with(b"00-") && bytes[35] == b'-' && bytes[52] == b'-';
        let (trace, span, flags) = (&bytes[3..35], &bytes[36..52], &bytes[53..]);
        let is_whole = is_framed && is_trace_id(trace) && is_trace_id(span);
        (is_whole && is_lower_hex(flags)).then(|| Self(Box::new(*bytes)))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&*self.0).expect("it was parsed: ASCII")
    }
}

fn is_trace_id(id: &[u8]) -> bool {
    is_lower_hex(id) && id.iter().any(|byte| *byte != b'0')
}

fn is_lower_hex(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    text.iter().all(is_digit)
}

/// The slot in which a worker finds the request that waits for a record; only the worker that made
/// it may read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckSlot(pub u32);

impl AckSlot {
    /// The slot of a record that has been answered already.
    pub const NONE: Self = Self(u32::MAX);
}

/// One device payload, as the stream will hold it.
#[derive(Debug)]
pub struct Record {
    pub device: DeviceId,
    pub payload: Bytes,
    pub content_type: Option<Arc<str>>,
    pub id: RecordId,
    pub trace: Option<TraceParent>,
    /// Further ones, beside the content type and the id.
    pub headers: Headers,
    pub received_at: Timestamp,
    /// Released when the record is dropped.
    pub permit: Permit,
}

impl Record {
    /// Returns the key by which the stream keeps the order of records: their device. `None` for a
    /// record of no device, which has its own id in that place.
    #[inline]
    pub(crate) fn key(&self) -> Option<&str> {
        let device = self.device.as_str();
        let is_own_id = match &self.id {
            RecordId::Uuid(uuid) if device.len() == UUID_CHARS => {
                device == uuid.hyphenated().encode_lower(&mut [0; UUID_CHARS])
            }
            _ => false,
        };
        (!is_own_id).then_some(device)
    }

    /// Counts bytes that a device or a rule may make as many as it likes: the payload and further
    /// headers.
    #[inline]
    pub(crate) fn sent_bytes(&self) -> usize {
        self.payload.len() + self.headers.bytes()
    }
}

impl Permit {
    /// Returns a permit that holds nothing, of no budget: for records that were read back from
    /// disk, whose number delivery bounds, and for those that tests make.
    pub fn without_budget() -> Self {
        static NOTHING: AtomicUsize = AtomicUsize::new(0);
        Self::of_nobody(&NOTHING)
    }
}

/// The outcome of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The stream has it, as safe as the stream makes it.
    Delivered,
    /// The stream does not have it; the same record may be taken later.
    Retryable(Reason),
    /// The stream is gone, or closed to this gateway: it does not have the record, nor would it
    /// take any other.
    Barred(Reason),
    /// The stream refuses this record for good.
    Permanent(Reason),
    /// No word from the stream: it may or may not have the record.
    Unknown,
}

impl Outcome {
    /// Whether the same record may be delivered at another time.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Retryable(_) | Self::Barred(_) | Self::Unknown)
    }
}

/// The reason why the stream did not take a record, in its own words: an error code or name, never
/// the record's content.
pub(crate) type Reason = Arc<str>;

/// The outcomes of a batch, in the order of its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcomes {
    /// The same for every record.
    All(Outcome),
    /// One for each record.
    Each(Vec<Outcome>),
}

impl Outcomes {
    pub const DELIVERED: Self = Self::All(Outcome::Delivered);

    /// Returns the outcome of the record at `index`; unknown past the end.
    pub fn get(&self, index: usize) -> &Outcome {
        match self {
            Self::All(outcome) => outcome,
            Self::Each(outcomes) => outcomes.get(index).unwrap_or(&Outcome::Unknown),
        }
    }
}

#[cfg(test)]
impl Record {
    /// Makes a record with nothing beside its payload.
    pub(crate) fn bare(device: &str, payload: impl Into<Bytes>, received_at: Timestamp) -> Self {
        Self {
            device: DeviceId::parse(device).expect("a device id"),
            payload: payload.into(),
            content_type: None,
            id: RecordId::new(received_at),
            trace: None,
            headers: Headers::default(),
            received_at,
            permit: Permit::without_budget(),
        }
    }
}
