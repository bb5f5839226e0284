//! The batcher of one worker: a lane for each stream, and the requests that wait for their acks.
//!
//! Ingest pushes a record and waits for its outcome. A lane gathers records and seals a batch when
//! it is full, when its oldest record has waited as long as its company is worth ([`company`]), or,
//! if it is worth nothing and the lane has nothing in flight, as soon as the worker is idle
//! ([`IdleSignal`]): a quiet gateway adds no wait, and a busy one's records travel together. Sealed
//! batches cross to delivery and come back settled; then the worker wakes its own requests.
//!
//! Only the lanes that have something to do are looked at ([`agenda`]), however many there are.
//!
//! Nothing here is shared between threads but the two hand-over queues. The lanes have as many
//! batches in flight as their [`credit`] lets them, and both queues have room for all of them, so a
//! push never fails; records that a lane cannot send wait in it, within the memory budget that
//! admission keeps.

pub(crate) mod accumulator;
mod agenda;
mod company;
mod credit;
pub(crate) mod idle;
mod lane;
pub(crate) mod spares;
pub(crate) mod waiters;

use std::cell::{Cell, RefCell};
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::config::{AckConfig, AckMode, BatchConfig};
use crate::handover::{Receiver, Sender};
use crate::health::Health;
use crate::record::{AckSlot, Batch, Outcome, Record, Settled, StreamIndex};
use crate::telemetry::metrics::WorkerMetrics;
use crate::words::SealReason;
use accumulator::Sealed;
use agenda::Agenda;
use credit::SharedCredit;
pub use credit::in_flight_batches_max;
pub(crate) use credit::{OWN_BATCHES_MAX, SHARED_BATCHES_MAX};
use idle::IdleSignal;
use lane::Lane;
use spares::{Buffers, Spares};
use waiters::Waiters;

/// Requests past their ack time-out are looked for this many times within one time-out.
const EXPIRY_CHECKS_PER_TIMEOUT: u32 = 20;

const _: () = assert!(EXPIRY_CHECKS_PER_TIMEOUT > 0, "it divides the time-out");

/// The hand-over queues of a worker: sealed batches go to delivery, and come home settled.
pub struct Queues {
    pub delivery: Sender<Batch>,
    pub home: Sender<Settled>,
}

/// The lanes of one worker, on whose thread it lives.
pub struct Batcher {
    lanes: Vec<RefCell<Lane>>,
    /// Tells the number of a stream's partitions; one if there is none.
    health: Option<Arc<Health>>,
    agenda: RefCell<Agenda>,
    spares: Spares,
    waiters: Waiters,
    ack: AckConfig,
    queues: Queues,
    metrics: Arc<WorkerMetrics>,
    changed: Notify,
    /// Whether the worker's last record has come: all records leave without delay.
    is_emptying: Cell<bool>,
    /// Whether the batcher has ended: later records go back.
    has_ended: Cell<bool>,
    /// The stream of the gateway's own records, for which no request waits.
    own_stream: Option<StreamIndex>,
}

impl Batcher {
    /// The queues have room for the [`in_flight_batches_max`] of the `streams` lanes.
    pub fn new(
        streams: u16,
        limits: BatchConfig,
        ack: AckConfig,
        queues: Queues,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let shared = SharedCredit::default();
        let lane = |index| RefCell::new(Lane::new(StreamIndex(index), limits, &shared));
        Self {
            lanes: (0..streams).map(lane).collect(),
            health: None,
            agenda: RefCell::new(Agenda::new(streams)),
            spares: Spares::default(),
            waiters: Waiters::default(),
            ack,
            queues,
            metrics,
            changed: Notify::new(),
            is_emptying: Cell::new(false),
            has_ended: Cell::new(false),
            own_stream: None,
        }
    }

    /// Takes records of this stream from the gateway itself.
    pub fn with_own_stream(self, own_stream: Option<StreamIndex>) -> Self {
        Self { own_stream, ..self }
    }

    /// Gathers for as many partitions as this knows that each stream has.
    pub(crate) fn for_partitions_of(self, health: Arc<Health>) -> Self {
        let health = Some(health);
        Self { health, ..self }
    }

    /// Takes the record in at once; the future waits for its outcome, for the ack time-out at most.
    /// In `queued` mode the record counts as delivered. Dropping the future gives up waiting, not
    /// the record. A record that comes once the batcher has ended goes back.
    pub fn push(&self, stream: StreamIndex, record: Record) -> impl Future<Output = Outcome> {
        if self.has_ended.get() {
            let left = Outcome::Retryable("the gateway leaves".into());
            return Either::Left(ready(left));
        }
        let now = Instant::now();
        if self.ack.mode == AckMode::Queued {
            self.accept(stream, record, AckSlot::NONE, now);
            return Either::Left(ready(Outcome::Delivered));
        }
        let ack = self.waiters.open(now + self.ack.timeout);
        self.accept(stream, record, ack, now);
        Either::Right(self.waiters.wait(ack))
    }

