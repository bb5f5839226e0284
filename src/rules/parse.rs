//! From a record's bytes to its tree, in one pass.
//!
//! JSON is what RFC 8259 says, in UTF-8, and a little less: half a surrogate pair has no
//! characters, two members of one name have no meaning that all readers share, and more than
//! [`OPEN_MAX`] open arrays and objects would be a stack overflow in somebody's reader. Each of
//! them is not JSON here.

use std::borrow::Cow;
use std::collections::HashSet;

use json_event_parser::{JsonEvent, SliceJsonParser};

use super::Fault;
use super::value::{Member, Value};

/// Arrays and objects that are open at once.
pub(super) const OPEN_MAX: usize = 64;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Names of so many members are compared with each other; more are hashed.
const COMPARED_MEMBERS_MAX: usize = 16;

/// The tree of a record, which borrows from it.
pub(super) fn parse(record: &[u8]) -> Result<Value<'_>, Fault> {
    if record.starts_with(BYTE_ORDER_MARK) {
        return Err(Fault::NotJson); // the parser would pass it over, readers downstream would not
    }
    let mut parser = Parser(SliceJsonParser::new(record));
    let first = parser.next()?;
    let value = parser.value(first, 0)?;
    match parser.next()? {
        JsonEvent::Eof => Ok(value),
        _ => Err(Fault::NotJson),
    }
}

struct Parser<'a>(SliceJsonParser<'a>);

impl<'a> Parser<'a> {
    fn next(&mut self) -> Result<JsonEvent<'a>, Fault> {
        self.0.parse_next().map_err(|_| Fault::NotJson)
    }

    /// The value that begins with this event, within so many arrays and objects.
    fn value(&mut self, event: JsonEvent<'a>, open: usize) -> Result<Value<'a>, Fault> {
        match event {
            JsonEvent::Null => Ok(Value::Null),
            JsonEvent::Boolean(value) => Ok(Value::Bool(value)),
            JsonEvent::Number(text) => Ok(Value::Number(text)),
            JsonEvent::String(text) => Ok(Value::String(text)),
            JsonEvent::StartArray => self.array(one_more(open)?),
            JsonEvent::StartObject => self.object(one_more(open)?),
            _ => Err(Fault::NotJson),
        }
    }

    fn array(&mut self, open: usize) -> Result<Value<'a>, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                JsonEvent::EndArray => return Ok(Value::Array(items)),
                event => items.push(self.value(event, open)?),
            }
        }
    }

    fn object(&mut self, open: usize) -> Result<Value<'a>, Fault> {
        let mut members = Vec::new();
        while let Some(name) = self.name()? {
            let event = self.next()?;
            let value = self.value(event, open)?;
            members.push(Member { name, value });
        }
        if has_twins(&members) {
            return Err(Fault::NotJson);
        }
        Ok(Value::Object(members))
    }

    /// The next member's name; `None` where the object ends.
    fn name(&mut self) -> Result<Option<Cow<'a, str>>, Fault> {
        match self.next()? {
            JsonEvent::ObjectKey(name) => Ok(Some(name)),
            JsonEvent::EndObject => Ok(None),
            _ => Err(Fault::NotJson),
        }
    }
}

fn one_more(open: usize) -> Result<usize, Fault> {
    debug_assert!(open <= OPEN_MAX, "each of them was counted");
    match open {
        OPEN_MAX => Err(Fault::NotJson),
        open => Ok(open + 1),
    }
}

/// Whether two members have one name.
fn has_twins(members: &[Member<'_>]) -> bool {
    if members.len() > COMPARED_MEMBERS_MAX {
        let mut seen = HashSet::with_capacity(members.len());
        return !members.iter().all(|member| seen.insert(&*member.name));
    }
    let is_twin = |(place, member): (usize, &Member<'_>)| {
        let mut earlier = members[..place].iter();
        earlier.any(|other| other.name == member.name)
    };
    members.iter().enumerate().any(is_twin)
}

#[cfg(test)]
mod tests;
