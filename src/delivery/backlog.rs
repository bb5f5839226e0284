//! The spool as delivery holds it: what is on disk, whose records are, and which of them the sink still has.
//!
//! A device with records on disk keeps spooling until the last of them is done with, so that its order holds. The table of
//! such devices is bounded by the records in the spool. Whose the records are that a process before this one left is not
//! known: until they are done with, every device spools.
//!
//! A record that the sink did not answer for in time is on disk while the sink has it: until that answer comes its copy
//! waits, so that no other record of its device overtakes it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use tokio::sync::{Notify, oneshot};

use crate::config::SpoolMode;
use crate::record::{DeviceId, Outcome, Outcomes, Reason, Record};
use crate::spool::disk::real::RealDisk;
use crate::spool::frame::body::{Draft, DraftError};
use crate::spool::log::Log;
use crate::spool::reader::Reader;
use crate::spool::{Refused, Spool, State};

pub struct Backlog {
    spool: Spool,
    mode: SpoolMode,
    devices: RefCell<HashMap<DeviceId, Held>>,
    /// Records before this place may be any device's.
    unknown_before: Cell<u64>,
    /// Places of records that the sink has and has not answered for.
    in_doubt: RefCell<HashSet<u64>>,
    /// For each append of such records: no place that it gets is before this one.
    doubt_from: RefCell<Vec<u64>>,
    changed: Notify,
}

/// What of a device is on disk.
#[derive(Debug, Default)]
struct Held {
    /// Records on their way to disk.
    appending: usize,
    /// The place of its last one.
    last: Option<u64>,
}

impl Backlog {
    pub fn new(spool: Spool, mode: SpoolMode) -> Self {
        let unknown_before = Cell::new(spool.backlog.places().end);
        let (devices, in_doubt, doubt_from, changed) = Default::default();
        Self {
            spool,
            mode,
            devices,
            unknown_before,
            in_doubt,
            doubt_from,
            changed,
        }
    }

    pub fn mode(&self) -> SpoolMode {
        self.mode
    }

    /// Why the spool takes no records; `None` while it does.
    pub fn trouble(&self) -> Option<String> {
        match self.spool.backlog.state() {
            State::Up => None,
            State::Full => Some(Refused::Full.to_string()),
            State::Down(reason) => Some(Refused::Disk(reason).to_string()),
        }
    }

    /// Whether every device's records are done with, as far as is known without asking.
    pub fn is_empty(&self) -> bool {
        self.devices.borrow().is_empty() && self.unknown_before.get() == 0
    }

    /// Whether the device has records on disk, or on their way there.
    pub fn holds(&self, device: &DeviceId) -> bool {
        if self.has_unknown() {
            return true;
        }
        let mut devices = self.devices.borrow_mut();
        let Some(held) = devices.get(device) else {
            return false;
        };
        // It may have been dropped, or damaged.
        let is_done = held.appending == 0 && held.last.is_none_or(|place| self.is_done(place));
        if is_done {
            devices.remove(device);
        }
        !is_done
    }

    fn has_unknown(&self) -> bool {
        if self.unknown_before.get() > 0
            && self.spool.backlog.places().start >= self.unknown_before.get()
        {
            self.unknown_before.set(0);
        }
        self.unknown_before.get() > 0
    }

