//! Bits that flip at rest: in frames of segments, written and synced.

use std::path::Path;

use super::{SECTOR_BYTES, SimDisk, SimFile};
use crate::spool::format::frame::{FrameHeader, HEADER_BYTES};
use crate::spool::format::segment::{self, FRAMES_START, SegmentHeader};

impl SimDisk {
    /// Flips a bit of the header or the body of a frame, and returns the number of records in the
    /// frame; `None` if no segment has one that is at rest.
    pub(crate) fn flip_in_frame(&self) -> Option<u32> {
        let sim = &mut *self.sim();
        let mut frames = Vec::new();
        for (path, file) in &sim.names {
            if is_segment(path) {
                let at_rest = sim.files[*file].frames_at_rest().into_iter();
                frames.extend(at_rest.map(|(offset, frame)| (*file, offset, frame)));
            }
        }
        let picked = sim.random.below(frames.len() as u64) as usize;
        let (file, offset, frame) = *frames.get(picked)?;
        let bytes = HEADER_BYTES as u64 + u64::from(frame.body_bytes);
        let at = offset + sim.random.below(bytes) as usize;
        let bit = 1 << sim.random.below(8);
        let file = &mut sim.files[file];
        file.seen[at] ^= bit;
        file.durable[at] ^= bit;
        Some(frame.records)
    }
}

/// Whether this is a segment of a log, and not one that is set aside.
fn is_segment(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let is_named = name.and_then(segment::parse_file_name).is_some();
    is_named
        && !path
            .components()
            .any(|part| part.as_os_str() == "quarantine")
}

impl SimFile {
    /// Returns the whole frames that are synced, each with its offset.
    fn frames_at_rest(&self) -> Vec<(usize, FrameHeader)> {
        let mut frames = Vec::new();
        let header = self.seen.first_chunk();
        let Some(Ok(segment)) = header.map(SegmentHeader::parse) else {
            return frames;
        };
        let mut offset = FRAMES_START as usize;
        while let Some(bytes) = self.seen.get(offset..).and_then(|rest| rest.first_chunk())
            && let Some(frame) = FrameHeader::parse(bytes, &segment.salt, offset as u64)
            && !frame.marks_end()
        {
            let end = offset + frame.frame_bytes() as usize;
            let mut sectors = self
                .dirty
                .range(offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES));
            if sectors.next().is_none() && end <= self.durable.len() {
                frames.push((offset, frame));
            }
            offset = end;
        }
        frames
    }
}
