//! The devices that send most, and those that are refused most, of the last minutes.
//!
//! A connection keeps a [`Tally`] of its answers and hands it over from time to time, into a
//! bounded lock-free queue; what does not fit is lost, and nobody waits. The admin's thread gathers
//! it into two frequent-items sketches (Apache DataSketches, Misra-Gries) a window, which hold
//! [`DEVICES_MAX`] devices however many there are: a device with more than a thousandth of all
//! requests is always among them. Two windows of [`WINDOW`] are told, the last and the one under
//! way.
//!
//! Limits: some 100 KiB a sketch. Failure: none; counts are estimates, with their bounds beside
//! them.

use std::cell::Cell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use datasketches::frequencies::{ErrorType, FrequentItemsSketch, Row};
use serde_json::{Value, json};

use super::gather::waiting;
use crate::record::DeviceId;

/// The most devices in a sketch, of which three quarters are used.
const DEVICES_MAX: usize = 4096;

/// The most devices in an answer, of each kind.
const TOLD_MAX: usize = 100;

/// The most tallies that wait for the admin's thread.
const QUEUE_MAX: usize = 8192;

const _: () = assert!(DEVICES_MAX.is_power_of_two(), "a sketch wants it so");

/// Time between two gatherings of the workers' counts.
pub(crate) const GATHER_INTERVAL: Duration = Duration::from_millis(100);

/// The length of a window.
const WINDOW: Duration = Duration::from_secs(300);

/// A tally is handed over after 1, 2, 4, 8 and 16 answers, and then each time that so many more
/// have gathered.
const ANSWERS_PER_TALLY: u32 = 16;

/// Answers of two kinds: accepted and refused.
type Counts = [u32; 2];

/// The counts of all connections; clones are the same.
#[derive(Clone)]
pub(crate) struct Top(Arc<Gatherer>);

struct Gatherer {
    queue: ArrayQueue<(DeviceId, Counts)>,
    windows: Mutex<SketchWindows>,
}

/// The sketches of accepted and of refused requests in one window.
type Sketches = [FrequentItemsSketch<DeviceId>; 2];

struct SketchWindows {
    since: Instant,
    current: Sketches,
    last: Sketches,
}

impl Default for Top {
    fn default() -> Self {
        let windows = SketchWindows {
            since: Instant::now(),
            current: sketches(),
            last: sketches(),
        };
        Self(Arc::new(Gatherer {
            queue: ArrayQueue::new(QUEUE_MAX),
            windows: windows.into(),
        }))
    }
}

fn sketches() -> Sketches {
    [(); 2].map(|()| FrequentItemsSketch::new(DEVICES_MAX).expect("a power of two"))
}

impl Top {
    /// Takes in what waits; to be called each [`GATHER_INTERVAL`].
    pub(crate) fn gather(&self) {
        drop(self.gathered());
    }

    fn gathered(&self) -> MutexGuard<'_, SketchWindows> {
        let Gatherer { queue, windows } = &*self.0;
        let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.turn(Instant::now());
        for (device, counts) in waiting(queue) {
            windows.add(&device, counts);
        }
        windows
    }

    /// A JSON object: `busiest` and `refused`, each a list of devices, the one with the most
    /// requests of that kind first.
    pub(crate) fn report(&self) -> String {
        self.report_of(TOLD_MAX)
    }

    /// The same, of at most so many devices of each kind.
    pub(crate) fn report_of(&self, devices_max: usize) -> String {
        debug_assert!(devices_max <= TOLD_MAX, "a part of the report");
        let windows = self.gathered();
        let [busiest, refused] = [0, 1].map(|kind| windows.told(kind, devices_max));
        json!({ "window_seconds_max": 2 * WINDOW.as_secs(), "busiest": busiest, "refused": refused }).to_string()
    }
}

impl SketchWindows {
    /// Begins a window when the current one has had its time.
    fn turn(&mut self, now: Instant) {
        if now.duration_since(self.since) >= WINDOW {
            self.since = now;
            self.last = std::mem::replace(&mut self.current, sketches());
        }
    }

