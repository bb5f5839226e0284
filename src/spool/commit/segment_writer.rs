//! The segment that is being written: created, filled run by run, finished or given up.
//!
//! A run is answered only after its sync. After a failed write or sync nothing more goes into the
//! segment, and its descriptor is never synced again: the kernel forgets an error that it has
//! reported.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::record::Timestamp;
use crate::spool::disk::{Disk, DiskFile, write_all_at};
use crate::spool::format::body::Draft;
use crate::spool::format::frame::{
    ALIGNMENT, FrameHeader, HEADER_BYTES, MARK_BYTES, body_crc, frame_bytes,
};
use crate::spool::format::keys::{Cipher, Keys, Salt, TAG_BYTES, new_salt};
use crate::spool::format::segment::{self, FRAMES_START, HEADER_OFFSETS, SegmentHeader};
use crate::spool::store::cursor;
use crate::spool::store::mark::mark_end;

/// Bytes of a segment beside its frames.
pub(crate) const SEGMENT_OVERHEAD_BYTES: u64 = FRAMES_START + MARK_BYTES;

/// Bytes that a draft takes in a segment at most.
pub(crate) fn draft_bytes(draft: &Draft) -> u64 {
    frame_bytes(draft.body().len() + TAG_BYTES)
}

/// The writer of one segment, for as long as it takes frames.
pub(crate) struct SegmentWriter<F> {
    file: F,
    pub id: u64,
    path: PathBuf,
    salt: Salt,
    cipher: Cipher,
    /// Offset of the next frame: everything before is safe.
    pub offset: u64,
    /// The next frame's number.
    number: u64,
    pub allocated_bytes: u64,
}

/// Settings of the next segment.
pub(crate) struct Plan<'a> {
    pub dir: &'a Path,
    pub keys: &'a Keys,
    pub id: u64,
    pub base: u64,
    pub bytes: u64,
}

impl<F: DiskFile> SegmentWriter<F> {
    /// Creates a segment, whose header and name are safe, beside a cursor with room for so many
    /// ranges. A failure leaves no file behind if it can be helped.
    pub(crate) fn create(
        disk: &impl Disk<File = F>,
        plan: &Plan<'_>,
        cursor_ranges: usize,
    ) -> io::Result<Self> {
        debug_assert!(plan.bytes >= SEGMENT_OVERHEAD_BYTES);
        disk.claim(plan.dir)?;
        cursor::reserve(disk, plan.dir, cursor_ranges)?;
        let path = plan.dir.join(segment::file_name(plan.id));
        let file = disk.create(&path)?;
        let begun = Self::begin(file, path.clone(), plan);
        let begun = begun.and_then(|writer| disk.sync_folder(plan.dir).map(|()| writer));
        begun.inspect_err(|_| drop(disk.remove(&path)))
    }

    fn begin(file: F, path: PathBuf, plan: &Plan<'_>) -> io::Result<Self> {
        let salt = new_salt()?;
        let (key, cipher) = plan.keys.to_write(&salt);
        let header = SegmentHeader {
            id: plan.id,
            base: plan.base,
            salt,
            key,
            created_at: Timestamp::now(),
        };
        let header = header.encode();
        file.allocate(plan.bytes)?;
        for offset in HEADER_OFFSETS {
            write_all_at(&file, &mut [IoSlice::new(&header)], offset)?;
        }
        file.sync()?;
        Ok(Self {
            file,
            id: plan.id,
            path,
            salt,
            cipher,
            offset: FRAMES_START,
            number: 1,
            allocated_bytes: plan.bytes,
        })
    }

    /// Bytes of frames that still fit.
    pub(crate) fn room_bytes(&self) -> u64 {
        self.allocated_bytes
            .saturating_sub(self.offset + MARK_BYTES)
    }

