//! Takes what is on disk to the sink, wave by wave, and is done with what arrived.
//!
//! Each stream has one wave in flight at a time, of no more than a batch: live records are hardly held up by it. What the sink
//! did not take goes again; a stream that takes nothing is held back, and others go on. What the sink refuses for good, what
//! has no stream any more, and what a stream has refused as a whole for [`REFUSAL_MAX`] goes to the dead letters. While the
//! sink is away nothing is tried.
//!
//! Records are read ahead, a bounded number of them. Those of a stream that is held back for long are passed over while
//! reading, so that others are found; when it takes records again, reading begins anew with the oldest.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use super::Delivery;
use super::backlog::Backlog;
use super::holds::Holds;
use super::read_ahead::{Ended, WINDOW_BYTES, WINDOW_RECORDS, read_frames};
use super::window::{Entry, Limits, Turn, Wave, Window};
use crate::record::{DeviceId, Outcome, Outcomes, Reason, Record};
use crate::spool::{Frame, Reader, RealDisk};

/// How long the disk is left alone that could not be read.
const READ_BACK_OFF: Duration = Duration::from_secs(1);

/// A topic that was deleted by mistake, or a right that was taken away, is back by then.
const REFUSAL_MAX: Duration = Duration::from_secs(3600);

/// When to try again what could not be set aside.
const BURIAL_INTERVAL: Duration = Duration::from_secs(60);

/// Of one device, so that its order holds whatever the sink refuses.
const RUN_MAX: usize = 1;

/// What has been read and not sent, and where to read on.
#[derive(Default)]
struct Ahead {
    window: Window,
    reader: Option<Reader<RealDisk>>,
    holds: Holds,
    /// Streams that have a wave in flight.
    travelling: HashSet<Arc<str>>,
    /// Streams that have records on disk that were read and not kept.
    passed_over: HashSet<Arc<str>>,
    /// Reading is to begin anew with the oldest record, once no wave is in flight.
    rewinds: bool,
    /// Not before this time, the disk having failed.
    read_at: Option<Instant>,
    unburied: Unburied,
}

/// Records that were refused and could not be set aside. Their devices wait.
#[derive(Default)]
struct Unburied {
    entries: Vec<(Arc<str>, Entry)>,
    try_at: Option<Instant>,
}

/// A wave that has come home.
struct Answered {
    stream: Arc<str>,
    devices: Vec<DeviceId>,
    entries: Vec<Entry>,
    outcomes: Outcomes,
}

impl Delivery {
    /// Runs until the gateway leaves.
    pub(super) async fn drain(self: Rc<Self>) {
        let Some(backlog) = &self.backlog else { return };
        let (mut ahead, mut waves) = (Ahead::default(), JoinSet::new());
        while !self.watch.is_leaving() {
            if ahead.rewinds && waves.is_empty() {
                ahead.rewind();
            }
            self.read_on(backlog, &mut ahead).await;
            ahead.wake(backlog);
            self.pass_over_away(&mut ahead);
            while let Some(wave) = self.next_wave(backlog, &mut ahead) {
                waves.spawn_local(self.clone().send(wave));
            }
            let due = ahead.due(Instant::now());
            tokio::select! {
                Some(answered) = waves.join_next() => self.came_home(backlog, &mut ahead, answered).await,
                () = backlog.changed() => {}
                () = self.watch.sink_changed() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                () = self.watch.left() => {}
            }
        }
        while let Some(answered) = waves.join_next().await {
            self.came_home(backlog, &mut ahead, answered).await;
        }
    }

    /// Streams that are away keep one record each here while another one is there, so that its records are found.
    fn pass_over_away(&self, ahead: &mut Ahead) {
        if !self.names.iter().any(|stream| self.may_try(stream)) {
            return;
        }
        for stream in &self.names {
            if !self.may_try(stream) {
                ahead.pass_over(stream);
            }
        }
    }

