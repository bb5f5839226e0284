//! The drain: takes the records on disk to the sink, wave by wave, and is done with those that
//! arrive.
//!
//! Each stream has a position of its own in the spool, a window of records that were read ahead,
//! and a back-off ([`backlogged`], [`Flow`](super::flow::Flow)): a stream that takes nothing holds
//! up no other. A stream may have as many waves in flight as the sink may have batches of it, less
//! those that live records need; a wave is a batch. Where the sink keeps the order of a device
//! within a call ([`Order`]), a wave has several of its records, else its oldest. Records that the
//! sink did not take go again; a record that takes much longer than the rest of its wave holds up
//! its own device only. Records that the sink refuses for good, those whose stream is no longer
//! configured, and those of a stream that has refused everything for [`REFUSAL_MAX`] become dead
//! letters ([`errand`]). While a stream is away no record of it is tried, and the records of a
//! partition that is away are [left](left) on disk until it is back.
//!
//! Bounds: [`WINDOW`] is read ahead of all streams, shared by those that have records, each a frame
//! more at most; as many payload bytes are in flight, and a wave of each stream more.

mod backlogged;
mod errand;
mod intake;
mod left;
mod read_ahead;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::overflow::Spooling;
use super::stragglers::STRAGGLERS_MAX;
use super::window::{Limits, Placed, Turn};
use crate::config::SpoolMode;
use crate::record::{DeviceId, StreamIndex};
use crate::sink::Order;
use crate::spool::Frame;
use backlogged::Backlogged;
use errand::{Answer, Early, Errand, Home};
use read_ahead::{Readers, Stretch, WINDOW};

/// Pause after a failed read of the disk.
const READ_BACK_OFF: Duration = Duration::from_secs(1);

/// Time for which a stream may refuse everything before its records become dead letters. A topic
/// that was deleted by mistake, or a right that was taken away, is back by then.
const REFUSAL_MAX: Duration = Duration::from_secs(3600);

/// Empties the spool. One task has it.
pub(super) struct Drain {
    spooling: Rc<Spooling>,
    /// The configured streams, and others that have records on disk.
    streams: Vec<Backlogged>,
    by_name: HashMap<Arc<str>, usize>,
    /// The stream that is first in line for the next wave, and for reading.
    turn: usize,
    readers: Readers,
    reading: Reading,
    in_flight_bytes: usize,
    tasks: JoinSet<Event>,
    /// The channel for records that come home before the rest of their wave.
    early: (mpsc::Sender<Early>, mpsc::Receiver<Early>),
}

/// Whether records are read ahead now.
enum Reading {
    Idle,
    Busy,
    /// Not before this time, the disk having failed.
    Paused(Instant),
}

/// The end of one of the drain's tasks.
enum Event {
    Home(Home),
    /// A read; `None` if its thread was lost, and the reader with it.
    Read(Option<Box<Stretch>>),
}

impl Drain {
    pub(super) fn new(spooling: Rc<Spooling>) -> Self {
        let mut drain = Self {
            spooling: spooling.clone(),
            streams: Vec::new(),
            by_name: HashMap::new(),
            turn: 0,
            readers: Readers::default(),
            reading: Reading::Idle,
            in_flight_bytes: 0,
            tasks: JoinSet::new(),
            early: mpsc::channel(STRAGGLERS_MAX),
        };
        let from = spooling.backlog().places().start;
        for (index, name) in spooling.outlet().names.iter().enumerate() {
            let index = StreamIndex(index as u16);
            drain.know(Backlogged::new(name.clone(), Some(index), from));
        }
        drain
    }

