//! Reads a log back, frame by frame, oldest first.
//!
//! Delivery has one for the backlog. A reader gives each record once, in the order of places, and only what is safe and
//! not done with. Damage is passed over: its bytes go to quarantine, its records are done with, a metric and a line of the
//! log tell of it. A read that fails is reported and tried again; after five times at one place that frame is given up.
//!
//! Payloads that were read and are still in memory count into [`READ_BACK_BYTES`](super::frame::body::READ_BACK_BYTES);
//! a reader has one frame in memory, the caller what it was given.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::Disk;
use super::frame::body::{Content, decode};
use super::frame::{self, Header};
use super::index::Segment;
use super::keys::Keys;
use super::opened::{NotOpened, Opened};
use super::quarantine::{PIECE_BYTES_MAX, Quarantine};
use super::segment::{self, FRAMES_START};
use super::shared::Shared;
use crate::record::Record;
use crate::telemetry::metrics::SpoolMetrics;

/// Failed reads at one place before that frame is given up.
const FAILURES_MAX: u32 = 5;

// A whole frame fits a piece of the quarantine.
const _: () = assert!(PIECE_BYTES_MAX >= frame::BODY_BYTES_MAX as u64);

/// The disk could not be read; another try may do.
#[derive(Debug, thiserror::Error)]
#[error("{}, at byte {offset}: {error}", path.display())]
pub struct ReadError {
    pub path: PathBuf,
    pub offset: u64,
    pub error: io::Error,
}

/// Records of one batch that are not done with, in their order.
#[derive(Debug)]
pub struct Frame {
    pub stream: Arc<str>,
    /// Why these are dead letters; `None` for others.
    pub reason: Option<Arc<str>>,
    /// The place of each record.
    pub places: Vec<u64>,
    pub records: Vec<Record>,
}

/// What a log's readers need of it.
pub(crate) struct Source<D: Disk> {
    pub disk: Arc<D>,
    pub dir: PathBuf,
    pub keys: Arc<Keys>,
    pub shared: Arc<Shared>,
    pub metrics: SpoolMetrics,
    /// Called when the engine has something to do by what was retired.
    pub nudge: Arc<dyn Fn() + Send + Sync>,
}

impl<D: Disk> Source<D> {
    /// These records are done with.
    pub(crate) fn retire(&self, places: impl IntoIterator<Item = Range<u64>>) {
        if self.shared.retire(places) {
            (self.nudge)();
        }
    }
}

impl<D: Disk> Clone for Source<D> {
    fn clone(&self) -> Self {
        let Self {
            disk,
            dir,
            keys,
            shared,
            metrics,
            nudge,
        } = self;
        let (disk, dir, keys, shared) = (disk.clone(), dir.clone(), keys.clone(), shared.clone());
        Self {
            disk,
            dir,
            keys,
            shared,
            metrics: metrics.clone(),
            nudge: nudge.clone(),
        }
    }
}

pub struct Reader<D: Disk> {
    source: Source<D>,
    /// Frames that end before this place are passed over.
    from: u64,
    at: Option<Position<D>>,
    /// The segment that was read last.
    segment: Option<u64>,
    failures: u32,
}

struct Position<D: Disk> {
    opened: Opened<D::File>,
    offset: u64,
    place: u64,
}

impl<D: Disk> Reader<D> {
    pub(crate) fn new(source: Source<D>) -> Self {
        Self::from_place(source, 0)
    }

    pub(crate) fn from_place(source: Source<D>, from: u64) -> Self {
        Self {
            source,
            from,
            at: None,
            segment: None,
            failures: 0,
        }
    }

