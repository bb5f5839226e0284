//! Records that were answered before they are safe: `FOREBAY_ACK=queued`.
//!
//! They wait here, in memory, in the order in which they came from the workers, and go to the sink or the spool as a batch
//! does that somebody waits for. What comes back without being safe goes again, after a back-off, for as long as the
//! process lives; admission's budget bounds how much waits. A device has one group of records in flight at a time, so its
//! order holds whatever fails: a group of several while its stream takes everything, of one while something fails.
//!
//! Nothing is dropped but what its stream refuses for good where there is no spool to set it aside; that is counted and
//! told. When the gateway leaves, what waits is tried until it hurries, and then spooled where there is a spool. What is
//! left counts in [`Promised`](super::promised::Promised).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::Delivery;
use super::holds::Holds;
use super::shipment::{Home, Sent, Settlement, Shipment};
use super::window::{Entry, Limits, Turn, Wave, Window};
use crate::record::{Batch, Outcome, Outcomes, Reason, Record};

/// What was answered and is in memory.
#[derive(Default)]
pub(crate) struct Queued {
    window: RefCell<Window>,
    holds: RefCell<Holds>,
    /// Waves that have not come home.
    under_way: Cell<usize>,
    arrived: Cell<u64>,
    /// No more batches come.
    closed: Cell<bool>,
    changed: tokio::sync::Notify,
}

impl Delivery {
    /// Takes in a batch that nobody waits for, and sends it home at once.
    pub(super) fn queue(&self, batch: Batch) {
        let stream = self.names[batch.stream.get()].clone();
        let (mut records, receipt) = batch.into_parts();
        self.promised.made(records.len());
        let mut window = self.queued.window.borrow_mut();
        for record in records.drain(..) {
            let place = self.queued.arrived.get();
            self.queued.arrived.set(place + 1);
            window.push(&stream, Entry { place, record });
        }
        drop(window);
        receipt.settle(records, Outcomes::DELIVERED);
        self.queued.changed.notify_one();
    }

    /// No more batches come.
    pub(super) fn close_queue(&self) {
        self.queued.closed.set(true);
        self.queued.changed.notify_one();
    }

    /// Runs until no more batches come and everything is safe, or hurries and nothing more can be made so.
    pub(super) async fn deliver_queued(self: Rc<Self>) {
        let (mut waves, mut has_hurried) = (JoinSet::new(), false);
        loop {
            if self.watch.is_hurrying() && !has_hurried {
                // Everything gets one more try.
                self.queued.holds.borrow_mut().clear();
                has_hurried = true;
            }
            while waves.try_join_next().is_some() {}
            while let Some(wave) = self.next_queued() {
                self.queued.under_way.update(|waves| waves + 1);
                let sent = self.clone().send_queued(wave);
                waves.spawn_local(self.clone().guarded("a delivery", sent));
            }
            if self.queued.closed.get() && self.is_done_with_queued() {
                break;
            }
            self.queued_changed(&mut waves).await;
        }
        // What the sink takes after all need not stay on disk.
        let answered = async { while waves.join_next().await.is_some() {} };
        tokio::select! {
            () = answered => {}
            () = self.watch.hurried() => {}
        }
    }

    fn next_queued(&self) -> Option<Wave> {
        let waves_max = match self.backlog {
            // Those that the sink has no room for are spooled.
            Some(_) => 2 * self.options.in_flight_batches_max,
            None => self.options.in_flight_batches_max,
        };
        let may_go = match self.backlog {
            Some(_) => true,
            None => !self.watch.is_hurrying(),
        };
        if !may_go || self.queued.under_way.get() >= waves_max {
            return None;
        }
        let (now, holds) = (Instant::now(), self.queued.holds.borrow());
        let mut window = self.queued.window.borrow_mut();
        // While something fails, what follows it is not to overtake it.
        let limits = |run_max| Limits::new(self.options.batch, run_max);
        let may_try = |stream: &str| self.backlog.is_some() || self.may_try(stream);
        let is_well = |stream: &str| !holds.is_troubled(stream) && may_try(stream);
        let is_due = |stream: &str| !holds.holds(stream, now) && may_try(stream);
        let wave = window.take_wave(limits(usize::MAX), is_well, |_| Turn::Go);
        wave.or_else(|| window.take_wave(limits(1), is_due, |_| Turn::Go))
    }

