//! Reads records ahead of the drain, so many at a time that a thread waits for the disk but once
//! for them.

use std::sync::Arc;

use bytes::Bytes;

use crate::delivery::window::Size;
use crate::spool::{Frame, GatewayDisk, ReadError, Reader, wait_for_disk};

/// Records read ahead of all streams together: more than a wave of each, so that it has many
/// devices.
pub(super) const WINDOW: Size = Size {
    records: WINDOW_RECORDS,
    bytes: WINDOW_BYTES,
};
const WINDOW_RECORDS: usize = 4096;
const WINDOW_BYTES: usize = 8 << 20;

/// Most records and bytes of one read.
const READ: Size = Size {
    records: WINDOW.records / 2,
    bytes: WINDOW.bytes / 2,
};

/// Readers that are kept; one more is made when it is needed.
const READERS_MAX: usize = 8;

const _: () = assert!(READ.records > 0 && READ.bytes > 0 && READERS_MAX > 0);

/// A reader of the backlog, and the place that it has come to.
pub(super) struct Position {
    pub place: u64,
    pub reader: Reader<GatewayDisk>,
}

/// Frames that were read one after the other.
pub(super) struct Stretch {
    /// Place from which everything that is not done with was read...
    pub from: u64,
    /// ...up to here, where the reader is.
    pub position: Position,
    pub frames: Vec<Frame>,
    pub ended: Ended,
}

/// The reason why a read ended.
pub(super) enum Ended {
    /// There is no more now.
    All,
    Enough,
    Failed(ReadError),
}

/// Readers that have come to places where streams read on.
#[derive(Default)]
pub(super) struct Readers(Vec<Position>);

impl Readers {
    /// Takes the reader that has come to this place, if there is one.
    pub(super) fn take(&mut self, place: u64) -> Option<Position> {
        let at = self.0.iter().position(|known| known.place == place)?;
        Some(self.0.swap_remove(at))
    }

    /// Keeps a reader, and of the others those that are wanted, [`READERS_MAX`] in all.
    pub(super) fn keep(&mut self, position: Position, is_wanted: impl Fn(u64) -> bool) {
        self.0.retain(|known| is_wanted(known.place));
        if self.0.len() >= READERS_MAX {
            self.0.remove(0);
        }
        self.0.push(position);
    }
}

/// Reads on until so many records of a stream were found, on a thread that may wait for the disk.
/// The log is known to end at `end` at the earliest. `None` if the thread was lost, and the reader
/// with it.
pub(super) async fn read_on(
    position: Position,
    stream: Arc<str>,
    room: usize,
    end: u64,
) -> Option<Stretch> {
    let read = move || read_frames(position, &stream, room, end);
    wait_for_disk(read).await
}

fn read_frames(position: Position, stream: &str, room: usize, end: u64) -> Stretch {
    let mut stretch = Stretch {
        from: position.place,
        position,
        frames: Vec::new(),
        ended: Ended::Enough,
    };
    let (mut seen, mut found) = (Size::default(), 0);
    while found < room.max(1) && seen.records < READ.records && seen.bytes < READ.bytes {
        let Some(frame) = stretch.read_frame(end) else {
            break;
        };
        seen.bytes += payload_bytes(frame);
        seen.records += frame.records.len();
        if *frame.stream == *stream {
            found += frame.records.len();
        }
    }
    stretch
}

impl Stretch {
    /// Reads the next frame. `None` when there is none, and says why.
    fn read_frame(&mut self, end: u64) -> Option<&Frame> {
        let position = &mut self.position;
        match position.reader.next_frame() {
            Ok(Some(mut frame)) => {
                debug_assert!(frame.places.is_sorted() && !frame.places.is_empty());
                let next = frame.places.last().map_or(0, |last| last + 1);
                position.place = position.place.max(next);
                own_payloads(&mut frame);
                self.frames.push(frame);
                self.frames.last()
            }
            Ok(None) => {
                // Whatever was safe before it was looked for has been seen.
                position.place = position.place.max(end);
                self.ended = Ended::All;
                None
            }
            Err(error) => {
                self.ended = Ended::Failed(error);
                None
            }
        }
    }
}

/// Copies each payload out of its frame, which it would pin as a whole.
fn own_payloads(frame: &mut Frame) {
    for record in &mut frame.records {
        record.payload = Bytes::copy_from_slice(&record.payload);
    }
}

fn payload_bytes(frame: &Frame) -> usize {
    let payloads = frame.records.iter();
    payloads.map(|record| record.payload.len()).sum()
}
