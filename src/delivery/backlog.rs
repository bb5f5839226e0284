//! The spool as delivery holds it: what is on disk, whose records are, and which of them the sink still has.
//!
//! A device with records on disk keeps spooling until the last of them is done with, so that its order holds. The table of
//! such devices is bounded by the records in the spool: it is indexed by the place of each device's last record, and what is
//! before the first place that is not done with is let go. Whose the records are that a process before this one left is
//! known once they have been read: until then, every device spools.
//!
//! A record that the sink did not answer for in time is on disk while the sink has it: until that answer comes its copy
//! waits, so that no other record of its device overtakes it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use tokio::sync::{Notify, oneshot};

use crate::config::SpoolMode;
use crate::record::{DeviceId, Outcome, Outcomes, Reason, Record};
use crate::spool::{Draft, DraftError, Log, Reader, RealDisk, Refused, Spool, State};

pub struct Backlog {
    spool: Spool,
    mode: SpoolMode,
    devices: RefCell<Devices>,
    /// Records before this place may be any device's.
    unknown_before: Cell<u64>,
    doubts: RefCell<Doubts>,
    changed: Notify,
}

/// Whose records are on disk.
#[derive(Debug, Default)]
struct Devices {
    held: HashMap<DeviceId, Held>,
    /// The devices by the place of their last record.
    by_last: BTreeMap<u64, DeviceId>,
}

/// What of a device is on disk.
#[derive(Debug, Default)]
struct Held {
    /// Records on their way to disk.
    appending: usize,
    /// The place of its last one.
    last: Option<u64>,
}

/// Records on disk that the sink has and has not answered for.
#[derive(Debug, Default)]
struct Doubts {
    /// Start and end of their places.
    ranges: BTreeMap<u64, u64>,
    /// For each append of such records: no place that it gets is before this one. With how many have it in common.
    appending_from: BTreeMap<u64, usize>,
    /// From the first to the last of the places that may be in doubt no longer, for the drain to look at.
    cleared: Option<Range<u64>>,
}

impl Backlog {
    pub(crate) fn new(spool: Spool, mode: SpoolMode) -> Self {
        let unknown_before = Cell::new(spool.backlog.places().end);
        Self {
            spool,
            mode,
            devices: RefCell::default(),
            unknown_before,
            doubts: RefCell::default(),
            changed: Notify::new(),
        }
    }

    pub(crate) fn mode(&self) -> SpoolMode {
        self.mode
    }

