//! The engine of one log: it commits drafts, rolls segments over, keeps the quota and the cursor,
//! and survives its disk.
//!
//! It belongs to the commit thread, and time is an argument: tests drive it over a disk that fails.
//! A draft is answered with its places only once it is synced in a segment that is still in its
//! folder. A run that fails is written once more, at the same places, into a new segment; when that
//! fails too it is refused, and the log is down until a segment can be created again, which a
//! [`probe`] tries. The next segment's base makes all frames left behind in the failed one dead.
//!
//! The cursor is written before a segment is deleted, and every 200 ms while it lags behind. Its
//! room is allocated before the first segment: a spool that has filled its disk can still say which
//! records are retired, and delete them.

mod dropped;
mod probe;
mod room;

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::segment_writer::{Plan, SEGMENT_OVERHEAD_BYTES, SegmentWriter, draft_bytes};
use crate::config::WhenFull;
use crate::spool::disk::Disk;
use crate::spool::format::body::Draft;
use crate::spool::format::keys::Keys;
use crate::spool::format::segment::{self, RUN_BYTES_MAX};
use crate::spool::store::index::Segment;
use crate::spool::store::ledger::{Ledger, State};
use crate::spool::store::reader::LogSource;
use crate::spool::store::recovery::{OpenError, Recovery, recover};
use crate::telemetry::metrics::SpoolMetrics;
use dropped::Dropped;
use probe::Probe;
use room::CURSOR_RANGES_MAX;

/// File systems give room in blocks of so many bytes.
const BLOCK_BYTES: u64 = 4096;

/// The reason why a draft is not safe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the spool is full")]
    Full,
    #[error("the batch is larger than the spool")]
    TooLarge,
    #[error("the spool's disk: {0}")]
    Disk(Arc<str>),
    #[error("too much waits for the spool's disk")]
    Busy,
    #[error("the spool is closed")]
    Closed,
}

/// Settings of one log: its folder, and its limits.
pub(crate) struct LogOptions {
    pub dir: PathBuf,
    pub segment_bytes: u64,
    pub bytes_max: u64,
    pub when_full: WhenFull,
    pub keys: Arc<Keys>,
    pub metrics: SpoolMetrics,
}

/// The engine of one log, for the commit thread.
pub(crate) struct Engine<D: Disk> {
    disk: Arc<D>,
    options: LogOptions,
    ledger: Arc<Ledger>,
    active: Option<SegmentWriter<D::File>>,
    /// The next record's place.
    next: u64,
    next_segment: u64,
    /// The generation of the cursor that was written last.
    generation: u64,
    cursor_due: Option<Instant>,
    probe: Probe,
    dropped: Dropped,
    /// Whether the log has been told that it is full.
    told_full: bool,
}

impl<D: Disk> Engine<D> {
    /// Reads the content of the folder. Creates no segment.
    pub(crate) fn open(disk: Arc<D>, options: LogOptions) -> Result<(Self, Recovery), OpenError> {
        let recovered = recover(&*disk, &options.dir, &options.keys)?;
        let recovery = recovered.recovery;
        let metrics = &options.metrics;
        metrics.frames_damaged(recovery.damaged());
        metrics.set_backlog(recovery.bytes, recovery.records);
        let engine = Self {
            disk,
            options,
            ledger: Arc::new(Ledger::new(recovered.index)),
            active: None,
            next: recovered.next,
            next_segment: recovered.next_segment,
            generation: recovered.generation,
            cursor_due: None,
            probe: Probe::new(),
            dropped: Dropped::default(),
            told_full: false,
        };
        Ok((engine, recovery))
    }

    #[cfg(test)]
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Returns the source of readers on this thread: their nudge does nothing.
    pub(crate) fn source(&self) -> LogSource<D> {
        LogSource {
            disk: self.disk.clone(),
            dir: self.options.dir.clone(),
            keys: self.options.keys.clone(),
            ledger: self.ledger.clone(),
            metrics: self.options.metrics.clone(),
            nudge: Arc::new(|| ()),
        }
    }