    /// Takes in a record of the gateway's own, for which no request waits.
    pub(crate) fn post(&self, stream: StreamIndex, record: Record) {
        debug_assert_eq!(Some(stream), self.own_stream, "devices wait for theirs");
        self.accept(stream, record, AckSlot::NONE, Instant::now());
    }

    /// Sends on the records that the gateway itself has posted since `run` ended.
    pub(crate) fn send_posted(&self) {
        let Some(stream) = self.own_stream else {
            return;
        };
        let lane = &mut *self.lanes[stream.get()].borrow_mut();
        if let Some(sealed) = lane.accumulator.seal(SealReason::Drain) {
            self.queue(lane, sealed);
        }
        self.send_ready(lane, Instant::now());
        self.note(lane);
    }

    /// Takes in the records of one request, in their order and with no other between them, and
    /// waits for the outcome of each, as [`push`](Self::push) does for one.
    pub(crate) async fn push_all(&self, stream: StreamIndex, records: Vec<Record>) -> Vec<Outcome> {
        let (now, count) = (Instant::now(), records.len());
        if self.has_ended.get() {
            return vec![Outcome::Retryable("the gateway leaves".into()); count];
        }
        if self.ack.mode == AckMode::Queued || records.is_empty() {
            for record in records {
                self.accept(stream, record, AckSlot::NONE, now);
            }
            return vec![Outcome::Delivered; count];
        }
        let group = self.waiters.open_group(count, now + self.ack.timeout);
        for (index, record) in records.into_iter().enumerate() {
            let ack = self.waiters.open_member(group, index);
            self.accept(stream, record, ack, now);
        }
        self.waiters.wait_for_group(group).await
    }

    fn accept(&self, stream: StreamIndex, record: Record, ack: AckSlot, now: Instant) {
        let lane = &mut *self.lanes[stream.get()].borrow_mut();
        debug_assert_eq!(lane.stream, stream, "a lane stands in its stream's place");
        lane.company.record_came(now);
        let opens = lane.accumulator.is_empty();
        if opens {
            lane.open(now, self.partitions(stream));
            lane.accumulator.gather_in(self.spares.take());
        }
        let sealed = lane.accumulator.push(record, ack, now);
        if sealed.iter().any(Option::is_some) {
            for sealed in sealed.into_iter().flatten() {
                self.queue(lane, sealed);
            }
            self.send_ready(lane, now);
        }
        self.note(lane);
        if opens {
            self.changed.notify_one();
        }
    }

    fn partitions(&self, stream: StreamIndex) -> u32 {
        let health = self.health.as_ref();
        health.map_or(1, |health| health.partitions(stream))
    }

    /// Tells the agenda the lane's standing; called whenever that may have changed.
    fn note(&self, lane: &Lane) {
        self.agenda.borrow_mut().note(lane.stream, lane.standing());
    }

    /// Seals the lanes that are due, and carries acks home, until it is to end and everything has
    /// come back.
    pub async fn run(&self, mut settled: Receiver<Settled>, idle: IdleSignal) {
        let (mut expiry_at, mut is_idle) = (Instant::now(), false);
        while !self.is_drained() {
            while let Some(batch) = settled.try_recv() {
                self.settle(batch);
            }
            let now = Instant::now();
            if expiry_at <= now {
                self.waiters.expire(now);
                expiry_at = now + self.expiry_interval();
            }
            let due_at = self.seal_due(now, is_idle);
            let wake_at = due_at.map_or(expiry_at, |due_at| due_at.min(expiry_at));
            is_idle = tokio::select! {
                biased;
                Some(batch) = settled.recv() => { self.settle(batch); false }
                () = self.changed.notified() => false,
                () = self.wait_until_quiet(&idle), if self.unsent_records() > 0 => true,
                () = sleep_until(wake_at), if self.has_deadline() => false,
            };
        }
        // A body may end later than this.
        self.has_ended.set(true);
    }

    /// Waits until the worker has nothing else to do, and its sockets have brought no company for
    /// the unsent records.
    async fn wait_until_quiet(&self, idle: &IdleSignal) {
        loop {
            idle.wait().await;
            let gathered = self.unsent_records();
            // Tasks whose sockets have news now are polled first.
            yield_now().await;
            if self.unsent_records() == gathered {
                return;
            }
        }
    }

    /// Records that need not wait for company: nothing of their lane is in flight.
    fn unsent_records(&self) -> usize {
        self.agenda.borrow().unsent_records()
    }

    fn expiry_interval(&self) -> Duration {
        self.ack.timeout / EXPIRY_CHECKS_PER_TIMEOUT
    }

