//! Records that were answered before they are safe: `FOREBAY_ACK=queued`.
//!
//! They wait here, in memory, in the order in which they came from the workers, and go to the sink
//! or the spool as a batch of waiting requests does. Records that come back without being safe go
//! again, after a back-off, for as long as the process lives; admission's budget bounds how many
//! wait. A device has one group of records in flight at a time, so its order holds whatever fails:
//! a group of several while its stream takes everything, of one while something fails.
//!
//! No record is dropped but one that its stream refuses for good while there is no spool for dead
//! letters; that is counted and logged. When the gateway leaves, waiting records are tried until it
//! hurries, and then spooled if there is a spool. The rest counts in
//! [`Promised`](super::promised::Promised).
//!
//! The gateway's own records, events of the fleet, go the same way, whatever the ack mode. No
//! client is owed them, so they are not counted, and a gateway that leaves does not wait for their
//! stream while that is away.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::alarm::Alarm;
use super::ending::Fact;
use super::flow::{Fared, Flow};
use super::outlet::Outlet;
use super::promised::Promised;
use super::shipment::{HeldRecord, Origin, Part, Settlement, Shipment, Terms};
use super::way::Way;
use super::window::{Limits, Placed, Standing, Turn, Wave};
use crate::record::{Batch, DeviceId, Outcome, Outcomes, Reason, Record, StreamIndex};

/// Place of a record in memory. It says nothing: such a record's turn is always to go.
const IN_MEMORY: u64 = 0;

/// Records that were answered and are in memory. One task delivers them.
pub(super) struct Queued {
    way: Way,
    alarm: Alarm,
    promised: Promised,
    /// The stream of the gateway's own records.
    own_stream: Option<StreamIndex>,
    /// The flow of each stream, by its index.
    flows: RefCell<Vec<Flow>>,
    /// The stream whose turn it is.
    turn: Cell<usize>,
    changed: Notify,
}

/// State of a wave in flight, or of a part of one, for the time when it comes home.
struct Sent {
    queued: Rc<Queued>,
    stream: StreamIndex,
    standing: Standing,
    /// The devices of records that were not reported as safe.
    devices: Vec<DeviceId>,
    records: usize,
    /// Whether it takes up a place among the waves of its stream.
    has_place: bool,
}

/// Records that came home without being safe.
#[derive(Default)]
struct Unsafe {
    again: Vec<Placed>,
    /// Reasons why the others are refused for good, one for each.
    refused: Vec<Reason>,
}

impl Queued {
    pub(super) fn new(
        way: Way,
        alarm: Alarm,
        promised: Promised,
        own_stream: Option<StreamIndex>,
    ) -> Self {
        let flows = way.outlet().names.iter().map(|_| Flow::default());
        Self {
            flows: RefCell::new(flows.collect()),
            way,
            alarm,
            promised,
            own_stream,
            turn: Cell::new(0),
            changed: Notify::new(),
        }
    }

    fn outlet(&self) -> &Outlet {
        self.way.outlet()
    }

    /// Whether the stream's records are the gateway's own.
    fn is_own(&self, stream: StreamIndex) -> bool {
        self.own_stream == Some(stream)
    }

    /// Returns the counter of answered records; `None` for the stream of the gateway's own.
    fn promised(&self, stream: StreamIndex) -> Option<&Promised> {
        (!self.is_own(stream)).then_some(&self.promised)
    }

    /// Ends when no more batches come.
    fn intake(&self) -> &Fact {
        &self.outlet().ending.intake
    }

    /// Takes in a batch without waiting requests, and sends it home at once.
    pub(super) fn queue(&self, batch: Batch) {
        debug_assert!(batch.is_answered() && !self.intake().has_ended());
        let stream = batch.stream;
        let (mut records, receipt) = batch.into_parts();
        if let Some(promised) = self.promised(stream) {
            promised.made(records.len());
        }
        let mut flows = self.flows.borrow_mut();
        for record in records.drain(..) {
            flows[stream.get()].push(in_memory(record));
        }
        drop(flows);
        receipt.settle(records, Outcomes::DELIVERED);
        self.changed.notify_one();
    }

