//! A frame: one batch on disk, a header of 40 bytes and a body, padded to 8 bytes. Little-endian
//! throughout.
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
//! The header has a fixed length so that recovery can hop from one to the next; stream and reason
//! are in the body, where encryption covers them. With a salt that no outsider can guess and its
//! own offset in the checksum, bytes from elsewhere (an earlier use of the blocks, another file, a
//! payload) are never taken for a frame.

use crc32c::{crc32c, crc32c_append};

use super::fields::{u32_at, u64_at};
use super::keys::Salt;

pub const HEADER_BYTES: usize = 40;

/// The part of the header that encryption authenticates: all that is known before the body is
/// sealed.
pub(crate) const AUTHENTICATED_BYTES: usize = 28;

/// Offset of the header's own checksum, which covers everything before.
const CRC_AT: usize = 36;

/// Frames begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 8;

/// The longest body on disk, which a reader has in memory at once.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;

/// The bytes of the mark of the end: a header without a body.
pub(crate) const MARK_BYTES: u64 = HEADER_BYTES as u64;

const MAGIC: [u8; 4] = *b"FBf1";

const _: () = assert!(AUTHENTICATED_BYTES + 4 + 4 == CRC_AT); // the body's checksum and a 0
const _: () = assert!(CRC_AT + 4 == HEADER_BYTES);
const _: () = assert!((HEADER_BYTES as u64).is_multiple_of(ALIGNMENT));
const _: () = assert!(BODY_BYTES_MAX <= u32::MAX as usize);

/// The header of a frame, without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub records: u32,
    pub first: u64,
    pub number: u64,
    pub body_bytes: u32,
    pub body_crc: u32,
}

impl FrameHeader {
    /// Returns the mark behind the last frame of a finished segment, whose records end before the
    /// place `end`.
    fn end_mark(salt: &Salt, end: u64) -> Self {
        Self {
            records: 0,
            first: end,
            number: 0,
            body_bytes: 0,
            body_crc: body_crc(salt, &[]),
        }
    }

    /// Returns the header as it stands at `offset` of the segment with this salt.
    pub fn encode(&self, salt: &Salt, offset: u64) -> [u8; HEADER_BYTES] {
        debug_assert!(self.is_possible(), "what is written can be read back");
        let mut bytes = [0; HEADER_BYTES];
        bytes[..AUTHENTICATED_BYTES].copy_from_slice(&self.authenticated());
        bytes[28..32].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = header_crc(&bytes, salt, offset);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
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

    /// Parses a header; `None` if these bytes were not written at `offset` of the segment with this
    /// salt.
    pub fn parse(bytes: &[u8; HEADER_BYTES], salt: &Salt, offset: u64) -> Option<Self> {
        let was_written =
            bytes.starts_with(&MAGIC) && u32_at(bytes, CRC_AT) == header_crc(bytes, salt, offset);
        if !was_written {
            return None;
        }
        let header = Self {
            records: u32_at(bytes, 4),
            first: u64_at(bytes, 8),
            number: u64_at(bytes, 16),
            body_bytes: u32_at(bytes, 24),
            body_crc: u32_at(bytes, 28),
        };
        header.is_possible().then_some(header)
    }

    fn is_possible(&self) -> bool {
        let end = self.first.checked_add(self.records.into());
        end.is_some() && self.body_bytes as usize <= BODY_BYTES_MAX
    }

    /// Whether this is the body that the header was written for.
    pub fn fits(&self, salt: &Salt, body: &[u8]) -> bool {
        body.len() == self.body_bytes as usize && body_crc(salt, body) == self.body_crc
    }

    /// Returns the place after the last record.
    pub fn end(&self) -> u64 {
        self.first + u64::from(self.records)
    }

    /// Bytes of the header, the body and its padding.
    pub fn frame_bytes(&self) -> u64 {
        frame_bytes(self.body_bytes as usize)
    }

    pub fn marks_end(&self) -> bool {
        self.records == 0
    }
}

/// Returns the mark of the end as it stands at `offset`, behind records that end before the place
/// `end`.
pub(crate) fn end_mark(salt: &Salt, offset: u64, end: u64) -> [u8; HEADER_BYTES] {
    let mark = FrameHeader::end_mark(salt, end);
    debug_assert!(mark.marks_end());
    debug_assert_eq!(mark.frame_bytes(), MARK_BYTES);
    mark.encode(salt, offset)
}

/// Returns the room that a frame with such a body takes.
pub(crate) fn frame_bytes(body_bytes: usize) -> u64 {
    HEADER_BYTES as u64 + (body_bytes as u64).next_multiple_of(ALIGNMENT)
}

pub(crate) fn body_crc(salt: &Salt, body: &[u8]) -> u32 {
    crc32c_append(crc32c(salt), body)
}

fn header_crc(header: &[u8; HEADER_BYTES], salt: &Salt, offset: u64) -> u32 {
    let crc = crc32c_append(crc32c(salt), &offset.to_le_bytes());
    crc32c_append(crc, &header[..CRC_AT])
}
