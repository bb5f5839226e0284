//! The batcher of one worker: a lane for each stream, and the requests that wait for their acks.
//!
//! Ingest pushes a record and waits for its outcome. A lane gathers records and seals a batch when it is full, when
//! its oldest record has waited for the linger, or, where the lane has nothing in flight, as soon as the worker has nothing
//! else to do ([`Lull`]): a quiet gateway makes nobody wait, and what a busy one takes in travels together. Sealed batches
//! cross to delivery and come back settled; then the worker wakes its own requests.
//!
//! Only the lanes that have something to do are looked at ([`agenda`]), however many there are.
//!
//! Nothing here is shared between threads but the two hand-over queues. A lane sends at most [`IN_FLIGHT_BATCHES_MAX`]
//! batches ahead, and both queues have room for all of them, so a push never fails; what a lane cannot send waits in
//! it, within the memory budget that admission keeps.

pub(crate) mod accumulator;
mod agenda;
pub(crate) mod lull;
pub(crate) mod spares;
pub(crate) mod waiters;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};

use crate::config::{AckConfig, AckMode, BatchConfig};
use crate::handover::{Receiver, Sender};
use crate::record::{AckSlot, Batch, Outcome, Record, Settled, StreamIndex};
use crate::telemetry::metrics::WorkerMetrics;
use crate::words::SealReason;
use accumulator::{Accumulator, Sealed};
use agenda::{Agenda, Standing};
use lull::Lull;
use spares::{Buffers, Spares};
use waiters::Waiters;

/// Batches of one lane that may be on their way at once.
pub const IN_FLIGHT_BATCHES_MAX: usize = 16;

const _: () = assert!(IN_FLIGHT_BATCHES_MAX > 0, "a lane may send a batch");

/// Sealed batches of a lane that wait for credit are many in a burst; room for more is given back.
const READY_KEPT_MAX: usize = 4 * IN_FLIGHT_BATCHES_MAX;

/// Requests past their ack time-out are looked for this many times within one time-out.
const EXPIRY_CHECKS_PER_TIMEOUT: u32 = 20;

struct Lane {
    stream: StreamIndex,
    accumulator: Accumulator,
    /// Sealed, but the lane is out of credit.
    ready: VecDeque<Sealed>,
    in_flight: usize,
    in_flight_records: usize,
}

/// One worker's lanes. Lives on that worker's thread.
pub struct Batcher {
    lanes: Vec<RefCell<Lane>>,
    agenda: RefCell<Agenda>,
    spares: Spares,
    waiters: Waiters,
    ack: AckConfig,
    delivery: Sender<Batch>,
    home: Sender<Settled>,
    metrics: Arc<WorkerMetrics>,
    changed: Notify,
    draining: Cell<bool>,
}

impl Batcher {
    /// `delivery` and `home` have room for [`IN_FLIGHT_BATCHES_MAX`] batches of each of the `streams` lanes.
    pub fn new(
        streams: u16,
        limits: BatchConfig,
        ack: AckConfig,
        delivery: Sender<Batch>,
        home: Sender<Settled>,
        metrics: Arc<WorkerMetrics>,
    ) -> Self {
        let lane = |index| {
            let accumulator = Accumulator::new(limits);
            RefCell::new(Lane {
                stream: StreamIndex(index),
                accumulator,
                ready: VecDeque::new(),
                in_flight: 0,
                in_flight_records: 0,
            })
        };
        let lanes = (0..streams).map(lane).collect();
        let (agenda, spares) = (RefCell::new(Agenda::new(streams)), Spares::default());
        let (waiters, changed, draining) = (Waiters::default(), Notify::new(), Cell::new(false));
        Self {
            lanes,
            agenda,
            spares,
            waiters,
            ack,
            delivery,
            home,
            metrics,
            changed,
            draining,
        }
    }

    /// Takes the record in and waits for what becomes of it, for the ack time-out at most. In `queued` mode the
    /// record counts as delivered at once. Dropping the future gives up waiting, not the record.
    pub async fn push(&self, stream: StreamIndex, record: Record) -> Outcome {
        let now = Instant::now();
        if self.ack.mode == AckMode::Queued {
            self.accept(stream, record, AckSlot::NONE, now);
            return Outcome::Delivered;
        }
        let ack = self.waiters.open(now + self.ack.timeout);
        self.accept(stream, record, ack, now);
        self.waiters.wait(ack).await
    }

    fn accept(&self, stream: StreamIndex, record: Record, ack: AckSlot, now: Instant) {
        let lane = &mut *self.lanes[stream.get()].borrow_mut();
        let opens = lane.accumulator.is_empty();
        if opens {
            lane.accumulator.gather_in(self.spares.take());
        }
        let sealed = lane.accumulator.push(record, ack, now);
        if sealed.iter().any(Option::is_some) {
            sealed
                .into_iter()
                .flatten()
                .for_each(|sealed| self.queue(lane, sealed));
            self.send_ready(lane, now);
        }
        self.note(lane);
        if opens {
            self.changed.notify_one();
        }
    }

    /// To be called whenever a lane has changed.
    fn note(&self, lane: &Lane) {
        self.agenda.borrow_mut().note(lane.stream, lane.standing());
    }

