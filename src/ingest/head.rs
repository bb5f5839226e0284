//! The head of a request: its authority, its stream, the length of its body, and the names that it
//! has given.

mod host;
mod values;

use std::sync::Arc;

use super::decode::Coding;
use super::doors::{Extras, is_property};
use super::form::Form;
use super::{Refusal, Target};
use crate::config::{ContentEncodings, HttpConfig};
use crate::record::{Headers, RECORD_ID_CHARS_MAX, RecordId, TraceParent};
pub(super) use host::host_of;
use host::is_same_authority;
pub use values::ContentTypes;
use values::{declared_bytes, idempotency_key, trace};
pub(crate) use values::{length, visible};

/// A field of a head that may be there at most once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    /// The first of several.
    Repeated(&'a [u8]),
}

impl<'a> Field<'a> {
    /// Notes that the field is there once more.
    pub(crate) fn note(&mut self, value: &'a [u8]) {
        *self = match *self {
            Self::Absent => Self::Once(value),
            Self::Once(first) | Self::Repeated(first) => Self::Repeated(first),
        };
    }
}

/// The standing of a Host field beside the authority that the target may name too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HostRule {
    /// HTTP/1.0 knows requests without one.
    #[default]
    Optional,
    /// HTTP/1.1 has one in every request, although the target wins (RFC 9112 sections 3.2 and
    /// 3.2.2).
    Required,
    /// h2 and h3 want both to be the same, where both are there (RFC 9113 section 8.3.1).
    Same,
}

/// The parts of a request's head that the gateway reads, in whatever memory its protocol keeps
/// them.
#[derive(Clone, Debug, Default)]
pub struct RequestHead<'a> {
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The authority that the target names: `:authority`, or that of an absolute URI in h1.
    pub authority: Option<&'a str>,
    pub(crate) host_rule: HostRule,
    /// Whether the door that reads properties is open: nobody else has a use for them.
    pub(crate) keeps_properties: bool,
    /// Bytes that the adapter keeps of the head until the request is answered.
    pub kept_bytes: usize,
    host: Field<'a>,
    content_encoding: Field<'a>,
    content_length: Field<'a>,
    pub(super) content_type: Field<'a>,
    idempotency_key: Field<'a>,
    record_type: Field<'a>,
    traceparent: Field<'a>,
    /// The query, without the path's `?`; empty if there is none. Only front doors read it.
    pub(crate) query: &'a str,
    /// Names and values of the fields that only a front door reads, on a path of its own. As many as
    /// a head has.
    properties: Vec<(&'a str, &'a [u8])>,
}

impl<'a> RequestHead<'a> {
    pub fn new(method: &'a str, path: &'a str, authority: Option<&'a str>) -> Self {
        Self {
            method,
            path,
            authority,
            ..Self::default()
        }
    }

    /// Keeps the header field if the gateway reads it. Names are compared without regard to case.
    pub fn note(&mut self, name: &'a str, value: &'a [u8]) {
        let (known, field) = match name.len() {
            4 => ("host", &mut self.host),
            11 => ("traceparent", &mut self.traceparent),
            12 => ("content-type", &mut self.content_type),
            14 => ("content-length", &mut self.content_length),
            15 => ("idempotency-key", &mut self.idempotency_key),
            16 => ("content-encoding", &mut self.content_encoding),
            19 => ("forebay-record-type", &mut self.record_type),
            _ => return self.note_property(name, value),
        };
        // Most clients write names as they are written here, and h2 and h3 have no others.
        if name == known || name.eq_ignore_ascii_case(known) {
            field.note(value);
        } else {
            self.note_property(name, value);
        }
    }

    /// Keeps the field if the front door that the path belongs to may read it.
    fn note_property(&mut self, name: &'a str, value: &'a [u8]) {
        if self.keeps_properties && is_property(name, self.path) {
            self.properties.push((name, value));
        }
    }

