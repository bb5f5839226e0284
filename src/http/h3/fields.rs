//! Field sections: the faults that RFC 9114 sections 4.1.2 to 4.3 call malformed and h3 lets pass.
//!
//! h3 keeps the last of several pseudo-header fields, wherever it stood, and forgets that there
//! were others. So [`examine`] walks over an encoded section before h3 decodes it (`frames` calls
//! it): each line says which field it is by the static table of QPACK or by its first letters, so
//! that nothing is decoded or kept. [`are_proper`] finds the other faults in the decoded request. A
//! section that cannot be walked over to its end must not reach h3: its integers wrap around.

use http::header::{CONNECTION, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Request};

use super::wire::prefixed;

/// Place of a field section in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    Head,
    Trailers,
}

/// The reason why a section is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It is no section of QPACK, or it needs the dynamic table, which has no room.
    Undecodable,
    Malformed,
}

/// Pseudo-header fields that are defined, two of which have no place in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pseudo {
    Authority,
    Method,
    Path,
    /// The field of extended CONNECT (RFC 9220), which is not offered.
    Protocol,
    Scheme,
    /// A field of an answer.
    Status,
}

/// The first letters of pseudo-header fields: as they are, and in QPACK's Huffman code, in the low
/// bits of a number. They tell the fields apart; a name that goes on otherwise is no defined field,
/// and h3 refuses it.
#[expect(clippy::unusual_byte_groupings, reason = "a group is a letter")]
const PREFIXES: [(&[u8], u32, u32, Pseudo); 6] = [
    (b":a", 0b1011100_00011, 12, Pseudo::Authority),
    (b":m", 0b1011100_101001, 13, Pseudo::Method),
    (b":pa", 0b1011100_101011_00011, 18, Pseudo::Path),
    (b":pr", 0b1011100_101011_101100, 19, Pseudo::Protocol),
    (b":sc", 0b1011100_01000_00100, 17, Pseudo::Scheme),
    (b":st", 0b1011100_01000_01001, 17, Pseudo::Status),
];

/// A line of a section: the facts that are looked at.
struct Line {
    /// The pseudo-header field that it is; `None` for an ordinary field.
    pseudo: Option<Pseudo>,
    has_empty_value: bool,
}

impl Line {
    /// Whether it may stand in a section of this kind, after those lines that were seen.
    fn has_a_place(&self, of: Section, seen: Seen) -> bool {
        let Some(pseudo) = self.pseudo else {
            return true;
        };
        let is_of_a_request = !matches!(pseudo, Pseudo::Protocol | Pseudo::Status);
        let is_first = !seen.has_ordinary && seen.pseudos & pseudo.bit() == 0;
        of == Section::Head && is_of_a_request && is_first && !self.has_empty_value
    }
}

/// The lines of a section so far.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// A bit for each pseudo-header field.
    pseudos: u8,
    has_ordinary: bool,
}

impl Seen {
    fn note(&mut self, line: &Line) {
        match line.pseudo {
            Some(pseudo) => self.pseudos |= pseudo.bit(),
            None => self.has_ordinary = true,
        }
    }
}