    /// Seals what is due, and carries acks home, until the batcher is draining and everything has come back.
    pub async fn run(&self, mut settled: Receiver<Settled>, lull: Lull) {
        let (mut expiry_at, mut is_lull) = (Instant::now(), false);
        while !self.is_drained() {
            while let Some(batch) = settled.try_recv() {
                self.settle(batch);
            }
            let now = Instant::now();
            if expiry_at <= now {
                self.waiters.expire(now);
                expiry_at = now + self.expiry_interval();
            }
            let wake_at = self
                .seal_due(now, is_lull)
                .map_or(expiry_at, |due_at| due_at.min(expiry_at));
            is_lull = tokio::select! {
                biased;
                Some(batch) = settled.recv() => { self.settle(batch); false }
                () = self.changed.notified() => false,
                () = self.no_company(&lull), if self.departing() > 0 => true,
                () = sleep_until(wake_at), if !self.is_idle() => false,
            };
        }
    }

    /// Waits until the worker has nothing else to do, and its sockets have brought nothing for what may set out.
    async fn no_company(&self, lull: &Lull) {
        loop {
            lull.wait().await;
            let gathered = self.departing();
            // What the sockets have now is polled first.
            yield_now().await;
            if self.departing() == gathered {
                return;
            }
        }
    }

    /// How many records may set out at once.
    fn departing(&self) -> usize {
        self.agenda.borrow().departing_records()
    }

    fn expiry_interval(&self) -> Duration {
        self.ack.timeout / EXPIRY_CHECKS_PER_TIMEOUT
    }

    /// Nothing here has a deadline.
    fn is_idle(&self) -> bool {
        self.waiters.is_empty() && self.agenda.borrow().is_empty()
    }

    /// Sends everything on, from now on without delay, and lets `run` end once all of it has come back.
    pub fn drain(&self) {
        self.draining.set(true);
        self.changed.notify_one();
    }

    /// Answers every request that waits: nobody knows what becomes of its record.
    pub fn give_up(&self) {
        self.waiters.expire_all();
    }

    /// Records that were answered as taken and that delivery has not taken over, in `queued` mode.
    pub fn unsafe_records(&self) -> usize {
        if self.ack.mode == AckMode::Durable {
            return 0;
        }
        let mut records = 0;
        for lane in &self.lanes {
            let lane = lane.borrow();
            let ready = lane.ready.iter().map(|sealed| sealed.records.len());
            records += lane.accumulator.len() + lane.in_flight_records + ready.sum::<usize>();
        }
        records
    }

    fn is_drained(&self) -> bool {
        let done = |lane: &RefCell<Lane>| {
            let lane = lane.borrow();
            lane.in_flight == 0 && lane.accumulator.is_empty() && lane.ready.is_empty()
        };
        self.draining.get() && self.lanes.iter().all(done)
    }

    /// Seals and sends what is due; gives the next instant at which a lane will be.
    fn seal_due(&self, now: Instant, is_lull: bool) -> Option<Instant> {
        while let Some((stream, reason)) = self.due(now, is_lull) {
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

    /// The next lane to seal, and why.
    fn due(&self, now: Instant, is_lull: bool) -> Option<(StreamIndex, SealReason)> {
        let agenda = self.agenda.borrow();
        if is_lull && let Some(lane) = agenda.departing() {
            Some((lane, SealReason::Idle))
        } else if self.draining.get() {
            Some((agenda.any()?, SealReason::Drain))
        } else {
            Some((agenda.due(now)?, SealReason::Linger))
        }
    }

    fn queue(&self, lane: &mut Lane, sealed: Sealed) {
        self.metrics.batch_queued();
        lane.ready.push_back(sealed);
    }

    fn send_ready(&self, lane: &mut Lane, now: Instant) {
        while lane.has_credit() {
            let Some(sealed) = lane.ready.pop_front() else {
                return lane.give_back_room();
            };
            self.metrics.batch_unqueued();
            lane.in_flight += 1;
            lane.in_flight_records += sealed.records.len();
            self.metrics.batch_sealed(
                sealed.reason,
                sealed.records.len(),
                sealed.bytes,
                sealed.age(now),
            );
            let mut batch = Batch::new(lane.stream, sealed.records, sealed.acks, self.home.clone());
            batch.opened_at = sealed.opened_at;
            // A batch that finds no room comes straight home as unknown.
            let sent = self.delivery.push(batch);
            debug_assert!(sent.is_ok(), "delivery has room for each lane's batches");
        }
    }

    fn settle(&self, batch: Settled) {
        for (index, ack) in batch.acks.iter().enumerate() {
            if *ack != AckSlot::NONE {
                self.waiters.settle(*ack, batch.outcomes.get(index));
            }
        }
        let records = batch.acks.len();
        self.spares.give(Buffers {
            records: batch.records,
            acks: batch.acks,
        });
        let lane = &mut *self.lanes[batch.stream.get()].borrow_mut();
        debug_assert!(lane.in_flight > 0, "a batch comes home once");
        lane.in_flight -= 1;
        lane.in_flight_records -= records;
        if !lane.ready.is_empty() {
            self.send_ready(lane, Instant::now());
        }
        self.note(lane);
    }
}

impl Lane {
    fn has_credit(&self) -> bool {
        debug_assert!(self.in_flight <= IN_FLIGHT_BATCHES_MAX);
        self.in_flight < IN_FLIGHT_BATCHES_MAX
    }

    fn standing(&self) -> Standing {
        match self.accumulator.due_at() {
            Some(due_at) if self.in_flight == 0 => Standing::Departing {
                due_at,
                records: self.accumulator.len(),
            },
            Some(due_at) if self.has_credit() => Standing::Gathering { due_at },
            _ => Standing::Resting,
        }
    }

    /// Nothing is ready: what a burst needed is not kept.
    fn give_back_room(&mut self) {
        debug_assert!(self.ready.is_empty());
        if self.ready.capacity() > READY_KEPT_MAX {
            self.ready = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests;
