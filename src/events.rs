//! Events of the fleet: who has come and gone, who was turned away or held back, what each has sent.
//!
//! `accept` and `http` tell a worker's [`Reporter`] of facts that they have anyway; it writes each
//! as a CloudEvent and posts it to the worker's batcher, as a record of the gateway's own. A
//! connection counts in its [`Presence`], on its own thread: a request on its way takes no lock,
//! allocates nothing and waits for nothing, and what it brings to light is told by the task of its
//! connection afterwards.
//!
//! Best effort: [`EVENTS_WAITING_MAX`](room::EVENTS_WAITING_MAX) events of the gateway wait for their
//! stream at most, and what comes beyond is dropped and counted. Usage is not: it stays in its connection until there is
//! room, and of a connection that has ended it is [`carried`] over. What a crash of the process
//! loses is what waits, and what connections have counted since they were told of last.

mod carried;
mod event;
mod presence;
mod room;
mod usage;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tokio::time::{MissedTickBehavior, interval};

use crate::batcher::Batcher;
use crate::config::EventsConfig;
use crate::record::{DeviceId, Headers, Permit, Record, RecordId, StreamIndex, Timestamp};
use crate::telemetry::metrics::EventMetrics;
use carried::Carried;
pub(crate) use event::Opening;
use event::{Envelope, Event};
use presence::Account;
pub(crate) use presence::Presence;
use room::Room;
use usage::Usage;

/// Usage that is due is looked for this often: a part of all connections each time, so that they do
/// not all tell at once.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Source of every worker's [`Reporter`]. Clones share the room for events that wait.
#[derive(Clone)]
pub struct Events {
    stream: StreamIndex,
    usage_interval: Option<Duration>,
    source: Arc<str>,
    content_type: Arc<str>,
    room: Room,
    metrics: EventMetrics,
}

impl Events {
    pub fn new(config: &EventsConfig, metrics: EventMetrics) -> Self {
        assert!(!config.replica.is_empty(), "a host has a name");
        Self {
            stream: config.stream,
            usage_interval: config.usage_interval,
            source: format!("/forebay/{}", config.replica).into(),
            content_type: CONTENT_TYPE.into(),
            room: Room::empty(),
            metrics,
        }
    }

    pub(crate) fn stream(&self) -> StreamIndex {
        self.stream
    }
}

/// Tells of the connections of one worker, on whose thread it lives.
pub struct Reporter {
    events: Events,
    batcher: Rc<Batcher>,
    /// The connections that are open, as far as usage is told.
    open: RefCell<Slab<Rc<Account>>>,
    carried: RefCell<Carried>,
}

impl Reporter {
    pub fn new(events: &Events, batcher: Rc<Batcher>) -> Self {
        Self {
            events: events.clone(),
            batcher,
            open: RefCell::default(),
            carried: RefCell::default(),
        }
    }

    /// Tells that a device has connected, and attends to its connection from now on.
    pub(crate) fn open(self: &Rc<Self>, opening: &Opening<'_>) -> Presence {
        let account = Rc::new(Account::of(opening));
        self.tell(Some(opening.device), &Event::Connected(opening));
        let is_listed = self.events.usage_interval.is_some();
        let place = is_listed.then(|| self.open.borrow_mut().insert(account.clone()));
        Presence {
            reporter: self.clone(),
            account,
            place,
        }
    }

    /// Tells of a handshake that failed although a certificate was sent.
    pub(crate) fn refused(&self, reason: &'static str, serial: &[u8]) {
        self.tell(None, &Event::Refused { reason, serial });
    }

    /// Tells what can be lost: where there is no room it is dropped, and counted.
    fn tell(&self, device: Option<&DeviceId>, event: &Event<'_>) {
        match self.events.room.take() {
            Some(permit) => self.post(device, event, permit),
            None => self.events.metrics.dropped(1),
        }
    }

    /// Tells of usage where there is room for it; whether there was.
    fn tell_usage(&self, device: Option<&DeviceId>, usage: &Usage) -> bool {
        let Some(permit) = self.events.room.take() else {
            return false;
        };
        self.post(device, &Event::Usage(usage), permit);
        true
    }

    /// Tells of the usage of a connection that has ended, now or when there is room.
    fn tell_last_usage(&self, device: &DeviceId, usage: Usage) {
        debug_assert!(!usage.counts.is_nothing(), "there is something to tell");
        let has_waiting = !self.carried.borrow().is_empty();
        if has_waiting || !self.tell_usage(Some(device), &usage) {
            self.carried.borrow_mut().add(device, usage);
        }
    }

    fn post(&self, device: Option<&DeviceId>, event: &Event<'_>, permit: Permit) {
        let now = Timestamp::now();
        let id = RecordId::new(now);
        let envelope = Envelope {
            id: &id,
            source: &self.events.source,
            subject: device.map(DeviceId::as_str),
            at: now,
        };
        let payload = envelope.enclose(event);
        debug_assert!(payload.len() <= permit.bytes(), "an event is small");
        let record = Record {
            device: device.cloned().unwrap_or_else(|| id.as_device()),
            payload: payload.into(),
            content_type: Some(self.events.content_type.clone()),
            id,
            trace: None,
            headers: Headers::default(),
            received_at: now,
            permit,
        };
        self.batcher.post(self.events.stream, record);
    }

    /// Tells of usage whenever it is due, for as long as it is polled.
    pub(crate) async fn run(self: Rc<Self>) {
        let Some(usage_interval) = self.events.usage_interval else {
            return;
        };
        let looks = looks_in(usage_interval);
        let mut ticks = interval(usage_interval / looks);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            for look in 0..looks {
                ticks.tick().await;
                self.tell_carried();
                self.tell_part(look as usize, looks as usize);
            }
        }
    }

    /// Tells of the usage of connections that have ended, as far as there is room.
    fn tell_carried(&self) {
        let carried = &mut *self.carried.borrow_mut();
        while let Some((device, usage)) = carried.take() {
            if !self.tell_usage(device.as_ref(), &usage) {
                return carried.put_back(device, usage);
            }
        }
    }

    /// Tells of the usage of one of so many parts of all connections.
    fn tell_part(&self, part: usize, parts: usize) {
        debug_assert!(part < parts);
        let open = self.open.borrow();
        let places = open.capacity();
        for place in places * part / parts..places * (part + 1) / parts {
            if let Some(account) = open.get(place) {
                account.settle(|usage| self.tell_usage(Some(account.device()), usage));
            }
        }
    }

    /// Tells all that is left, be there room or not: the worker ends.
    pub(crate) fn tell_rest(&self) {
        let carried = &mut *self.carried.borrow_mut();
        while let Some((device, usage)) = carried.take() {
            let permit = self.events.room.take_anyway();
            self.post(device.as_ref(), &Event::Usage(&usage), permit);
        }
        debug_assert!(carried.is_empty(), "what is left was told");
    }
}

/// Number of looks for usage that is due within an interval.
fn looks_in(usage_interval: Duration) -> u32 {
    let looks = usage_interval.as_nanos() / LOOK_INTERVAL.as_nanos();
    u32::try_from(looks).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests;