    /// Why the spool takes no records; `None` while it does.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self.spool.backlog.state() {
            State::Up => None,
            State::Full => Some(Refused::Full.to_string()),
            State::Down(reason) => Some(Refused::Disk(reason).to_string()),
        }
    }

    /// Whether every device's records are done with, as far as is known without asking.
    pub(crate) fn is_empty(&self) -> bool {
        self.devices.borrow().held.is_empty() && self.unknown_before.get() == 0
    }

    /// Whether the device has records on disk, or on their way there.
    pub(crate) fn holds(&self, device: &DeviceId) -> bool {
        if self.has_unknown() {
            return true;
        }
        let mut devices = self.devices.borrow_mut();
        let Some(held) = devices.held.get(device) else {
            return false;
        };
        // It may have been dropped, or damaged.
        let is_done = held.appending == 0 && held.last.is_none_or(|place| self.is_done(place));
        if is_done {
            devices.forget(device);
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

    /// The drain has read these records, oldest first: a process before this one may have left them.
    pub(crate) fn found<'a>(&self, records: impl Iterator<Item = (u64, &'a DeviceId)>) {
        let unknown_before = self.unknown_before.get();
        let mut devices = self.devices.borrow_mut();
        for (place, device) in records {
            if place >= unknown_before {
                return self.unknown_before.set(0);
            }
            devices.held(device, place);
        }
    }

    /// The drain has read everything that there is.
    pub(crate) fn found_all(&self) {
        self.unknown_before.set(0);
    }

    /// Makes records safe. From now on their devices spool.
    pub(crate) async fn append<'a>(
        &self,
        stream: &str,
        records: impl Iterator<Item = &'a Record> + Clone,
    ) -> Result<Range<u64>, Refused> {
        for record in records.clone() {
            self.devices.borrow_mut().hold(&record.device);
        }
        let answer = commit(&self.spool.backlog, Draft::new(stream, records.clone())).await;
        match &answer {
            Ok(places) => {
                let mut devices = self.devices.borrow_mut();
                for (record, place) in records.zip(places.clone()) {
                    devices.appended(&record.device);
                    devices.held(&record.device, place);
                }
            }
            Err(_) => records.for_each(|record| self.let_go(&record.device)),
        }
        self.release_done();
        self.changed.notify_one();
        answer
    }

    fn let_go(&self, device: &DeviceId) {
        self.devices.borrow_mut().appended(device);
        // It is forgotten if what it had before is done with.
        let _ = self.holds(device);
    }

    /// Lets devices go whose records were dropped, damaged or delivered, as far as nothing older waits.
    pub(crate) fn release_done(&self) {
        let low = self.spool.backlog.places().start;
        self.devices.borrow_mut().release_before(low);
    }

    /// The same for records that the sink still has.
    pub(crate) async fn append_in_doubt(
        &self,
        stream: &str,
        records: &[Record],
    ) -> Result<Range<u64>, Refused> {
        // The drain may read them before their places are known here.
        let from = self.spool.backlog.places().end;
        self.doubts.borrow_mut().begin(from);
        let answer = self.append(stream, records.iter()).await;
        self.doubts.borrow_mut().end(from, answer.as_ref().ok());
        self.changed.notify_one();
        answer
    }

    /// The sink has answered for records that were in doubt. What it did not take is delivered from disk.
    pub(crate) fn resolve(&self, places: Range<u64>, records: &[Record], outcomes: &Outcomes) {
        self.doubts.borrow_mut().clear(&places);
        let mut delivered = Vec::new();
        for (index, (place, record)) in places.zip(records).enumerate() {
            if *outcomes.get(index) == Outcome::Delivered {
                delivered.push((place, &record.device));
            }
        }
        self.retire(delivered.into_iter());
        self.changed.notify_one();
    }

    pub(crate) fn is_in_doubt(&self, place: u64) -> bool {
        self.doubts.borrow().contain(place)
    }

    /// Places that were in doubt when they were asked for, and may be no longer.
    pub(crate) fn cleared(&self) -> Option<Range<u64>> {
        self.doubts.borrow_mut().cleared.take()
    }

    /// These records are done with.
    pub(crate) fn retire<'a>(&self, records: impl Iterator<Item = (u64, &'a DeviceId)>) {
        let mut places = Vec::new();
        for (place, device) in records {
            self.devices.borrow_mut().leave(place, device);
            places.push(place..place + 1);
        }
        self.spool.backlog.retire(places);
    }

    /// Sets records aside that their stream refuses for good, or has refused for long.
    pub(crate) async fn bury<'a>(
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
                tracing::warn!(stream, %reason, records = count, "refused: now dead letters")
            }
            Err(error) => {
                tracing::error!(stream, %reason, records = count, %error, "refused, and cannot be set aside: kept, to be tried again")
            }
        }
        buried.map(drop)
    }

    pub(crate) fn reader(&self) -> Reader<RealDisk> {
        self.spool.backlog.reader()
    }

    /// Whether the record was dropped to make room, or delivered after all.
    pub(crate) fn is_done(&self, place: u64) -> bool {
        self.spool.backlog.is_done(place)
    }

    /// Returns when there may be more to deliver.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Devices {
    /// A record of the device is on its way to disk.
    fn hold(&mut self, device: &DeviceId) {
        self.held.entry(device.clone()).or_default().appending += 1;
    }

    /// It is there, or was refused.
    fn appended(&mut self, device: &DeviceId) {
        let held = self.held.get_mut(device);
        debug_assert!(held.as_ref().is_some_and(|held| held.appending > 0));
        if let Some(held) = held {
            held.appending -= 1;
        }
    }

    /// The device has a record at this place.
    fn held(&mut self, device: &DeviceId, place: u64) {
        let held = self.held.entry(device.clone()).or_default();
        if held.last.is_some_and(|last| last >= place) {
            return;
        }
        if let Some(last) = held.last.replace(place) {
            self.by_last.remove(&last);
        }
        self.by_last.insert(place, device.clone());
    }

    /// The record at this place holds its device back no longer.
    fn leave(&mut self, place: u64, device: &DeviceId) {
        let is_last = self.by_last.get(&place) == Some(device);
        if is_last {
            self.by_last.remove(&place);
            self.without_records(device);
        }
    }

    fn release_before(&mut self, low: u64) {
        while let Some(oldest) = self.by_last.first_entry()
            && *oldest.key() < low
        {
            let device = oldest.remove();
            self.without_records(&device);
        }
    }

    /// Nothing of the device is on disk, though something may be on its way there.
    fn without_records(&mut self, device: &DeviceId) {
        let Some(held) = self.held.get_mut(device) else {
            return;
        };
        held.last = None;
        if held.appending == 0 {
            self.held.remove(device);
        }
    }

    fn forget(&mut self, device: &DeviceId) {
        if let Some(held) = self.held.remove(device)
            && let Some(last) = held.last
        {
            self.by_last.remove(&last);
        }
    }
}

