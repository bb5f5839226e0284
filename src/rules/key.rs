//! The keys of `hmac` edits, each a file of 64 hex digits. No error, no log and no debug text has
//! anything of a key.

use std::fmt::{self, Write as _};

use aws_lc_rs::hmac;

use crate::hex;

const KEY_BYTES: usize = 32;

/// A key of HMAC-SHA-256 (RFC 2104).
pub(super) struct Key(hmac::Key);

impl Key {
    /// `None` unless the text is 64 hex digits, with blanks or a line end around them.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let bytes: [u8; KEY_BYTES] = hex::bytes(text.trim_ascii())?;
        Some(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The code of a text, in lower-case hex.
    pub(super) fn code(&self, text: &[u8]) -> String {
        let tag = hmac::sign(&self.0, text);
        let mut hex = String::with_capacity(2 * tag.as_ref().len());
        for byte in tag.as_ref() {
            write!(hex, "{byte:02x}").expect("a String takes every write");
        }
        debug_assert_eq!(hex.len(), 64, "SHA-256 has 32 bytes");
        hex
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2, with its key of four letters filled up by zeros, which HMAC does too.
    #[test]
    fn the_code_is_that_of_the_standard() {
        let key = format!("{}{}\n", "4a656665", "0".repeat(56));
        let key = Key::parse(key.as_bytes()).unwrap();
        assert_eq!(
            key.code(b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_key_is_64_digits_and_is_never_shown() {
        let digits = "ab".repeat(32);
        for text in [
            "",
            "abc",
            &digits[1..],
            &format!("{digits}0"),
            &digits.replace('a', "g"),
        ] {
            assert!(Key::parse(text.as_bytes()).is_none(), "{text}");
        }
        let key = Key::parse(format!(" {}\r\n", digits.to_uppercase()).as_bytes()).unwrap();
        assert_eq!(format!("{key:?}"), "Key(not shown)");
    }
}