    /// Names and values of the fields that only a front door reads.
    pub(super) fn properties(&self) -> &[(&'a str, &'a [u8])] {
        &self.properties
    }

    /// Returns the trace that the request belongs to.
    pub(crate) fn trace(&self) -> Option<TraceParent> {
        trace(self.traceparent)
    }

    pub(crate) fn content_length(&self) -> Field<'a> {
        self.content_length
    }

    /// Returns the one authority that the request names.
    pub(super) fn authority(&self) -> Result<&'a str, Refusal> {
        match (self.authority, self.host()?) {
            (None, None) => Err(BAD_HOST),
            (None, Some(host)) => Ok(host),
            (Some(authority), None) => Ok(authority),
            (Some(authority), Some(host)) => {
                host_of(host)?;
                if self.host_rule == HostRule::Same && !is_same_authority(authority, host) {
                    return Err(BAD_HOST);
                }
                Ok(authority)
            }
        }
    }

    /// Returns the Host field, if there is one.
    #[inline]
    fn host(&self) -> Result<Option<&'a str>, Refusal> {
        match self.host {
            Field::Absent if self.host_rule == HostRule::Required => Err(BAD_HOST),
            Field::Absent => Ok(None),
            Field::Once(host) => Ok(Some(std::str::from_utf8(host).map_err(|_| BAD_HOST)?)),
            Field::Repeated(_) => Err(BAD_HOST),
        }
    }
}

const BAD_HOST: Refusal = Refusal::Malformed("the Host header is missing, repeated or not a host");

/// The rest of the head: the form of the body, and the facts that go on with its records.
#[derive(Debug)]
pub(crate) struct Head {
    /// The length that `Content-Length` declares.
    pub declared_bytes: Option<usize>,
    pub coding: Coding,
    pub form: Form,
    /// Content type of each record.
    pub content_type: Option<Arc<str>>,
    pub idempotency_key: Option<RecordId>,
    /// Further headers of each record.
    pub headers: Headers,
    /// Bytes of the largest body, decoded.
    pub bytes_max: usize,
    pub trace: Option<TraceParent>,
    kept_bytes: usize,
}

/// The bounds of bodies and the codings that heads are judged by.
#[derive(Debug)]
pub(crate) struct Rules {
    body_bytes_max: usize,
    records_bytes_max: usize,
    encodings: ContentEncodings,
    /// The content type of records that are cut out of JSON.
    json: Arc<str>,
}

/// Bytes by which an encoded body may exceed the bound of a decoded one: incompressible data grows
/// by a head and a checksum.
const ENCODING_OVERHEAD_BYTES: usize = 1024;

/// The longest `Idempotency-Key`, in characters.
pub(crate) const IDEMPOTENCY_KEY_CHARS_MAX: usize = 64;

/// Characters of a key that names a request of many records: each adds `/` and its index.
pub(crate) const RECORDS_KEY_CHARS_MAX: usize = 58;

const _: () = assert!(RECORDS_KEY_CHARS_MAX + "/9999".len() <= IDEMPOTENCY_KEY_CHARS_MAX);
const _: () = assert!(IDEMPOTENCY_KEY_CHARS_MAX <= RECORD_ID_CHARS_MAX);

impl Rules {
    pub(crate) fn new(config: &HttpConfig) -> Self {
        Self {
            body_bytes_max: config.body_bytes_max,
            records_bytes_max: config.records_bytes_max,
            encodings: config.content_encodings,
            json: "application/json".into(),
        }
    }

    /// Bytes of the largest record.
    pub(crate) fn record_bytes_max(&self) -> usize {
        self.body_bytes_max
    }

    /// Bytes of the largest body of a form, decoded.
    pub(crate) fn bytes_max(&self, form: Form) -> usize {
        match form {
            Form::One => self.body_bytes_max,
            Form::Lines | Form::Array | Form::Delimited => self.records_bytes_max,
        }
    }

