//! The watch over the sink's streams: is each there, is it silent, does it take records, and can
//! they be made safe?
//!
//! Delivery tells it of every batch and asks the sink for the streams that are
//! [due](Watch::wait_until_due): at once where records fail or stop coming back, every second while
//! a stream is away, never more often. The answers of the streams, the outcomes of their records
//! and the state of the spool make the gateway's [`Health`].

mod news;
mod partitions;
mod stream;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::backlog::Backlog;
use crate::config::{SpoolMode, StreamConfig};
use crate::health::Health;
use crate::record::{DeviceId, Outcomes, StreamIndex};
use crate::sink::{Partitions, SinkError};
use crate::telemetry::metrics::Metrics;
use news::{News, Told, tell};
use partitions::StreamPartitions;
pub(crate) use partitions::silent_after;
use stream::{End, PROBE_INTERVAL, Stream, Trouble};

/// Keeps watch over all streams of the sink. Delivery's thread has one.
pub(crate) struct Watch {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    streams: RefCell<Vec<Watched>>,
    in_flight: Cell<usize>,
    /// The spool, if there is one: records are safe there as well.
    backlog: Option<Rc<Backlog>>,
    /// The reason why the spool takes nothing, as it was last looked at.
    spool_trouble: RefCell<Option<String>>,
    doubt: Notify,
    sink_changed: Notify,
}

/// One stream, and the trouble of it that was logged.
struct Watched {
    name: String,
    stream: Stream,
    partitions: StreamPartitions,
    /// The trouble that was logged last.
    told: Told,
}

impl Watch {
    pub(crate) fn new(
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        streams: &[StreamConfig],
        backlog: Option<Rc<Backlog>>,
    ) -> Self {
        let now = Instant::now();
        let watched = |config: &StreamConfig| Watched {
            name: config.name.clone(),
            stream: Stream::new(now),
            partitions: StreamPartitions::default(),
            told: Told::Up,
        };
        Self {
            health,
            metrics,
            streams: RefCell::new(streams.iter().map(watched).collect()),
            in_flight: Cell::new(0),
            backlog,
            spool_trouble: RefCell::new(None),
            doubt: Notify::new(),
            sink_changed: Notify::new(),
        }
    }

    /// Returns every stream's index.
    pub(crate) fn all(&self) -> Vec<StreamIndex> {
        indexes(self.streams.borrow().len()).collect()
    }

    /// Notes that a batch goes to the sink. Returns the time.
    pub(crate) fn batch_started(&self, stream: StreamIndex) -> Instant {
        let now = Instant::now();
        self.set_in_flight(self.in_flight.get() + 1);
        self.streams.borrow_mut()[stream.get()]
            .stream
            .batch_started(now);
        now
    }

    /// Notes that a batch takes up no place of its stream any more: it has ended, or straggles.
    pub(crate) fn batch_left(&self, stream: StreamIndex) {
        let watched = &mut self.streams.borrow_mut()[stream.get()];
        watched.stream.batch_left();
    }

    /// Notes that a batch takes much longer than others of its stream.
    pub(crate) fn batch_straggles(&self, stream: StreamIndex) {
        self.batch_left(stream);
        self.streams.borrow_mut()[stream.get()].stream.doubt();
        self.doubt.notify_one();
    }

