//! A window: records of one stream that are next in line, indexed by device.
//!
//! The drain keeps in one the records that it has read from disk, [`queued`](super::queued) those
//! that were answered before they are safe. Records that travel together are a *wave*: a batch
//! with, of each of its devices, the oldest records one behind the other. A device with records in
//! a wave sends no other wave until that one is home, so its records arrive in their order whatever
//! the sink refuses, while waves of other devices are in flight beside it. A record that is held
//! back holds back its device's later ones, and no others: devices whose records failed travel in
//! waves of their own. To take a wave costs what the wave holds, however many records and devices
//! wait; their number is the caller's to bound.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;

use crate::config::BatchConfig;
use crate::record::{DeviceId, Record};

/// Memory that a record takes beside its payload and its content type, about.
const RECORD_OVERHEAD_BYTES: usize = 512;

/// Turn of a record now, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Go,
    Wait,
    /// It is done with.
    Forget,
}

/// A record and its place in the spool; records that are not from there need none, and have any.
#[derive(Debug)]
pub(crate) struct Placed {
    pub place: u64,
    pub record: Record,
}

impl Placed {
    pub(crate) fn place_and_device(&self) -> (u64, &DeviceId) {
        (self.place, &self.record.device)
    }
}

/// Standing of a device: the fate of its last records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Well,
    /// One of them came back and is to go again.
    Failing,
}

/// Limits of one wave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub records_max: usize,
    /// Bytes of all payloads; a single record may be larger.
    pub bytes_max: usize,
    /// Records of one device, in their order.
    pub run_max: usize,
}

impl Limits {
    pub(crate) fn new(batch: BatchConfig, run_max: usize) -> Self {
        Self {
            records_max: batch.records_max,
            bytes_max: batch.bytes_max,
            run_max,
        }
    }
}

/// Records that travel together, each device's one behind the other. It is to come home, whatever
/// becomes of them.
#[derive(Debug)]
pub(crate) struct Wave {
    pub standing: Standing,
    pub records: Vec<Placed>,
    /// The devices of the records.
    pub devices: Vec<DeviceId>,
    payload_bytes: usize,
    limits: Limits,
    /// The next record would be one too many.
    is_full: bool,
}

/// The records of one stream that are not in flight.
#[derive(Debug, Default)]
pub(crate) struct Window {
    lines: HashMap<DeviceId, Line>,
    /// Devices that may send and whose last records arrived, in turn.
    well: VecDeque<DeviceId>,
    /// Devices that may send and whose last records did not arrive, in turn.
    failing: VecDeque<DeviceId>,
    /// Devices whose oldest record waits, by its place.
    waiting: BTreeMap<u64, DeviceId>,
    size: Size,
}

/// Records, and the memory that they take, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub records: usize,
    pub bytes: usize,
}

/// The records of one device, oldest first.
#[derive(Debug)]
struct Line {
    records: VecDeque<Placed>,
    state: State,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The device is in one of the two queues of devices that may send, once.
    Ready,
    /// Records of it are in flight, or kept aside.
    Travelling,
    /// Its oldest record waits.
    Waiting,
}

/// The reason why no more of a device's records travel in a wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RunEnd {
    /// There are no more, or the run is as long as it may be.
    Complete,
    /// The wave has no room for the next one.
    WaveFull,
    /// The next one waits.
    Waits,
}

impl Window {
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Devices that may send and whose last records arrived.
    pub(crate) fn ready_devices(&self) -> usize {
        self.well.len()
    }

    /// Whether nothing is here or in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Adds a record behind those of its device.
    pub(crate) fn push(&mut self, placed: Placed) {
        self.size.add(&placed.record);
        if let Some(line) = self.lines.get_mut(&placed.record.device) {
            let last = line.records.back();
            debug_assert!(
                last.is_none_or(|last| last.place <= placed.place),
                "records come in order"
            );
            return line.records.push_back(placed);
        }
        let device = placed.record.device.clone();
        self.well.push_back(device.clone());
        let line = Line {
            records: VecDeque::from([placed]),
            state: State::Ready,
            standing: Standing::Well,
        };
        self.lines.insert(device, line);
    }

    /// Takes a wave of devices of this standing; `None` if nothing may travel.
    pub(crate) fn take_wave(
        &mut self,
        standing: Standing,
        limits: Limits,
        turn: impl Fn(&Placed) -> Turn,
    ) -> Option<Wave> {
        debug_assert!(limits.records_max > 0 && limits.run_max > 0);
        let mut wave = Wave::new(standing, limits);
        while !wave.is_full
            && let Some(device) = self.queue(standing).pop_front()
        {
            self.take_run(&mut wave, device, &turn);
        }
        (!wave.records.is_empty()).then_some(wave)
    }

    fn queue(&mut self, standing: Standing) -> &mut VecDeque<DeviceId> {
        match standing {
            Standing::Well => &mut self.well,
            Standing::Failing => &mut self.failing,
        }
    }

