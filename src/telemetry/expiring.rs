//! The devices whose certificates end next, of those that have connected and are told so.
//!
//! A connection says once when its device's certificate ends, and whether that is near
//! (`FOREBAY_EXPIRY_NOTICE`): into a bounded lock-free queue; what does not fit is lost, and nobody
//! waits. The admin's thread gathers it. A device that has come back with a certificate that lasts is
//! taken off the list; one that has not come back is forgotten [`FORGOTTEN_AFTER`] its end.
//!
//! Limits: [`DEVICES_MAX`] devices, those whose certificates end first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use serde_json::{Value, json};

use super::gather::waiting;
use crate::record::{DeviceId, Timestamp};

/// The most devices on the list, however many there are.
const DEVICES_MAX: usize = 1024;

/// The most connections that wait for the admin's thread.
const QUEUE_MAX: usize = 8192;

/// Time after its certificate's end for which a device stays on the list: an operator sees in the
/// morning which devices were shut out at night.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// A certificate that a device has shown, and its end where that is near.
type Shown = (DeviceId, Option<Timestamp>);

/// The list; clones are the same.
#[derive(Clone)]
pub(crate) struct Expiring(Arc<Gatherer>);

struct Gatherer {
    queue: ArrayQueue<Shown>,
    list: Mutex<List>,
}

/// The devices on the list, by their ids and by the ends of their certificates.
#[derive(Default)]
struct List {
    ends: HashMap<DeviceId, Timestamp>,
    order: BTreeSet<(Timestamp, DeviceId)>,
}

impl Default for Expiring {
    fn default() -> Self {
        Self(Arc::new(Gatherer {
            queue: ArrayQueue::new(QUEUE_MAX),
            list: Mutex::default(),
        }))
    }
}

impl Expiring {
    /// A device has shown a certificate, whose end is given where it is near.
    pub(crate) fn note(&self, device: &DeviceId, end: Option<Timestamp>) {
        // A full queue loses what the device's next connection says again.
        let _ = self.0.queue.push((device.clone(), end));
    }

    /// Takes in what waits; to be called from time to time.
    pub(crate) fn gather(&self, now: Timestamp) {
        drop(self.gathered(now));
    }

    fn gathered(&self, now: Timestamp) -> MutexGuard<'_, List> {
        let Gatherer { queue, list } = &*self.0;
        let mut list = list.lock().unwrap_or_else(PoisonError::into_inner);
        for (device, end) in waiting(queue) {
            list.remove(&device);
            if let Some(end) = end {
                list.add(device, end);
            }
        }
        list.forget(now);
        list
    }

    /// A JSON object: how many devices are on the list, and at most so many of them, those whose
    /// certificates end first.
    pub(crate) fn report_of(&self, devices_max: usize, now: Timestamp) -> Value {
        debug_assert!(devices_max <= DEVICES_MAX, "a part of the list");
        let list = self.gathered(now);
        let mut next = Vec::new();
        for (Timestamp(end), device) in list.order.iter().take(devices_max) {
            next.push(json!({ "device": device.as_str(), "not_after_ms": end }));
        }
        json!({ "devices": list.order.len(), "next": next })
    }
}

impl List {
    fn add(&mut self, device: DeviceId, end: Timestamp) {
        self.order.insert((end, device.clone()));
        let known = self.ends.insert(device, end);
        debug_assert!(known.is_none(), "who shows another one is removed first");
        if self.order.len() > DEVICES_MAX
            && let Some((_, last)) = self.order.pop_last()
        {
            self.ends.remove(&last);
        }
        debug_assert_eq!(self.ends.len(), self.order.len(), "each is in both");
    }

    fn remove(&mut self, device: &DeviceId) {
        if let Some(end) = self.ends.remove(device) {
            let was_there = self.order.remove(&(end, device.clone()));
            debug_assert!(was_there, "each is in both");
        }
    }

    /// Forgets those whose certificates ended long before `now`.
    fn forget(&mut self, now: Timestamp) {
        let forgotten_ms = FORGOTTEN_AFTER.as_millis() as u64;
        while let Some((end, _)) = self.order.first() {
            if end.0.saturating_add(forgotten_ms) > now.0 {
                break;
            }
            if let Some((_, device)) = self.order.pop_first() {
                self.ends.remove(&device);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn id(text: &str) -> DeviceId {
        DeviceId::parse(text).unwrap()
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp(NOW.0 + 1000 * seconds)
    }

    /// Returns the number of devices on the list, and the first two.
    fn told(expiring: &Expiring, now: Timestamp) -> (u64, Vec<String>) {
        let report = expiring.report_of(2, now);
        let mut next = Vec::new();
        for one in report["next"].as_array().unwrap() {
            next.push(one["device"].as_str().unwrap().to_owned());
        }
        (report["devices"].as_u64().unwrap(), next)
    }

    #[test]
    fn who_ends_first_is_told_first_until_it_shows_another_certificate() {
        let expiring = Expiring::default();
        for (device, end) in [
            ("c", Some(30)),
            ("a", Some(10)),
            ("b", Some(20)),
            ("d", None),
        ] {
            expiring.note(&id(device), end.map(at));
        }
        assert_eq!(told(&expiring, NOW), (3, vec!["a".into(), "b".into()]));
        expiring.note(&id("a"), Some(at(40)));
        expiring.note(&id("b"), None);
        assert_eq!(told(&expiring, NOW), (2, vec!["c".into(), "a".into()]));
        let report = expiring.report_of(1, NOW);
        assert_eq!(report["next"][0]["not_after_ms"], at(30).0);
    }

    #[test]
    fn who_has_ended_is_told_for_a_day() {
        let expiring = Expiring::default();
        expiring.note(&id("a"), Some(NOW));
        let day = FORGOTTEN_AFTER.as_secs();
        assert_eq!(told(&expiring, at(day - 1)), (1, vec!["a".into()]));
        assert_eq!(told(&expiring, at(day)), (0, vec![]));
    }

    #[test]
    fn of_too_many_those_are_kept_that_end_first() {
        let expiring = Expiring::default();
        for number in (0..3 * DEVICES_MAX as u64).rev() {
            expiring.note(&id(&format!("plc-{number:06}")), Some(at(number)));
            expiring.gather(NOW);
        }
        let first = vec!["plc-000000".into(), "plc-000001".into()];
        assert_eq!(told(&expiring, NOW), (DEVICES_MAX as u64, first));
        for _ in 0..2 * QUEUE_MAX {
            expiring.note(&id("a"), Some(NOW));
        }
        assert_eq!(
            told(&expiring, NOW).0,
            DEVICES_MAX as u64,
            "none waits for room"
        );
    }
}
