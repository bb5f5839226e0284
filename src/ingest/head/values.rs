//! The values of single fields: a type, a trace, a key, a length.
//!
//! The head asks for each when it is read. A value in another form than its field's is refused, or
//! counts as none if the field's specification says so.

use std::cell::RefCell;
use std::sync::Arc;

use super::Field;
use crate::ingest::Refusal;
use crate::record::{RecordId, TraceParent};

/// The content type that a connection's last request had: mostly it is the next one's too, and
/// shared.
#[derive(Debug, Default)]
pub struct ContentTypes(RefCell<Option<Arc<str>>>);

impl ContentTypes {
    /// Returns the first value that the client sent, if it is visible ASCII.
    pub(super) fn get(&self, field: Field<'_>) -> Option<Arc<str>> {
        let (Field::Once(value) | Field::Repeated(value)) = field else {
            return None;
        };
        let mut last = self.0.borrow_mut();
        match &*last {
            Some(last) if last.as_bytes() == value => Some(last.clone()),
            _ => Some(last.insert(visible(value)?.into()).clone()),
        }
    }
}

/// Returns a value that is visible ASCII, with blanks within it.
pub(crate) fn visible(value: &[u8]) -> Option<&str> {
    let is_text = value
        .iter()
        .all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\t');
    std::str::from_utf8(value).ok().filter(|_| is_text)
}

/// Returns the trace that a request belongs to. A field that cannot be read counts as none (W3C
/// Trace Context, section 4.3).
pub(super) fn trace(field: Field<'_>) -> Option<TraceParent> {
    match field {
        Field::Once(value) => TraceParent::parse(value),
        Field::Absent | Field::Repeated(_) => None,
    }
}

pub(super) fn idempotency_key(
    field: Field<'_>,
    chars_max: usize,
) -> Result<Option<RecordId>, Refusal> {
    match field {
        Field::Absent => Ok(None),
        Field::Once(value) if value.len() > chars_max => Err(Refusal::InvalidIdempotencyKey),
        Field::Once(value) => RecordId::from_key(value)
            .map(Some)
            .ok_or(Refusal::InvalidIdempotencyKey),
        Field::Repeated(_) => Err(Refusal::InvalidIdempotencyKey),
    }
}

const BAD_LENGTH: Refusal = Refusal::Malformed("Content-Length is not one decimal number");

/// Parses the one `Content-Length`; two of them are malformed.
pub(super) fn declared_bytes(field: Field<'_>) -> Result<Option<usize>, Refusal> {
    match field {
        Field::Absent => Ok(None),
        Field::Once(digits) => {
            length(digits).map(|bytes| Some(usize::try_from(bytes).unwrap_or(usize::MAX)))
        }
        Field::Repeated(_) => Err(BAD_LENGTH),
    }
}

/// Parses a `Content-Length`, in bytes: one decimal number without a sign. A number beyond 64 bits
/// is as good as the largest.
pub(crate) fn length(digits: &[u8]) -> Result<u64, Refusal> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BAD_LENGTH);
    }
    Ok(digits.iter().fold(0, |number: u64, digit| {
        number
            .saturating_mul(10)
            .saturating_add((digit - b'0').into())
    }))
}
