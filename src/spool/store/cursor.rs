//! Progress of the spool's delivery: the files `cursor-0` and `cursor-1`, written in turn.
//!
//! | at | bytes | content |
//! |---|---|---|
//! | 0 | 8 | `FBcursr` and the version of the format, 1 |
//! | 8 | 8 | generation: the larger one holds |
//! | 16 | 8 | all records before this place are retired |
//! | 24 | 8 | the next record's place |
//! | 32 | 8 | the next segment's number |
//! | 40 | 4, then 16 each | ranges of places beyond that are retired as well: start, end |
//! | | 4 | CRC32C of everything before |
//!
//! A slot that is torn or damaged does not count; the other one, older by a moment, does. Records
//! whose retirement it has not are delivered again, no others.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;

use crc32c::crc32c;

use super::ranges::Ranges;
use crate::spool::disk::{Disk, DiskFile, read_exact_at, write_all_at};
use crate::spool::format::fields::{u32_at, u64_at};

const MAGIC: &[u8; 8] = b"FBcursr\x01";
const HEAD_BYTES: usize = 44;
const RANGE_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// Ranges of one slot: 16 MiB of them.
const RANGES_MAX: usize = 1 << 20;

const NAMES: [&str; 2] = ["cursor-0", "cursor-1"];

const _: () = assert!(MAGIC.len() + 4 * size_of::<u64>() + size_of::<u32>() == HEAD_BYTES);
const _: () = assert!(RANGES_MAX <= u32::MAX as usize);

/// Progress of a log's delivery at the time at which the cursor was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub generation: u64,
    /// Place before which all records are retired.
    pub low: u64,
    /// The next record's place.
    pub next: u64,
    pub next_segment: u64,
    /// Places beyond `low` that are retired.
    pub done: Ranges,
}

impl Cursor {
    /// Returns the slot as it lies on disk.
    fn encode(&self) -> Vec<u8> {
        let ranges = self.done.count().min(RANGES_MAX);
        let mut bytes = Vec::with_capacity(slot_bytes(ranges));
        bytes.extend_from_slice(MAGIC);
        for number in [self.generation, self.low, self.next, self.next_segment] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(ranges as u32).to_le_bytes());
        for range in self.done.iter().take(ranges) {
            bytes.extend_from_slice(&range.start.to_le_bytes());
            bytes.extend_from_slice(&range.end.to_le_bytes());
        }
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        debug_assert_eq!(bytes.len(), slot_bytes(ranges));
        bytes
    }

    /// Parses a slot; `None` if it is not whole. Bytes behind it in the file are left over from a
    /// longer one.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let content = whole_content(bytes)?;
        let mut done = Ranges::default();
        for range in content[HEAD_BYTES..].chunks_exact(RANGE_BYTES) {
            let range = u64_at(range, 0)..u64_at(range, 8);
            if range.is_empty() {
                return None;
            }
            done.insert(range);
        }
        Some(Self {
            generation: u64_at(content, 8),
            low: u64_at(content, 16),
            next: u64_at(content, 24),
            next_segment: u64_at(content, 32),
            done,
        })
    }

    /// Returns the first place that no record has had, by this cursor.
    pub(crate) fn end(&self) -> u64 {
        let last_done = self.done.iter().last().map_or(0, |range| range.end);
        last_done.max(self.next).max(self.low)
    }

    /// Returns the number of these records that are not retired.
    pub(crate) fn waiting(&self, places: Range<u64>) -> u64 {
        let places = places.start.max(self.low)..places.end;
        if places.is_empty() {
            return 0;
        }
        let gaps = self.done.gaps(places);
        gaps.iter().map(|gap| gap.end - gap.start).sum()
    }

    /// Reads the newer one of the two slots; `None` when there is none yet, or none is whole.
    pub(crate) fn read(disk: &impl Disk, dir: &Path) -> io::Result<Option<Self>> {
        let mut newest: Option<Self> = None;
        for name in NAMES {
            let Some(slot) = read_slot(disk, &dir.join(name))? else {
                continue;
            };
            if newest
                .as_ref()
                .is_none_or(|newest| newest.generation < slot.generation)
            {
                newest = Some(slot);
            }
        }
        Ok(newest)
    }

    /// Writes the slot whose turn it is and syncs it. The other one stays whole, whatever happens.
    pub(crate) fn write(&self, disk: &impl Disk, dir: &Path) -> io::Result<()> {
        let path = dir.join(NAMES[(self.generation % 2) as usize]);
        let (file, is_new) = open_or_create(disk, &path)?;
        let bytes = self.encode();
        write_all_at(&file, &mut [IoSlice::new(&bytes)], 0)?;
        file.sync()?;
        if is_new {
            disk.sync_folder(dir)?;
        }
        Ok(())
    }
}

