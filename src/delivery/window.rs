//! Records that are next in line, indexed by device, and which of them may travel now.
//!
//! The drain keeps in one what it has read from disk, [`queued`](super::queued) what was answered before it is safe. A device
//! whose record is in flight sends no other until that one is home, so its records arrive in their order whatever the sink
//! refuses, while many devices share a wave. A record that is held back holds back its device's later ones, and no others.
//! To take a wave costs what the wave holds, however many records and devices wait; how many do is the caller's to bound.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::config::BatchConfig;
use crate::record::{DeviceId, Record};
use crate::spool::Frame;

/// What a record takes of memory beside its payload and its content type, about.
const ENTRY_OVERHEAD_BYTES: usize = 512;

/// What is to become of a record now, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Go,
    Wait,
    /// It is done with.
    Forget,
}

/// A record and its place in the spool, or in the order of arrival.
#[derive(Debug)]
pub(crate) struct Entry {
    pub place: u64,
    pub record: Record,
}

/// What one wave may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub records_max: usize,
    /// Of all payloads; a single record may be larger.
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

/// Records of one stream that travel together. It is to come home, whatever becomes of them.
#[derive(Debug)]
pub(crate) struct Wave {
    pub stream: Arc<str>,
    pub entries: Vec<Entry>,
    pub devices: Vec<DeviceId>,
    payload_bytes: usize,
    /// The next record would be one too many.
    is_full: bool,
}

/// Streams that have records in it, in turn.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The one whose turn it is comes first.
    streams: VecDeque<Flow>,
    /// Devices whose oldest record waits, by its place.
    waiting: BTreeMap<u64, (Arc<str>, DeviceId)>,
    records: usize,
    bytes: usize,
}

/// The records of one stream.
#[derive(Debug)]
struct Flow {
    stream: Arc<str>,
    lines: HashMap<DeviceId, Line>,
    /// Devices that have a record and none in flight.
    ready: VecDeque<DeviceId>,
}

/// The records of one device, oldest first.
#[derive(Debug)]
struct Line {
    entries: VecDeque<Entry>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The device is in `ready`, once.
    Ready,
    /// Records of it are in flight.
    Travelling,
    /// Its oldest record waits.
    Waiting,
}

impl Window {
    /// Records that are not in flight.
    pub(crate) fn records(&self) -> usize {
        self.records
    }

    /// Memory that they take, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing is here or in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether records of the stream are here or in flight.
    pub(crate) fn has(&self, stream: &str) -> bool {
        self.streams.iter().any(|flow| *flow.stream == *stream)
    }

    pub(crate) fn add(&mut self, frame: Frame) {
        for (place, record) in frame.places.into_iter().zip(frame.records) {
            self.push(&frame.stream, Entry { place, record });
        }
    }

    /// Adds one behind those of its device.
    pub(crate) fn push(&mut self, stream: &Arc<str>, entry: Entry) {
        self.count(&entry);
        let flow = self.flow(stream);
        match flow.lines.get_mut(&entry.record.device) {
            Some(line) => line.entries.push_back(entry),
            None => flow.begin(entry),
        }
    }

    fn count(&mut self, entry: &Entry) {
        self.records += 1;
        self.bytes += memory_bytes(&entry.record);
    }

    fn discount(&mut self, entry: &Entry) {
        self.records -= 1;
        self.bytes -= memory_bytes(&entry.record);
    }

    fn find(&mut self, stream: &str) -> Option<&mut Flow> {
        self.streams.iter_mut().find(|flow| *flow.stream == *stream)
    }

    fn flow(&mut self, stream: &Arc<str>) -> &mut Flow {
        let known = self.streams.iter().position(|flow| flow.stream == *stream);
        let at = known.unwrap_or_else(|| {
            self.streams.push_back(Flow::new(stream.clone()));
            self.streams.len() - 1
        });
        &mut self.streams[at]
    }

    /// Takes what may travel together. Streams take turns, those that `may` travel. `None` when nothing may.
    pub(crate) fn take_wave(
        &mut self,
        limits: Limits,
        may: impl Fn(&str) -> bool,
        turn: impl Fn(u64) -> Turn,
    ) -> Option<Wave> {
        debug_assert!(limits.records_max > 0 && limits.run_max > 0);
        for _ in 0..self.streams.len() {
            let mut flow = self.streams.pop_front()?;
            let mut wave = Wave::new(flow.stream.clone());
            if may(&flow.stream) {
                self.fill(&mut wave, &mut flow, limits, &turn);
            }
            if !flow.lines.is_empty() {
                self.streams.push_back(flow);
            }
            if !wave.entries.is_empty() {
                return Some(wave);
            }
        }
        None
    }

