//! A frame: one batch on disk, a header of 40 bytes and a body, padded to 8 bytes. Little-endian throughout.
//!
//! | at | bytes | header |
//! |---|---|---|
//! | 0 | 4 | `FBf1` |
//! | 4 | 4 | records in the body; 0 marks the end of a finished segment |
//! | 8 | 8 | place of the first record in the spool |
//! | 16 | 8 | number of the frame within its segment, from 1 |
//! | 24 | 4 | bytes of the body on disk, without padding |
//! | 28 | 4 | CRC32C of the segment's salt and the body |
//! | 32 | 4 | 0 |
//! | 36 | 4 | CRC32C of the salt, the header's offset in the file, and the 36 bytes before |
//!
//! The header has a fixed length so that recovery can hop from one to the next; stream and reason are in the body,
//! where encryption covers them. With a salt that nobody outside can guess and its own offset in the checksum, bytes
//! from elsewhere (an earlier use of the blocks, another file, a payload) are never taken for a frame.

use crc32c::{crc32c, crc32c_append};

use super::keys::Salt;

pub const HEADER_BYTES: usize = 40;

/// The part of the header that encryption authenticates: all that is known before the body is sealed.
pub(crate) const AUTHENTICATED_BYTES: usize = 28;

/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;

/// The longest body on disk: what a reader has in memory at once.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;

/// What the mark of the end takes: a header without a body.
pub(crate) const MARK_BYTES: u64 = HEADER_BYTES as u64;

pub(crate) const MAGIC: [u8; 4] = *b"FBf1";

/// What stands before a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub records: u32,
    pub first: u64,
    pub number: u64,
    pub body_bytes: u32,
    pub body_crc: u32,
}

impl Header {
    /// As it stands at `offset` of the segment with this salt.
    pub fn encode(&self, salt: &Salt, offset: u64) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..AUTHENTICATED_BYTES].copy_from_slice(&self.authenticated());
        bytes[28..32].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = header_crc(&bytes, salt, offset);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub fn authenticated(&self) -> [u8; AUTHENTICATED_BYTES] {
        let mut bytes = [0; AUTHENTICATED_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.records.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.number.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes
    }

    /// `None` when these bytes are not a header that was written at `offset` of the segment with this salt.
    pub fn parse(bytes: &[u8; HEADER_BYTES], salt: &Salt, offset: u64) -> Option<Self> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[..4] != MAGIC || u32_at(36) != header_crc(bytes, salt, offset) {
            return None;
        }
        let (records, first, number) = (u32_at(4), u64_at(8), u64_at(16));
        let header = Self {
            records,
            first,
            number,
            body_bytes: u32_at(24),
            body_crc: u32_at(28),
        };
        let sane = header.body_bytes as usize <= BODY_BYTES_MAX
            && first.checked_add(records.into()).is_some();
        sane.then_some(header)
    }

    /// Whether this is the body that the header was written for.
    pub fn fits(&self, salt: &Salt, body: &[u8]) -> bool {
        body.len() == self.body_bytes as usize && body_crc(salt, body) == self.body_crc
    }

    /// The place after the last record.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.records)
    }

    /// Header, body and padding.
    pub fn frame_bytes(&self) -> u64 {
        frame_bytes(self.body_bytes as usize)
    }

    pub fn marks_end(&self) -> bool {
        self.records == 0
    }
}

/// The bytes of the mark at the end of a finished segment, whose records end before the place `end`; it stands at this
/// offset.
pub(crate) fn end_mark(salt: &Salt, offset: u64, end: u64) -> [u8; HEADER_BYTES] {
    let mark = Header {
        records: 0,
        first: end,
        number: 0,
        body_bytes: 0,
        body_crc: body_crc(salt, &[]),
    };
    debug_assert!(mark.marks_end());
    mark.encode(salt, offset)
}

/// The room that a frame with such a body takes.
pub(crate) fn frame_bytes(body_bytes: usize) -> u64 {
    HEADER_BYTES as u64 + (body_bytes as u64).next_multiple_of(ALIGNMENT)
}

pub(crate) fn body_crc(salt: &Salt, body: &[u8]) -> u32 {
    crc32c_append(crc32c(salt), body)
}

fn header_crc(header: &[u8; HEADER_BYTES], salt: &Salt, offset: u64) -> u32 {
    let crc = crc32c_append(crc32c(salt), &offset.to_le_bytes());
    crc32c_append(crc, &header[..36])
}