    /// The next records; `None` when there are no more now.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, ReadError> {
        while let Some(segment) = self.seek() {
            let read = self.read(&segment);
            if read.is_ok() {
                self.failures = 0;
            }
            match read {
                Ok(None) => {}
                Ok(found) => return Ok(found),
                Err(error) => {
                    self.failures += 1;
                    if self.failures >= FAILURES_MAX {
                        self.failures = 0;
                        self.give_up(&segment, &error);
                    }
                    let offset = self.at.as_ref().map_or(0, |at| at.offset);
                    return Err(ReadError {
                        path: self.path(segment.id),
                        offset,
                        error,
                    });
                }
            }
        }
        Ok(None)
    }

    /// The segment to read on in, which has more to read.
    fn seek(&mut self) -> Option<Segment> {
        loop {
            let index = self.source.shared.index();
            let current = self.segment.and_then(|id| index.get(id).cloned());
            match (current, &self.at) {
                (Some(current), None) if current.live > 0 && current.end > self.from => {
                    return Some(current);
                }
                (Some(current), Some(at)) if at.place < current.end => return Some(current),
                (Some(current), _) if current.active => return None,
                _ => {}
            }
            let next = index.next_after(self.segment)?.id;
            drop(index);
            (self.at, self.segment) = (None, Some(next));
        }
    }

    /// Reads one frame, if there is something in it.
    fn read(&mut self, segment: &Segment) -> io::Result<Option<Frame>> {
        let Some(at) = &self.at else {
            return self.open(segment).map(|()| None);
        };
        let header = at.opened.frame_at(at.offset, segment.bytes)?;
        let Some(header) = header.filter(|header| header.first == at.place && !header.marks_end())
        else {
            let found = at.opened.find_frame(at.offset..segment.bytes, at.place)?;
            self.pass_over_damage(segment, found);
            return Ok(None);
        };
        if header.end() <= self.from || self.is_done(&header) {
            self.advance(&header);
            return Ok(None);
        }
        let body = at.opened.body(at.offset, &header)?;
        let content = body.and_then(|body| decode(body.into(), header.records));
        let offset = at.offset;
        self.advance(&header);
        let Some(content) = content else {
            self.lose(
                offset..offset + header.frame_bytes(),
                header.first..header.end(),
                "the body of a frame is damaged",
            );
            return Ok(None);
        };
        Ok(self.frame(&header, content))
    }

    fn open(&mut self, segment: &Segment) -> io::Result<()> {
        let file = self.source.disk.open(&self.path(segment.id))?;
        match Opened::open(file, &self.source.keys) {
            Ok(opened) => {
                self.at = Some(Position {
                    opened,
                    offset: FRAMES_START,
                    place: segment.base,
                });
                Ok(())
            }
            Err(NotOpened::Io(error)) => Err(error),
            Err(other) => Err(io::Error::new(io::ErrorKind::InvalidData, other)),
        }
    }

    fn is_done(&self, header: &Header) -> bool {
        let index = self.source.shared.index();
        index.are_done(header.first..header.end())
    }

    fn advance(&mut self, header: &Header) {
        if let Some(at) = &mut self.at {
            (at.offset, at.place) = (at.offset + header.frame_bytes(), header.end());
        }
    }

    /// Those that are not done with; `None` when there are none.
    fn frame(&self, header: &Header, content: Content) -> Option<Frame> {
        let waiting = self
            .source
            .shared
            .index()
            .waiting(header.first..header.end());
        let mut waiting = waiting.into_iter().flatten().peekable();
        let (mut places, mut records) = (Vec::new(), Vec::new());
        for (place, record) in (header.first..).zip(content.records) {
            if waiting.next_if_eq(&place).is_some() {
                places.push(place);
                records.push(record);
            }
        }
        let Content { stream, reason, .. } = content;
        (!places.is_empty()).then_some(Frame {
            stream,
            reason,
            places,
            records,
        })
    }

    /// Reads on at the next header that was found, or in the next segment.
    fn pass_over_damage(&mut self, segment: &Segment, found: Option<(u64, Header)>) {
        let Some(at) = &mut self.at else { return };
        let damaged_from = (at.offset, at.place);
        let next = found.filter(|(_, header)| header.first < segment.end);
        (at.offset, at.place) = next.map_or((segment.bytes, segment.end), |(offset, header)| {
            (offset, header.first)
        });
        let damaged_to = (at.offset, at.place);
        self.lose(
            damaged_from.0..damaged_to.0,
            damaged_from.1..damaged_to.1,
            "the header of a frame is damaged",
        );
    }

    /// What cannot be read is done with, so that the rest can be delivered.
    fn give_up(&mut self, segment: &Segment, error: &io::Error) {
        match &self.at {
            Some(at) => match at.opened.frame_at(at.offset, segment.bytes) {
                Ok(Some(header)) if header.first == at.place => {
                    let offset = at.offset;
                    self.advance(&header);
                    let why = "the body of a frame cannot be read";
                    self.lose(
                        offset..offset + header.frame_bytes(),
                        header.first..header.end(),
                        why,
                    );
                }
                _ => {
                    let found = at
                        .opened
                        .find_readable_frame(at.offset..segment.bytes, at.place);
                    self.pass_over_damage(segment, found);
                }
            },
            None => {
                tracing::error!(%error, file = %self.path(segment.id).display(), "a segment cannot be read");
                self.retire(segment.base..segment.end);
            }
        }
    }

    /// These records are lost: keeps their bytes and tells of them.
    fn lose(&self, offsets: Range<u64>, places: Range<u64>, what: &str) {
        let Some(Position { opened, .. }) = &self.at else {
            return;
        };
        if places.is_empty() {
            return;
        }
        let bytes = (offsets.end - offsets.start).min(PIECE_BYTES_MAX) as usize;
        let kept = opened.raw(offsets.start, bytes).and_then(|raw| {
            let quarantine = Quarantine::new(&self.source.dir);
            quarantine.keep(&*self.source.disk, &opened.header, offsets.start, &raw)
        });
        let file = self.path(opened.header.id);
        let not_kept = kept.err().map(|error| error.to_string());
        let records = places.end - places.start;
        tracing::error!(file = %file.display(), offset = offsets.start, bytes, records, not_kept, "{what}");
        self.retire(places);
    }

    fn retire(&self, places: Range<u64>) {
        self.source.metrics.frames_damaged(1);
        self.source.retire([places]);
    }

    fn path(&self, id: u64) -> PathBuf {
        self.source.dir.join(segment::file_name(id))
    }
}