    /// Makes drafts safe, in their order, and answers each with the places of its records.
    pub(crate) fn commit(
        &mut self,
        drafts: &[&Draft],
        now: Instant,
    ) -> Vec<Result<Range<u64>, Refused>> {
        let mut answers = Vec::with_capacity(drafts.len());
        while answers.len() < drafts.len() {
            match self.commit_run(&drafts[answers.len()..], now) {
                Ok(places) => answers.extend(places.into_iter().map(Ok)),
                Err(refused) => answers.push(Err(refused)),
            }
        }
        debug_assert_eq!(answers.len(), drafts.len(), "a run is of these drafts");
        answers
    }

    /// Makes the first drafts safe, or refuses the very first.
    fn commit_run(&mut self, drafts: &[&Draft], now: Instant) -> Result<Vec<Range<u64>>, Refused> {
        self.make_room(draft_bytes(drafts[0]), now)?;
        let run = self.run(drafts);
        let places = match self.write(run) {
            Ok(places) => places,
            Err(_) => self.write_anew(run, now)?,
        };
        self.probe.note_success();
        self.ledger.set_state(State::Up);
        Ok(places)
    }

    /// Writes a run that failed once more, at the same places, into a new segment.
    fn write_anew(&mut self, run: &[&Draft], now: Instant) -> Result<Vec<Range<u64>>, Refused> {
        debug_assert!(
            self.active.is_none(),
            "the segment that failed was given up"
        );
        let run_bytes = run.iter().map(|draft| draft_bytes(draft)).sum();
        self.open_segment(run_bytes, now)?;
        self.write(run).map_err(|error| self.go_down(&error, now))
    }