    fn fill(
        &mut self,
        wave: &mut Wave,
        flow: &mut Flow,
        limits: Limits,
        turn: impl Fn(u64) -> Turn,
    ) {
        while !wave.is_full
            && wave.entries.len() < limits.records_max
            && let Some(device) = flow.ready.pop_front()
        {
            let Some(mut line) = flow.lines.remove(&device) else {
                debug_assert!(false, "a device that is ready has a line");
                continue;
            };
            self.take_run(wave, &mut line, limits, &turn);
            if line.state == State::Travelling {
                wave.devices.push(device.clone());
            }
            self.keep(flow, device, line);
        }
    }

    /// Takes the oldest records of one device, as many as may go.
    fn take_run(
        &mut self,
        wave: &mut Wave,
        line: &mut Line,
        limits: Limits,
        turn: impl Fn(u64) -> Turn,
    ) {
        debug_assert_eq!(line.state, State::Ready);
        let records_max = limits
            .records_max
            .min(wave.entries.len().saturating_add(limits.run_max));
        while wave.entries.len() < records_max
            && let Some(entry) = line.entries.pop_front()
        {
            match turn(entry.place) {
                Turn::Forget => self.discount(&entry),
                Turn::Go if wave.has_room_for(&entry, limits) => {
                    self.discount(&entry);
                    wave.add(entry);
                    line.state = State::Travelling;
                }
                turn => {
                    wave.is_full = turn == Turn::Go;
                    line.entries.push_front(entry);
                    if turn == Turn::Wait && line.state == State::Ready {
                        line.state = State::Waiting;
                    }
                    return;
                }
            }
        }
    }

    /// Puts a line back where its state says.
    fn keep(&mut self, flow: &mut Flow, device: DeviceId, line: Line) {
        match (line.state, line.entries.front()) {
            (State::Travelling, _) => {}
            (_, None) => return,
            (State::Ready, Some(_)) => flow.ready.push_front(device.clone()),
            (State::Waiting, Some(oldest)) => {
                let waits = (flow.stream.clone(), device.clone());
                self.waiting.insert(oldest.place, waits);
            }
        }
        flow.lines.insert(device, line);
    }

    /// A wave has come home: its devices may send again, first what is to be sent again, in its order.
    pub(crate) fn come_home(
        &mut self,
        stream: &Arc<str>,
        devices: Vec<DeviceId>,
        again: Vec<Entry>,
    ) {
        for entry in again.into_iter().rev() {
            self.count(&entry);
            let flow = self.flow(stream);
            match flow.lines.get_mut(&entry.record.device) {
                Some(line) => line.entries.push_front(entry),
                None => {
                    debug_assert!(false, "a device with a record in flight has a line");
                    flow.begin(entry);
                }
            }
        }
        let flow = self.flow(stream);
        for device in devices {
            flow.release(device);
        }
        if flow.lines.is_empty() {
            self.streams.retain(|flow| flow.stream != *stream);
        }
    }

    /// Lets those go on that waited at these places.
    pub(crate) fn wake(&mut self, places: Range<u64>) {
        let due: Vec<u64> = self
            .waiting
            .range(places)
            .map(|(place, _)| *place)
            .collect();
        for place in due {
            if let Some((stream, device)) = self.waiting.remove(&place)
                && let Some(flow) = self.find(&stream)
            {
                flow.release(device);
            }
        }
    }

    /// Forgets all records of a stream but so many of the oldest, those in flight aside. Says whether it forgot any.
    pub(crate) fn keep_oldest(&mut self, stream: &str, records: usize) -> bool {
        let Some(flow) = self.find(stream) else {
            return false;
        };
        let lines = flow.lines.values();
        let mut places: Vec<u64> = lines
            .flat_map(|line| line.entries.iter().map(|entry| entry.place))
            .collect();
        if places.len() <= records {
            return false;
        }
        places.sort_unstable();
        self.forget_from(stream, places[records]);
        true
    }

    fn forget_from(&mut self, stream: &str, first: u64) {
        let Some(flow) = self.find(stream) else {
            return;
        };
        let mut forgotten = Vec::new();
        for line in flow.lines.values_mut() {
            let kept = line.entries.partition_point(|entry| entry.place < first);
            forgotten.extend(line.entries.drain(kept..));
        }
        flow.lines
            .retain(|_, line| line.state == State::Travelling || !line.entries.is_empty());
        let Flow { lines, ready, .. } = flow;
        ready.retain(|device| lines.contains_key(device));
        for entry in &forgotten {
            self.discount(entry);
            self.waiting.remove(&entry.place);
        }
    }
}