    /// Runs until no more batches come and everything is safe, or hurries and nothing more can be
    /// made so.
    pub(super) async fn deliver(self: Rc<Self>) {
        let (mut waves, mut has_hurried) = (JoinSet::new(), false);
        loop {
            if self.outlet().ending.is_hurrying() && !has_hurried {
                self.try_all_again();
                has_hurried = true;
            }
            while waves.try_join_next().is_some() {}
            while let Some((stream, wave)) = self.next_wave() {
                let sent = self.clone().send(stream, wave);
                waves.spawn_local(self.alarm.clone().guard("a delivery", sent));
            }
            if self.intake().has_ended() && self.is_done() {
                break;
            }
            self.wait_for_change(&mut waves).await;
        }
        self.tell_of_lost_events();
        if matches!(self.way, Way::Direct(_)) {
            return;
        }
        // Copies of records that the sink takes after all need not stay on disk.
        let answered = async { while waves.join_next().await.is_some() {} };
        tokio::select! {
            biased;
            () = answered => {}
            () = self.outlet().ending.hurried() => {}
        }
    }

    /// Ends all back-offs, so that every record gets one more try.
    fn try_all_again(&self) {
        for flow in self.flows.borrow_mut().iter_mut() {
            flow.forget_failures();
        }
    }

    /// Returns the next wave that may travel, and its stream. Streams take turns.
    fn next_wave(&self) -> Option<(StreamIndex, Wave)> {
        let (mut flows, now) = (self.flows.borrow_mut(), Instant::now());
        let limits = Limits::new(self.outlet().options.batch, usize::MAX);
        for _ in 0..flows.len() {
            let at = self.turn.get();
            self.turn.set((at + 1) % flows.len());
            let stream = StreamIndex(at as u16);
            if !self.may_send(stream, flows[at].in_flight()) {
                continue;
            }
            if let Some(wave) = flows[at].next_wave(limits, now, |_| Turn::Go) {
                return Some((stream, wave));
            }
        }
        None
    }

    /// Whether another wave of the stream may go while so many are in flight.
    fn may_send(&self, stream: StreamIndex, in_flight: usize) -> bool {
        let outlet = self.outlet();
        let batches_max = outlet.options.stream_batches_max;
        match &self.way {
            // Waves for which the sink has no room are spooled.
            Way::Spooling(_) => in_flight < 2 * batches_max,
            Way::Direct(_) => {
                // Answered records that are left count as lost; events do not, so they are still
                // tried.
                let may_go = !outlet.ending.is_hurrying() || self.is_own(stream);
                in_flight < batches_max && may_go && outlet.watch.answers(stream)
            }
        }
    }

    fn is_done(&self) -> bool {
        let flows = self.flows.borrow();
        let mut streams = (0..).map(StreamIndex).zip(flows.iter());
        streams.all(|(stream, flow)| flow.is_empty() || self.is_given_up(stream, flow))
    }

    /// Whether the rest of a stream is not waited for. In a hurry only the disk is waited for, not
    /// the sink; the gateway's own records are waited for only while their stream takes them.
    fn is_given_up(&self, stream: StreamIndex, flow: &Flow) -> bool {
        let (outlet, is_own) = (self.outlet(), self.is_own(stream));
        let is_hurrying = outlet.ending.is_hurrying();
        let is_away = is_own && !outlet.watch.takes(stream);
        match &self.way {
            Way::Direct(_) => is_away || (is_hurrying && !is_own),
            Way::Spooling(_) => (is_away || is_hurrying) && flow.in_flight() == 0,
        }
    }

    fn tell_of_lost_events(&self) {
        let Some(stream) = self.own_stream else {
            return;
        };
        let flow = &self.flows.borrow()[stream.get()];
        if !flow.is_empty() {
            let waiting = flow.size().records;
            tracing::warn!(waiting, "events of the fleet could not be delivered: lost");
        }
    }

    /// Returns the time at which failed records may be tried again.
    fn due(&self, now: Instant) -> Option<Instant> {
        let flows = self.flows.borrow();
        flows.iter().filter_map(|flow| flow.due(now)).min()
    }