    /// Returns the drafts that share one sync: as many as fit the segment, at least one.
    fn run<'a, 'b>(&self, drafts: &'a [&'b Draft]) -> &'a [&'b Draft] {
        let room_bytes = self.room_bytes().min(RUN_BYTES_MAX);
        let mut run_bytes = 0;
        for (count, draft) in drafts.iter().enumerate() {
            run_bytes += draft_bytes(draft);
            if run_bytes > room_bytes {
                return &drafts[..count.max(1)];
            }
        }
        drafts
    }

    /// Returns the number of bytes that the active segment has room for.
    fn room_bytes(&self) -> u64 {
        let active = self.active.as_ref();
        active.map_or(0, SegmentWriter::room_bytes)
    }

    /// Writes a run into the active segment, which is given up when that fails.
    fn write(&mut self, run: &[&Draft]) -> io::Result<Vec<Range<u64>>> {
        let active = self.active.as_mut().expect("there is room for the run");
        match active.write(run, self.next) {
            Ok(places) => {
                debug_assert_eq!(places.len(), run.len());
                self.next = places.last().map_or(self.next, |range| range.end);
                self.ledger.index().grow(self.next, active.offset);
                Ok(places)
            }
            Err(error) => {
                self.give_up(&error);
                Err(error)
            }
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        let active = self.active.take().expect("it was being written");
        self.options.metrics.disk_failed();
        let (id, offset) = (active.id, active.offset);
        let file = self.options.dir.join(segment::file_name(id));
        tracing::error!(%error, file = %file.display(), offset, "a segment failed: it takes no more records");
        let allocated_bytes = active.give_up(&*self.disk, self.next);
        self.ledger.index().finish(allocated_bytes);
    }

    /// Sees to it that the active segment has room for so many bytes.
    fn make_room(&mut self, bytes: u64, now: Instant) -> Result<(), Refused> {
        if bytes + SEGMENT_OVERHEAD_BYTES > self.options.bytes_max {
            return Err(Refused::TooLarge);
        }
        if let State::Down(reason) = self.ledger.state() {
            return Err(Refused::Disk(reason));
        }
        if self.room_bytes() >= bytes {
            return Ok(());
        }
        self.finish_active();
        self.open_segment(bytes, now)
    }

    fn finish_active(&mut self) {
        if let Some(active) = self.active.take() {
            let allocated_bytes = active.finish(self.next);
            self.ledger.index().finish(allocated_bytes);
        }
    }

    /// Begins a segment with room for so many bytes of frames.
    fn open_segment(&mut self, bytes: u64, now: Instant) -> Result<(), Refused> {
        debug_assert!(self.active.is_none(), "one segment at a time");
        let needed_bytes = (bytes + SEGMENT_OVERHEAD_BYTES).next_multiple_of(BLOCK_BYTES);
        let segment_bytes = self.options.segment_bytes.max(needed_bytes);
        self.keep_quota(segment_bytes, now)?;
        let created = self.create_segment(segment_bytes);
        let active = created.map_err(|error| self.go_down(&error, now))?;
        debug_assert!(active.room_bytes() >= bytes);
        let (bytes, allocated_bytes) = (active.offset, active.allocated_bytes);
        let segment = Segment::begun(active.id, self.next, bytes, allocated_bytes);
        self.ledger.index().add(segment);
        self.active = Some(active);
        Ok(())
    }

    /// Creates the next segment's file. A number is used once, whatever becomes of it.
    fn create_segment(&mut self, bytes: u64) -> io::Result<SegmentWriter<D::File>> {
        let id = self.next_segment;
        self.next_segment += 1;
        let plan = Plan {
            dir: &self.options.dir,
            keys: &self.options.keys,
            id,
            base: self.next,
            bytes,
        };
        SegmentWriter::create(&*self.disk, &plan, CURSOR_RANGES_MAX)
    }

    fn go_down(&mut self, error: &io::Error, now: Instant) -> Refused {
        let reason: Arc<str> = error.to_string().into();
        self.options.metrics.disk_failed();
        if !self.is_down() {
            tracing::error!(%error, dir = %self.options.dir.display(), "the spool takes no records: its disk fails");
        }
        self.ledger.set_state(State::Down(reason.clone()));
        self.probe.note_failure(now);
        Refused::Disk(reason)
    }

    fn is_down(&self) -> bool {
        matches!(self.ledger.state(), State::Down(_))
    }

    /// Does the work that is due: a probe of a disk that failed, the cursor, segments to delete, a
    /// line of the log about dropped records.
    pub(crate) fn tend(&mut self, now: Instant) {
        if self.probe.take(now) {
            self.probe(now);
        }
        if self.ledger.is_dirty() && self.cursor_due.is_none_or(|due| now >= due) {
            self.write_cursor(now, CURSOR_RANGES_MAX);
        }
        if self.ledger.index().has_finished() {
            self.delete_finished(now);
        }
        self.tell_of_dropped(now);
        if self.ledger.state() == State::Full && self.has_room(self.options.segment_bytes) {
            self.ledger.set_state(State::Up);
        }
        self.tell_of_fullness();
        self.show();
    }

    /// Brings the metrics up to date.
    fn show(&self) {
        let metrics = &self.options.metrics;
        metrics.set_up(self.ledger.state() == State::Up);
        let index = self.ledger.index();
        metrics.set_backlog(index.bytes(), index.records());
    }

    /// Creates the next segment if there is none, to see whether the disk takes it.
    pub(crate) fn probe(&mut self, now: Instant) {
        let was_down = self.is_down();
        if self.active.is_none() && self.open_segment(0, now).is_ok() && was_down {
            tracing::info!(dir = %self.options.dir.display(), "the spool's disk is back");
            self.ledger.set_state(State::Up);
        }
    }

    /// Returns the time of the next tending if no draft comes before.
    pub(crate) fn due(&self) -> Option<Instant> {
        let cursor_due = self.cursor_due.filter(|_| self.ledger.is_dirty());
        let due = [self.probe.due(), cursor_due, self.dropped.due()];
        due.into_iter().flatten().min()
    }

    /// Leaves the folder as a next start finds it fastest.
    pub(crate) fn close(mut self, now: Instant) {
        self.finish_active();
        self.write_cursor(now, usize::MAX);
        self.delete_finished(now);
    }
}
