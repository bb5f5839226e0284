//! A segment, opened to be read: recovery and the readers find its frames through this.
//!
//! A frame whose header or body is not as it was written reads as `None`; only the disk's own
//! failures are errors.

use std::io;
use std::ops::Range;

use crate::spool::disk::{DiskFile, read_up_to};
use crate::spool::format::frame::{ALIGNMENT, FrameHeader, HEADER_BYTES};
use crate::spool::format::keys::{Cipher, KeyId, Keys};
use crate::spool::format::segment::{self, FRAMES_START, HEADER_OFFSETS, NoHeader, SegmentHeader};

/// Bytes that the search for a header reads at once, and passes over if they cannot be read.
const SEARCH_BYTES: u64 = 4096;

const _: () = assert!(SEARCH_BYTES.is_multiple_of(ALIGNMENT));

/// Bytes that the search for a file's last byte reads at once.
const SCAN_BYTES: usize = 64 << 10;

/// The reason why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum NotOpened {
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It has no header and no frame: it was being created when the machine stopped.
    #[error("it was never finished being created")]
    Blank,
    #[error("both copies of its header are damaged")]
    Damaged,
    #[error("it has version {0} of the format, which this program does not know")]
    Version(u8),
    #[error("it is encrypted with the key {0}, which is not in the key file")]
    Key(KeyId),
}

/// A segment's file, whose header was read and whose key is there.
pub struct Opened<F> {
    file: F,
    pub(crate) header: SegmentHeader,
    cipher: Cipher,
}

impl<F: DiskFile> Opened<F> {
    pub fn open(file: F, keys: &Keys) -> Result<Self, NotOpened> {
        let header = read_header(&file)?;
        let cipher = keys
            .to_read(header.key, &header.salt)
            .ok_or(NotOpened::Key(header.key))?;
        Ok(Self {
            file,
            header,
            cipher,
        })
    }

    pub fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    /// Returns the frame, or mark of the end, that stands at `offset` and ends by `limit`.
    pub fn frame_at(&self, offset: u64, limit: u64) -> io::Result<Option<FrameHeader>> {
        if offset + HEADER_BYTES as u64 > limit {
            return Ok(None);
        }
        let mut bytes = [0; HEADER_BYTES];
        if read_up_to(&self.file, &mut bytes, offset)? < HEADER_BYTES {
            return Ok(None);
        }
        Ok(self.parse(&bytes, offset, limit))
    }

    fn parse(&self, bytes: &[u8; HEADER_BYTES], offset: u64, limit: u64) -> Option<FrameHeader> {
        let header = FrameHeader::parse(bytes, &self.header.salt, offset)?;
        (offset + header.frame_bytes() <= limit).then_some(header)
    }

    /// Returns the first frame, or mark of the end, within these offsets whose records have `place`
    /// or come after it.
    pub fn find_frame(
        &self,
        offsets: Range<u64>,
        place: u64,
    ) -> io::Result<Option<(u64, FrameHeader)>> {
        for start in offsets.clone().step_by(SEARCH_BYTES as usize) {
            if let Some(found) = self.search(start, offsets.end, place)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Searches as [`find_frame`](Self::find_frame) does, and passes over bytes that cannot be
    /// read.
    pub fn find_readable_frame(
        &self,
        offsets: Range<u64>,
        place: u64,
    ) -> Option<(u64, FrameHeader)> {
        let mut starts = offsets.clone().step_by(SEARCH_BYTES as usize);
        starts.find_map(|start| self.search(start, offsets.end, place).ok().flatten())
    }

    fn search(&self, start: u64, limit: u64, place: u64) -> io::Result<Option<(u64, FrameHeader)>> {
        let mut buffer = [0; SEARCH_BYTES as usize + HEADER_BYTES];
        let read = read_up_to(&self.file, &mut buffer, start)?;
        for at in (0..SEARCH_BYTES as usize).step_by(ALIGNMENT as usize) {
            let rest = buffer[..read].get(at..).unwrap_or_default();
            let Some(bytes) = rest.first_chunk() else {
                break;
            };
            let offset = start + at as u64;
            match self.parse(bytes, offset, limit) {
                Some(header) if header.first >= place => return Ok(Some((offset, header))),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Returns the body of the frame, decrypted; `None` if it is not as it was written.
    pub fn body(&self, offset: u64, header: &FrameHeader) -> io::Result<Option<Vec<u8>>> {
        let body = self.raw(offset + HEADER_BYTES as u64, header.body_bytes as usize)?;
        if !header.fits(&self.header.salt, &body) {
            return Ok(None);
        }
        let authenticated = header.authenticated();
        Ok(self.cipher.open(header.number, &authenticated, body))
    }

    /// Returns the offset after the last byte that is not 0; the first of these offsets if all are.
    pub fn content_end(&self, offsets: Range<u64>) -> io::Result<u64> {
        content_end(&self.file, offsets)
    }

    /// Bytes as they lie in the file; none where it ends before.
    pub fn raw(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut raw = vec![0; bytes];
        if read_up_to(&self.file, &mut raw, offset)? < bytes {
            raw.clear();
        }
        Ok(raw)
    }
}

fn read_header(file: &impl DiskFile) -> Result<SegmentHeader, NotOpened> {
    let mut problem = None;
    for offset in HEADER_OFFSETS {
        let mut bytes = [0; segment::HEADER_BYTES];
        if let Err(error) = read_up_to(file, &mut bytes, offset) {
            problem = Some(error);
            continue;
        }
        match SegmentHeader::parse(&bytes) {
            Ok(header) => return Ok(header),
            Err(NoHeader::Version(version)) => return Err(NotOpened::Version(version)),
            Err(NoHeader::Damaged) => {}
        }
    }
    match problem {
        Some(error) => Err(error.into()),
        None if is_blank(file)? => Err(NotOpened::Blank),
        None => Err(NotOpened::Damaged),
    }
}

/// Frames are written after the header is safe: without a header and a byte of a frame there were
/// none.
fn is_blank(file: &impl DiskFile) -> io::Result<bool> {
    let frames = FRAMES_START..file.bytes()?.max(FRAMES_START);
    Ok(content_end(file, frames)? == FRAMES_START)
}

fn content_end(file: &impl DiskFile, offsets: Range<u64>) -> io::Result<u64> {
    let mut buffer = [0; SCAN_BYTES];
    let (mut at, mut end) = (offsets.start, offsets.start);
    while at < offsets.end {
        let wanted = (offsets.end - at).min(SCAN_BYTES as u64) as usize;
        let read = read_up_to(file, &mut buffer[..wanted], at)?;
        if read == 0 {
            break;
        }
        if let Some(last) = buffer[..read].iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += read as u64;
    }
    Ok(end)
}