    /// Makes records safe. From now on their devices spool.
    pub async fn append<'a>(
        &self,
        stream: &str,
        records: impl Iterator<Item = &'a Record> + Clone,
    ) -> Result<Range<u64>, Refused> {
        records.clone().for_each(|record| self.hold(&record.device));
        let answer = commit(&self.spool.backlog, Draft::new(stream, records.clone())).await;
        match &answer {
            Ok(places) => records
                .zip(places.clone())
                .for_each(|(record, place)| self.held(&record.device, place)),
            Err(_) => records.for_each(|record| self.let_go(&record.device)),
        }
        self.changed.notify_one();
        answer
    }

    fn hold(&self, device: &DeviceId) {
        self.devices
            .borrow_mut()
            .entry(device.clone())
            .or_default()
            .appending += 1;
    }

    fn held(&self, device: &DeviceId, place: u64) {
        if let Some(held) = self.devices.borrow_mut().get_mut(device) {
            held.appending -= 1;
            held.last = held.last.max(Some(place));
        }
    }

    fn let_go(&self, device: &DeviceId) {
        if let Some(held) = self.devices.borrow_mut().get_mut(device) {
            held.appending -= 1;
        }
        // It is forgotten if what it had before is done with.
        let _ = self.holds(device);
    }

    /// The same for records that the sink still has.
    pub async fn append_in_doubt(
        &self,
        stream: &str,
        records: &[Record],
    ) -> Result<Range<u64>, Refused> {
        // The drain may read them before their places are known here.
        let from = self.spool.backlog.places().end;
        self.doubt_from.borrow_mut().push(from);
        let answer = self.append(stream, records.iter()).await;
        let mut doubt_from = self.doubt_from.borrow_mut();
        if let Some(at) = doubt_from.iter().position(|known| *known == from) {
            doubt_from.swap_remove(at);
        }
        self.in_doubt
            .borrow_mut()
            .extend(answer.iter().cloned().flatten());
        answer
    }

    /// The sink has answered for records that were in doubt. What it did not take is delivered from disk.
    pub fn resolve(&self, places: Range<u64>, records: &[Record], outcomes: &Outcomes) {
        self.in_doubt
            .borrow_mut()
            .retain(|place| !places.contains(place));
        let delivered = |(index, _): &(usize, _)| *outcomes.get(*index) == Outcome::Delivered;
        let answered = places
            .zip(records)
            .enumerate()
            .filter(delivered)
            .map(|(_, answered)| answered);
        self.retire(answered.map(|(place, record)| (place, &record.device)));
        self.changed.notify_one();
    }

    pub fn is_in_doubt(&self, place: u64) -> bool {
        self.in_doubt.borrow().contains(&place)
            || self.doubt_from.borrow().iter().any(|from| place >= *from)
    }

    /// These records are done with.
    pub fn retire<'a>(&self, records: impl Iterator<Item = (u64, &'a DeviceId)>) {
        let places = records.map(|(place, device)| {
            self.leave(place, device);
            place..place + 1
        });
        self.spool.backlog.retire(places.collect::<Vec<_>>());
    }

    /// This one holds its device back no longer, also where it stays on disk.
    pub fn leave(&self, place: u64, device: &DeviceId) {
        let mut devices = self.devices.borrow_mut();
        if devices
            .get(device)
            .is_some_and(|held| held.appending == 0 && held.last == Some(place))
        {
            devices.remove(device);
        }
    }

    /// Sets records aside that their stream refuses for good.
    pub async fn bury<'a>(
        &self,
        stream: &str,
        reason: &Reason,
        records: impl ExactSizeIterator<Item = &'a Record>,
    ) -> Result<(), Refused> {
        let count = records.len();
        let buried = commit(
            &self.spool.dead_letters,
            Draft::dead(stream, reason, records),
        )
        .await;
        match &buried {
            Ok(_) => {
                tracing::warn!(stream, %reason, records = count, "refused for good: now dead letters")
            }
            Err(error) => {
                tracing::error!(stream, %reason, records = count, %error, "refused for good, and not kept")
            }
        }
        buried.map(drop)
    }

    pub fn reader(&self) -> Reader<RealDisk> {
        self.spool.backlog.reader()
    }

    /// Whether the record was dropped to make room, or delivered after all.
    pub fn is_done(&self, place: u64) -> bool {
        self.spool.backlog.is_done(place)
    }

    /// Forgets devices whose records were dropped or damaged, once nothing is left.
    pub fn settle_if_empty(&self) {
        if self.spool.backlog.records() == 0 {
            self.devices
                .borrow_mut()
                .retain(|_, held| held.appending > 0);
            self.unknown_before.set(0);
        }
    }

    /// Returns when there may be more to deliver.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

async fn commit(
    log: &Log<RealDisk>,
    draft: Result<Draft, DraftError>,
) -> Result<Range<u64>, Refused> {
    // Batches are bounded far below what a frame holds.
    let draft = draft.map_err(|_| Refused::TooLarge)?;
    let (answer, answered) = oneshot::channel();
    // Whoever waited may be gone.
    log.append(draft, move |places| drop(answer.send(places)));
    answered.await.unwrap_or(Err(Refused::Closed))
}
