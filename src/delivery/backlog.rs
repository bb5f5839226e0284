//! The spool as delivery holds it: the records on disk, their devices, and those that the sink
//! still has.
//!
//! A device with records of a stream on disk keeps spooling its records of that stream until the
//! last of them is done with, so that its order holds ([`devices`]): streams have no order among
//! each other, so one that is away costs another one nothing. The devices of records that an
//! earlier process left are known once those have been read: until then, every device spools. A
//! record that the sink did not answer for in time is on disk while the sink has it: until that
//! answer comes its copy waits, so that no other record of its device overtakes it ([`doubts`]).

mod devices;
mod doubts;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;

use tokio::sync::{Notify, oneshot};

use crate::config::SpoolMode;
use crate::record::{DeviceId, Reason, Record};
use crate::spool::{Draft, DraftError, GatewayDisk, Log, Reader, Refused, Spool, State};
pub(crate) use devices::Ticket;
use devices::{SpooledDevices, Step};
use doubts::Doubts;

/// The backlog on disk. Delivery's thread has one, if there is a spool.
pub struct Backlog {
    spool: Spool,
    mode: SpoolMode,
    /// The devices with records on disk, by the name of their stream.
    devices: RefCell<HashMap<Box<str>, SpooledDevices>>,
    /// Records before this place may be any device's.
    unknown_before: Cell<u64>,
    doubts: RefCell<Doubts>,
    /// The next one for records that follow others of their devices.
    next_ticket: Cell<Ticket>,
    changed: Notify,
    /// Devices may have left, or will not soon.
    moved: Notify,
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
            next_ticket: Cell::default(),
            changed: Notify::new(),
            moved: Notify::new(),
        }
    }

    pub(crate) fn mode(&self) -> SpoolMode {
        self.mode
    }

    /// Returns the reason why the spool takes no records; `None` while it does.
    pub(crate) fn trouble(&self) -> Option<String> {
        match self.spool.backlog.state() {
            State::Up => None,
            State::Full => Some(Refused::Full.to_string()),
            State::Down(reason) => Some(Refused::Disk(reason).to_string()),
        }
    }

    /// Whether every device's records of the stream are done with. Does not ask the spool, so that
    /// it may say no for a while after the last.
    pub(crate) fn is_empty(&self, stream: &str) -> bool {
        !self.devices.borrow().contains_key(stream) && self.unknown_before.get() == 0
    }

    /// Whether the device has records of the stream on disk, or on their way there.
    pub(crate) fn holds(&self, stream: &str, device: &DeviceId) -> bool {
        if self.has_unknown() {
            return true;
        }
        let streams = self.devices.borrow();
        let devices = streams.get(stream);
        devices.is_some_and(|devices| devices.has(device))
    }

    /// Whether the device's last record on disk is in flight, so that it leaves the spool if that
    /// arrives, or records of it wait for that already.
    pub(crate) fn is_leaving(&self, stream: &str, device: &DeviceId) -> bool {
        let streams = self.devices.borrow();
        let devices = streams.get(stream);
        !self.has_unknown() && devices.is_some_and(|devices| devices.is_leaving(device))
    }

    /// Makes records of these devices, which are leaving, wait for that. No later ones overtake
    /// them.
    pub(crate) fn follow<'a>(
        &self,
        stream: &str,
        devices: impl Iterator<Item = &'a DeviceId>,
    ) -> Ticket {
        let ticket = self.next_ticket.get();
        self.next_ticket.set(ticket.next());
        self.change_devices(stream, |spooled| {
            for device in devices {
                spooled.follow(device, ticket);
            }
        });
        ticket
    }

    /// Returns when each of these devices has left and it is this ticket's turn, or one of them
    /// does not leave now.
    pub(crate) async fn left<'a, D>(&self, stream: &str, devices: impl Fn() -> D, ticket: Ticket)
    where
        D: Iterator<Item = &'a DeviceId>,
    {
        loop {
            let moved = self.moved.notified();
            match self.step(stream, devices(), ticket) {
                Step::Go | Step::Stay => return,
                Step::Wait => moved.await,
            }
        }
    }

    fn step<'a>(
        &self,
        stream: &str,
        devices: impl Iterator<Item = &'a DeviceId>,
        ticket: Ticket,
    ) -> Step {
        let streams = self.devices.borrow();
        let spooled = streams.get(stream);
        let spooled = spooled.expect("a stream is known while records follow");
        let steps = devices.map(|device| spooled.step(device, ticket));
        steps.max().unwrap_or(Step::Go)
    }

    /// Records of these devices wait no more.
    pub(crate) fn unfollow<'a>(
        &self,
        stream: &str,
        devices: impl Iterator<Item = &'a DeviceId>,
        ticket: Ticket,
    ) {
        self.change_devices(stream, |spooled| {
            for device in devices {
                spooled.unfollow(device, ticket);
            }
        });
        self.moved.notify_waiters();
    }

    /// Notes that the drain has sent these records of a stream.
    pub(crate) fn sent<'a>(
        &self,
        stream: &str,
        records: impl Iterator<Item = (u64, &'a DeviceId)>,
    ) {
        self.change_devices(stream, |devices| {
            for (place, device) in records {
                devices.sent(device, place);
            }
        });
    }

    /// Notes that these devices have records that did not arrive.
    pub(crate) fn came_back<'a>(&self, stream: &str, devices: impl Iterator<Item = &'a DeviceId>) {
        self.change_devices(stream, |spooled| {
            for device in devices {
                spooled.came_back(device);
            }
        });
        self.moved.notify_waiters();
    }

    /// Changes the spooled devices of one stream, and forgets the stream when it has none left.
    fn change_devices<T>(&self, stream: &str, change: impl FnOnce(&mut SpooledDevices) -> T) -> T {
        let mut streams = self.devices.borrow_mut();
        if !streams.contains_key(stream) {
            streams.insert(stream.into(), SpooledDevices::default());
        }
        let devices = streams.get_mut(stream).expect("it is there now");
        let changed = change(devices);
        if devices.is_empty() {
            streams.remove(stream);
        }
        changed
    }

    /// Whether there may be records on disk whose devices have not been read yet.
    fn has_unknown(&self) -> bool {
        let unknown_before = self.unknown_before.get();
        if unknown_before > 0 && self.places().start >= unknown_before {
            self.unknown_before.set(0);
        }
        self.unknown_before.get() > 0
    }

    /// Notes that the drain has read these records of a stream, oldest first: a process before this
    /// one may have left them.
    pub(crate) fn found<'a>(
        &self,
        stream: &str,
        records: impl Iterator<Item = (u64, &'a DeviceId)>,
    ) {
        let unknown_before = self.unknown_before.get();
        if unknown_before == 0 {
            return;
        }
        self.change_devices(stream, |devices| {
            for (place, device) in records {
                if place >= unknown_before {
                    return self.unknown_before.set(0);
                }
                devices.add(device, place);
            }
        });
    }

    /// Notes that the drain has read the whole backlog.
    pub(crate) fn found_all(&self) {
        self.unknown_before.set(0);
    }

    /// Makes records safe. From now on their devices spool.
    pub(crate) async fn append<'a>(
        &self,
        stream: &str,
        records: impl Iterator<Item = &'a Record> + Clone,
    ) -> Result<Range<u64>, Refused> {
        self.change_devices(stream, |devices| {
            for record in records.clone() {
                devices.append_begun(&record.device);
            }
        });
        let answer = commit(&self.spool.backlog, Draft::new(stream, records.clone())).await;
        match &answer {
            Ok(places) => self.appended(stream, records, places.clone()),
            Err(_) => self.not_appended(stream, records),
        }
        self.release_done();
        self.changed.notify_one();
        answer
    }

    fn appended<'a>(
        &self,
        stream: &str,
        records: impl Iterator<Item = &'a Record>,
        places: Range<u64>,
    ) {
        debug_assert!(!places.is_empty(), "what was committed has places");
        self.change_devices(stream, |devices| {
            for (record, place) in records.zip(places) {
                devices.appended(&record.device, place);
            }
        });
    }

    fn not_appended<'a>(&self, stream: &str, records: impl Iterator<Item = &'a Record>) {
        self.change_devices(stream, |devices| {
            for record in records {
                devices.not_appended(&record.device);
            }
        });
    }

    /// Lets go of devices whose records were dropped, damaged or delivered, if no older record
    /// waits.
    pub(crate) fn release_done(&self) {
        let low = self.places().start;
        self.devices.borrow_mut().retain(|_, devices| {
            devices.release_before(low);
            !devices.is_empty()
        });
        self.moved.notify_waiters();
    }

    /// Makes records safe that the sink still has. Until it answers their copies wait.
    pub(crate) async fn append_in_doubt<'a>(
        &self,
        stream: &str,
        records: impl Iterator<Item = &'a Record> + Clone,
    ) -> Result<Range<u64>, Refused> {
        // The drain may read them before their places are known here.
        let from = self.places().end;
        self.doubts.borrow_mut().begin(from);
        let answer = self.append(stream, records).await;
        self.doubts.borrow_mut().end(from, answer.as_ref().ok());
        self.changed.notify_one();
        answer
    }

    /// Resolves the doubt about the records at these places: the sink has answered, and has taken
    /// those that are given. The others are delivered from disk.
    pub(crate) fn resolve<'a>(
        &self,
        stream: &str,
        places: &Range<u64>,
        delivered: impl Iterator<Item = (u64, &'a DeviceId)>,
    ) {
        self.doubts.borrow_mut().clear(places);
        self.retire(stream, delivered);
        self.changed.notify_one();
    }

    /// Whether the sink may have the record at this place.
    pub(crate) fn is_in_doubt(&self, place: u64) -> bool {
        self.doubts.borrow().contain(place)
    }

    /// Places that were in doubt when they were asked for, and may be no longer.
    pub(crate) fn cleared(&self) -> Option<Range<u64>> {
        self.doubts.borrow_mut().take_cleared()
    }

    /// Retires these records of a stream, which are done with.
    pub(crate) fn retire<'a>(
        &self,
        stream: &str,
        records: impl Iterator<Item = (u64, &'a DeviceId)>,
    ) {
        let mut places = Vec::new();
        self.change_devices(stream, |devices| {
            for (place, device) in records {
                devices.done(place, device);
                places.push(place..place + 1);
            }
        });
        self.spool.backlog.retire(places);
        self.moved.notify_waiters();
    }

    /// Makes dead letters of records that their stream refuses for good, or has refused for long.
    pub(crate) async fn dead_letter<'a>(
        &self,
        stream: &str,
        reason: &Reason,
        records: impl ExactSizeIterator<Item = &'a Record>,
    ) -> Result<(), Refused> {
        let count = records.len();
        let draft = Draft::dead(stream, reason, records);
        let set_aside = commit(&self.spool.dead_letters, draft).await;
        match &set_aside {
            Ok(_) => {
                tracing::warn!(stream, %reason, records = count, "refused: now dead letters")
            }
            Err(error) => {
                tracing::error!(stream, %reason, records = count, %error, "refused, and cannot be set aside: kept, to be tried again")
            }
        }
        set_aside.map(drop)
    }

    /// Returns a reader of the records that are not done with, from this place on.
    pub(crate) fn reader_from(&self, place: u64) -> Reader<GatewayDisk> {
        self.spool.backlog.reader_from(place)
    }

    /// Returns the places from the first that is not done with to the one after the last.
    pub(crate) fn places(&self) -> Range<u64> {
        self.spool.backlog.places()
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

/// Hands a draft over and waits until it is safe, or refused.
async fn commit(
    log: &Log<GatewayDisk>,
    draft: Result<Draft, DraftError>,
) -> Result<Range<u64>, Refused> {
    // Batches are bounded far below the size of a frame.
    let draft = draft.map_err(|_| Refused::TooLarge)?;
    let (answer, answered) = oneshot::channel();
    // The waiting side may be gone.
    log.append(draft, move |places| drop(answer.send(places)));
    answered.await.unwrap_or(Err(Refused::Closed))
}
