//! The segment that is being written: created, filled run by run, finished or given up.
//!
//! A run is answered only after its sync. After a failed write or sync nothing more goes into the segment, and its
//! descriptor is never synced again: what the kernel reports once it forgets.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::record::Timestamp;
use crate::spool::disk::{Disk, DiskFile, write_all_at};
use crate::spool::format::body::Draft;
use crate::spool::format::frame::{
    ALIGNMENT, HEADER_BYTES, Header, MARK_BYTES, body_crc, frame_bytes,
};
use crate::spool::format::keys::{Cipher, Keys, Salt, TAG_BYTES, new_salt};
use crate::spool::format::segment::{self, FRAMES_START, HEADER_OFFSETS};
use crate::spool::store::cursor;
use crate::spool::store::mark::mark_end;

/// Beside the frames in a segment.
pub(crate) const SEGMENT_OVERHEAD_BYTES: u64 = FRAMES_START + MARK_BYTES;

/// What a draft takes in a segment at most.
pub(crate) fn draft_bytes(draft: &Draft) -> u64 {
    frame_bytes(draft.body().len() + TAG_BYTES)
}

pub(crate) struct Writer<F> {
    file: F,
    pub id: u64,
    path: PathBuf,
    salt: Salt,
    cipher: Cipher,
    /// Where the next frame goes: everything before is safe.
    pub offset: u64,
    number: u64,
    pub allocated_bytes: u64,
}

/// What the next segment is to be.
pub(crate) struct Plan<'a> {
    pub dir: &'a Path,
    pub keys: &'a Keys,
    pub id: u64,
    pub base: u64,
    pub bytes: u64,
}

impl<F: DiskFile> Writer<F> {
    /// A new segment, whose header and name are safe, beside a cursor with room for so many ranges. What fails leaves no
    /// file behind if it can be helped.
    pub(crate) fn create(
        disk: &impl Disk<File = F>,
        plan: &Plan<'_>,
        cursor_ranges: usize,
    ) -> io::Result<Self> {
        disk.claim(plan.dir)?;
        cursor::reserve(disk, plan.dir, cursor_ranges)?;
        let path = plan.dir.join(segment::file_name(plan.id));
        let file = disk.create(&path)?;
        let written = Self::begin(file, path.clone(), plan).and_then(|writer| {
            disk.sync_folder(plan.dir)?;
            Ok(writer)
        });
        written.inspect_err(|_| drop(disk.remove(&path)))
    }

    fn begin(file: F, path: PathBuf, plan: &Plan<'_>) -> io::Result<Self> {
        let salt = new_salt()?;
        let (key, cipher) = plan.keys.to_write(&salt);
        let created_at = Timestamp::now();
        let header = segment::Header {
            id: plan.id,
            base: plan.base,
            salt,
            key,
            created_at,
        }
        .encode();
        file.allocate(plan.bytes)?;
        for offset in HEADER_OFFSETS {
            write_all_at(&file, &mut [IoSlice::new(&header)], offset)?;
        }
        file.sync()?;
        let (offset, number, allocated_bytes) = (FRAMES_START, 1, plan.bytes);
        Ok(Self {
            file,
            id: plan.id,
            path,
            salt,
            cipher,
            offset,
            number,
            allocated_bytes,
        })
    }

    pub(crate) fn room_bytes(&self) -> u64 {
        self.allocated_bytes
            .saturating_sub(self.offset + MARK_BYTES)
    }

    /// Writes the drafts, the first record at place `first`, and makes them safe. Gives the places of each.
    pub(crate) fn write(&mut self, drafts: &[&Draft], first: u64) -> io::Result<Vec<Range<u64>>> {
        let (mut frames, mut places) = (
            Vec::with_capacity(drafts.len()),
            Vec::with_capacity(drafts.len()),
        );
        let (mut offset, mut place) = (self.offset, first);
        for draft in drafts {
            let frame = self.frame(draft, place, offset)?;
            offset += frame.header.len() as u64 + frame.body().len() as u64;
            places.push(place..place + u64::from(draft.records()));
            place += u64::from(draft.records());
            frames.push(frame);
        }
        let slices = frames
            .iter()
            .flat_map(|frame| [IoSlice::new(&frame.header), IoSlice::new(frame.body())]);
        write_all_at(&self.file, &mut slices.collect::<Vec<_>>(), self.offset)?;
        self.file.sync()?;
        if !self.file.is_linked()? {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the segment was removed",
            ));
        }
        self.offset = offset;
        Ok(places)
    }

    fn frame<'a>(&mut self, draft: &'a Draft, first: u64, offset: u64) -> io::Result<Frame<'a>> {
        let body_bytes = self.cipher.sealed_bytes(draft.body().len()) as u32;
        let (number, records) = (self.number, draft.records());
        self.number += 1;
        let mut header = Header {
            records,
            first,
            number,
            body_bytes,
            body_crc: 0,
        };
        let mut sealed = self
            .cipher
            .seal(number, &header.authenticated(), draft.body())
            .transpose()?;
        header.body_crc = body_crc(&self.salt, sealed.as_deref().unwrap_or(draft.body()));
        if let Some(sealed) = &mut sealed {
            sealed.resize(sealed.len().next_multiple_of(ALIGNMENT as usize), 0);
        }
        Ok(Frame {
            header: header.encode(&self.salt, offset),
            sealed,
            draft,
        })
    }

    /// Marks the end and gives back the room that was not used. Says how long the file is then.
    pub(crate) fn finish(self, end: u64) -> u64 {
        let finished = mark_end(&self.file, &self.salt, self.offset, end);
        finished.unwrap_or(self.allocated_bytes)
    }

    /// Gives up a segment that failed, and cuts off what is not safe, through a descriptor of its own. Says how long the
    /// file is then.
    pub(crate) fn give_up(self, disk: &impl Disk<File = F>, end: u64) -> u64 {
        let Self {
            file,
            path,
            salt,
            offset,
            allocated_bytes,
            ..
        } = self;
        drop(file);
        let cut = disk
            .open_to_write(&path)
            .and_then(|file| mark_end(&file, &salt, offset, end));
        cut.unwrap_or(allocated_bytes)
    }
}

struct Frame<'a> {
    header: [u8; HEADER_BYTES],
    sealed: Option<Vec<u8>>,
    draft: &'a Draft,
}

impl Frame<'_> {
    /// With its padding.
    fn body(&self) -> &[u8] {
        self.sealed.as_deref().unwrap_or(self.draft.padded())
    }
}