impl Flow {
    fn new(stream: Arc<str>) -> Self {
        Self {
            stream,
            lines: HashMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// The first record of a device.
    fn begin(&mut self, entry: Entry) {
        let device = entry.record.device.clone();
        self.ready.push_back(device.clone());
        let line = Line {
            entries: VecDeque::from([entry]),
            state: State::Ready,
        };
        self.lines.insert(device, line);
    }

    /// The device neither travels nor waits any more.
    fn release(&mut self, device: DeviceId) {
        let Some(line) = self.lines.get_mut(&device) else {
            return;
        };
        if line.entries.is_empty() {
            self.lines.remove(&device);
        } else if line.state != State::Ready {
            line.state = State::Ready;
            self.ready.push_back(device);
        }
    }
}

impl Wave {
    fn new(stream: Arc<str>) -> Self {
        Self {
            stream,
            entries: Vec::new(),
            devices: Vec::new(),
            payload_bytes: 0,
            is_full: false,
        }
    }

    fn has_room_for(&self, entry: &Entry, limits: Limits) -> bool {
        let bytes = self.payload_bytes + entry.record.payload.len();
        self.entries.is_empty() || bytes <= limits.bytes_max
    }

    fn add(&mut self, entry: Entry) {
        self.payload_bytes += entry.record.payload.len();
        self.entries.push(entry);
    }
}

fn memory_bytes(record: &Record) -> usize {
    let content_type = record.content_type.as_ref().map_or(0, |text| text.len());
    ENTRY_OVERHEAD_BYTES + record.payload.len() + content_type
}

#[cfg(test)]
mod tests {

    use proptest::prelude::*;

    use super::*;
    use crate::record::{Permit, RecordId, Timestamp};

    const LIMITS: Limits = Limits {
        bytes_max: 64,
        records_max: 4,
        run_max: 1,
    };

    fn record(device: u8, bytes: usize) -> Record {
        Record {
            device: DeviceId::parse(&format!("device-{device}")).unwrap(),
            payload: vec![b'x'; bytes].into(),
            content_type: None,
            id: RecordId::new(Timestamp(0)),
            trace: None,
            received_at: Timestamp(0),
            permit: Permit::without_budget(),
        }
    }

    fn frame(stream: &str, first: u64, devices: &[u8]) -> Frame {
        let records: Vec<Record> = devices.iter().map(|&device| record(device, 10)).collect();
        let places = (first..).take(records.len()).collect();
        Frame {
            stream: stream.into(),
            reason: None,
            places,
            records,
        }
    }

    fn take(window: &mut Window, limits: Limits, turn: impl Fn(u64) -> Turn) -> Option<Wave> {
        window.take_wave(limits, |_| true, turn)
    }

    fn places(wave: &Wave) -> Vec<u64> {
        wave.entries.iter().map(|entry| entry.place).collect()
    }

    /// All of it arrived.
    fn arrive(window: &mut Window, wave: Wave) -> Vec<u64> {
        let places = places(&wave);
        window.come_home(&wave.stream, wave.devices, Vec::new());
        places
    }

    #[test]
    fn a_wave_has_the_oldest_record_of_each_device_and_what_waits_holds_back_its_own_device_only() {
        let mut window = Window::default();
        window.add(frame("a", 0, &[1, 1, 2, 3, 3]));
        let turn = |place| if place == 3 { Turn::Wait } else { Turn::Go };
        let first = take(&mut window, LIMITS, turn).unwrap();
        assert_eq!(places(&first), [0, 2]);
        assert!(take(&mut window, LIMITS, turn).is_none(), "1 is in flight");
        arrive(&mut window, first);
        let second = take(&mut window, LIMITS, turn).unwrap();
        assert_eq!(arrive(&mut window, second), [1]);
        assert!(take(&mut window, LIMITS, turn).is_none());
        window.wake(0..3);
        assert!(take(&mut window, LIMITS, |_| Turn::Go).is_none(), "3 waits");
        window.wake(3..4);
        let turn = |place| if place == 3 { Turn::Forget } else { Turn::Go };
        let third = take(&mut window, LIMITS, turn).unwrap();
        assert_eq!(arrive(&mut window, third), [4]);
        assert_eq!((window.records(), window.bytes()), (0, 0));
        assert!(window.is_empty());
    }

    #[test]
    fn a_run_has_a_devices_records_in_their_order() {
        let mut window = Window::default();
        window.add(frame("a", 0, &[1, 2, 1, 1]));
        let limits = Limits {
            run_max: 2,
            ..LIMITS
        };
        let wave = take(&mut window, limits, |_| Turn::Go).unwrap();
        assert_eq!(places(&wave), [0, 2, 1]);
        let again = wave.entries.into_iter().take(2).collect();
        window.come_home(&wave.stream, wave.devices, again);
        let wave = take(&mut window, limits, |_| Turn::Go).unwrap();
        assert_eq!(places(&wave), [0, 2]);
    }

    #[test]
    fn streams_take_turns_also_when_one_gets_nowhere_and_one_that_may_not_is_left_out() {
        let mut window = Window::default();
        window.add(frame("a", 0, &[1]));
        window.add(frame("b", 1, &[1]));
        let wave = take(&mut window, LIMITS, |_| Turn::Go).unwrap();
        assert_eq!((&*wave.stream, places(&wave)), ("a", vec![0]));
        window.come_home(&wave.stream, wave.devices, wave.entries);
        let wave = take(&mut window, LIMITS, |_| Turn::Go).unwrap();
        assert_eq!((&*wave.stream, places(&wave)), ("b", vec![1]));
        assert!(
            window
                .take_wave(LIMITS, |stream| stream != "a", |_| Turn::Go)
                .is_none()
        );
        assert!(take(&mut window, LIMITS, |_| Turn::Go).is_some());
    }

    #[test]
    fn the_newest_are_forgotten_and_the_oldest_are_kept() {
        let mut window = Window::default();
        window.add(frame("a", 0, &[1, 2, 1, 3]));
        window.add(frame("b", 9, &[1]));
        assert!(window.keep_oldest("a", 2) && !window.keep_oldest("a", 2));
        assert_eq!(window.records(), 3);
        let wave = window.take_wave(LIMITS, |stream| stream == "a", |_| Turn::Go);
        assert_eq!(places(&wave.unwrap()), [0, 1]);
    }

    /// However many wait, a wave asks for the turn of those that it takes and no others.
    #[test]
    fn a_wave_costs_what_it_holds() {
        let mut window = Window::default();
        for device in 0..=255 {
            window.add(frame("a", u64::from(device) * 100, &[device; 100]));
        }
        let asked = std::cell::Cell::new(0);
        let turn = |_| {
            asked.set(asked.get() + 1);
            Turn::Go
        };
        let mut waves = Vec::new();
        while let Some(wave) = take(&mut window, LIMITS, turn) {
            waves.push(wave);
        }
        assert_eq!((waves.len(), asked.get()), (64, 256));
    }

    proptest! {
        /// Whatever fails, waits, or is in flight: each record arrives once, a device's in their order, in waves within limits.
        #[test]
        fn each_devices_order_holds(
            frames in prop::collection::vec((0..2_u8, prop::collection::vec((0..5_u8, 1..40_usize), 1..8)), 1..12),
            fates in prop::collection::vec((any::<bool>(), any::<bool>()), 1..64),
            run_max in 1..4_usize,
        ) {
            let limits = Limits { run_max, ..LIMITS };
            let (mut window, mut next) = (Window::default(), 0);
            let (mut sent, mut arrived) = (BTreeMap::new(), BTreeMap::new());
            for (stream, records) in frames {
                let stream: Arc<str> = format!("stream-{stream}").into();
                let mut frame = Frame { stream: stream.clone(), reason: None, places: Vec::new(), records: Vec::new() };
                for (device, bytes) in records {
                    frame.places.push(next);
                    frame.records.push(record(device, bytes));
                    sent.entry((stream.clone(), frame.records.last().unwrap().device.clone())).or_insert_with(Vec::new).push(next);
                    next += 1;
                }
                window.add(frame);
            }
            let mut fates = fates.into_iter().cycle().chain(std::iter::repeat((false, false)));
            let mut in_flight = VecDeque::new();
            for round in 0.. {
                prop_assert!(round < 10_000);
                // After a while nothing fails, so that it ends.
                let (waits, fails) = if round < 1000 { fates.next().unwrap() } else { (false, false) };
                let turn = |place| if waits && place % 3 == 0 { Turn::Wait } else { Turn::Go };
                let taken = take(&mut window, limits, turn);
                let is_none = taken.is_none();
                in_flight.extend(taken);
                if in_flight.len() < 3 && !is_none {
                    continue;
                }
                window.wake(0..u64::MAX);
                let Some(wave): Option<Wave> = in_flight.pop_front() else {
                    if window.records() == 0 { break }
                    continue;
                };
                let bytes: usize = wave.entries.iter().map(|entry| entry.record.payload.len()).sum();
                prop_assert!(wave.entries.len() <= limits.records_max && (bytes <= limits.bytes_max || wave.entries.len() == 1));
                // What fails fails with all that follows it.
                let cut = if fails { wave.entries.len() / 2 } else { wave.entries.len() };
                let mut done = wave.entries;
                let failed = done.split_off(cut);
                for Entry { place, record } in done {
                    arrived.entry((wave.stream.clone(), record.device)).or_insert_with(Vec::new).push(place);
                }
                window.come_home(&wave.stream, wave.devices, failed);
            }
            prop_assert_eq!(sent, arrived);
            prop_assert_eq!((window.records(), window.bytes()), (0, 0));
            prop_assert!(window.is_empty());
        }
    }
}