/// Says too whether the file is new.
fn open_or_create<D: Disk>(disk: &D, path: &Path) -> io::Result<(D::File, bool)> {
    match disk.open_to_write(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((disk.create(path)?, true)),
        opened => Ok((opened?, false)),
    }
}

/// Returns the bytes of a slot with so many ranges.
fn slot_bytes(ranges: usize) -> usize {
    HEAD_BYTES + ranges * RANGE_BYTES + CRC_BYTES
}

/// Returns the head and the ranges of a slot whose checksum holds.
fn whole_content(bytes: &[u8]) -> Option<&[u8]> {
    let head = bytes.first_chunk::<HEAD_BYTES>()?;
    let ranges = u32_at(head, 40) as usize;
    if ranges > RANGES_MAX {
        return None;
    }
    let (content, rest) = bytes.split_at_checked(slot_bytes(ranges) - CRC_BYTES)?;
    let crc = rest.first_chunk::<CRC_BYTES>()?;
    let is_whole = head.starts_with(MAGIC) && *crc == crc32c(content).to_le_bytes();
    is_whole.then_some(content)
}

/// Gives both slots their room, for so many ranges, if they have none yet. A slot without content
/// does not count.
pub(crate) fn reserve(disk: &impl Disk, dir: &Path, ranges: usize) -> io::Result<()> {
    debug_assert!(ranges <= RANGES_MAX);
    let mut is_new = false;
    for name in NAMES {
        let path = dir.join(name);
        if is_missing(disk, &path) {
            reserve_slot(disk, &path, ranges)?;
            is_new = true;
        }
    }
    if is_new {
        disk.sync_folder(dir)?;
    }
    Ok(())
}

fn is_missing(disk: &impl Disk, path: &Path) -> bool {
    matches!(disk.open(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

fn reserve_slot(disk: &impl Disk, path: &Path, ranges: usize) -> io::Result<()> {
    let file = disk.create(path)?;
    let reserved = file.allocate(slot_bytes(ranges) as u64);
    let reserved = reserved.and_then(|()| file.sync());
    reserved.inspect_err(|_| drop(disk.remove(path)))
}

fn read_slot(disk: &impl Disk, path: &Path) -> io::Result<Option<Cursor>> {
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let bytes_max = slot_bytes(RANGES_MAX) as u64;
    let mut bytes = vec![0; file.bytes()?.min(bytes_max) as usize];
    read_exact_at(&file, &mut bytes, 0)?;
    Ok(Cursor::parse(&bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_slot_reads_back_even_over_a_longer_one(
            numbers in any::<[u64; 4]>(),
            ranges in prop::collection::vec((0_u64..1 << 40, 1_u64..99), 0..9),
            left_over in prop::collection::vec(any::<u8>(), 0..40),
            flip in any::<prop::sample::Index>(),
        ) {
            let mut done = Ranges::default();
            ranges.into_iter().for_each(|(start, length)| drop(done.insert(start..start + length)));
            let [generation, low, next, next_segment] = numbers;
            let cursor = Cursor { generation, low, next, next_segment, done };
            let mut bytes = cursor.encode();
            let (written, bit) = (bytes.len(), flip.index(bytes.len() * 8));
            bytes.extend_from_slice(&left_over);
            prop_assert_eq!(Cursor::parse(&bytes), Some(cursor));
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Cursor::parse(&bytes), None);
            prop_assert_eq!(Cursor::parse(&bytes[..written - 1]), None);
        }
    }

    /// The bytes were made from the table in the module's header, by another program.
    #[test]
    fn what_lies_on_disk_stays_as_it_is() {
        let mut done = Ranges::default();
        done.insert(5..6);
        let (generation, low, next, next_segment) = (1, 2, 9, 4);
        let cursor = Cursor {
            generation,
            low,
            next,
            next_segment,
            done,
        };
        let bytes = cursor.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "46426375727372010100000000000000020000000000000009000000000000000400000000000000\
             0100000005000000000000000600000000000000ea7c6341"
        );
    }

    #[test]
    fn a_range_that_runs_backward_is_damage() {
        let mut done = Ranges::default();
        done.insert(7..9);
        let cursor = Cursor {
            done,
            ..Cursor::default()
        };
        let mut bytes = cursor.encode();
        let crc_at = bytes.len() - CRC_BYTES;
        bytes[HEAD_BYTES] = 10;
        let crc = crc32c(&bytes[..crc_at]).to_le_bytes();
        bytes[crc_at..].copy_from_slice(&crc);
        assert_eq!(Cursor::parse(&bytes), None);
    }
}