    /// Records of these devices owe their answers, while others of the stream have theirs.
    pub(crate) fn devices_straggle<'a>(
        &self,
        stream: StreamIndex,
        devices: impl Iterator<Item = &'a DeviceId>,
    ) {
        let now = Instant::now();
        let watched = &mut self.streams.borrow_mut()[stream.get()];
        watched.partitions.straggle(devices, now);
        self.review_partitions(stream, watched, now);
    }

    /// Notes the stream's partitions, as the sink reports them.
    pub(crate) fn partitions_found(&self, stream: StreamIndex, found: Option<Partitions>) {
        let watched = &mut self.streams.borrow_mut()[stream.get()];
        if let Some(found) = &found {
            self.health.set_partitions(stream, found.spread.apart());
        }
        watched.partitions.found(found);
        self.review_partitions(stream, watched, Instant::now());
    }

    /// Tells of partitions that have gone or are back.
    fn review_partitions(&self, stream: StreamIndex, watched: &mut Watched, now: Instant) {
        if watched.partitions.review(now) {
            let (spread, away) = watched.partitions.away();
            self.health.set_partitions_away(stream, spread, away);
            self.metrics.set_partitions_away(stream, away.len());
            self.sink_changed.notify_waiters();
        }
        watched.partitions.log_news(&watched.name, now);
    }

    /// Returns how many times the set of the stream's partitions that are away has changed.
    pub(crate) fn partition_moves(&self, stream: StreamIndex) -> u64 {
        self.streams.borrow()[stream.get()].partitions.moves()
    }

    /// Whether partitions of the stream are away.
    pub(crate) fn any_partition_away(&self, stream: StreamIndex) -> bool {
        let streams = self.streams.borrow();
        streams[stream.get()].partitions.any_away()
    }

    /// Whether the device's records of the stream go to a partition that is away.
    pub(crate) fn is_partition_away(&self, stream: StreamIndex, device: &DeviceId) -> bool {
        let streams = self.streams.borrow();
        streams[stream.get()].partitions.has_away(device)
    }

    /// Notes that some records of a batch have arrived, and others have not.
    pub(crate) fn batch_progressed(&self, stream: StreamIndex) {
        let watched = &mut self.streams.borrow_mut()[stream.get()];
        watched.stream.progressed(Instant::now());
    }

    /// Whether records of the stream have arrived since then.
    pub(crate) fn has_taken_since(&self, stream: StreamIndex, since: Instant) -> bool {
        let streams = self.streams.borrow();
        streams[stream.get()].stream.has_taken_since(since)
    }

    /// Notes the outcomes of a batch of so many records.
    pub(crate) fn batch_finished(&self, stream: StreamIndex, outcomes: &Outcomes, records: usize) {
        debug_assert!(self.in_flight.get() > 0, "a batch ends once");
        self.set_in_flight(self.in_flight.get() - 1);
        let end = End::of(outcomes, records);
        let is_taken = end == End::Taken;
        let was_well = self.takes(stream);
        self.streams.borrow_mut()[stream.get()]
            .stream
            .batch_finished(end, Instant::now());
        if !is_taken {
            self.doubt.notify_one();
        }
        if !(was_well && is_taken) {
            self.review([stream].into_iter());
        }
    }

    fn set_in_flight(&self, in_flight: usize) {
        self.in_flight.set(in_flight);
        self.metrics.set_in_flight_batches(in_flight);
    }

    /// Batches of the stream that the sink has and has not answered.
    pub(crate) fn in_flight(&self, stream: StreamIndex) -> usize {
        self.streams.borrow()[stream.get()].stream.in_flight()
    }

    /// Counts the batches that streams have in flight, each beyond so many.
    pub(crate) fn in_flight_beyond(&self, own_max: usize) -> usize {
        let streams = self.streams.borrow();
        let beyond = |watched: &Watched| watched.stream.in_flight().saturating_sub(own_max);
        streams.iter().map(beyond).sum()
    }

    /// Returns the time for which the stream has owed an answer without giving any.
    pub(crate) fn owes_for(&self, stream: StreamIndex) -> Duration {
        let streams = self.streams.borrow();
        streams[stream.get()].stream.owes_for(Instant::now())
    }

    /// Returns when it is time to ask for some streams, with those. Offers trials meanwhile, and
    /// has `look` called every second.
    pub(crate) async fn wait_until_due(
        &self,
        idle_interval: Option<Duration>,
        look: impl Fn(),
    ) -> Vec<StreamIndex> {
        loop {
            look();
            self.offer_trials();
            let due = self.due(idle_interval);
            if !due.is_empty() {
                return due;
            }
            tokio::select! {
                biased;
                // A doubt soon after an answer waits: a stream is not asked more often.
                () = self.doubt.notified() => if self.due(idle_interval).is_empty() {
                    sleep(PROBE_INTERVAL).await;
                },
                () = sleep(PROBE_INTERVAL) => {}
            }
        }
    }

    fn due(&self, idle_interval: Option<Duration>) -> Vec<StreamIndex> {
        let now = Instant::now();
        let streams = self.streams.borrow();
        let is_due = |index: &StreamIndex| streams[index.get()].is_due(idle_interval, now);
        indexes(streams.len()).filter(is_due).collect()
    }

    fn offer_trials(&self) {
        let now = Instant::now();
        let mut trials = self.all();
        trials.retain(|index| {
            self.streams.borrow_mut()[index.get()]
                .stream
                .offer_trial(now)
        });
        self.review(self.all().into_iter());
        for (index, watched) in self.streams.borrow_mut().iter_mut().enumerate() {
            self.review_partitions(StreamIndex(index as u16), watched, now);
        }
        for index in trials {
            self.health.offer_trial(index);
        }
    }

    /// Whether the sink takes the stream's records, by the last answers and outcomes.
    pub(crate) fn takes(&self, stream: StreamIndex) -> bool {
        self.streams.borrow()[stream.get()]
            .stream
            .trouble()
            .is_none()
    }

    /// Whether a batch of the stream may go to the sink, be it as a trial.
    pub(crate) fn takes_batch(&self, stream: StreamIndex) -> bool {
        self.streams.borrow_mut()[stream.get()].stream.takes_batch()
    }

    /// Whether it is worth a try to deliver the stream's backlog.
    pub(crate) fn answers(&self, stream: StreamIndex) -> bool {
        self.streams.borrow()[stream.get()].stream.answers()
    }

    /// Notes the sink's answers for these streams.
    pub(crate) fn answered(
        &self,
        asked: &[StreamIndex],
        asked_at: Instant,
        answers: &[Result<(), SinkError>],
    ) {
        debug_assert_eq!(asked.len(), answers.len(), "one answer for each stream");
        let now = Instant::now();
        for (index, answer) in asked.iter().zip(answers) {
            let stream = &mut self.streams.borrow_mut()[index.get()].stream;
            if stream.is_news(asked_at) {
                stream.answered(answer, now);
            }
        }
        self.review(asked.iter().copied());
        self.sink_changed.notify_waiters();
    }

    /// Brings the health up to date; called when the spool's state may have changed.
    pub(crate) fn update_health(&self) {
        let trouble = self.backlog_trouble();
        if *self.spool_trouble.borrow() != trouble {
            self.review(self.all().into_iter());
        }
    }

    /// Brings the health of these streams up to date, and logs changes.
    fn review(&self, streams: impl Iterator<Item = StreamIndex>) {
        *self.spool_trouble.borrow_mut() = self.backlog_trouble();
        let mut news = News::new();
        for index in streams {
            let watched = &mut self.streams.borrow_mut()[index.get()];
            self.set_health(index, watched.stream.trouble());
            watched.note_news(&mut news);
        }
        if !news.is_empty() {
            tell(&news, self.backlog.is_some());
            self.sink_changed.notify_waiters();
        }
    }

    /// Returns the reason why the spool takes nothing now; `None` if it does, or there is none.
    fn backlog_trouble(&self) -> Option<String> {
        self.backlog.as_ref().and_then(|backlog| backlog.trouble())
    }

    fn set_health(&self, index: StreamIndex, trouble: Option<Trouble<'_>>) {
        self.metrics.set_sink_up(index, trouble.is_none());
        let of_sink = trouble.map(Trouble::reason);
        let of_spool = self.spool_trouble.borrow().clone();
        let mode = self.backlog.as_ref().map(|backlog| backlog.mode());
        let is_up = match mode {
            None => of_sink.is_none(),
            Some(SpoolMode::Always) => of_spool.is_none(),
            Some(SpoolMode::Overflow) => of_sink.is_none() || of_spool.is_none(),
        };
        if is_up {
            return self.health.set_up(index, of_sink);
        }
        let reasons: Vec<String> = of_sink.into_iter().chain(of_spool).collect();
        self.health.set_down(index, reasons.join("; "));
    }

    /// Returns when a stream has been asked, or is another than it was.
    pub(crate) async fn sink_changed(&self) {
        self.sink_changed.notified().await;
    }
}

