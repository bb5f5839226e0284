//! The records next in line on disk, and which of them may travel now.
//!
//! A wave has at most one record of a device and stream, its oldest: the next one travels when the sink has answered for
//! it. So a device's records arrive in their order whatever the sink refuses, while many devices share a wave. A record
//! that is held back holds back those behind it that are its device's, and no others.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::config::BatchConfig;
use crate::record::Record;
use crate::spool::reader::Frame;

/// What is to become of a record now, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Go,
    Wait,
    /// It is done with.
    Forget,
}

/// Records of one stream, in their order, each of another device.
#[derive(Debug)]
pub struct Wave {
    pub stream: Arc<str>,
    pub entries: Vec<Entry>,
}

/// A record and its place in the spool.
pub type Entry = (u64, Record);

/// A queue for each stream that has records in it. Oldest first, as far as one device is concerned.
#[derive(Debug, Default)]
pub struct Window {
    /// The one whose turn it is comes first.
    streams: VecDeque<(Arc<str>, VecDeque<Entry>)>,
    records: usize,
    bytes: usize,
}

impl Window {
    pub fn records(&self) -> usize {
        self.records
    }

    /// Of all payloads.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn add(&mut self, frame: Frame) {
        for entry in frame.places.into_iter().zip(frame.records) {
            self.count(&entry);
            self.queue(&frame.stream).push_back(entry);
        }
    }

    /// Puts back what did not arrive: of each device its oldest.
    pub fn put_back(&mut self, stream: &Arc<str>, entries: Vec<Entry>) {
        for entry in entries.into_iter().rev() {
            self.count(&entry);
            self.queue(stream).push_front(entry);
        }
    }

    fn count(&mut self, (_, record): &Entry) {
        self.records += 1;
        self.bytes += record.payload.len();
    }

    fn discount(&mut self, (_, record): &Entry) {
        self.records -= 1;
        self.bytes -= record.payload.len();
    }

    fn queue(&mut self, stream: &Arc<str>) -> &mut VecDeque<Entry> {
        let at = self
            .streams
            .iter()
            .position(|(name, _)| name == stream)
            .unwrap_or_else(|| {
                self.streams.push_back((stream.clone(), VecDeque::new()));
                self.streams.len() - 1
            });
        &mut self.streams[at].1
    }

    /// Takes what may travel together, within a batch's limits. Streams that are there take turns. `None` when nothing may.
    pub fn take_wave(
        &mut self,
        limits: BatchConfig,
        is_there: impl Fn(&str) -> bool,
        turn: impl Fn(u64) -> Turn,
    ) -> Option<Wave> {
        for _ in 0..self.streams.len() {
            let (stream, mut queue) = self.streams.pop_front()?;
            if !is_there(&stream) {
                self.streams.push_back((stream, queue));
                continue;
            }
            let entries = self.take_from(&mut queue, limits, &turn);
            if !queue.is_empty() {
                self.streams.push_back((stream.clone(), queue));
            }
            if !entries.is_empty() {
                return Some(Wave { stream, entries });
            }
        }
        None
    }

    fn take_from(
        &mut self,
        queue: &mut VecDeque<Entry>,
        limits: BatchConfig,
        turn: impl Fn(u64) -> Turn,
    ) -> Vec<Entry> {
        let (mut taken, mut bytes, mut stay, mut met) = (Vec::new(), 0, Vec::new(), HashSet::new());
        while taken.len() < limits.records_max
            && let Some(entry) = queue.pop_front()
        {
            let turn = turn(entry.0);
            if turn == Turn::Forget {
                self.discount(&entry);
                continue;
            }
            if !taken.is_empty() && bytes + entry.1.payload.len() > limits.bytes_max {
                queue.push_front(entry);
                break;
            }
            if met.insert(entry.1.device.clone()) && turn == Turn::Go {
                self.discount(&entry);
                bytes += entry.1.payload.len();
                taken.push(entry);
            } else {
                stay.push(entry);
            }
        }
        stay.into_iter()
            .rev()
            .for_each(|entry| queue.push_front(entry));
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::record::{DeviceId, Permit, RecordId, Timestamp};
    use crate::spool::frame::body::READ_BACK_BYTES;

    const LIMITS: BatchConfig = BatchConfig {
        bytes_max: 64,
        records_max: 4,
        linger: Duration::ZERO,
    };

    fn record(device: u8, bytes: usize) -> Record {
        Record {
            device: DeviceId::parse(&format!("device-{device}")).unwrap(),
            payload: vec![b'x'; bytes].into(),
            content_type: None,
            id: RecordId::new(Timestamp(0)),
            trace: None,
            received_at: Timestamp(0),
            permit: Permit::holding(&READ_BACK_BYTES, 0),
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

    fn places(wave: &Wave) -> Vec<u64> {
        wave.entries.iter().map(|(place, _)| *place).collect()
    }

    #[test]
    fn a_wave_has_the_oldest_record_of_each_device_and_what_waits_holds_back_its_own_device_only() {
        let mut window = Window::default();
        window.add(frame("a", 0, &[1, 1, 2, 3, 3]));
        let turn = |place| if place == 3 { Turn::Wait } else { Turn::Go };
        assert_eq!(
            places(&window.take_wave(LIMITS, |_| true, turn).unwrap()),
            [0, 2]
        );
        assert_eq!(
            places(&window.take_wave(LIMITS, |_| true, turn).unwrap()),
            [1]
        );
        assert!(window.take_wave(LIMITS, |_| true, turn).is_none());
        let turn = |place| if place == 3 { Turn::Forget } else { Turn::Go };
        assert_eq!(
            places(&window.take_wave(LIMITS, |_| true, turn).unwrap()),
            [4]
        );
        assert_eq!((window.records(), window.bytes()), (0, 0));
    }

    #[test]
    fn streams_take_turns_also_when_one_gets_nowhere() {
        let mut window = Window::default();
        window.add(frame("a", 0, &[1]));
        window.add(frame("b", 1, &[1]));
        let wave = window.take_wave(LIMITS, |_| true, |_| Turn::Go).unwrap();
        assert_eq!((&*wave.stream, places(&wave)), ("a", vec![0]));
        window.put_back(&wave.stream, wave.entries);
        let wave = window.take_wave(LIMITS, |_| true, |_| Turn::Go).unwrap();
        assert_eq!((&*wave.stream, places(&wave)), ("b", vec![1]));
    }

    proptest! {
        /// Whatever fails and whatever waits: each record arrives once, a device's in their order, in waves within limits.
        #[test]
        fn each_devices_order_holds(
            frames in prop::collection::vec((0..2_u8, prop::collection::vec((0..5_u8, 1..40_usize), 1..8)), 1..12),
            fates in prop::collection::vec((any::<bool>(), any::<bool>()), 1..64),
        ) {
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
            for round in 0.. {
                prop_assert!(round < 10_000);
                // After a while nothing fails, so that it ends.
                let (waits, fails) = if round < 1000 { fates.next().unwrap() } else { (false, false) };
                let turn = |place| if waits && place % 3 == 0 { Turn::Wait } else { Turn::Go };
                let Some(wave) = window.take_wave(LIMITS, |_| true, turn) else {
                    if window.records() == 0 { break }
                    continue;
                };
                let bytes: usize = wave.entries.iter().map(|(_, record)| record.payload.len()).sum();
                prop_assert!(wave.entries.len() <= LIMITS.records_max && (bytes <= LIMITS.bytes_max || wave.entries.len() == 1));
                let (failed, done): (Vec<_>, Vec<_>) = wave.entries.into_iter().partition(|(place, _)| fails && place % 2 == 0);
                for (place, record) in done {
                    arrived.entry((wave.stream.clone(), record.device)).or_insert_with(Vec::new).push(place);
                }
                window.put_back(&wave.stream, failed);
            }
            prop_assert_eq!(sent, arrived);
            prop_assert_eq!((window.records(), window.bytes()), (0, 0));
        }
    }
}
