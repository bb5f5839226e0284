//! The fingerprint of a certificate: the SHA-256 of its DER.

use std::fmt;

use crate::hex;

const BYTES: usize = 32;

/// Names one certificate, byte for byte.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; BYTES]);

impl Fingerprint {
    /// Reads 64 hex digits, in either case; colons between bytes, as openssl prints them, are
    /// passed over. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        let mut rest = text.as_bytes();
        for (place, byte) in bytes.iter_mut().enumerate() {
            if place > 0 {
                rest = rest.strip_prefix(b":").unwrap_or(rest);
            }
            let (&[high, low], after) = rest.split_first_chunk()?;
            *byte = hex::digit(high)? << 4 | hex::digit(low)?;
            rest = after;
        }
        rest.is_empty().then_some(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