    fn is_done_with_queued(&self) -> bool {
        let is_empty = self.queued.window.borrow().is_empty();
        let nothing_moves = self.queued.under_way.get() == 0 || self.backlog.is_none();
        is_empty || (self.watch.is_hurrying() && nothing_moves)
    }

    async fn queued_changed(&self, waves: &mut JoinSet<()>) {
        let now = Instant::now();
        let due = self.queued.holds.borrow().due(now);
        tokio::select! {
            () = self.queued.changed.notified() => {}
            Some(_) = waves.join_next() => {}
            () = self.watch.sink_changed() => {}
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            () = self.watch.hurried(), if !self.watch.is_hurrying() => {}
        }
    }

    async fn send_queued(self: Rc<Self>, wave: Wave) {
        let stream = self.index_of(&wave.stream);
        debug_assert!(stream.is_some(), "what is queued is of a known stream");
        let Some(stream) = stream else { return };
        let sent = Sent {
            stream: wave.stream,
            devices: wave.devices,
            records: wave.entries.len(),
        };
        let records = wave.entries.into_iter().map(|entry| entry.record);
        let shipment = Shipment {
            stream,
            records: records.collect(),
            opened_at: Instant::now(),
            home: Home::Memory(sent),
        };
        self.ship(shipment).await;
    }

    /// A wave has come home: what is not safe goes again.
    pub(super) fn keep(&self, sent: Sent, settlement: Settlement) {
        let mut unsafe_records = Unsafe::default();
        for (index, record) in settlement.live.into_iter().enumerate() {
            unsafe_records.add(record, settlement.of_live.get(index));
        }
        for record in settlement.held {
            unsafe_records.add(record, &settlement.of_held);
        }
        let Unsafe { again, refused } = unsafe_records;
        let safe = sent.records - again.len() - refused.len();
        self.promised.kept(safe);
        self.tell_of_dropped(&sent.stream, &refused);
        self.hold_queued(&sent.stream, safe > 0, !again.is_empty());
        let mut window = self.queued.window.borrow_mut();
        window.come_home(&sent.stream, sent.devices, again);
        self.queued.under_way.update(|waves| waves - 1);
        self.queued.changed.notify_one();
    }

    fn hold_queued(&self, stream: &Arc<str>, some_passed: bool, some_failed: bool) {
        let mut holds = self.queued.holds.borrow_mut();
        match (some_passed, some_failed) {
            (true, true) => holds.stumbled(stream, Instant::now()),
            (false, true) => holds.failed(stream, Instant::now()),
            (_, false) => holds.passed(stream),
        }
    }

    fn tell_of_dropped(&self, stream: &str, refused: &[Reason]) {
        if let Some(reason) = refused.first() {
            let records = refused.len();
            self.metrics.records_dropped(records);
            tracing::error!(
                stream, %reason, records,
                "refused for good after they were answered, and there is no spool to set them aside: dropped"
            );
        }
    }
}

/// Records that came home without being safe.
#[derive(Default)]
struct Unsafe {
    again: Vec<Entry>,
    /// Why each of the others is refused for good.
    refused: Vec<Reason>,
}

impl Unsafe {
    fn add(&mut self, record: Record, outcome: &Outcome) {
        match outcome {
            Outcome::Delivered => {}
            Outcome::Permanent(reason) => self.refused.push(reason.clone()),
            // It keeps its place before those of its device that wait.
            Outcome::Retryable(_) | Outcome::Barred(_) | Outcome::Unknown => {
                self.again.push(Entry { place: 0, record });
            }
        }
    }
}
