//! Reads a log back, frame by frame, oldest first.
//!
//! Delivery has one for the backlog. A reader gives each record once, in the order of places, and
//! only safe records that wait. Damage is passed over: its bytes go to quarantine, its records are
//! retired, a metric and a line of the log tell of it. A read that fails is reported and tried
//! again; after five failures at one place that frame is given up.
//!
//! A reader holds one frame in memory while it reads it; the frames that it has given are the
//! caller's to bound.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::index::Segment;
use super::ledger::Ledger;
use super::opened::{NotOpened, Opened};
use super::quarantine::{PIECE_BYTES_MAX, Quarantine, piece_bytes};
use crate::record::Record;
use crate::spool::disk::Disk;
use crate::spool::format::body::{Content, decode};
use crate::spool::format::frame::{self, FrameHeader};
use crate::spool::format::keys::Keys;
use crate::spool::format::segment::{self, FRAMES_START};
use crate::telemetry::metrics::SpoolMetrics;

/// Failed reads at one place before that frame is given up.
const FAILURES_MAX: u32 = 5;

// A whole frame fits a piece of the quarantine.
const _: () = assert!(PIECE_BYTES_MAX >= frame::BODY_BYTES_MAX as u64);

/// A failure of the disk to read; another try may do.
#[derive(Debug, thiserror::Error)]
#[error("{}, at byte {offset}: {error}", path.display())]
pub struct ReadError {
    pub path: PathBuf,
    pub offset: u64,
    pub error: io::Error,
}

/// The records of one batch that wait, in their order.
#[derive(Debug)]
pub struct Frame {
    pub stream: Arc<str>,
    /// The reason of dead letters; `None` for other records.
    pub reason: Option<Arc<str>>,
    /// The place of each record.
    pub places: Vec<u64>,
    pub records: Vec<Record>,
}

/// The part of a log's engine that its readers share.
pub(crate) struct LogSource<D: Disk> {
    pub disk: Arc<D>,
    pub dir: PathBuf,
    pub keys: Arc<Keys>,
    pub ledger: Arc<Ledger>,
    pub metrics: SpoolMetrics,
    /// Called when retired records leave the engine something to do.
    pub nudge: Arc<dyn Fn() + Send + Sync>,
}

impl<D: Disk> LogSource<D> {
    /// Retires these records.
    pub(crate) fn retire(&self, places: impl IntoIterator<Item = Range<u64>>) {
        if self.ledger.retire(places) {
            (self.nudge)();
        }
    }
}

impl<D: Disk> Clone for LogSource<D> {
    fn clone(&self) -> Self {
        Self {
            disk: self.disk.clone(),
            dir: self.dir.clone(),
            keys: self.keys.clone(),
            ledger: self.ledger.clone(),
            metrics: self.metrics.clone(),
            nudge: self.nudge.clone(),
        }
    }
}

/// Reads one log. Clones of a [`Log`](crate::spool::Log) may have one each.
pub struct Reader<D: Disk> {
    source: LogSource<D>,
    /// Frames that end before this place are passed over.
    from: u64,
    at: At<D>,
    failures: u32,
}

/// Progress of a reader.
enum At<D: Disk> {
    Start,
    /// The segment with this number is to be opened.
    Before(u64),
    Within(Position<D>),
}

impl<D: Disk> At<D> {
    fn segment(&self) -> Option<u64> {
        match self {
            Self::Start => None,
            Self::Before(id) => Some(*id),
            Self::Within(position) => Some(position.segment),
        }
    }

    fn has_more(&self, segment: &Segment, from: u64) -> bool {
        debug_assert_eq!(self.segment(), Some(segment.id));
        match self {
            Self::Within(position) => position.place < segment.end,
            _ => segment.live > 0 && segment.end > from,
        }
    }
}

/// Place and offset of the next frame in an open segment, and the records that are expected in it.
struct Position<D: Disk> {
    segment: u64,
    opened: Opened<D::File>,
    offset: u64,
    place: u64,
}

/// A part of a segment and the places of the records in it.
struct Piece {
    offsets: Range<u64>,
    places: Range<u64>,
}

impl<D: Disk> Position<D> {
    /// Returns the frame that stands here, if its header is whole.
    fn frame(&self, segment: &Segment) -> io::Result<Option<FrameHeader>> {
        let header = self.opened.frame_at(self.offset, segment.bytes)?;
        Ok(header.filter(|header| header.first == self.place && !header.marks_end()))
    }

    /// Returns the content of the frame that stands here; `None` if it is damaged.
    fn content(&self, header: &FrameHeader) -> io::Result<Option<Content>> {
        let body = self.opened.body(self.offset, header)?;
        Ok(body.and_then(|body| decode(body.into(), header.records)))
    }

    /// Goes on to the next frame, and returns the piece that it has passed over.
    fn pass(&mut self, header: &FrameHeader) -> Piece {
        debug_assert_eq!(header.first, self.place, "records are read in their order");
        self.move_to(self.offset + header.frame_bytes(), header.end())
    }

    fn move_to(&mut self, offset: u64, place: u64) -> Piece {
        debug_assert!(self.offset <= offset && self.place <= place);
        let piece = Piece {
            offsets: self.offset..offset,
            places: self.place..place,
        };
        (self.offset, self.place) = (offset, place);
        piece
    }
}

impl<D: Disk> Reader<D> {
    pub(crate) fn new(source: LogSource<D>) -> Self {
        Self::from_place(source, 0)
    }

    pub(crate) fn from_place(source: LogSource<D>, from: u64) -> Self {
        Self {
            source,
            from,
            at: At::Start,
            failures: 0,
        }
    }

