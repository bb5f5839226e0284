//! The tree of a record as the schema's validator looks at it: in place, without a copy.

use std::borrow::Cow;
use std::iter::Map;
use std::slice::Iter;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, Node, NodeIdentity, Object};
use serde_json::Value as Plain;

use super::number::Decimal;
use super::value::{Member, Value};

/// Trees of records.
pub(super) struct Tree;

impl Json for Tree {
    type Node<'a> = &'a Value<'a>;
    type PreparedKey = Box<str>;
    type StringBuffer = ();

    /// A lookup goes through half of the members: a pass over all of them replaces several.
    const KEYS_PER_LOOKUP: usize = 4;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>((): &mut (), text: &str, f: impl FnOnce(Self::Node<'_>) -> T) -> T {
        f(&Value::String(Cow::Borrowed(text)))
    }
}

impl<'a> Node<'a, Tree> for &'a Value<'a> {
    type Object = &'a [Member<'a>];
    type Array = &'a [Value<'a>];
    type Number = Decimal<'a>;

    fn as_object(&self) -> Option<&'a [Member<'a>]> {
        match self {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    fn as_array(&self) -> Option<&'a [Value<'a>]> {
        match self {
            Value::Array(items) => Some(items),
            _ => None,
        }
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        match self {
            Value::String(text) => Some(Cow::Borrowed(text)),
            _ => None,
        }
    }

    fn as_number(&self) -> Option<Decimal<'a>> {
        match self {
            Value::Number(text) => Some(Decimal(text)),
            _ => None,
        }
    }

    fn as_boolean(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    fn json_type(&self) -> JsonType {
        match self {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn equals_value(&self, expected: &Plain) -> bool {
        match (self, expected) {
            // An `enum` of texts is asked for each record: no copy for it.
            (Value::String(text), Plain::String(expected)) => text == expected,
            (Value::String(_), _) | (_, Plain::String(_)) => false,
            _ => jsonschema::json::cmp::equal(&plain(self), expected),
        }
    }

    fn to_value(&self) -> Cow<'a, Plain> {
        Cow::Owned(plain(self))
    }

    fn identity(&self) -> Option<NodeIdentity> {
        let address = std::ptr::from_ref::<Value<'_>>(self) as usize;
        Some(NodeIdentity::new(address))
    }
}

/// A copy of the value, for what compares whole values.
fn plain(value: &Value<'_>) -> Plain {
    match value {
        Value::Null => Plain::Null,
        Value::Bool(value) => Plain::Bool(*value),
        Value::Number(text) => Plain::Number(Decimal(text).number()),
        Value::String(text) => Plain::String(text.to_string()),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(members) => {
            let member = |member: &Member<'_>| (member.name.to_string(), plain(&member.value));
            members.iter().map(member).collect()
        }
    }
}

type Split<'a> = fn(&'a Member<'a>) -> (&'a str, &'a Value<'a>);

impl<'a> Object<'a, Tree> for &'a [Member<'a>] {
    type Node = &'a Value<'a>;
    type MemberName = &'a str;
    type MembersIter = Map<Iter<'a, Member<'a>>, Split<'a>>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn get(&self, key: &Box<str>) -> Option<&'a Value<'a>> {
        let member = self.iter().find(|member| *member.name == **key)?;
        Some(&member.value)
    }

    fn members(&self) -> Self::MembersIter {
        self.iter().map(|member| (&*member.name, &member.value))
    }
}

impl<'a> Array<'a, Tree> for &'a [Value<'a>] {
    type Node = &'a Value<'a>;
    type ElementsIter = Iter<'a, Value<'a>>;

    fn len(&self) -> usize {
        <[_]>::len(self)
    }

    fn elements(&self) -> Iter<'a, Value<'a>> {
        self.iter()
    }
}
