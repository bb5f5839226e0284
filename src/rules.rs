//! The rules of a stream: what its records must be, whose, and what is changed of them on the way.
//!
//! `ingest` has each record judged by the [`Rulebook`] when its body is whole, after every other
//! refusal but those of the sink. A record is parsed once: the device's field is checked or added,
//! the schema is held against the tree, edits change it. What no rule changes goes on byte for
//! byte; what is written anew keeps the order of its keys and its numbers as they were written.
//! `gateway` has [`Files`] read the rules at start and whenever one of their files changes; a
//! request is judged by the rules that were in force when its body had come.
//!
//! Bounds: 64 open arrays and objects in a record, 64 edits, 4 MiB a file. The tree of a record
//! takes some twenty times its bytes at worst, one tree a worker. A record that does not pass is a
//! [`Fault`], which has nothing of what was sent; a stream without rules costs a look at a table.

mod edit;
mod file;
mod instance;
mod key;
mod number;
mod parse;
mod pointer;
mod reload;
mod rulebook;
mod schema;
mod sources;
#[cfg(test)]
mod tests;
mod value;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use crate::record::DeviceId;
use crate::words::Rejection;
use edit::Edit;
pub use file::RulesError;
use pointer::Pointer;
pub(crate) use reload::{Change, Files, check};
pub(crate) use rulebook::InForce;
pub use rulebook::Rulebook;
use schema::Schema;
use sources::Sources;
use value::{Member, Value};

/// The variable that names the files.
pub(crate) const VARIABLE: &str = "FOREBAY_STREAM_RULES";

/// The rules of one stream, compiled.
#[derive(Debug)]
pub struct Rules {
    schema: Option<Schema>,
    on_violation: OnViolation,
    /// The member that holds the device's id.
    device_field: Option<Pointer>,
    edits: Vec<Edit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnViolation {
    Reject,
    Tag,
}

/// Fate of a record's headers in the sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkHeaders {
    Kept,
    Dropped,
}

/// Why a record does not pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    NotJson,
    /// Place in the schema of the keyword that the record does not satisfy.
    SchemaViolation(Arc<str>),
    DeviceMismatch,
    /// The edited record is longer than a record may be.
    RecordTooLarge,
}

impl Fault {
    /// The fault as the metric has it.
    pub(crate) fn rejection(&self) -> Rejection {
        match self {
            Self::NotJson => Rejection::NotJson,
            Self::SchemaViolation(_) => Rejection::SchemaViolation,
            Self::DeviceMismatch => Rejection::DeviceMismatch,
            Self::RecordTooLarge => Rejection::RecordTooLarge,
        }
    }
}

/// A record that passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Payload as it goes on to the sink.
    pub payload: Bytes,
    /// Place in the schema of the keyword that the record does not satisfy, if it passes
    /// nevertheless.
    pub violation: Option<Arc<str>>,
}

impl Rules {
    /// Reads a rules file and what it names, for a sink that keeps headers.
    pub fn read(file: &Path) -> Result<Self, RulesError> {
        file::read(file, &Arc::<Sources>::default(), SinkHeaders::Kept)
    }

    /// Judges one record of a device: as it goes on, or why it does not.
    pub fn judge(
        &self,
        payload: Bytes,
        device: &DeviceId,
        bytes_max: usize,
    ) -> Result<Verdict, Fault> {
        let mut record = parse::parse(&payload)?;
        let is_added = self.claim(&mut record, device)?;
        let violation = self.violation(&record)?;
        if !is_added && self.edits.is_empty() {
            drop(record);
            return Ok(Verdict { payload, violation });
        }
        debug_assert!(self.edits.len() <= file::EDITS_MAX, "the file was read so");
        edit::apply(&self.edits, &mut record, bytes_max)?;
        let payload = written(&record, payload.len(), bytes_max)?;
        Ok(Verdict { payload, violation })
    }

    /// Checks the device's field, or adds it as the last one of its object; says whether it was
    /// added.
    fn claim(&self, record: &mut Value<'_>, device: &DeviceId) -> Result<bool, Fault> {
        let Some(field) = &self.device_field else {
            return Ok(false);
        };
        let (members, name) = field.object(record).ok_or(Fault::DeviceMismatch)?;
        match members.iter().find(|member| member.name == name) {
            Some(member) if member.value.is_text(device.as_str()) => Ok(false),
            Some(_) => Err(Fault::DeviceMismatch),
            None => {
                members.push(Member {
                    name: name.to_owned().into(),
                    value: Value::String(device.as_str().to_owned().into()),
                });
                Ok(true)
            }
        }
    }

    /// The violation that the record is tagged with; one that is not to pass is a fault.
    fn violation(&self, record: &Value<'_>) -> Result<Option<Arc<str>>, Fault> {
        let schema = self.schema.as_ref();
        match schema.and_then(|schema| schema.violation(record)) {
            Some(place) if self.on_violation == OnViolation::Reject => {
                Err(Fault::SchemaViolation(place))
            }
            violation => Ok(violation),
        }
    }
}

/// The record's new bytes.
fn written(record: &Value<'_>, bytes_before: usize, bytes_max: usize) -> Result<Bytes, Fault> {
    let mut json = Vec::with_capacity(bytes_before);
    record.write(&mut json);
    debug_assert!(!json.is_empty(), "a value has at least a digit");
    if json.len() > bytes_max {
        return Err(Fault::RecordTooLarge);
    }
    json.shrink_to_fit();
    Ok(json.into())
}
