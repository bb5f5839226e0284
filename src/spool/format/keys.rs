//! Encryption at rest: AES-256-GCM under a key of each segment's own.
//!
//! A segment's key is HKDF-SHA256 of a master key and the segment's random 16-byte salt; the nonce
//! is the number of the frame within its segment. A nonce cannot repeat under a key: numbers only
//! count up, a segment is written by one process in one go and never appended to after a restart or
//! a failed write, and two segments never share a salt (a chance of 2^-64 after 4 billion of them).
//! The header is authenticated with the body.
//!
//! A key file has 64 hex digits a line: the first key writes, all of them read. The id in a
//! segment's header tells which one it needs; it is derived from the key and tells nothing about
//! it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt as HkdfSalt};
use aws_lc_rs::rand;

use crate::durable::warn_of_other_readers;
use crate::hex;

pub(crate) const SALT_BYTES: usize = 16;
/// Bytes that encryption adds to a body.
pub(crate) const TAG_BYTES: usize = 16;
/// Room for the padding of a frame behind a sealed body.
const PADDING_BYTES_MAX: usize = 8;
const KEY_BYTES: usize = 32;
const _: () = assert!(NONCE_LEN >= 8); // a frame's number fits it
const KEY_ID_INFO: &[u8] = b"forebay spool key id 1";
const SEGMENT_INFO: &[u8] = b"forebay spool segment 1";

/// Random bytes of one segment: they keep frames of other segments, and bytes that devices sent,
/// from passing for frames.
pub(crate) type Salt = [u8; SALT_BYTES];

/// Returns a salt that cannot be guessed; fails when the system has no randomness.
pub(crate) fn new_salt() -> io::Result<Salt> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| io::Error::other("no random bytes"))?;
    Ok(salt)
}

/// The name of a key in a segment's header; all zeros: not encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct KeyId(pub [u8; 8]);

impl KeyId {
    pub(crate) const NONE: Self = Self([0; 8]);
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("the key file {}: {error}", path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("the key file {}, line {line}: a key is 64 hex digits", path.display())]
    Line { path: PathBuf, line: usize },
    #[error("the key file {} holds no key", path.display())]
    Empty { path: PathBuf },
}

/// A line of the key file, from which each segment's own key is derived.
struct MasterKey {
    id: KeyId,
    bytes: [u8; KEY_BYTES],
}

impl MasterKey {
    /// Parses a key; `None` unless the line is 64 hex digits.
    fn parse(line: &str) -> Option<Self> {
        let bytes: [u8; KEY_BYTES] = hex::bytes(line.as_bytes())?;
        let id = KeyId(derive(&bytes, &[], KEY_ID_INFO));
        Some(Self { id, bytes })
    }
}

/// The master keys; with none, nothing is encrypted.
#[derive(Default)]
pub struct Keys(Vec<MasterKey>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|key| key.id))
            .finish()
    }
}

impl Keys {
    /// Reads `FOREBAY_SPOOL_KEY_FILE`. Empty lines are passed over.
    pub(crate) fn read(path: &Path) -> Result<Self, KeyError> {
        warn_of_other_readers("FOREBAY_SPOOL_KEY_FILE", path);
        let text = fs::read_to_string(path).map_err(|error| KeyError::Io {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(&text, path)
    }

    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let Some(key) = MasterKey::parse(line) else {
                let path = path.to_owned();
                return Err(KeyError::Line { path, line: number });
            };
            keys.push(key);
        }
        if keys.is_empty() {
            let path = path.to_owned();
            return Err(KeyError::Empty { path });
        }
        Ok(Self(keys))
    }

    /// Returns the cipher of a new segment.
    pub(crate) fn to_write(&self, salt: &Salt) -> (KeyId, Cipher) {
        match self.0.first() {
            Some(key) => (key.id, Cipher::aes(key, salt)),
            None => (KeyId::NONE, Cipher(None)),
        }
    }

    /// Returns the cipher of an existing segment; `None` if its key is not there.
    pub(crate) fn to_read(&self, id: KeyId, salt: &Salt) -> Option<Cipher> {
        if id == KeyId::NONE {
            return Some(Cipher(None));
        }
        let key = self.0.iter().find(|key| key.id == id)?;
        Some(Cipher::aes(key, salt))
    }
}