    /// Returns the next records; `None` if there are no more now.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        while let Some(segment) = self.seek() {
            let read = self.read(&segment);
            let read = read.map_err(|error| self.fail(&segment, error))?;
            self.failures = 0;
            if read.is_some() {
                return Ok(read);
            }
        }
        Ok(None)
    }

    /// Returns the segment to read on in, which has more to read.
    fn seek(&mut self) -> Option<Segment> {
        loop {
            let index = self.source.ledger.index();
            let current = self.at.segment();
            if let Some(segment) = current.and_then(|id| index.get(id)) {
                if self.at.has_more(segment, self.from) {
                    return Some(segment.clone());
                }
                if segment.active {
                    return None;
                }
            }
            let next = index.next_after(current)?.id;
            drop(index);
            self.at = At::Before(next);
        }
    }

    /// Reads one frame, if there is something in it.
    fn read(&mut self, segment: &Segment) -> io::Result<Option<Frame>> {
        let At::Within(at) = &mut self.at else {
            self.at = At::Within(self.open(segment)?);
            return Ok(None);
        };
        let Some(header) = at.frame(segment)? else {
            let found = at.opened.find_frame(at.offset..segment.bytes, at.place)?;
            self.pass_over_damage(segment, found);
            return Ok(None);
        };
        if header.end() <= self.from || self.source.is_retired(&header) {
            at.pass(&header);
            return Ok(None);
        }
        let content = at.content(&header)?;
        let piece = at.pass(&header);
        if content.is_none() {
            self.lose(piece, "the body of a frame is damaged");
        }
        Ok(content.and_then(|content| self.source.waiting(&header, content)))
    }

    fn open(&self, segment: &Segment) -> io::Result<Position<D>> {
        let file = self.source.disk.open(&self.source.path(segment.id))?;
        let opened =
            Opened::open(file, &self.source.keys).map_err(|not_opened| match not_opened {
                NotOpened::Io(error) => error,
                other => io::Error::new(io::ErrorKind::InvalidData, other),
            })?;
        Ok(Position {
            segment: segment.id,
            opened,
            offset: FRAMES_START,
            place: segment.base,
        })
    }

    /// Reads on at the next header that was found, or in the next segment.
    fn pass_over_damage(&mut self, segment: &Segment, found: Option<(u64, FrameHeader)>) {
        let At::Within(at) = &mut self.at else {
            unreachable!("damage is found in an open segment")
        };
        let piece = match found {
            Some((offset, header)) if header.first < segment.end => {
                at.move_to(offset, header.first)
            }
            _ => at.move_to(segment.bytes, segment.end),
        };
        self.lose(piece, "the header of a frame is damaged");
    }

    /// Counts a failure, and gives up a frame that has failed too often.
    fn fail(&mut self, segment: &Segment, error: io::Error) -> ReadError {
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            self.failures = 0;
            self.give_up(segment, &error);
        }
        ReadError {
            path: self.source.path(segment.id),
            offset: match &self.at {
                At::Within(at) => at.offset,
                _ => 0,
            },
            error,
        }
    }

    /// Retires records that cannot be read, so that the others can be delivered.
    fn give_up(&mut self, segment: &Segment, error: &io::Error) {
        let At::Within(at) = &mut self.at else {
            let file = self.source.path(segment.id);
            tracing::error!(%error, file = %file.display(), "a segment cannot be read");
            self.source.retire_damaged(segment.base..segment.end);
            return;
        };
        if let Ok(Some(header)) = at.frame(segment) {
            let piece = at.pass(&header);
            self.lose(piece, "the body of a frame cannot be read");
        } else {
            let offsets = at.offset..segment.bytes;
            let found = at.opened.find_readable_frame(offsets, at.place);
            self.pass_over_damage(segment, found);
        }
    }

    /// Keeps the bytes of a piece whose records are lost, and tells of them.
    fn lose(&self, piece: Piece, what: &str) {
        let At::Within(Position { opened, .. }) = &self.at else {
            unreachable!("records are lost in an open segment")
        };
        let Piece { offsets, places } = piece;
        if places.is_empty() {
            return;
        }
        let quarantine = Quarantine::new(&self.source.dir);
        let kept = quarantine.keep_piece(&*self.source.disk, opened, &offsets);
        tracing::error!(
            file = %self.source.path(opened.header.id).display(),
            offset = offsets.start,
            bytes = piece_bytes(&offsets),
            records = places.end - places.start,
            not_kept = kept.err().map(|error| error.to_string()),
            "{what}"
        );
        self.source.retire_damaged(places);
    }
}

impl<D: Disk> LogSource<D> {
    fn path(&self, id: u64) -> PathBuf {
        self.dir.join(segment::file_name(id))
    }

    fn is_retired(&self, header: &FrameHeader) -> bool {
        self.ledger.index().are_done(header.first..header.end())
    }

    fn retire_damaged(&self, places: Range<u64>) {
        self.metrics.frames_damaged(1);
        self.retire([places]);
    }

    /// Returns the records of a frame that wait; `None` if none does.
    fn waiting(&self, header: &FrameHeader, content: Content) -> Option<Frame> {
        debug_assert_eq!(content.records.len(), header.records as usize);
        let waiting = self.ledger.index().waiting(header.first..header.end());
        let mut waiting = waiting.into_iter().flatten().peekable();
        let (mut places, mut records) = (Vec::new(), Vec::new());
        for (place, record) in (header.first..).zip(content.records) {
            if waiting.next_if_eq(&place).is_some() {
                places.push(place);
                records.push(record);
            }
        }
        debug_assert!(waiting.next().is_none(), "each place has its record");
        let Content { stream, reason, .. } = content;
        (!places.is_empty()).then_some(Frame {
            stream,
            reason,
            places,
            records,
        })
    }
}