    /// Takes the oldest records of one device, as many as may go.
    fn take_run(&mut self, wave: &mut Wave, device: DeviceId, turn: impl Fn(&Placed) -> Turn) {
        let line = self.lines.get_mut(&device);
        let line = line.expect("a device that may send has a line");
        debug_assert_eq!((line.state, line.standing), (State::Ready, wave.standing));
        let taken_before = wave.records.len();
        let end = line.move_run(wave, &mut self.size, turn);
        if wave.records.len() > taken_before {
            line.state = State::Travelling;
            return wave.devices.push(device);
        }
        match (end, line.records.front()) {
            (_, None) => drop(self.lines.remove(&device)),
            (RunEnd::Waits, Some(oldest)) => {
                line.state = State::Waiting;
                self.waiting.insert(oldest.place, device);
            }
            (RunEnd::WaveFull | RunEnd::Complete, Some(_)) => {
                debug_assert_eq!(end, RunEnd::WaveFull, "a run has a record at least");
                self.queue(wave.standing).push_front(device);
            }
        }
    }

    /// Takes a wave home: its devices may send again, first the records that go again, in their
    /// order.
    pub(crate) fn come_home(&mut self, devices: Vec<DeviceId>, again: Vec<Placed>) {
        for device in &devices {
            self.line(device).standing = Standing::Well;
        }
        for placed in again.into_iter().rev() {
            self.size.add(&placed.record);
            let line = self.line(&placed.record.device);
            let next = line.records.front();
            debug_assert!(
                next.is_none_or(|next| placed.place <= next.place),
                "the oldest go first"
            );
            line.standing = Standing::Failing;
            line.records.push_front(placed);
        }
        for device in devices {
            self.release(device);
        }
    }

    /// Returns the line of a device that has records in flight.
    fn line(&mut self, device: &DeviceId) -> &mut Line {
        let line = self.lines.get_mut(device);
        let line = line.expect("a device with records in flight has a line");
        debug_assert_eq!(line.state, State::Travelling, "it comes home once");
        line
    }

    /// Lets go of the waiting records of these devices, and returns the place of the first of each.
    /// Records in flight come home.
    pub(crate) fn let_go(&mut self, are: impl Fn(&DeviceId) -> bool) -> Vec<(DeviceId, u64)> {
        let mut gone = Vec::new();
        for (device, line) in &mut self.lines {
            if let Some(oldest) = line.records.front()
                && are(device)
            {
                gone.push((device.clone(), oldest.place));
                let records = line.records.drain(..);
                records.for_each(|placed| self.size.subtract(&placed.record));
            }
        }
        let stays = |line: &Line| line.state == State::Travelling || !line.records.is_empty();
        self.lines.retain(|_, line| stays(line));
        for queue in [&mut self.well, &mut self.failing] {
            queue.retain(|device| self.lines.contains_key(device));
        }
        self.waiting
            .retain(|_, device| self.lines.contains_key(device));
        gone
    }

    /// Lets devices go on that waited at these places.
    pub(crate) fn wake(&mut self, places: Range<u64>) {
        let due = self.waiting.range(places).map(|(place, _)| *place);
        for place in due.collect::<Vec<_>>() {
            if let Some(device) = self.waiting.remove(&place) {
                self.release(device);
            }
        }
    }

    /// Forgets a device that neither travels nor waits any more.
    fn release(&mut self, device: DeviceId) {
        let line = self.lines.get_mut(&device);
        let line = line.expect("a device that travels or waits has a line");
        debug_assert_ne!(line.state, State::Ready);
        if line.records.is_empty() {
            self.lines.remove(&device);
            return;
        }
        line.state = State::Ready;
        let standing = line.standing;
        self.queue(standing).push_back(device);
    }
}

impl Line {
    /// Moves the oldest records into the wave, as many as may go.
    fn move_run(
        &mut self,
        wave: &mut Wave,
        size: &mut Size,
        turn: impl Fn(&Placed) -> Turn,
    ) -> RunEnd {
        let mut run = 0;
        while run < wave.limits.run_max
            && let Some(next) = self.records.front()
        {
            let turn = turn(next);
            match turn {
                Turn::Wait => return RunEnd::Waits,
                Turn::Go if !wave.has_room_for(&next.record) => {
                    wave.is_full = true;
                    return RunEnd::WaveFull;
                }
                Turn::Go | Turn::Forget => {}
            }
            let next = self.records.pop_front().expect("it was looked at");
            size.subtract(&next.record);
            if turn == Turn::Go {
                wave.add(next);
                run += 1;
            }
        }
        RunEnd::Complete
    }
}

impl Wave {
    fn new(standing: Standing, limits: Limits) -> Self {
        Self {
            standing,
            records: Vec::new(),
            devices: Vec::new(),
            payload_bytes: 0,
            limits,
            is_full: false,
        }
    }

    pub(crate) fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    fn has_room_for(&self, record: &Record) -> bool {
        let bytes = self.payload_bytes + record.payload.len();
        self.records.is_empty()
            || (self.records.len() < self.limits.records_max && bytes <= self.limits.bytes_max)
    }

    fn add(&mut self, placed: Placed) {
        self.payload_bytes += placed.record.payload.len();
        self.records.push(placed);
        self.is_full = self.records.len() >= self.limits.records_max;
    }
}

impl Size {
    fn add(&mut self, record: &Record) {
        self.records += 1;
        self.bytes += memory_bytes(record);
    }

    fn subtract(&mut self, record: &Record) {
        debug_assert!(self.records > 0 && self.bytes >= memory_bytes(record));
        self.records -= 1;
        self.bytes -= memory_bytes(record);
    }
}

fn memory_bytes(record: &Record) -> usize {
    let content_type = record.content_type.as_ref().map_or(0, |text| text.len());
    RECORD_OVERHEAD_BYTES + record.sent_bytes() + content_type
}

#[cfg(test)]
mod tests;