    /// Writes the drafts, the first record at place `first`, and makes them safe. Gives the places
    /// of each.
    pub(crate) fn write(&mut self, drafts: &[&Draft], first: u64) -> io::Result<Vec<Range<u64>>> {
        let places = places_of(drafts, first);
        let mut frames = Vec::with_capacity(drafts.len());
        let mut end = self.offset;
        for (draft, places) in drafts.iter().zip(&places) {
            let frame = self.seal(draft, places.start, end)?;
            end += frame.bytes();
            frames.push(frame);
        }
        debug_assert!(
            end - self.offset <= self.room_bytes(),
            "the engine gives a segment only what fits"
        );
        self.write_frames(&frames)?;
        self.offset = end;
        Ok(places)
    }

    fn seal<'a>(
        &mut self,
        draft: &'a Draft,
        first: u64,
        offset: u64,
    ) -> io::Result<SealedFrame<'a>> {
        debug_assert!(offset.is_multiple_of(ALIGNMENT));
        let mut header = self.next_header(draft, first);
        let authenticated = header.authenticated();
        let mut sealed = self
            .cipher
            .seal(header.number, &authenticated, draft.body())?;
        let body = sealed.as_deref().unwrap_or(draft.body());
        debug_assert_eq!(body.len(), header.body_bytes as usize);
        header.body_crc = body_crc(&self.salt, body);
        if let Some(sealed) = &mut sealed {
            sealed.resize(sealed.len().next_multiple_of(ALIGNMENT as usize), 0);
        }
        Ok(SealedFrame {
            header: header.encode(&self.salt, offset),
            sealed,
            draft,
        })
    }

    /// Returns the header of the next frame, but for the checksum of its body. Its number is a
    /// nonce: it is used up, even if the frame comes to nothing.
    fn next_header(&mut self, draft: &Draft, first: u64) -> FrameHeader {
        let number = self.number;
        self.number += 1;
        FrameHeader {
            records: draft.records(),
            first,
            number,
            body_bytes: self.cipher.sealed_bytes(draft.body().len()) as u32,
            body_crc: 0,
        }
    }

    /// Writes frames and makes them safe, in a file that still has its name.
    fn write_frames(&self, frames: &[SealedFrame<'_>]) -> io::Result<()> {
        let mut slices = Vec::with_capacity(2 * frames.len());
        for frame in frames {
            slices.push(IoSlice::new(&frame.header));
            slices.push(IoSlice::new(frame.body()));
        }
        write_all_at(&self.file, &mut slices, self.offset)?;
        self.file.sync()?;
        if self.file.is_linked()? {
            return Ok(());
        }
        let removed = "the segment was removed";
        Err(io::Error::new(io::ErrorKind::NotFound, removed))
    }

    /// Marks the end and gives back the room that was not used. Says how long the file is then.
    pub(crate) fn finish(self, end: u64) -> u64 {
        let finished = mark_end(&self.file, &self.salt, self.offset, end);
        finished.unwrap_or(self.allocated_bytes)
    }

    /// Gives up a segment that failed, and cuts off its unsafe bytes, through a descriptor of its
    /// own. Returns the length of the file.
    pub(crate) fn give_up(self, disk: &impl Disk<File = F>, end: u64) -> u64 {
        drop(self.file);
        let file = disk.open_to_write(&self.path);
        let cut = file.and_then(|file| mark_end(&file, &self.salt, self.offset, end));
        cut.unwrap_or(self.allocated_bytes)
    }
}

/// Returns the places of each draft's records, the first one at `first`.
fn places_of(drafts: &[&Draft], first: u64) -> Vec<Range<u64>> {
    let mut next = first;
    let mut places = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let end = next + u64::from(draft.records());
        places.push(next..end);
        next = end;
    }
    places
}

/// A draft as it goes to disk.
struct SealedFrame<'a> {
    header: [u8; HEADER_BYTES],
    /// The encrypted body and its padding, if bodies are encrypted.
    sealed: Option<Vec<u8>>,
    draft: &'a Draft,
}

impl SealedFrame<'_> {
    /// Returns the body and its padding.
    fn body(&self) -> &[u8] {
        self.sealed.as_deref().unwrap_or(self.draft.padded())
    }

    fn bytes(&self) -> u64 {
        (self.header.len() + self.body().len()) as u64
    }
}
