//! The lines of a PEM file, and what one of them is.

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

/// Kind of a line, blanks around it taken off.
pub(crate) enum Line<'a> {
    Begin {
        label: &'a [u8],
        after: &'a [u8],
    },
    End {
        label: &'a [u8],
        after: &'a [u8],
    },
    /// A BEGIN or an END is in it, but not as the beginning of the line, or not whole.
    Broken,
    Text,
}

impl<'a> Line<'a> {
    pub(crate) fn of(text: &'a [u8]) -> Self {
        if let Some((label, after)) = marker(text, BEGIN) {
            Self::Begin { label, after }
        } else if let Some((label, after)) = marker(text, END) {
            Self::End { label, after }
        } else if has_marker(text) {
            Self::Broken
        } else {
            Self::Text
        }
    }
}

/// Counts the bytes before the next END: the section has no more base64 than that.
pub(crate) fn bytes_to_end(text: &[u8]) -> usize {
    memchr::memmem::find(text, END).unwrap_or(0)
}

/// The label of a marker that the line starts with, and what follows it.
fn marker<'a>(text: &'a [u8], start: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let rest = text.strip_prefix(start)?;
    let end = memchr::memmem::find(rest, DASHES)?;
    let (label, after) = (&rest[..end], &rest[end + DASHES.len()..]);
    Some((label, after.trim_ascii_start()))
}

/// Whether a marker, or what was meant for one, is anywhere in a line: BEGIN or END directly after
/// two dashes, or after one of those that editors put in the place of two.
fn has_marker(text: &[u8]) -> bool {
    const DASHES: [&[u8]; 4] = [b"--", b"\xe2\x80\x93", b"\xe2\x80\x94", b"\xe2\x88\x92"];
    (0..text.len()).any(|at| {
        let (before, word) = text.split_at(at);
        let is_word = starts_with_word(word, b"BEGIN") || starts_with_word(word, b"END");
        is_word && DASHES.iter().any(|dashes| before.ends_with(dashes))
    })
}

fn starts_with_word(text: &[u8], word: &[u8]) -> bool {
    let Some((start, rest)) = text.split_at_checked(word.len()) else {
        return false;
    };
    let is_whole = rest.first().is_none_or(u8::is_ascii_whitespace);
    is_whole && start.eq_ignore_ascii_case(word)
}

/// Iterates over all lines with their numbers, from 1, and the text below each. They end with LF,
/// CR LF or CR.
pub(crate) fn lines(file: &[u8]) -> impl Iterator<Item = (usize, &[u8], &[u8])> {
    let mut rest = Some(file);
    let mut number = 0;
    std::iter::from_fn(move || {
        let (line, below) = split_line(rest?);
        rest = below;
        number += 1;
        Some((number, line, below.unwrap_or_default()))
    })
}

/// The first line of a text, and what is below it; `None` for the last line.
fn split_line(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = memchr::memchr2(b'\n', b'\r', text);
    let (line, after) = text.split_at(end.unwrap_or(text.len()));
    match after {
        [] => (line, None),
        [b'\r', b'\n', below @ ..] | [_, below @ ..] => (line, Some(below)),
    }
}

/// Whether a file begins with the mark of UTF-8, or of UTF-16 in either order.
pub(crate) fn has_byte_order_mark(file: &[u8]) -> bool {
    let marks = [&b"\xef\xbb\xbf"[..], b"\xff\xfe", b"\xfe\xff"];
    marks.iter().any(|mark| file.starts_with(mark))
}

pub(crate) fn has_escaped_breaks(text: &[u8]) -> bool {
    let is_escaped = |pair: &[u8]| pair == b"\\n" || pair == b"\\r";
    text.windows(2).any(is_escaped)
}

/// Whether the line begins as the inside of a section does.
pub(crate) fn starts_with_base64(text: &[u8]) -> bool {
    text.first().is_some_and(|byte| is_base64(*byte))
}

/// Whether the line is a header of an encrypted section (RFC 1421).
pub(crate) fn says_encrypted(text: &[u8]) -> bool {
    text.starts_with(b"Proc-Type:") || text.starts_with(b"DEK-Info:")
}

pub(crate) fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=')
}
