//! The engine of one log: it commits drafts, rolls segments over, keeps the quota and the cursor, and survives its disk.
//!
//! It belongs to the commit thread, and time is an argument: tests drive it over a disk that fails. A draft is answered
//! with its places only once it is synced in a segment that is still in its folder. A run that fails is written once more,
//! at the same places, into a new segment; when that fails too it is refused, and the log is down until a segment can
//! be created again, which is tried after 100 ms, then less and less often, every 5 s at least. The next segment's base
//! makes whatever was left behind in the failed one dead.
//!
//! The cursor is written before a segment is deleted, and every 200 ms while it lags behind. It has its room before the first
//! segment has: a spool that has filled its disk can still say what is done with, and delete it.

mod dropped;
mod room;

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::segment_writer::{Plan, SEGMENT_OVERHEAD_BYTES, Writer, draft_bytes};
use crate::config::WhenFull;
use crate::spool::disk::Disk;
use crate::spool::format::body::Draft;
use crate::spool::format::keys::Keys;
use crate::spool::format::segment::{self, FRAMES_START, RUN_BYTES_MAX};
use crate::spool::store::index::Segment;
use crate::spool::store::ledger::{Shared, State};
use crate::spool::store::reader::Source;
use crate::spool::store::recovery::{OpenError, Recovery, recover};
use crate::telemetry::metrics::SpoolMetrics;
use dropped::Dropped;
use room::CURSOR_RANGES_MAX;

const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(100);
const PROBE_INTERVAL_MAX: Duration = Duration::from_secs(5);

/// Why a draft is not safe.
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

/// What one log may take.
pub(crate) struct LogOptions {
    pub dir: PathBuf,
    pub segment_bytes: u64,
    pub bytes_max: u64,
    pub when_full: WhenFull,
    pub keys: Arc<Keys>,
    pub metrics: SpoolMetrics,
}

pub(crate) struct Engine<D: Disk> {
    disk: Arc<D>,
    options: LogOptions,
    shared: Arc<Shared>,
    active: Option<Writer<D::File>>,
    next: u64,
    next_segment: u64,
    /// Of the cursor that was written last.
    generation: u64,
    cursor_due: Option<Instant>,
    probe_at: Option<Instant>,
    probe_interval: Duration,
    dropped: Dropped,
}

impl<D: Disk> Engine<D> {
    /// Reads what the folder holds. Creates no segment.
    pub(crate) fn open(disk: Arc<D>, options: LogOptions) -> Result<(Self, Recovery), OpenError> {
        let recovered = recover(&*disk, &options.dir, &options.keys)?;
        let recovery = recovered.recovery;
        options.metrics.frames_damaged(recovery.damaged());
        options
            .metrics
            .set_backlog(recovery.bytes, recovery.records);
        let engine = Self {
            disk,
            options,
            shared: Arc::new(Shared::new(recovered.index)),
            active: None,
            next: recovered.next,
            next_segment: recovered.next_segment,
            generation: recovered.generation,
            cursor_due: None,
            probe_at: None,
            probe_interval: PROBE_INTERVAL_MIN,
            dropped: Dropped::default(),
        };
        Ok((engine, recovery))
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// For readers on this thread: nobody has to be nudged.
    pub(crate) fn source(&self) -> Source<D> {
        let LogOptions {
            dir, keys, metrics, ..
        } = &self.options;
        let (disk, shared) = (self.disk.clone(), self.shared.clone());
        let (dir, keys, metrics, nudge) =
            (dir.clone(), keys.clone(), metrics.clone(), Arc::new(|| ()));
        Source {
            disk,
            dir,
            keys,
            shared,
            metrics,
            nudge,
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
        answers
    }

    /// Makes the first drafts safe, or refuses the very first.
    fn commit_run(&mut self, drafts: &[&Draft], now: Instant) -> Result<Vec<Range<u64>>, Refused> {
        self.make_room(draft_bytes(drafts[0]), now)?;
        let run = self.run(drafts);
        let run_bytes = run.iter().map(|draft| draft_bytes(draft)).sum();
        let places = match self.write(run) {
            Ok(places) => places,
            Err(_) => {
                self.open_segment(run_bytes, now)?;
                self.write(run).map_err(|error| self.go_down(&error, now))?
            }
        };
        self.probe_interval = PROBE_INTERVAL_MIN;
        self.shared.set_state(State::Up);
        Ok(places)
    }

    /// The drafts that share one sync: what fits the segment, one at least.
    fn run<'a, 'b>(&self, drafts: &'a [&'b Draft]) -> &'a [&'b Draft] {
        let room_bytes = self
            .active
            .as_ref()
            .map_or(0, Writer::room_bytes)
            .min(RUN_BYTES_MAX);
        let fit = drafts.iter().scan(0, |bytes, draft| {
            *bytes += draft_bytes(draft);
            (*bytes <= room_bytes).then_some(())
        });
        &drafts[..fit.count().max(1)]
    }