    /// Runs until the gateway leaves.
    pub(super) async fn run(mut self) {
        let spooling = self.spooling.clone();
        let (outlet, backlog) = (spooling.outlet(), spooling.backlog());
        while !outlet.ending.is_leaving() {
            self.wake();
            self.read_on();
            self.send_waves();
            let due = self.due(Instant::now());
            tokio::select! {
                biased;
                Some(early) = self.early.1.recv() => self.came_home_early(early),
                Some(event) = self.tasks.join_next() => self.take(event),
                () = backlog.changed() => {}
                () = outlet.watch.sink_changed() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                () = outlet.ending.left() => {}
            }
        }
        while let Some(event) = self.tasks.join_next().await {
            self.take(event);
        }
        debug_assert_eq!(self.in_flight_bytes, 0, "all waves are home");
    }

    /// Lets those go on whose record is in doubt no longer, or could not be set aside a while ago.
    fn wake(&mut self) {
        let (cleared, now) = (self.spooling.backlog().cleared(), Instant::now());
        for stream in &mut self.streams {
            if let Some(places) = cleared.clone() {
                stream.flow.wake(places);
            }
            stream.look_at_partitions(&self.spooling.outlet().watch);
            stream.try_postponed(now);
        }
    }

    fn due(&self, now: Instant) -> Option<Instant> {
        let reads_at = match self.reading {
            Reading::Paused(until) => Some(until),
            Reading::Idle | Reading::Busy => None,
        };
        let due = self.streams.iter().filter_map(|stream| stream.due(now));
        due.chain(reads_at).min()
    }

    fn take(&mut self, event: Result<Event, JoinError>) {
        // A panic of the sink is caught there; any other one is this task's own.
        match event.expect("a wave comes home") {
            Event::Home(home) => self.came_home(home),
            Event::Read(Some(stretch)) => self.take_in(*stretch),
            Event::Read(None) => self.reading = Reading::Paused(Instant::now() + READ_BACK_OFF),
        }
    }

    /// Returns the index of a frame's stream. A stream that is not configured is added with the
    /// place of its first record.
    fn index_of(&mut self, frame: &Frame) -> usize {
        if let Some(at) = self.by_name.get(&frame.stream) {
            return *at;
        }
        let first = *frame.places.first().expect("a frame has a record");
        self.know(Backlogged::new(frame.stream.clone(), None, first))
    }

    fn know(&mut self, stream: Backlogged) -> usize {
        let at = self.streams.len();
        let before = self.by_name.insert(stream.stream.clone(), at);
        debug_assert!(before.is_none(), "a stream is known once");
        self.streams.push(stream);
        at
    }

    /// Sends the waves that may go. Streams take turns.
    fn send_waves(&mut self) {
        let (mut at, mut idle) = (self.turn, 0);
        while idle < self.streams.len() {
            at = (at + 1) % self.streams.len();
            idle = if self.send_wave(at) { 0 } else { idle + 1 };
        }
    }

    fn send_wave(&mut self, at: usize) -> bool {
        let Some(limits) = self.limits(at) else {
            return false;
        };
        let (spooling, now) = (self.spooling.clone(), Instant::now());
        let backlog = spooling.backlog();
        let index = self.streams[at].index;
        let turn = |placed: &Placed| turn(&spooling, index, placed);
        let stream = &mut self.streams[at];
        let Some(wave) = stream.flow.next_wave(limits, now, turn) else {
            return false;
        };
        stream.waves_out += 1;
        self.in_flight_bytes += wave.payload_bytes();
        let sent = wave.records.iter().map(Placed::place_and_device);
        backlog.sent(&stream.stream, sent);
        let errand = Errand {
            at,
            stream: stream.stream.clone(),
            index: stream.index,
            wave,
            gives_way: stream.refusal.lasts(now) >= REFUSAL_MAX,
        };
        let early = self.early.0.clone();
        self.tasks
            .spawn_local(async move { Event::Home(errand.run(spooling.clone(), early).await) });
        true
    }