    async fn wait_for_change<T: 'static>(&self, waves: &mut JoinSet<T>) {
        let (outlet, now) = (self.outlet(), Instant::now());
        let due = self.due(now);
        tokio::select! {
            biased;
            () = self.changed.notified() => {}
            Some(_) = waves.join_next() => {}
            () = outlet.watch.sink_changed() => {}
            () = sleep_until(due.unwrap_or(now)), if due.is_some() => {}
            () = self.intake().ended(), if !self.intake().has_ended() => {}
            () = outlet.ending.hurried(), if !outlet.ending.is_hurrying() => {}
        }
    }

    async fn send(self: Rc<Self>, stream: StreamIndex, wave: Wave) {
        let sent = Sent {
            queued: self.clone(),
            stream,
            standing: wave.standing,
            records: wave.records.len(),
            devices: wave.devices,
            has_place: true,
        };
        let terms = Terms {
            stream,
            opened_at: Instant::now(),
            is_answered: true,
        };
        let records = wave.records.into_iter();
        let records = records.map(|placed| placed.record).collect();
        self.way.ship(Shipment { terms, records }, sent).await;
    }

    /// Frees the place of a wave, which is home, or takes too long to be waited for.
    fn free_place(&self, sent: &mut Sent) {
        if std::mem::take(&mut sent.has_place) {
            self.flows.borrow_mut()[sent.stream.get()].left(sent.standing);
        }
    }

    /// Takes the safe records of a wave home: devices with no other in flight may send again.
    fn came_home_early(&self, sent: &mut Sent, part: Part) {
        self.free_place(sent);
        let safe = part.positions.len();
        debug_assert!(safe <= sent.records);
        sent.records -= safe;
        if let Some(promised) = self.promised(sent.stream) {
            promised.kept(safe);
        }
        let is_free = |device: &DeviceId| !part.waiting.contains(device);
        let (free, waiting) = std::mem::take(&mut sent.devices)
            .into_iter()
            .partition(is_free);
        sent.devices = waiting;
        let flow = &mut self.flows.borrow_mut()[sent.stream.get()];
        flow.put_back(free, Vec::new());
        self.changed.notify_one();
    }

    /// Takes a wave home: records that are not safe go again.
    fn came_home(&self, mut sent: Sent, settlement: Settlement) {
        self.free_place(&mut sent);
        let mut left = Unsafe::default();
        for (record, outcome) in settlement.into_each() {
            left.add(record, &outcome);
        }
        let Unsafe { again, refused } = left;
        let unsafe_records = again.len() + refused.len();
        debug_assert!(unsafe_records <= sent.records);
        let safe = sent.records - unsafe_records;
        if let Some(promised) = self.promised(sent.stream) {
            promised.kept(safe);
        }
        self.tell_of_dropped(sent.stream, &refused);
        let fared = Fared::of(safe + refused.len() > 0, !again.is_empty());
        let flow = &mut self.flows.borrow_mut()[sent.stream.get()];
        flow.fared(sent.standing, fared, Instant::now());
        flow.put_back(sent.devices, again);
        self.changed.notify_one();
    }

    fn tell_of_dropped(&self, stream: StreamIndex, refused: &[Reason]) {
        let Some(reason) = refused.first() else {
            return;
        };
        let (metrics, records) = (&self.outlet().metrics, refused.len());
        let is_own = self.is_own(stream);
        let stream = self.outlet().name(stream);
        if is_own {
            metrics.events().dropped(records);
            tracing::warn!(stream, %reason, records, "events are refused for good: dropped");
        } else {
            metrics.records_dropped(records);
            tracing::error!(
                stream, %reason, records,
                "refused for good after they were answered, and there is no spool to set them aside: dropped"
            );
        }
    }
}

impl Origin for Sent {
    fn split_off(&mut self, records: &[HeldRecord]) -> Self {
        let parted: HashSet<_> = records.iter().map(|held| &held.record.device).collect();
        let is_parted = |device: &DeviceId| parted.contains(device);
        let devices = std::mem::take(&mut self.devices);
        let (devices, others) = devices.into_iter().partition(is_parted);
        self.devices = others;
        self.records -= records.len();
        Self {
            queued: self.queued.clone(),
            stream: self.stream,
            standing: self.standing,
            devices,
            records: records.len(),
            has_place: false,
        }
    }

    fn takes_part(&self) -> bool {
        true
    }

    fn settle_part(&mut self, part: Part) {
        let queued = self.queued.clone();
        queued.came_home_early(self, part);
    }

    fn settle(self, settlement: Settlement) {
        let queued = self.queued.clone();
        queued.came_home(self, settlement);
    }
}

fn in_memory(record: Record) -> Placed {
    Placed {
        place: IN_MEMORY,
        record,
    }
}

impl Unsafe {
    fn add(&mut self, record: Record, outcome: &Outcome) {
        match outcome {
            Outcome::Delivered => {}
            Outcome::Permanent(reason) => self.refused.push(reason.clone()),
            Outcome::Retryable(_) | Outcome::Barred(_) | Outcome::Unknown => {
                self.again.push(in_memory(record));
            }
        }
    }
}
