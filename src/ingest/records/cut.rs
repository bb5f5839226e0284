//! Cutting a body into records.
//!
//! Pure: bytes in, ranges out, nothing is copied. The cutters stop at the first record too many.
//! The array's is serde_json's: it is parsed once, as raw values, and must be JSON to its end.

use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::super::Refusal;
use super::super::form::Form;

/// A record's place in the body, in bytes.
pub type Place = Range<usize>;

/// The reason why a body gives no records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uncut {
    #[error("the body cannot be cut to its end")]
    Malformed,
    #[error("the body has too many records")]
    TooMany,
    #[error("the body has no record")]
    Empty,
}

impl From<Uncut> for Refusal {
    fn from(uncut: Uncut) -> Self {
        match uncut {
            Uncut::Malformed => Self::MalformedRecords,
            Uncut::TooMany => Self::TooManyRecords,
            Uncut::Empty => Self::EmptyBody,
        }
    }
}

/// Cuts a body of many records: 1 to `records_max` of them, none of which is empty.
pub(crate) fn cut(form: Form, body: &[u8], records_max: usize) -> Result<Vec<Place>, Uncut> {
    let records = match form {
        Form::Lines => cut_lines(body, records_max),
        Form::Array => cut_array(body, records_max),
        Form::Delimited => cut_delimited(body, records_max),
        Form::One => Ok(std::iter::once(0..body.len()).collect()),
    }?;
    debug_assert!(records.len() <= records_max && records.is_sorted_by_key(|place| place.start));
    debug_assert!(
        records
            .iter()
            .all(|place| !place.is_empty() && place.end <= body.len())
    );
    if records.is_empty() {
        return Err(Uncut::Empty);
    }
    Ok(records)
}

/// The places of a body's records, up to a bound.
struct Places {
    found: Vec<Place>,
    records_max: usize,
}

impl Places {
    fn up_to(records_max: usize) -> Self {
        Self {
            found: Vec::new(),
            records_max,
        }
    }

    fn push(&mut self, place: Place) -> Result<(), Uncut> {
        if self.found.len() == self.records_max {
            return Err(Uncut::TooMany);
        }
        self.found.push(place);
        Ok(())
    }
}

/// Cuts lines, which end in LF or CR LF; the last one may have no end. Empty ones are none.
pub fn cut_lines(body: &[u8], records_max: usize) -> Result<Vec<Place>, Uncut> {
    let mut places = Places::up_to(records_max);
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', body) {
        let line = &body[start..end];
        let text_bytes = line.strip_suffix(b"\r").unwrap_or(line).len();
        if text_bytes > 0 {
            places.push(start..start + text_bytes)?;
        }
        start = end + 1;
    }
    if start < body.len() {
        places.push(start..body.len())?;
    }
    Ok(places.found)
}

/// Cuts records that each follow their length, an unsigned LEB128.
pub fn cut_delimited(body: &[u8], records_max: usize) -> Result<Vec<Place>, Uncut> {
    let mut places = Places::up_to(records_max);
    let mut at = 0;
    while at < body.len() {
        let (bytes, length_bytes) = length(&body[at..]).ok_or(Uncut::Malformed)?;
        let start = at + length_bytes;
        if bytes == 0 || bytes > (body.len() - start) as u64 {
            return Err(Uncut::Malformed);
        }
        at = start + bytes as usize;
        places.push(start..at)?;
    }
    Ok(places.found)
}

/// Parses the number that the bytes begin with, and counts its bytes; `None` if it does not end or
/// has more than 64 bits.
fn length(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if bits.leading_zeros() < shift {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some((number, index + 1));
        }
    }
    None
}

/// Cuts the elements of one JSON array: each is its own text, without blanks around it.
pub fn cut_array(body: &[u8], records_max: usize) -> Result<Vec<Place>, Uncut> {
    let mut elements = Elements {
        body,
        places: Places::up_to(records_max),
        is_too_many: false,
    };
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = json
        .deserialize_seq(&mut elements)
        .and_then(|()| json.end());
    match parsed {
        Ok(()) => Ok(elements.places.found),
        Err(_) if elements.is_too_many => Err(Uncut::TooMany),
        Err(_) => Err(Uncut::Malformed),
    }
}

/// Notes where the elements of an array stand.
struct Elements<'b> {
    body: &'b [u8],
    places: Places,
    is_too_many: bool,
}

impl<'de> Visitor<'de> for &mut Elements<'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<(), A::Error> {
        while let Some(element) = array.next_element::<&RawValue>()? {
            let text = element.get();
            let start = text.as_ptr().addr() - self.body.as_ptr().addr();
            let place = start..start + text.len();
            debug_assert_eq!(&self.body[place.clone()], text.as_bytes());
            if self.places.push(place).is_err() {
                self.is_too_many = true;
                return Err(A::Error::custom("too many elements"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