    /// Returns the limits of a stream's next wave; `None` if there may be none now.
    fn limits(&self, at: usize) -> Option<Limits> {
        let (stream, outlet) = (&self.streams[at], self.spooling.outlet());
        let in_flight = stream.flow.in_flight();
        let Some(index) = stream.index else {
            // It goes to the dead letters.
            return (in_flight == 0).then_some(Limits::new(outlet.options.batch, usize::MAX));
        };
        let waves_free = self.waves_max().saturating_sub(in_flight);
        let has_room = waves_free > 0 && outlet.has_room(index) && self.has_bytes();
        if !outlet.watch.answers(index) || (stream.waves_out > 0 && !has_room) {
            return None;
        }
        let run_max = match outlet.sink.keeps_order() {
            Order::OneByOne => 1,
            Order::WithinCall => self.fair_run(at, waves_free.max(1)),
        };
        Some(Limits::new(outlet.options.batch, run_max))
    }

    /// Returns the number of waves that a stream may have in flight. In overflow mode live records
    /// need the other half.
    fn waves_max(&self) -> usize {
        let batches_max = self.spooling.outlet().options.stream_batches_max;
        match self.spooling.backlog().mode() {
            SpoolMode::Always => batches_max,
            SpoolMode::Overflow => batches_max.div_ceil(2),
        }
    }

    fn has_bytes(&self) -> bool {
        self.in_flight_bytes < WINDOW.bytes
    }

    /// Returns so many records of a device that all devices which may send share the free waves.
    fn fair_run(&self, at: usize, waves_free: usize) -> usize {
        let records_max = self.spooling.outlet().options.batch.records_max;
        let devices = self.streams[at].flow.ready_devices().max(1);
        (records_max.saturating_mul(waves_free) / devices).clamp(1, records_max)
    }

    /// Lets the devices go on whose records have arrived before the rest of their wave.
    fn came_home_early(&mut self, early: Early) {
        let stream = &mut self.streams[early.at];
        debug_assert!(self.in_flight_bytes >= early.payload_bytes && stream.waves_out > 0);
        self.in_flight_bytes -= early.payload_bytes;
        if let Some(standing) = early.left {
            stream.flow.left(standing);
        }
        stream.flow.put_back(early.devices, Vec::new());
    }

    fn came_home(&mut self, home: Home) {
        // Parts that came home before it come first.
        while let Ok(early) = self.early.1.try_recv() {
            self.came_home_early(early);
        }
        let (spooling, stream) = (&self.spooling, &mut self.streams[home.at]);
        let now = Instant::now();
        debug_assert!(self.in_flight_bytes >= home.payload_bytes && stream.waves_out > 0);
        self.in_flight_bytes -= home.payload_bytes;
        stream.waves_out -= 1;
        match home.answer {
            Answer::Barred => stream.refusal.confirm(now),
            Answer::Open | Answer::Silent => stream.refusal.end(),
        }
        if home.has_place {
            stream.flow.left(home.standing);
        }
        stream.flow.fared(home.standing, home.fared, now);
        let failed = home.again.iter().chain(&home.postponed);
        let failed = failed.map(|placed| &placed.record.device);
        spooling.backlog().came_back(&stream.stream, failed);
        let index = stream.index;
        let is_away = |device: &DeviceId| is_away(spooling, index, device);
        stream.put_back(home.devices, home.again, is_away);
        stream.postpone(home.postponed, now);
    }
}

/// Returns the turn of a stream's record: to go, to wait, or to be forgotten.
fn turn(spooling: &Spooling, stream: Option<StreamIndex>, placed: &Placed) -> Turn {
    let backlog = spooling.backlog();
    if backlog.is_done(placed.place) {
        Turn::Forget
    } else if backlog.is_in_doubt(placed.place) || is_away(spooling, stream, &placed.record.device)
    {
        Turn::Wait
    } else {
        Turn::Go
    }
}

/// Whether the device's records of the stream go to a partition that is away.
fn is_away(spooling: &Spooling, stream: Option<StreamIndex>, device: &DeviceId) -> bool {
    let watch = &spooling.outlet().watch;
    stream.is_some_and(|stream| watch.is_partition_away(stream, device))
}