    /// Writes a run into the active segment, which is given up when that fails.
    fn write(&mut self, run: &[&Draft]) -> io::Result<Vec<Range<u64>>> {
        let Some(active) = &mut self.active else {
            return Err(io::ErrorKind::NotFound.into());
        };
        match active.write(run, self.next) {
            Ok(places) => {
                self.next = places.last().map_or(self.next, |range| range.end);
                self.shared.index().grow(self.next, active.offset);
                Ok(places)
            }
            Err(error) => {
                self.give_up(&error);
                Err(error)
            }
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        let Some(active) = self.active.take() else {
            return;
        };
        self.options.metrics.disk_failed();
        let (id, offset) = (active.id, active.offset);
        let file = self.options.dir.join(segment::file_name(id));
        tracing::error!(%error, file = %file.display(), offset, "a segment failed: it takes no more records");
        let allocated_bytes = active.give_up(&*self.disk, self.next);
        self.shared.index().finish(allocated_bytes);
    }

    /// Sees to it that the active segment has room for so many bytes.
    fn make_room(&mut self, bytes: u64, now: Instant) -> Result<(), Refused> {
        if bytes + SEGMENT_OVERHEAD_BYTES > self.options.bytes_max {
            return Err(Refused::TooLarge);
        }
        if let State::Down(reason) = self.shared.state() {
            return Err(Refused::Disk(reason));
        }
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.room_bytes() >= bytes)
        {
            return Ok(());
        }
        self.finish_active();
        self.open_segment(bytes, now)
    }

    fn finish_active(&mut self) {
        if let Some(active) = self.active.take() {
            let allocated_bytes = active.finish(self.next);
            self.shared.index().finish(allocated_bytes);
        }
    }

    /// Begins a segment with room for so many bytes of frames.
    fn open_segment(&mut self, bytes: u64, now: Instant) -> Result<(), Refused> {
        let bytes = self
            .options
            .segment_bytes
            .max((bytes + SEGMENT_OVERHEAD_BYTES).next_multiple_of(4096));
        self.keep_quota(bytes, now)?;
        let Self {
            options: LogOptions { dir, keys, .. },
            next_segment: id,
            next: base,
            ..
        } = self;
        let plan = Plan {
            dir,
            keys,
            id: *id,
            base: *base,
            bytes,
        };
        let created = Writer::create(&*self.disk, &plan, CURSOR_RANGES_MAX);
        self.next_segment += 1;
        let active = created.map_err(|error| self.go_down(&error, now))?;
        self.shared.index().add(Segment {
            id: active.id,
            base: self.next,
            end: self.next,
            bytes: FRAMES_START,
            allocated_bytes: bytes,
            live: 0,
            active: true,
        });
        self.active = Some(active);
        Ok(())
    }

    fn go_down(&mut self, error: &io::Error, now: Instant) -> Refused {
        let reason: Arc<str> = error.to_string().into();
        self.options.metrics.disk_failed();
        if !matches!(self.shared.state(), State::Down(_)) {
            tracing::error!(%error, dir = %self.options.dir.display(), "the spool takes no records: its disk fails");
        }
        self.shared.set_state(State::Down(reason.clone()));
        self.probe_at = Some(now + self.probe_interval);
        self.probe_interval = (self.probe_interval * 2).min(PROBE_INTERVAL_MAX);
        Refused::Disk(reason)
    }

    /// What is due: a probe of a disk that failed, the cursor, segments to delete, a word about what was dropped.
    pub(crate) fn tend(&mut self, now: Instant) {
        if self.probe_at.is_some_and(|at| now >= at) {
            self.probe_at = None;
            self.probe(now);
        }
        if self.shared.is_dirty() && self.cursor_due.is_none_or(|due| now >= due) {
            self.write_cursor(now, CURSOR_RANGES_MAX);
        }
        if self.shared.index().has_finished() {
            self.delete_finished(now);
        }
        self.tell_of_dropped(now);
        if self.shared.state() == State::Full && self.has_room(self.options.segment_bytes) {
            self.shared.set_state(State::Up);
        }
        self.options
            .metrics
            .set_up(self.shared.state() == State::Up);
        let index = self.shared.index();
        self.options
            .metrics
            .set_backlog(index.bytes(), index.records());
    }

    /// Creates the next segment if there is none, to see whether the disk takes it.
    pub(crate) fn probe(&mut self, now: Instant) {
        let was_down = matches!(self.shared.state(), State::Down(_));
        if self.active.is_none() && self.open_segment(0, now).is_ok() && was_down {
            tracing::info!(dir = %self.options.dir.display(), "the spool's disk is back");
            self.shared.set_state(State::Up);
        }
    }

    /// When to tend next, though nothing happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        let cursor_due = self.cursor_due.filter(|_| self.shared.is_dirty());
        [self.probe_at, cursor_due, self.dropped.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Leaves the folder as a next start finds it fastest.
    pub(crate) fn close(mut self, now: Instant) {
        self.finish_active();
        self.write_cursor(now, usize::MAX);
        self.delete_finished(now);
    }
}
