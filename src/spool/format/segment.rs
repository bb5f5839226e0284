//! A segment: one file of frames, `segment-0000000001.spool`.
//!
//! | at | bytes | header |
//! |---|---|---|
//! | 0 | 8 | `forebay` and the version of the format, 1 |
//! | 8 | 8 | number of the segment, as in its name |
//! | 16 | 8 | place of its first record in the spool |
//! | 24 | 16 | salt |
//! | 40 | 8 | id of the key; 0: not encrypted |
//! | 48 | 8 | when it was created, milliseconds since the epoch |
//! | 56 | 4 | CRC32C of the 56 bytes before |
//!
//! The header stands twice, at 0 and at 4096, since without its salt a segment cannot be read;
//! frames begin at 8192. A finished segment ends with a frame header that has no records, right at
//! the end of the file: recovery then knows without reading on that the segment is whole, and which
//! place follows it.

use crc32c::crc32c;

use super::fields::{array_at, u64_at};
use super::frame::ALIGNMENT;
use super::keys::{KeyId, SALT_BYTES, Salt};
use crate::record::Timestamp;

const MAGIC: &[u8; 7] = b"forebay";
const VERSION: u8 = 1;
pub(crate) const HEADER_BYTES: usize = 60;

/// Offset of the header's checksum, which covers everything before.
const CRC_AT: usize = 56;

/// Offsets of the two copies of the header.
pub(crate) const HEADER_OFFSETS: [u64; 2] = [0, 4096];

/// Offset of the first frame.
pub const FRAMES_START: u64 = 8192;

/// Most bytes that one sync makes safe, a single larger frame aside, and so the most that a crash
/// can tear. Recovery reads no bodies before them.
pub(crate) const RUN_BYTES_MAX: u64 = 8 << 20;

const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SEGMENT_BYTES_MAX: u64 = 128 << 20;
const SEGMENTS_PER_QUOTA: u64 = 64;

const _: () = assert!(24 + SALT_BYTES == 40 && CRC_AT + 4 == HEADER_BYTES);
const _: () = assert!(HEADER_OFFSETS[0] + HEADER_BYTES as u64 <= HEADER_OFFSETS[1]);
const _: () = assert!(HEADER_OFFSETS[1] + HEADER_BYTES as u64 <= FRAMES_START);
const _: () = assert!(FRAMES_START.is_multiple_of(ALIGNMENT));
const _: () = assert!(FRAMES_START + RUN_BYTES_MAX <= SEGMENT_BYTES_MAX);

/// Returns the size of a segment: a 64th of the quota, between 1 and 128 MiB.
pub(crate) fn bytes_for(quota_bytes: u64) -> u64 {
    (quota_bytes / SEGMENTS_PER_QUOTA).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX) & !4095
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub id: u64,
    pub base: u64,
    pub salt: Salt,
    pub key: KeyId,
    pub created_at: Timestamp,
}

/// The reason why bytes are not a segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoHeader {
    Damaged,
    /// It is whole, and of another version of the format.
    Version(u8),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..7].copy_from_slice(MAGIC);
        bytes[7] = VERSION;
        bytes[8..16].copy_from_slice(&self.id.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.base.to_le_bytes());
        bytes[24..24 + SALT_BYTES].copy_from_slice(&self.salt);
        bytes[40..48].copy_from_slice(&self.key.0);
        bytes[48..56].copy_from_slice(&self.created_at.0.to_le_bytes());
        let crc = crc32c(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, NoHeader> {
        let (content, crc) = bytes.split_at(CRC_AT);
        if content[..7] != *MAGIC || crc != crc32c(content).to_le_bytes() {
            return Err(NoHeader::Damaged);
        }
        if content[7] != VERSION {
            return Err(NoHeader::Version(content[7]));
        }
        Ok(Self {
            id: u64_at(bytes, 8),
            base: u64_at(bytes, 16),
            salt: array_at(bytes, 24),
            key: KeyId(array_at(bytes, 40)),
            created_at: Timestamp(u64_at(bytes, 48)),
        })
    }
}

/// Returns the name of the segment with this number: names sort as numbers do.
pub(crate) fn file_name(id: u64) -> String {
    format!("segment-{id:010}.spool")
}

/// Parses the number in a segment's name; `None` for any other file.
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("segment-")?.strip_suffix(".spool")?;
    let id = digits.parse().ok()?;
    (file_name(id) == name).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_no_other_bytes_do() {
        let header = SegmentHeader {
            id: 7,
            base: 1 << 40,
            salt: [9; 16],
            key: KeyId([3; 8]),
            created_at: Timestamp(5),
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::parse(&bytes), Ok(header));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                SegmentHeader::parse(&flipped),
                Err(NoHeader::Damaged),
                "bit {bit}"
            );
        }
        let mut newer = bytes;
        newer[7] = 2;
        let crc = crc32c(&newer[..56]).to_le_bytes();
        newer[56..].copy_from_slice(&crc);
        assert_eq!(SegmentHeader::parse(&newer), Err(NoHeader::Version(2)));
    }

    #[test]
    fn names_are_taken_only_as_they_are_given() {
        assert_eq!(
            parse_file_name(&file_name(12_345_678_901)),
            Some(12_345_678_901)
        );
        assert_eq!(parse_file_name("segment-0000000001.spool"), Some(1));
        for foreign in [
            "segment-1.spool",
            "segment-+000000001.spool",
            "segment-.spool",
            "segment-0000000001.spool~",
        ] {
            assert_eq!(parse_file_name(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_size_follows_from_the_quota() {
        let sizes =
            [16 << 20, 1 << 30, 4 << 30, 10 << 30, 1 << 40].map(|quota| bytes_for(quota) >> 20);
        assert_eq!(sizes, [1, 16, 64, 128, 128]);
    }
}