    /// Whether anything here is due some day: a lane, or the answer of a request.
    fn has_deadline(&self) -> bool {
        !(self.waiters.is_empty() && self.agenda.borrow().is_empty())
    }

    /// Sends everything on, from now on without delay, and lets `run` end once all of it has come
    /// back.
    pub fn drain(&self) {
        self.is_emptying.set(true);
        self.changed.notify_one();
    }

    /// Answers every waiting request: the outcome of its record is unknown. Later records are
    /// refused.
    pub fn give_up(&self) {
        self.has_ended.set(true);
        self.waiters.expire_all();
    }

    /// Records that were answered as taken and that delivery has not taken over, in `queued` mode.
    pub fn unsafe_records(&self) -> usize {
        if self.ack.mode == AckMode::Durable {
            return 0;
        }
        let promised = self.lanes.iter().map(RefCell::borrow);
        let promised = promised.filter(|lane| Some(lane.stream) != self.own_stream);
        promised.map(|lane| lane.records()).sum()
    }

    /// Whether no record is here or in flight, and no request waits.
    #[cfg(test)]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.waiters.is_empty() && self.lanes.iter().all(|lane| lane.borrow().is_empty())
    }

    fn is_drained(&self) -> bool {
        self.is_emptying.get() && self.lanes.iter().all(|lane| lane.borrow().is_empty())
    }

    /// Seals and sends the lanes that are due; returns the next instant at which a lane will be.
    fn seal_due(&self, now: Instant, is_idle: bool) -> Option<Instant> {
        while let Some((stream, reason)) = self.due(now, is_idle) {
            let lane = &mut *self.lanes[stream.get()].borrow_mut();
            let sealed = lane.accumulator.seal(reason);
            debug_assert!(sealed.is_some(), "a lane that is due has records");
            if let Some(sealed) = sealed {
                self.queue(lane, sealed);
            }
            self.send_ready(lane, now);
            self.note(lane);
        }
        self.agenda.borrow().due_at()
    }

    /// Returns the next lane to seal, and why.
    fn due(&self, now: Instant, is_idle: bool) -> Option<(StreamIndex, SealReason)> {
        let agenda = self.agenda.borrow();
        if is_idle && let Some(lane) = agenda.unsent() {
            Some((lane, SealReason::Idle))
        } else if self.is_emptying.get() {
            Some((agenda.any()?, SealReason::Drain))
        } else {
            Some((agenda.due(now)?, SealReason::Linger))
        }
    }

    fn queue(&self, lane: &mut Lane, sealed: Sealed) {
        self.metrics.batch_queued();
        lane.ready.push_back(sealed);
    }

    /// Sends sealed batches for as long as the lane has credit.
    fn send_ready(&self, lane: &mut Lane, now: Instant) {
        while lane.credit.is_left() {
            let Some(sealed) = lane.ready.pop_front() else {
                return lane.give_back_room();
            };
            lane.credit.take();
            lane.in_flight_records += sealed.records.len();
            self.count_sent(&sealed, now);
            self.send(lane.stream, sealed);
        }
    }

    fn count_sent(&self, sealed: &Sealed, now: Instant) {
        let (records, age) = (sealed.records.len(), sealed.age(now));
        self.metrics.batch_unqueued();
        self.metrics
            .batch_sealed(sealed.reason, records, sealed.bytes, age);
    }

    fn send(&self, stream: StreamIndex, sealed: Sealed) {
        let mut batch = Batch::new(
            stream,
            sealed.records,
            sealed.acks,
            self.queues.home.clone(),
        );
        batch.opened_at = sealed.opened_at;
        // A batch that finds no room comes straight home as unknown.
        let sent = self.queues.delivery.push(batch);
        debug_assert!(sent.is_ok(), "delivery has room for each lane's batches");
    }

    /// Wakes the requests of a batch that has come home, and uses the credit that it brings.
    fn settle(&self, batch: Settled) {
        self.answer(&batch);
        let (stream, lane_records) = (batch.stream, batch.lane_records);
        self.spares.give(Buffers {
            records: batch.records,
            acks: batch.acks,
        });
        drop(batch.part);
        let Some(records) = lane_records else {
            // The batch has left its lane with an earlier part of it.
            return;
        };
        let lane = &mut *self.lanes[stream.get()].borrow_mut();
        lane.come_home(records);
        if !lane.ready.is_empty() {
            self.send_ready(lane, Instant::now());
        }
        self.note(lane);
    }

    fn answer(&self, batch: &Settled) {
        for (index, ack) in batch.acks.iter().enumerate() {
            if *ack != AckSlot::NONE {
                self.waiters.settle(*ack, batch.outcomes.get(index));
            }
        }
    }
}

#[cfg(test)]
mod tests;