impl Pseudo {
    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Looks at an encoded section (RFC 9204 section 4.5).
pub fn examine(section: &[u8], of: Section) -> Result<(), Flaw> {
    let mut rest = after_prefix(section).ok_or(Flaw::Undecodable)?;
    let mut seen = Seen::default();
    while !rest.is_empty() {
        let (line, after) = line(rest).ok_or(Flaw::Undecodable)?;
        debug_assert!(after.len() < rest.len(), "a line has bytes");
        if !line.has_a_place(of, seen) {
            return Err(Flaw::Malformed);
        }
        seen.note(&line);
        rest = after;
    }
    Ok(())
}

/// Whether a decoded request is proper: `:scheme` and `:path` belong to all but CONNECT (h3 wants
/// the others), and the fields are those of HTTP/3.
pub(crate) fn is_proper(request: &Request<()>) -> bool {
    let is_connect = request.method() == Method::CONNECT;
    is_connect == request.uri().scheme().is_none() && are_proper(request.headers())
}

/// Whether none of the fields is about a connection of HTTP/1.1 (RFC 9114 section 4.2).
pub(crate) fn are_proper(fields: &HeaderMap) -> bool {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        if fields.contains_key(name) {
            return false;
        }
    }
    let mut te = fields.get_all(TE).iter();
    te.all(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// Returns the bytes behind the prefix of a section that needs nothing of the dynamic table.
fn after_prefix(section: &[u8]) -> Option<&[u8]> {
    let (required_inserts, bytes) = prefixed(section, 8)?;
    let section = &section[bytes..];
    let (_, bytes) = prefixed(section, 7)?;
    let has_negative_base = section[0] & 0x80 != 0;
    (required_inserts == 0 && !has_negative_base).then_some(&section[bytes..])
}

/// Returns the first line, and the bytes behind it. Lines that refer to the dynamic table are none.
fn line(rest: &[u8]) -> Option<(Line, &[u8])> {
    let first = *rest.first()?;
    if first & 0b1100_0000 == 0b1100_0000 {
        return indexed_line(rest);
    }
    let (pseudo, rest) = if first & 0b1101_0000 == 0b0101_0000 {
        let (index, bytes) = prefixed(rest, 4)?;
        (of_static_table(index), &rest[bytes..])
    } else if first & 0b1110_0000 == 0b0010_0000 {
        let (name, rest) = string(rest, 3)?;
        (of_name(name, first & 0b1000 != 0), rest)
    } else {
        return None;
    };
    line_with_value(pseudo, rest)
}

/// Reads a line whose name and value stand in the static table.
fn indexed_line(rest: &[u8]) -> Option<(Line, &[u8])> {
    let (index, bytes) = prefixed(rest, 6)?;
    let line = Line {
        pseudo: of_static_table(index),
        has_empty_value: index == 0,
    };
    Some((line, &rest[bytes..]))
}

/// Reads the value of a line.
fn line_with_value(pseudo: Option<Pseudo>, rest: &[u8]) -> Option<(Line, &[u8])> {
    let (value, rest) = string(rest, 7)?;
    let line = Line {
        pseudo,
        has_empty_value: value.is_empty(),
    };
    Some((line, rest))
}

/// Returns an encoded string, whose length has a prefix of so many bits, and the bytes behind it.
fn string(bytes: &[u8], prefix_bits: u32) -> Option<(&[u8], &[u8])> {
    let (length, length_bytes) = prefixed(bytes, prefix_bits)?;
    bytes[length_bytes..].split_at_checked(usize::try_from(length).ok()?)
}

/// Returns the field at an index of the static table (RFC 9204 appendix A).
fn of_static_table(index: u64) -> Option<Pseudo> {
    match index {
        0 => Some(Pseudo::Authority),
        1 => Some(Pseudo::Path),
        15..=21 => Some(Pseudo::Method),
        22..=23 => Some(Pseudo::Scheme),
        24..=28 | 63..=71 => Some(Pseudo::Status),
        _ => None,
    }
}

/// Returns the field that a name in a literal begins like.
fn of_name(name: &[u8], is_huffman: bool) -> Option<Pseudo> {
    let mut start = [0; 4];
    let bytes = name.len().min(4);
    start[..bytes].copy_from_slice(&name[..bytes]);
    let start = u32::from_be_bytes(start);
    for (plain, code, bits, pseudo) in PREFIXES {
        let is_it = if is_huffman {
            start >> (32 - bits) == code
        } else {
            name.starts_with(plain)
        };
        if is_it {
            return Some(pseudo);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `:method POST`, `:scheme https`, `:authority a`, `:path /x`, as every client begins.
    const GOOD: &[&[u8]] = &[&[0xd4], &[0xd7], &[0x50, 1, b'a'], &[0x51, 2, b'/', b'x']];

    /// `content-length: 1`, and `x: 1` with a name of its own.
    const LENGTH: &[u8] = &[0x54, 1, b'1'];
    const OTHER: &[u8] = &[0x21, b'x', 1, b'1'];

    fn head(lines: &[&[u8]]) -> Result<(), Flaw> {
        examine(&[&[0, 0], &lines.concat()[..]].concat(), Section::Head)
    }

    /// Encodes a literal field line whose name is not in the static table.
    fn literal(name: &[u8], is_huffman: bool) -> Vec<u8> {
        assert!(name.len() > 6 && name.len() < 100);
        let first = if is_huffman { 0x2f } else { 0x27 };
        [&[first, name.len() as u8 - 7], name, &[1, b'1']].concat()
    }

    #[test]
    fn a_head_as_clients_send_it_is_well_formed() {
        assert_eq!(head(&[&GOOD.concat(), LENGTH, OTHER]), Ok(()));
        let trailers = [&[0, 0], OTHER].concat();
        assert_eq!(examine(&trailers, Section::Trailers), Ok(()));
    }

    #[test]
    fn pseudo_header_fields_are_there_once_and_before_all_others() {
        for repeated in GOOD {
            assert_eq!(head(&[&GOOD.concat(), repeated]), Err(Flaw::Malformed));
            assert_eq!(head(&[OTHER, repeated]), Err(Flaw::Malformed));
            let trailers = [&[0, 0], *repeated].concat();
            assert_eq!(examine(&trailers, Section::Trailers), Err(Flaw::Malformed));
        }
    }

    #[test]
    fn what_is_no_part_of_a_request_is_malformed() {
        for status in (24..=28).chain(63..=71) {
            let line = if status < 63 {
                vec![0xc0 | status]
            } else {
                vec![0xff, status - 63]
            };
            assert_eq!(head(&[&line]), Err(Flaw::Malformed), "{status}");
        }
        assert_eq!(head(&[&literal(b":status", false)]), Err(Flaw::Malformed));
        assert_eq!(head(&[&literal(b":protocol", false)]), Err(Flaw::Malformed));
        for empty in [&[0xc0][..], &[0x50, 0], &[0x51, 0], &[0x51, 0x80]] {
            assert_eq!(head(&[empty]), Err(Flaw::Malformed), "{empty:?}");
        }
    }

    /// The codes are those of RFC 7541 appendix B: `:path`, `:status`, `:protocol`, with any
    /// padding.
    #[test]
    fn names_in_huffman_code_are_known() {
        let codes: [(&[u8], Pseudo); 3] = [
            (&[0xb9, 0x58, 0xd3, 0x3f], Pseudo::Path),
            (&[0xb8, 0x84, 0x8d, 0x36, 0xa3], Pseudo::Status),
            (
                &[0xb9, 0x5d, 0x87, 0x49, 0xc8, 0x7a, 0x00],
                Pseudo::Protocol,
            ),
        ];
        for (name, pseudo) in codes {
            assert_eq!(of_name(name, true), Some(pseudo));
        }
        assert_eq!(of_name(&[0xf2, 0xb4], true), None);
        assert_eq!(of_name(&[0xb9], true), None);
        assert_eq!(of_name(b"", true), None);
    }

    #[test]
    fn what_cannot_be_walked_over_is_undecodable() {
        let cut_off: [&[u8]; 5] = [
            &[],
            &[0],
            &[0, 0, 0x50],
            &[0, 0, 0x50, 2, b'a'],
            &[0xff; 20],
        ];
        let dynamic: [&[u8]; 5] = [
            &[1, 0],
            &[0, 0x80],
            &[0, 0, 0x80],
            &[0, 0, 0x10],
            &[0, 0, 0x40, 0],
        ];
        for section in cut_off.into_iter().chain(dynamic) {
            assert_eq!(
                examine(section, Section::Head),
                Err(Flaw::Undecodable),
                "{section:?}"
            );
        }
    }

    #[test]
    fn fields_of_a_connection_have_no_place() {
        let with = |name: &'static str, value: &'static str| {
            let mut fields = HeaderMap::new();
            fields.insert(name, http::HeaderValue::from_static(value));
            are_proper(&fields)
        };
        for name in [
            "connection",
            "keep-alive",
            "proxy-connection",
            "transfer-encoding",
            "upgrade",
        ] {
            assert!(!with(name, "x"), "{name}");
        }
        assert!(with("te", "trailers") && !with("te", "gzip") && with("x", "y"));
    }
}