    fn add(&mut self, device: &DeviceId, counts: Counts) {
        for (sketch, count) in self.current.iter_mut().zip(counts) {
            sketch.update_with_count_ref(device, count.into());
        }
    }

    fn told(&self, kind: usize, devices_max: usize) -> Vec<Value> {
        let mut both = self.last[kind].clone();
        both.merge(&self.current[kind]);
        let devices = both.frequent_items(ErrorType::NoFalseNegatives);
        devices.iter().take(devices_max).map(told).collect()
    }
}

fn told(row: &Row<DeviceId>) -> Value {
    let device = row.item().as_str();
    json!({ "device": device, "requests_min": row.lower_bound(), "requests_max": row.upper_bound() })
}

/// The answers of one connection; handed over when it ends, too.
pub(crate) struct Tally {
    top: Top,
    /// The device; `None` where the certificate names none.
    device: Option<DeviceId>,
    answers: Cell<u32>,
    held: Cell<Counts>,
}

impl Tally {
    pub(crate) fn new(top: Top, device: Option<DeviceId>) -> Self {
        Self {
            top,
            device,
            answers: Cell::default(),
            held: Cell::default(),
        }
    }

    /// Counts a request that was answered.
    pub(crate) fn count(&self, is_accepted: bool) {
        let answers = self.answers.get().wrapping_add(1);
        self.answers.set(answers);
        let [accepted, refused] = self.held.get();
        self.held.set([
            accepted + u32::from(is_accepted),
            refused + u32::from(!is_accepted),
        ]);
        if answers.is_power_of_two() || answers.is_multiple_of(ANSWERS_PER_TALLY) {
            self.hand_over();
        }
    }

    fn hand_over(&self) {
        let held = self.held.take();
        if let Some(device) = self.device.as_ref().filter(|_| held != [0, 0]) {
            // A full queue loses counts, of devices that are told by their order.
            let _ = self.top.0.queue.push((device.clone(), held));
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.hand_over();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(top: &Top, device: &str, accepted: u32, refused: u32) {
        let tally = Tally::new(top.clone(), DeviceId::parse(device));
        (0..accepted).for_each(|_| tally.count(true));
        (0..refused).for_each(|_| tally.count(false));
    }

    fn report(top: &Top, kind: &str) -> Vec<(String, u64, u64)> {
        let report: Value = serde_json::from_str(&top.report()).unwrap();
        let row = |row: &Value| {
            let bound = |name: &str| row[name].as_u64().unwrap();
            (
                row["device"].as_str().unwrap().to_owned(),
                bound("requests_min"),
                bound("requests_max"),
            )
        };
        report[kind].as_array().unwrap().iter().map(row).collect()
    }

    #[test]
    fn few_devices_are_counted_to_the_last_request() {
        let top = Top::default();
        send(&top, "plc-1", 37, 0);
        send(&top, "plc-2", 5, 41);
        assert_eq!(
            report(&top, "busiest"),
            [("plc-1".into(), 37, 37), ("plc-2".into(), 5, 5)]
        );
        assert_eq!(report(&top, "refused"), [("plc-2".into(), 41, 41)]);
    }

    #[test]
    fn one_that_sends_much_is_found_among_more_than_can_be_held() {
        const QUIET: usize = 50_000;
        let top = Top::default();
        for place in 0..QUIET {
            send(&top, &format!("quiet-{place}"), 1, 0);
            if place % 100 == 0 {
                send(&top, "loud", 16, 0);
                top.gather();
            }
        }
        let busiest = report(&top, "busiest");
        let (device, min, max) = &busiest[0];
        let sent = 16 * QUIET as u64 / 100;
        assert_eq!(device, "loud");
        assert!(*min <= sent && sent <= *max, "{min} to {max}");
        assert!(busiest.len() <= TOLD_MAX);
    }

    #[test]
    fn what_is_old_is_forgotten() {
        let top = Top::default();
        send(&top, "plc-1", 1, 0);
        for (window, told) in [(1, 1), (2, 0)] {
            let mut windows = top.gathered();
            let since = windows.since;
            windows.turn(since + WINDOW);
            drop(windows);
            assert_eq!(report(&top, "busiest").len(), told, "after window {window}");
        }
    }
}
