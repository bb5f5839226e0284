//! Editing a devices file: one device is denied, or allowed again, and nothing else changes.
//!
//! [`edit`] turns text into text. The exact rule of the device is turned round where it stands; a
//! device without one gets a new line at the end. Of several exact rules, which are a fault, one is
//! left, and the comments of the others. `deny` has no settings, so those of the rule wait in its
//! comment, behind [`WAS`], and come back when the device is allowed again: a line that is turned
//! round twice is what it was, byte for byte.

use super::rule;

/// Begins a comment that keeps the settings of a device which is denied.
const WAS: &str = "# was: ";

/// Change of a device's rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Allow,
    Deny,
}

/// The text of a file in which the one exact rule of a device is the changed one.
pub fn edit(text: &[u8], id: &str, change: Change) -> Vec<u8> {
    debug_assert!(rule::is_id(id), "only exact rules are edited");
    let mut edited = Vec::with_capacity(text.len() + id.len() + 8);
    let kept = kept_line(text, id);
    for (number, line) in lines(text).enumerate() {
        match OwnRule::of(line, id) {
            None => edited.extend_from_slice(line),
            Some(own) if Some(number) == kept => own.write(change, &mut edited),
            Some(own) => own.write_comment(&mut edited),
        }
    }
    if kept.is_none() {
        add_rule(&mut edited, id, change);
    }
    edited
}

/// The lines of a text, each with its end.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|&byte| byte == b'\n')
}

/// The line of the device's rule that stays: the first with settings, or else the first.
fn kept_line(text: &[u8], id: &str) -> Option<usize> {
    let mut first = None;
    for (number, line) in lines(text).enumerate() {
        let Some(own) = OwnRule::of(line, id) else {
            continue;
        };
        if !own.settings().is_empty() {
            return Some(number);
        }
        first = first.or(Some(number));
    }
    first
}

/// Adds a line at the end, which is ended as the others are.
fn add_rule(text: &mut Vec<u8>, id: &str, change: Change) {
    let end = match lines(text).next() {
        Some(first) if first.ends_with(b"\r\n") => "\r\n",
        _ => "\n",
    };
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.extend_from_slice(end.as_bytes());
    }
    let line = format!("{} {id}{end}", change.keyword());
    text.extend_from_slice(line.as_bytes());
}

impl Change {
    fn keyword(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// An exact rule of the device, as its line is written.
struct OwnRule<'a> {
    indent: &'a str,
    change: Change,
    /// The blanks between the keyword and the id.
    gap: &'a str,
    id: &'a str,
    /// Text between the id and the comment, blanks included.
    middle: &'a str,
    comment: &'a [u8],
    end: &'a [u8],
}

impl<'a> OwnRule<'a> {
    /// The rule of a line; `None` where it is none of the device's own.
    fn of(line: &'a [u8], id: &str) -> Option<Self> {
        let (content, end) = split_end(line);
        let (said, comment) = rule::split_comment(content);
        let said = str::from_utf8(said).ok()?;
        let (indent, said) = split_blanks(said);
        let (change, said) = split_keyword(said)?;
        let (gap, said) = split_blanks(said);
        let own_id = said.split_ascii_whitespace().next()?;
        let (own_id, middle) = said.split_at(own_id.len());
        (own_id == id && !gap.is_empty()).then_some(Self {
            indent,
            change,
            gap,
            id: own_id,
            middle,
            comment,
            end,
        })
    }

    /// The settings of the rule, or those that it had before the device was denied.
    fn settings(&self) -> &str {
        match self.kept() {
            Some((settings, _)) => settings.trim_ascii(),
            None => self.middle.trim_ascii(),
        }
    }

    /// The settings that the comment keeps, with the blanks behind them, and the rest of the
    /// comment.
    fn kept(&self) -> Option<(&'a str, &'a [u8])> {
        let kept = self.comment.strip_prefix(WAS.as_bytes())?;
        let (kept, rest) = rule::split_comment(kept);
        let kept = str::from_utf8(kept).ok()?;
        let are_settings = rule::settings(kept.split_ascii_whitespace()).is_ok();
        let is_denied_without = self.change == Change::Deny && self.middle.trim_ascii().is_empty();
        (are_settings && is_denied_without).then_some((kept, rest))
    }

    /// Writes the line with another keyword.
    fn write(&self, change: Change, text: &mut Vec<u8>) {
        text.extend_from_slice(self.indent.as_bytes());
        text.extend_from_slice(change.keyword().as_bytes());
        text.extend_from_slice(self.gap_beside(change).as_bytes());
        text.extend_from_slice(self.id.as_bytes());
        match change {
            Change::Deny => self.write_denied(text),
            Change::Allow => self.write_allowed(text),
        }
        text.extend_from_slice(self.end);
    }

    /// The blanks that keep the id in its column.
    fn gap_beside(&self, change: Change) -> String {
        let mut gap = self.gap.to_owned();
        match (self.change, change) {
            (Change::Allow, Change::Deny) => gap.push(' '),
            (Change::Deny, Change::Allow) if gap.len() > 1 => drop(gap.pop()),
            _ => {}
        }
        gap
    }

    fn write_denied(&self, text: &mut Vec<u8>) {
        let (blanks, settings) = split_blanks(self.middle);
        text.extend_from_slice(blanks.as_bytes());
        // A comment that begins so already is no settings of this rule.
        let is_taken = self.change == Change::Allow && self.comment.starts_with(WAS.as_bytes());
        if !settings.is_empty() || is_taken {
            text.extend_from_slice(WAS.as_bytes());
        }
        text.extend_from_slice(settings.as_bytes());
        text.extend_from_slice(self.comment);
    }

    fn write_allowed(&self, text: &mut Vec<u8>) {
        text.extend_from_slice(self.middle.as_bytes());
        match self.kept() {
            Some((settings, comment)) => {
                text.extend_from_slice(settings.as_bytes());
                text.extend_from_slice(comment);
            }
            None => text.extend_from_slice(self.comment),
        }
    }

    /// Writes what is left of a line whose rule goes.
    fn write_comment(&self, text: &mut Vec<u8>) {
        if !self.comment.is_empty() {
            text.extend_from_slice(self.comment);
            text.extend_from_slice(self.end);
        }
    }
}

/// A line without its end, and that.
fn split_end(line: &[u8]) -> (&[u8], &[u8]) {
    let content = line.strip_suffix(b"\n").unwrap_or(line);
    let content = content.strip_suffix(b"\r").unwrap_or(content);
    line.split_at(content.len())
}

/// The blanks that a text begins with, and the rest.
fn split_blanks(text: &str) -> (&str, &str) {
    let rest = text.trim_ascii_start();
    text.split_at(text.len() - rest.len())
}

fn split_keyword(text: &str) -> Option<(Change, &str)> {
    for change in [Change::Allow, Change::Deny] {
        if let Some(rest) = text.strip_prefix(change.keyword()) {
            return Some((change, rest));
        }
    }
    None
}
