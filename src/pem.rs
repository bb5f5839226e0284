//! PEM files (RFC 7468): each section that a file holds, or what is wrong with the file, and in
//! which line.
//!
//! `tls` reads certificates, keys and CRLs with it, `pki` what it has made. The readers of
//! libraries pass over what they do not take for a section; here that would be an authority that is
//! missing, or a revoked device that is let in. So the invariant is: **every BEGIN of a file is a
//! section of the answer, or the answer is an error.** Text between sections is allowed, as OpenSSL
//! writes it, and so are sections that are joined without a line break, and blanks before a BEGIN.
//!
//! An error knows its line and never a byte of the file: what is read here may be a private key.
//! Limits: [`FILE_BYTES_MAX`]. Nothing is logged.

mod kind;
mod line;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

pub use kind::Kind;
use line::Line;

/// The largest file that is read. Lists of revoked certificates have been seen with 135 MB.
pub(crate) const FILE_BYTES_MAX: usize = 256 << 20;

/// Base64 with or without its padding: some programs leave it out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// One section of a file, decoded.
#[derive(Clone, PartialEq, Eq)]
pub struct Section {
    pub kind: Kind,
    /// The line of its BEGIN, counted from 1.
    pub line: usize,
    pub der: Vec<u8>,
}

/// Fault of a file, with its line, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {fault}")]
pub struct PemError {
    pub line: usize,
    pub(crate) fault: Fault,
}

/// Fault of a line, in words that hold nothing of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("a byte order mark: save the file as plain ASCII or UTF-8, without one")]
    ByteOrderMark,
    #[error("no line breaks: BEGIN, the base64 and END each have lines of their own")]
    NoLineBreaks,
    #[error(
        "no line breaks, but \\n or \\r written out: whatever wrote the file must write real ones"
    )]
    EscapedLineBreaks,
    #[error("it is encrypted: decrypt it first (`openssl pkey -in FILE -out NEW`)")]
    Encrypted,
    #[error("it is not PEM: a BEGIN or an END that is not whole, or does not begin its line")]
    BrokenMarker,
    #[error("it is not PEM: a BEGIN without its END")]
    NoEnd,
    #[error("it is not PEM: an END without its BEGIN")]
    NoBegin,
    #[error("it is not PEM: between BEGIN and END is something that is not base64")]
    NotBase64,
    #[error("it is not PEM: nothing is between BEGIN and END")]
    Empty,
}

impl Fault {
    fn at(self, line: usize) -> PemError {
        debug_assert!(line > 0, "lines are counted from 1");
        PemError { line, fault: self }
    }
}

/// Reads all sections of a file, in their order; none where it has no BEGIN.
pub fn sections(file: &[u8]) -> Result<Vec<Section>, PemError> {
    if line::has_byte_order_mark(file) {
        return Err(Fault::ByteOrderMark.at(1));
    }
    let mut sections = Vec::new();
    let mut open: Option<OpenSection> = None;
    for (number, whole, below) in line::lines(file) {
        let mut text = whole.trim_ascii();
        // More than once only where an END is followed by a BEGIN in its line.
        while !text.is_empty() {
            let Some(mut section) = open.take() else {
                open = begin(text, number, below)?;
                break;
            };
            let Some(after) = section.take(text, number)? else {
                open = Some(section);
                break;
            };
            sections.push(section.close()?);
            debug_assert!(after.len() < text.len(), "an END has been taken off");
            text = after;
        }
    }
    match open {
        Some(section) => Err(Fault::NoEnd.at(section.line)),
        None => Ok(sections),
    }
}

/// Whether a file looks like DER: an ASN.1 SEQUENCE that is longer than 127 bytes, or a short one, as
/// a key is, that is all of the file.
pub(crate) fn is_der(file: &[u8]) -> bool {
    match file {
        [0x30, length, rest @ ..] => *length >= 0x80 || rest.len() == usize::from(*length),
        _ => false,
    }
}

/// A section whose END has not come.
struct OpenSection<'a> {
    label: &'a [u8],
    line: usize,
    base64: Vec<u8>,
}

/// The section that a line outside of sections begins; `None` for text. `below` is the rest of the
/// file.
fn begin<'a>(
    text: &'a [u8],
    line: usize,
    below: &[u8],
) -> Result<Option<OpenSection<'a>>, PemError> {
    let is_escaped = line::has_escaped_breaks;
    let fault = match Line::of(text) {
        Line::Begin { label, after: [] } => {
            return Ok(Some(OpenSection {
                label,
                line,
                base64: Vec::with_capacity(line::bytes_to_end(below)),
            }));
        }
        Line::Text => return Ok(None),
        Line::Begin { after, .. } if is_escaped(after) => Fault::EscapedLineBreaks,
        Line::Begin { .. } => Fault::NoLineBreaks,
        Line::End { .. } => Fault::NoBegin,
        Line::Broken if is_escaped(text) => Fault::EscapedLineBreaks,
        Line::Broken => Fault::BrokenMarker,
    };
    Err(fault.at(line))
}

impl<'a> OpenSection<'a> {
    /// Takes a line in, and gives what is left of it after this section's END.
    fn take(&mut self, text: &'a [u8], line: usize) -> Result<Option<&'a [u8]>, PemError> {
        // Nearly all lines of a long list, and none of them is a marker.
        if text.iter().all(|byte| line::is_base64(*byte)) {
            self.base64.extend_from_slice(text);
            return Ok(None);
        }
        let fault = match Line::of(text) {
            Line::End { label, after } if label == self.label => return Ok(Some(after)),
            Line::End { .. } | Line::Begin { .. } => return Err(Fault::NoEnd.at(self.line)),
            _ if line::has_escaped_breaks(text) => Fault::EscapedLineBreaks,
            Line::Broken if line::starts_with_base64(text) => Fault::NoLineBreaks,
            Line::Broken => Fault::BrokenMarker,
            Line::Text if line::says_encrypted(text) => {
                return Err(Fault::Encrypted.at(self.line));
            }
            Line::Text if self.take_words(text) => return Ok(None),
            Line::Text => Fault::NotBase64,
        };
        Err(fault.at(line))
    }

    /// Takes a line with blanks in it; whether all of it is base64.
    fn take_words(&mut self, text: &[u8]) -> bool {
        for word in text.split(u8::is_ascii_whitespace) {
            if !word.iter().all(|byte| line::is_base64(*byte)) {
                return false;
            }
            self.base64.extend_from_slice(word);
        }
        true
    }

    fn close(self) -> Result<Section, PemError> {
        let kind = Kind::of(self.label);
        if kind == Kind::EncryptedKey {
            return Err(Fault::Encrypted.at(self.line));
        }
        if self.base64.is_empty() {
            return Err(Fault::Empty.at(self.line));
        }
        let decoded = BASE64.decode(&self.base64);
        Ok(Section {
            kind,
            line: self.line,
            der: decoded.map_err(|_| Fault::NotBase64.at(self.line))?,
        })
    }
}

#[cfg(test)]
mod tests;
