//! Waves: the order of a device, turns, limits, and what a wave costs.

use std::cell::Cell;

use proptest::prelude::*;

use super::*;
use crate::record::Timestamp;

const LIMITS: Limits = Limits {
    bytes_max: 64,
    records_max: 4,
    run_max: 1,
};

fn record(device: u8, bytes: usize) -> Record {
    let payload = vec![b'x'; bytes];
    Record::bare(&format!("device-{device}"), payload, Timestamp(0))
}

/// Pushes one record of each of these devices, at places from `first` on.
fn push(window: &mut Window, first: u64, devices: &[u8]) {
    for (place, device) in (first..).zip(devices) {
        let record = record(*device, 10);
        window.push(Placed { place, record });
    }
}

fn take(window: &mut Window, limits: Limits, turn: impl Fn(&Placed) -> Turn) -> Option<Wave> {
    window.take_wave(Standing::Well, limits, turn)
}

fn places(wave: &Wave) -> Vec<u64> {
    wave.records.iter().map(|placed| placed.place).collect()
}

/// Takes a wave home of which all has arrived.
fn arrive(window: &mut Window, wave: Wave) -> Vec<u64> {
    let places = places(&wave);
    window.come_home(wave.devices, Vec::new());
    places
}

#[test]
fn a_wave_has_the_oldest_record_of_each_device_and_what_waits_holds_back_its_own_device_only() {
    let mut window = Window::default();
    push(&mut window, 0, &[1, 1, 2, 3, 3]);
    let turn = |placed: &Placed| {
        if placed.place == 3 {
            Turn::Wait
        } else {
            Turn::Go
        }
    };
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
    let turn = |placed: &Placed| {
        if placed.place == 3 {
            Turn::Forget
        } else {
            Turn::Go
        }
    };
    let third = take(&mut window, LIMITS, turn).unwrap();
    assert_eq!(arrive(&mut window, third), [4]);
    assert_eq!(window.size(), Size::default());
    assert!(window.is_empty());
}

#[test]
fn a_run_has_a_devices_records_one_behind_the_other() {
    let mut window = Window::default();
    push(&mut window, 0, &[1, 2, 1, 1]);
    let limits = Limits {
        run_max: 2,
        ..LIMITS
    };
    let wave = take(&mut window, limits, |_| Turn::Go).unwrap();
    assert_eq!(places(&wave), [0, 2, 1]);
    let again = wave.records.into_iter().take(2).collect();
    window.come_home(wave.devices, again);
    let wave = window.take_wave(Standing::Failing, limits, |_| Turn::Go);
    assert_eq!(places(&wave.unwrap()), [0, 2]);
}

/// A device that is stuck does not travel with others, whose answers it would hold up.
#[test]
fn devices_whose_records_failed_travel_apart_until_one_arrives() {
    let mut window = Window::default();
    push(&mut window, 0, &[1, 2, 1, 2]);
    let wave = take(&mut window, LIMITS, |_| Turn::Go).unwrap();
    let again = wave.records.into_iter().take(1).collect();
    window.come_home(wave.devices, again);
    let well = take(&mut window, LIMITS, |_| Turn::Go).unwrap();
    assert_eq!(places(&well), [3]);
    assert!(take(&mut window, LIMITS, |_| Turn::Go).is_none());
    let mut failing = || window.take_wave(Standing::Failing, LIMITS, |_| Turn::Go);
    let failed = failing().unwrap();
    assert_eq!((places(&failed), failing().is_none()), (vec![0], true));
    arrive(&mut window, failed);
    assert_eq!(
        places(&take(&mut window, LIMITS, |_| Turn::Go).unwrap()),
        [2]
    );
}

/// However many records wait, a wave asks for the turn of those that it takes and no others.
#[test]
fn a_wave_costs_what_it_holds() {
    let mut window = Window::default();
    for device in 0..=255 {
        push(&mut window, u64::from(device) * 100, &[device; 100]);
    }
    let asked = Cell::new(0);
    let turn = |_: &Placed| {
        asked.set(asked.get() + 1);
        Turn::Go
    };
    let mut waves = Vec::new();
    while let Some(wave) = take(&mut window, LIMITS, turn) {
        waves.push(wave);
    }
    assert_eq!((waves.len(), asked.get()), (64, 256));
}

/// Fate of one wave.
#[derive(Clone, Copy, Debug, Default)]
struct WaveFate {
    /// Some of its records wait when it is taken.
    waits: bool,
    /// Its second half comes back.
    fails: bool,
}

fn fate() -> impl Strategy<Value = WaveFate> {
    (any::<bool>(), any::<bool>()).prop_map(|(waits, fails)| WaveFate { waits, fails })
}

/// Each device's places, in some order of events.
type ByDevice = BTreeMap<DeviceId, Vec<u64>>;

/// Takes waves and brings them home until nothing is left; three are in flight at a time. Returns
/// the records that arrived, in their order.
fn run(window: &mut Window, limits: Limits, fates: Vec<WaveFate>) -> ByDevice {
    let (mut arrived, mut in_flight) = (ByDevice::new(), VecDeque::new());
    // After a while nothing fails, so that it ends.
    let often = fates.into_iter().cycle().take(1000);
    let mut fates = often.chain(std::iter::repeat(WaveFate::default()));
    for _ in 0..10_000 {
        let WaveFate { waits, fails } = fates.next().unwrap();
        let turn = |placed: &Placed| {
            if waits && placed.place.is_multiple_of(3) {
                Turn::Wait
            } else {
                Turn::Go
            }
        };
        let taken = [Standing::Well, Standing::Failing]
            .into_iter()
            .find_map(|standing| window.take_wave(standing, limits, turn));
        let is_none = taken.is_none();
        in_flight.extend(taken);
        if in_flight.len() < 3 && !is_none {
            continue;
        }
        window.wake(0..u64::MAX);
        let Some(wave): Option<Wave> = in_flight.pop_front() else {
            if window.is_empty() {
                return arrived;
            }
            continue;
        };
        assert!(wave.records.len() <= limits.records_max);
        assert!(wave.payload_bytes() <= limits.bytes_max || wave.records.len() == 1);
        let mut done = wave.records;
        let failed = done.split_off(if fails { done.len() / 2 } else { done.len() });
        for Placed { place, record } in done {
            arrived.entry(record.device).or_default().push(place);
        }
        window.come_home(wave.devices, failed);
    }
    panic!("it does not end");
}

proptest! {
    /// Whatever fails, waits, or is in flight: each record arrives once, a device's in their order,
    /// in waves within limits.
    #[test]
    fn each_devices_order_holds(
        records in prop::collection::vec((0..5_u8, 1..40_usize), 1..60),
        fates in prop::collection::vec(fate(), 1..64),
        run_max in 1..4_usize,
    ) {
        let (mut window, mut sent) = (Window::default(), ByDevice::new());
        for (place, (device, bytes)) in (0..).zip(records) {
            let record = record(device, bytes);
            sent.entry(record.device.clone()).or_default().push(place);
            window.push(Placed { place, record });
        }
        let arrived = run(&mut window, Limits { run_max, ..LIMITS }, fates);
        prop_assert_eq!(sent, arrived);
        prop_assert_eq!(window.size(), Size::default());
    }
}
