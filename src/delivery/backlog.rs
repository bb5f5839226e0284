//! The spool as delivery holds it: what is on disk, whose records are, and which of them the sink still has.
//!
//! A device with records on disk keeps spooling until they are done with, so that its order holds. The table of such
//! devices is bounded by the records in the spool. After a restart nobody knows whose the records on disk are: until they
//! are done with, every device spools.
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
    /// Records on disk, or on their way there, by device.
    devices: RefCell<HashMap<DeviceId, usize>>,
    /// Some of them are of a process before this one.
    has_unknown_devices: Cell<bool>,
    /// Drafts that the disk has not answered for.
    appending: Cell<usize>,
    /// Places of records that the sink has and has not answered for.
    in_doubt: RefCell<HashSet<u64>>,
    changed: Notify,
}

impl Backlog {
    pub fn new(spool: Spool, mode: SpoolMode) -> Self {
        let has_unknown_devices = Cell::new(spool.backlog.records() > 0);
        let (devices, appending, in_doubt, changed) = Default::default();
        Self { spool, mode, devices, has_unknown_devices, appending, in_doubt, changed }
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

    /// Whether nothing is on disk, or on its way there.
    pub fn is_empty(&self) -> bool {
        self.devices.borrow().is_empty() && !self.has_unknown_devices.get()
    }

    /// Whether the device has records on disk, or on their way there.
    pub fn holds(&self, device: &DeviceId) -> bool {
        self.has_unknown_devices.get() || self.devices.borrow().contains_key(device)
    }

    /// Makes records safe. From now on their devices spool.
    pub async fn append<'a>(
        &self,
        stream: &str,
        records: impl Iterator<Item = &'a Record> + Clone,
    ) -> Result<Range<u64>, Refused> {
        self.hold(records.clone());
        self.appending.set(self.appending.get() + 1);
        let answer = commit(&self.spool.backlog, Draft::new(stream, records.clone())).await;
        self.appending.set(self.appending.get() - 1);
        if answer.is_err() {
            records.for_each(|record| self.release(&record.device));
        }
        self.changed.notify_one();
        answer
    }

    /// The same for records that the sink still has.
    pub async fn append_in_doubt(&self, stream: &str, records: &[Record]) -> Result<Range<u64>, Refused> {
        let places = self.append(stream, records.iter()).await?;
        self.in_doubt.borrow_mut().extend(places.clone());
        Ok(places)
    }

    /// The sink has answered for records that were in doubt. What it did not take is delivered from disk.
    pub fn resolve(&self, places: Range<u64>, records: &[Record], outcomes: &Outcomes) {
        self.in_doubt.borrow_mut().retain(|place| !places.contains(place));
        let delivered = |(index, _): &(usize, _)| *outcomes.get(*index) == Outcome::Delivered;
        let answered = places.zip(records).enumerate().filter(delivered).map(|(_, answered)| answered);
        self.retire(answered.map(|(place, record)| (place, &record.device)));
        self.changed.notify_one();
    }

    pub fn is_in_doubt(&self, place: u64) -> bool {
        self.in_doubt.borrow().contains(&place)
    }

    /// These records are done with.
    pub fn retire<'a>(&self, records: impl Iterator<Item = (u64, &'a DeviceId)>) {
        let places = records.map(|(place, device)| {
            self.release(device);
            place..place + 1
        });
        self.spool.backlog.retire(places.collect::<Vec<_>>());
    }

    /// Sets records aside that their stream refuses for good.
    pub async fn bury<'a>(
        &self,
        stream: &str,
        reason: &Reason,
        records: impl ExactSizeIterator<Item = &'a Record>,
    ) -> Result<(), Refused> {
        let count = records.len();
        let buried = commit(&self.spool.dead_letters, Draft::dead(stream, reason, records)).await;
        match &buried {
            Ok(_) => tracing::warn!(stream, %reason, records = count, "refused for good: now dead letters"),
            Err(error) => tracing::error!(stream, %reason, records = count, %error, "refused for good, and not kept"),
        }
        buried.map(drop)
    }

    /// These stay on disk for another process: they hold their devices back no longer.
    pub fn leave<'a>(&self, devices: impl Iterator<Item = &'a DeviceId>) {
        devices.for_each(|device| self.release(device));
    }

    pub fn reader(&self) -> Reader<RealDisk> {
        self.spool.backlog.reader()
    }

    /// Whether the record was dropped to make room, or delivered after all.
    pub fn is_done(&self, place: u64) -> bool {
        self.spool.backlog.is_done(place)
    }

    /// Forgets devices whose records were damaged or dropped, once nothing is left.
    pub fn settle_if_empty(&self) {
        if self.appending.get() == 0 && self.spool.backlog.records() == 0 {
            self.devices.borrow_mut().clear();
            self.has_unknown_devices.set(false);
        }
    }

    /// Returns when there may be more to deliver.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    fn hold<'a>(&self, records: impl Iterator<Item = &'a Record>) {
        let mut devices = self.devices.borrow_mut();
        records.for_each(|record| *devices.entry(record.device.clone()).or_default() += 1);
    }

    fn release(&self, device: &DeviceId) {
        let mut devices = self.devices.borrow_mut();
        let Some(records) = devices.get_mut(device) else { return };
        *records -= 1;
        if *records == 0 {
            devices.remove(device);
        }
    }
}

async fn commit(log: &Log<RealDisk>, draft: Result<Draft, DraftError>) -> Result<Range<u64>, Refused> {
    // Batches are bounded far below what a frame holds.
    let draft = draft.map_err(|_| Refused::TooLarge)?;
    let (answer, answered) = oneshot::channel();
    // Whoever waited may be gone.
    log.append(draft, move |places| drop(answer.send(places)));
    answered.await.unwrap_or(Err(Refused::Closed))
}