    /// Returns the coding of the body, if it is an accepted one.
    fn coding(&self, encoding: Field<'_>) -> Result<Coding, Refusal> {
        let coding = match encoding {
            Field::Absent => return Ok(Coding::Identity),
            Field::Once(name) => Coding::of(name),
            Field::Repeated(_) => None,
        };
        let is_taken = |coding: &Coding| match coding {
            Coding::Identity => true,
            Coding::Gzip => self.encodings.gzip,
            Coding::Zstd => self.encodings.zstd,
        };
        coding
            .filter(is_taken)
            .ok_or(Refusal::UnsupportedEncoding(self.encodings))
    }

    /// Returns the content type of each record.
    fn content_type(
        &self,
        head: &RequestHead<'_>,
        types: &ContentTypes,
        form: Form,
        extras: &Extras<'_>,
    ) -> Option<Arc<str>> {
        if let Some(value) = extras.content_type {
            return types.get(Field::Once(value));
        }
        match form {
            Form::One => types.get(head.content_type),
            Form::Lines | Form::Array => Some(self.json.clone()),
            Form::Delimited => types.get(head.record_type),
        }
    }
}

/// Bytes that a body may have as it comes, where it may have so many when it is decoded.
pub(crate) fn encoded_bytes_max(coding: Coding, bytes_max: usize) -> usize {
    match coding {
        Coding::Identity => bytes_max,
        Coding::Gzip | Coding::Zstd => bytes_max + ENCODING_OVERHEAD_BYTES,
    }
}

impl Head {
    /// Reads encoding, the type of many records, the door's own fields, idempotency key and length,
    /// in this order.
    pub(crate) fn parse(
        head: &RequestHead<'_>,
        types: &ContentTypes,
        rules: &Rules,
        target: Target,
    ) -> Result<Self, Refusal> {
        let coding = rules.coding(head.content_encoding)?;
        let (form, key_chars_max) = if target.is_records {
            (Form::of_many(head.content_type)?, RECORDS_KEY_CHARS_MAX)
        } else {
            (Form::One, IDEMPOTENCY_KEY_CHARS_MAX)
        };
        let (door, mut headers) = (target.door, target.headers);
        let extras = door.read(head, &mut headers)?;
        let idempotency_key = idempotency_key(head.idempotency_key, key_chars_max)?;
        let declared_bytes = declared_bytes(head.content_length)?;
        let content_type = rules.content_type(head, types, form, &extras);
        let bytes_max = door.body_bytes_max(&headers, rules.bytes_max(form));
        check_length(declared_bytes, encoded_bytes_max(coding, bytes_max))?;
        Ok(Self {
            declared_bytes,
            coding,
            form,
            content_type,
            idempotency_key: extras.id.or(idempotency_key),
            headers,
            bytes_max,
            trace: head.trace(),
            kept_bytes: head.kept_bytes,
        })
    }
}

/// Whether a body may be as long as it says.
fn check_length(declared_bytes: Option<usize>, bytes_max: usize) -> Result<(), Refusal> {
    match declared_bytes {
        Some(0) => Err(Refusal::EmptyBody),
        Some(bytes) if bytes > bytes_max => Err(Refusal::BodyTooLarge),
        _ => Ok(()),
    }
}

/// Bytes of a head that every record is reckoned to cost.
const RECKONED_BYTES: usize = 512;

impl Head {
    /// Whether the body is one record as it comes.
    pub(crate) fn is_plain(&self) -> bool {
        self.form == Form::One && self.coding == Coding::Identity
    }

    /// Returns the bytes that are kept of the head while the record waits, beyond those that every
    /// record is reckoned to cost.
    pub(crate) fn bytes_beyond_overhead(&self) -> usize {
        let content_type_bytes = self.content_type.as_ref().map_or(0, |text| text.len());
        let beside_bytes = content_type_bytes + self.headers.held_bytes() + self.kept_bytes;
        beside_bytes.saturating_sub(RECKONED_BYTES)
    }
}