impl Watched {
    /// Whether it is time to ask the sink for the stream: soon where partitions of it are away,
    /// unless the sink knows of them without being asked.
    fn is_due(&self, idle_interval: Option<Duration>, now: Instant) -> bool {
        let interval = match self.partitions.any_away() {
            true => idle_interval.map(|_| PROBE_INTERVAL),
            false => idle_interval,
        };
        self.stream.is_due(interval, now)
    }

    /// Adds this stream's change to the news. A reason in other words is none.
    fn note_news(&mut self, news: &mut News) {
        let trouble = self.stream.trouble();
        let told = match trouble {
            None => Told::Up,
            Some(Trouble::Unasked) => return,
            Some(Trouble::Away(_)) => Told::Away,
            Some(Trouble::Unfit(_)) => Told::Unfit,
            Some(Trouble::Refusing(_)) => Told::Refusing,
        };
        if told == self.told {
            return;
        }
        self.told = told;
        let reason = trouble.map_or_else(String::new, Trouble::reason);
        let same = |(known, why, _): &&mut (Told, String, _)| *known == told && *why == reason;
        match news.iter_mut().find(same) {
            Some((.., names)) => names.push(self.name.clone()),
            None => news.push((told, reason, vec![self.name.clone()])),
        }
    }
}

fn indexes(streams: usize) -> impl Iterator<Item = StreamIndex> {
    (0..streams).map(|index| StreamIndex(index as u16))
}