    fn next_wave(&self, backlog: &Backlog, ahead: &mut Ahead) -> Option<Wave> {
        if ahead.rewinds {
            return None;
        }
        let now = Instant::now();
        let Ahead {
            window,
            holds,
            travelling,
            ..
        } = ahead;
        let may = |stream: &str| {
            !travelling.contains(stream) && !holds.holds(stream, now) && self.may_try(stream)
        };
        let turn = |place| match backlog.is_done(place) {
            true => Turn::Forget,
            false if backlog.is_in_doubt(place) => Turn::Wait,
            false => Turn::Go,
        };
        let limits = Limits::new(self.options.batch, RUN_MAX);
        let wave = window.take_wave(limits, may, turn)?;
        travelling.insert(wave.stream.clone());
        Some(wave)
    }

    async fn send(self: Rc<Self>, wave: Wave) -> Answered {
        let entries = wave.entries.into_iter();
        let (places, records): (Vec<u64>, Vec<Record>) =
            entries.map(|entry| (entry.place, entry.record)).unzip();
        let outcomes = match self.index_of(&wave.stream) {
            Some(stream) => self.ask_sink(stream, &records).await,
            None => Outcomes::All(Outcome::Permanent(
                "the stream is not among FOREBAY_STREAMS".into(),
            )),
        };
        let entries = places.into_iter().zip(records);
        Answered {
            stream: wave.stream,
            devices: wave.devices,
            entries: entries
                .map(|(place, record)| Entry { place, record })
                .collect(),
            outcomes,
        }
    }

    async fn came_home(
        &self,
        backlog: &Backlog,
        ahead: &mut Ahead,
        answered: Result<Answered, JoinError>,
    ) {
        let Ok(answered) = answered else {
            // The wave is lost, not its records. Its stream is not known any more.
            (self.alarm)("a delivery from the spool");
            ahead.travelling.clear();
            ahead.rewinds = true;
            return;
        };
        let Answered {
            stream,
            devices,
            entries,
            outcomes,
        } = answered;
        ahead.travelling.remove(&stream);
        let mut sorted = Sorted::default();
        for (index, entry) in entries.into_iter().enumerate() {
            sorted.add(entry, outcomes.get(index));
        }
        self.give_up_barred(&stream, ahead, &mut sorted);
        let mut unburied = Vec::new();
        for (reason, entries) in mem::take(&mut sorted.refused) {
            let records = entries.iter().map(|entry| &entry.record);
            match backlog.bury(&stream, &reason, records).await {
                Ok(()) => sorted.done.extend(entries),
                Err(_) => unburied.extend(entries),
            }
        }
        let done = sorted.done.iter();
        backlog.retire(done.map(|entry| (entry.place, &entry.record.device)));
        backlog.release_done();
        ahead.come_home(&stream, devices, sorted.again, unburied);
        if self.names.len() > 1 {
            ahead.pass_over_if_stalled(&stream);
        }
    }

    /// Holds the stream back if it took nothing. What it has refused as a whole for long is refused for good.
    fn give_up_barred(&self, stream: &Arc<str>, ahead: &mut Ahead, sorted: &mut Sorted) {
        let (holds, now) = (&mut ahead.holds, Instant::now());
        let barred = mem::take(&mut sorted.barred);
        if !sorted.done.is_empty() {
            holds.passed(stream);
        } else if barred.is_empty() {
            if !sorted.again.is_empty() && sorted.refused.is_empty() {
                holds.failed(stream, now);
            }
        } else if holds.refused(stream, now) >= REFUSAL_MAX {
            holds.gave_way(stream, now);
            for (reason, entry) in barred {
                sorted.refused.entry(reason).or_default().push(entry);
            }
            return;
        }
        sorted
            .again
            .extend(barred.into_iter().map(|(_, entry)| entry));
    }