impl Doubts {
    fn begin(&mut self, from: u64) {
        *self.appending_from.entry(from).or_default() += 1;
    }

    /// An append that began at `from` has got these places, or none.
    fn end(&mut self, from: u64, places: Option<&Range<u64>>) {
        if let Some(appends) = self.appending_from.get_mut(&from) {
            *appends -= 1;
            if *appends == 0 {
                self.appending_from.remove(&from);
            }
        }
        if let Some(places) = places {
            self.ranges.insert(places.start, places.end);
        }
        // What waited for the places to be known looks again.
        self.look_again(from..u64::MAX);
    }

    fn clear(&mut self, places: &Range<u64>) {
        self.ranges.remove(&places.start);
        self.look_again(places.clone());
    }

    fn look_again(&mut self, places: Range<u64>) {
        let known = self.cleared.take().unwrap_or(places.clone());
        self.cleared = Some(known.start.min(places.start)..known.end.max(places.end));
    }

    fn contain(&self, place: u64) -> bool {
        let appending = self.appending_from.first_key_value();
        let range = self.ranges.range(..=place).next_back();
        appending.is_some_and(|(from, _)| place >= *from)
            || range.is_some_and(|(_, end)| place < *end)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u64) -> DeviceId {
        DeviceId::parse(&format!("device-{number}")).unwrap()
    }

    /// A million devices that each came once, whose records were dropped to make room.
    #[test]
    fn devices_are_let_go_when_what_they_had_is_done_with() {
        let mut devices = Devices::default();
        for place in 0..1000 {
            devices.hold(&device(place % 100));
            devices.appended(&device(place % 100));
            devices.held(&device(place % 100), place);
        }
        devices.hold(&device(7));
        assert_eq!((devices.held.len(), devices.by_last.len()), (100, 100));
        devices.release_before(950);
        assert_eq!((devices.held.len(), devices.by_last.len()), (51, 50));
        assert!(devices.held[&device(7)].last.is_none(), "one is on its way");
        devices.leave(960, &device(60));
        devices.leave(970, &device(60));
        assert_eq!((devices.held.len(), devices.by_last.len()), (50, 49));
        devices.release_before(1000);
        assert_eq!((devices.held.len(), devices.by_last.len()), (1, 0));
    }

    #[test]
    fn doubt_lasts_until_it_is_cleared() {
        let mut doubts = Doubts::default();
        doubts.begin(5);
        doubts.begin(5);
        assert!(!doubts.contain(4) && doubts.contain(5) && doubts.contain(99));
        doubts.end(5, Some(&(7..9)));
        assert!(doubts.contain(5), "another append is on its way");
        doubts.end(5, None);
        let in_doubt: Vec<u64> = (0..20).filter(|place| doubts.contain(*place)).collect();
        assert_eq!(in_doubt, [7, 8]);
        assert_eq!(doubts.cleared.take(), Some(5..u64::MAX));
        doubts.clear(&(7..9));
        assert!(!doubts.contain(7));
        assert_eq!(doubts.cleared.take(), Some(7..9));
    }
}
