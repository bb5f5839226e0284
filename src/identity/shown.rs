//! The fields of a certificate for the audit log, as it states them: subject, issuer, dates.
//!
//! Nobody has verified it: `tls` asks for certificates that it refuses, and `accept` writes them
//! down. The names are the client's own text, so they are cut to [`NAME_CHARACTERS_MAX`], and what
//! is not visible ASCII is shown as `?`.

use super::{chain, timestamp};
use crate::record::Timestamp;

/// The most of a name that is shown.
const NAME_CHARACTERS_MAX: usize = 200;

/// Fields of a certificate, as it states them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownCertificate {
    /// The serial number's content octets in DER.
    pub serial: Box<[u8]>,
    pub subject: String,
    pub issuer: String,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// Reads a certificate in DER; `None` for what is none.
pub(crate) fn shown(der: &[u8]) -> Option<ShownCertificate> {
    let certificate = chain::parse(der).ok()?;
    let validity = certificate.validity();
    Some(ShownCertificate {
        serial: certificate.raw_serial().into(),
        subject: visible(&certificate.subject().to_string()),
        issuer: visible(&certificate.issuer().to_string()),
        not_before: timestamp(validity.not_before),
        not_after: timestamp(validity.not_after),
    })
}

fn visible(name: &str) -> String {
    let mut shown = String::new();
    for character in name.chars().take(NAME_CHARACTERS_MAX) {
        let is_visible = character.is_ascii_graphic() || character == ' ';
        shown.push(if is_visible { character } else { '?' });
    }
    debug_assert!(shown.len() <= NAME_CHARACTERS_MAX, "each is one byte");
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_and_cannot_move_a_terminals_cursor() {
        assert_eq!(
            visible("CN=plc-7, O=A\u{1b}[2J\u{202e}é"),
            "CN=plc-7, O=A?[2J??"
        );
        assert_eq!(visible(&"x".repeat(10_000)).len(), NAME_CHARACTERS_MAX);
        assert_eq!(shown(b"garbage"), None);
    }
}