/// Number of bytes that HKDF is to give.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Derives so many bytes by HKDF-SHA256.
fn derive<const N: usize>(key: &[u8; KEY_BYTES], salt: &[u8], info: &[u8]) -> [u8; N] {
    let mut derived = [0; N];
    let secret = HkdfSalt::new(HKDF_SHA256, salt).extract(key);
    let filled = secret
        .expand(&[info], Length(N))
        .and_then(|okm| okm.fill(&mut derived));
    filled.expect("HKDF gives up to 8160 bytes");
    derived
}

/// Encrypts the bodies of one segment, and decrypts them; without a key they stay as they are.
pub(crate) struct Cipher(Option<LessSafeKey>);

impl Cipher {
    fn aes(key: &MasterKey, salt: &Salt) -> Self {
        let derived: [u8; KEY_BYTES] = derive(&key.bytes, salt, SEGMENT_INFO);
        let unbound = UnboundKey::new(&AES_256_GCM, &derived).expect("a key of 32 bytes");
        Self(Some(LessSafeKey::new(unbound)))
    }

    /// Returns the length on disk of a body of `bytes`.
    pub(crate) fn sealed_bytes(&self, bytes: usize) -> usize {
        bytes + if self.0.is_some() { TAG_BYTES } else { 0 }
    }

    /// Encrypts a body, with room for its padding; `None` if bodies stay as they are. `number` is
    /// used once.
    pub(crate) fn seal(
        &self,
        number: u64,
        header: &[u8],
        body: &[u8],
    ) -> io::Result<Option<Vec<u8>>> {
        let Some(key) = &self.0 else { return Ok(None) };
        let mut sealed = Vec::with_capacity(body.len() + TAG_BYTES + PADDING_BYTES_MAX);
        sealed.extend_from_slice(body);
        key.seal_in_place_append_tag(nonce(number), Aad::from(header), &mut sealed)
            .map_err(|_| io::Error::other("encryption failed"))?;
        debug_assert_eq!(sealed.len(), self.sealed_bytes(body.len()));
        Ok(Some(sealed))
    }

    /// Decrypts a body; `None` if it is not as it was sealed.
    pub(crate) fn open(&self, number: u64, header: &[u8], mut body: Vec<u8>) -> Option<Vec<u8>> {
        let Some(key) = &self.0 else {
            return Some(body);
        };
        let opened = key.open_in_place(nonce(number), Aad::from(header), &mut body);
        let bytes = opened.ok()?.len();
        debug_assert_eq!(bytes + TAG_BYTES, body.len());
        body.truncate(bytes);
        Some(body)
    }
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Keys {
        Keys::parse(text, Path::new("keys")).unwrap()
    }

    fn line(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn the_first_key_writes_and_all_read() {
        let (old, both) = (
            keys(&line('a')),
            keys(&format!("{}\n\n {} \n", line('B'), line('a'))),
        );
        let salt = new_salt().unwrap();
        let (old_id, cipher) = old.to_write(&salt);
        let sealed = cipher.seal(7, b"head", b"body").unwrap().unwrap();
        let read = both.to_read(old_id, &salt).unwrap();
        assert_eq!(read.open(7, b"head", sealed.clone()).unwrap(), b"body");
        assert!(
            both.to_write(&salt).0 != old_id
                && old.to_read(both.to_write(&salt).0, &salt).is_none()
        );
        assert!(Keys::default().to_read(old_id, &salt).is_none());
        for (number, head, salt) in [(8, "head", salt), (7, "heap", salt), (7, "head", [0; 16])] {
            let cipher = both.to_read(old_id, &salt).unwrap();
            assert_eq!(cipher.open(number, head.as_bytes(), sealed.clone()), None);
        }
    }

    #[test]
    fn what_is_not_a_key_is_told_with_its_line_and_not_shown() {
        let long = line('a') + "a";
        let umlauts = "ä".repeat(32);
        for bad in ["abc", &line('g'), &long, &umlauts] {
            let error =
                Keys::parse(&format!("{}\n{bad}\n", line('0')), Path::new("keys")).unwrap_err();
            assert_eq!(
                error.to_string(),
                "the key file keys, line 2: a key is 64 hex digits"
            );
        }
        assert!(matches!(
            Keys::parse("\n", Path::new("keys")),
            Err(KeyError::Empty { .. })
        ));
        assert!(!format!("{:?}", keys(&line('7'))).contains("7777"));
    }
}
