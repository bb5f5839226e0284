//! Reads records ahead of the drain, so many at a time that a thread waits for the disk but once for them.

use bytes::Bytes;

use crate::spool::{Frame, ReadError, Reader, RealDisk};

/// What is read ahead: more than a wave, so that it finds many devices.
pub(crate) const WINDOW_RECORDS: usize = 4096;
pub(crate) const WINDOW_BYTES: usize = 8 << 20;

pub(crate) struct Read {
    pub frames: Vec<Frame>,
    pub ended: Ended,
}

pub(crate) enum Ended {
    /// There is no more now.
    All,
    Enough,
    Failed(ReadError),
}

/// Half a window. A payload is copied out of its frame, which it would pin as a whole.
pub(crate) fn read_frames(reader: &mut Reader<RealDisk>) -> Read {
    let (mut frames, mut records, mut bytes) = (Vec::new(), 0, 0);
    while records < WINDOW_RECORDS / 2 && bytes < WINDOW_BYTES / 2 {
        let mut frame = match reader.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                let ended = Ended::All;
                return Read { frames, ended };
            }
            Err(error) => {
                let ended = Ended::Failed(error);
                return Read { frames, ended };
            }
        };
        for record in &mut frame.records {
            record.payload = Bytes::copy_from_slice(&record.payload);
            bytes += record.payload.len();
        }
        records += frame.records.len();
        frames.push(frame);
    }
    let ended = Ended::Enough;
    Read { frames, ended }
}