    /// Reads on where half of the window is empty.
    async fn read_on(&self, backlog: &Backlog, ahead: &mut Ahead) {
        let now = Instant::now();
        ahead.read_at.take_if(|at| *at <= now);
        if ahead.read_at.is_some() || ahead.rewinds || !ahead.has_room() {
            return;
        }
        let mut reader = ahead.reader.take().unwrap_or_else(|| backlog.reader());
        // On a thread that may wait for the disk.
        let read = spawn_blocking(move || {
            let read = read_frames(&mut reader);
            (reader, read)
        });
        let Ok((reader, read)) = read.await else {
            // The reader is lost with what it knew.
            ahead.rewinds = true;
            ahead.read_at = Some(now + READ_BACK_OFF);
            return;
        };
        ahead.reader = Some(reader);
        for frame in read.frames {
            let places = frame.places.iter().copied();
            backlog.found(places.zip(frame.records.iter().map(|record| &record.device)));
            ahead.add(frame);
        }
        match read.ended {
            Ended::All => backlog.found_all(),
            Ended::Enough => {}
            Ended::Failed(error) => {
                tracing::warn!(%error, "the spool cannot be read: trying again");
                ahead.read_at = Some(now + READ_BACK_OFF);
            }
        }
    }
}

/// What became of a wave.
#[derive(Default)]
struct Sorted {
    done: Vec<Entry>,
    again: Vec<Entry>,
    refused: BTreeMap<Reason, Vec<Entry>>,
    barred: Vec<(Reason, Entry)>,
}

impl Sorted {
    fn add(&mut self, entry: Entry, outcome: &Outcome) {
        match outcome {
            Outcome::Delivered => self.done.push(entry),
            Outcome::Retryable(_) | Outcome::Unknown => self.again.push(entry),
            Outcome::Barred(reason) => self.barred.push((reason.clone(), entry)),
            Outcome::Permanent(reason) => {
                self.refused.entry(reason.clone()).or_default().push(entry);
            }
        }
    }
}

impl Ahead {
    fn has_room(&self) -> bool {
        let records = self.window.records() + self.unburied.entries.len();
        records <= WINDOW_RECORDS / 2 && self.window.bytes() <= WINDOW_BYTES / 2
    }

    fn add(&mut self, frame: Frame) {
        if self.passed_over.contains(&frame.stream) {
            return;
        }
        if self.holds.is_stalled(&frame.stream) && self.window.has(&frame.stream) {
            self.passed_over.insert(frame.stream);
            return;
        }
        self.window.add(frame);
    }

    /// Lets those go on whose record is in doubt no longer, and tries again to set aside what could not be.
    fn wake(&mut self, backlog: &Backlog) {
        // What was kept of a stream may have been dropped to make room.
        let mut passed_over = self.passed_over.iter();
        self.rewinds |= passed_over.any(|stream| !self.window.has(stream));
        if let Some(places) = backlog.cleared() {
            self.window.wake(places);
        }
        let now = Instant::now();
        if self.unburied.try_at.take_if(|at| *at <= now).is_some() {
            for (stream, entry) in mem::take(&mut self.unburied.entries) {
                let devices = vec![entry.record.device.clone()];
                self.window.come_home(&stream, devices, vec![entry]);
            }
        }
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        let due = [self.holds.due(now), self.read_at, self.unburied.try_at];
        due.into_iter().flatten().min()
    }

    fn come_home(
        &mut self,
        stream: &Arc<str>,
        mut devices: Vec<DeviceId>,
        again: Vec<Entry>,
        unburied: Vec<Entry>,
    ) {
        if !unburied.is_empty() {
            let try_at = Instant::now() + BURIAL_INTERVAL;
            self.unburied.try_at.get_or_insert(try_at);
        }
        for entry in unburied {
            devices.retain(|device| *device != entry.record.device);
            self.unburied.entries.push((stream.clone(), entry));
        }
        self.window.come_home(stream, devices, again);
        // What was passed over is wanted when its stream goes on, or has nothing else here.
        let is_wanted = !self.holds.is_stalled(stream) || !self.window.has(stream);
        self.rewinds |= is_wanted && self.passed_over.contains(stream);
    }

    fn pass_over_if_stalled(&mut self, stream: &Arc<str>) {
        if self.holds.is_stalled(stream) {
            self.pass_over(stream);
        }
    }

    /// Keeps one record of the stream, to try it with.
    fn pass_over(&mut self, stream: &Arc<str>) {
        if self.window.keep_oldest(stream, 1) {
            self.passed_over.insert(stream.clone());
        }
    }

    fn rewind(&mut self) {
        self.window = Window::default();
        self.unburied = Unburied::default();
        self.passed_over.clear();
        self.reader = None;
        self.rewinds = false;
    }
}
