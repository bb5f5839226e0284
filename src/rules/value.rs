//! A record as a tree: members in the order in which they came, numbers as they were written.
//!
//! [`parse`](super::parse) makes it once a record, the schema is held against it where it stands,
//! and edits change it. Text that needs no decoding is borrowed from the record. Writing gives
//! compact JSON: no blanks, strings in their shortest form.

use std::borrow::Cow;

/// One JSON value of a record, or of an edit that puts it there.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Null,
    Bool(bool),
    /// A number's own text, which is JSON.
    Number(Cow<'a, str>),
    /// A string's characters.
    String(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    /// Members with names of which no two are the same.
    Object(Vec<Member<'a>>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member<'a> {
    pub name: Cow<'a, str>,
    pub value: Value<'a>,
}

impl<'a> Value<'a> {
    /// Whether this is the string `text`.
    pub(super) fn is_text(&self, text: &str) -> bool {
        matches!(self, Self::String(string) if string == text)
    }

    /// Appends the value as compact JSON.
    pub(super) fn write(&self, json: &mut Vec<u8>) {
        match self {
            Self::Null => json.extend_from_slice(b"null"),
            Self::Bool(true) => json.extend_from_slice(b"true"),
            Self::Bool(false) => json.extend_from_slice(b"false"),
            Self::Number(text) => {
                debug_assert!(text.ends_with(is_digit), "a number of JSON does");
                json.extend_from_slice(text.as_bytes());
            }
            Self::String(text) => write_text(text, json),
            Self::Array(items) => write_items(items, json),
            Self::Object(members) => write_members(members, json),
        }
    }

    /// Counts bytes that the value takes as compact JSON, at least.
    pub(super) fn bytes_min(&self) -> usize {
        match self {
            Self::Null | Self::Bool(_) => 4,
            Self::Number(text) => text.len(),
            Self::String(text) => text.len() + 2,
            Self::Array(items) => items.iter().map(|item| item.bytes_min() + 1).sum(),
            Self::Object(members) => members.iter().map(Member::bytes_min).sum(),
        }
    }
}

impl Member<'_> {
    fn bytes_min(&self) -> usize {
        self.name.len() + self.value.bytes_min() + 4
    }
}

fn is_digit(letter: char) -> bool {
    letter.is_ascii_digit()
}

fn write_text(text: &str, json: &mut Vec<u8>) {
    // Cannot fail: a string is JSON, and a Vec takes every write.
    serde_json::to_writer(json, text).expect("a string is written to memory");
}

fn write_items(items: &[Value<'_>], json: &mut Vec<u8>) {
    json.push(b'[');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        item.write(json);
    }
    json.push(b']');
}

fn write_members(members: &[Member<'_>], json: &mut Vec<u8>) {
    json.push(b'{');
    for (place, member) in members.iter().enumerate() {
        if place > 0 {
            json.push(b',');
        }
        write_text(&member.name, json);
        json.push(b':');
        member.value.write(json);
    }
    json.push(b'}');
}
