//! Which device holds how much: one count a device, found once per connection.
//!
//! A connection looks its device up under a lock and keeps the count; from then on nothing here is
//! asked. A count that no connection and no permit shares any more is forgotten when its part of
//! the table has doubled, so the table holds at most twice the devices that are connected or have a
//! record in flight.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::record::{DeviceId, DeviceMemory};

/// Parts of the table, each with a lock of its own: a sweep holds up one of them.
const PARTS: usize = 64;

/// Devices in a part that is not swept.
const UNSWEPT_MAX: usize = 16;

/// The counts of all devices. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Devices {
    hasher: RandomState,
    parts: [Mutex<Part>; PARTS],
}

#[derive(Debug)]
struct Part {
    memories: HashMap<DeviceId, DeviceMemory>,
    /// Number of entries at which those without a connection are swept out.
    sweep_at: usize,
}

impl Default for Devices {
    fn default() -> Self {
        let part = |_| {
            Mutex::new(Part {
                memories: HashMap::new(),
                sweep_at: UNSWEPT_MAX,
            })
        };
        Self {
            hasher: RandomState::new(),
            parts: std::array::from_fn(part),
        }
    }
}

impl Devices {
    /// Returns the count of what the device holds, the same one for all of its connections.
    pub(crate) fn memory(&self, device: &DeviceId) -> DeviceMemory {
        let part = self.hasher.hash_one(device) as usize % PARTS;
        let mut part = self.parts[part]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = part.memories.get(device) {
            return memory.clone();
        }
        part.sweep();
        let memory = DeviceMemory::default();
        part.memories.insert(device.clone(), memory.clone());
        memory
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let parts = self.parts.iter();
        parts.map(|part| part.lock().unwrap().memories.len()).sum()
    }
}

impl Part {
    /// Forgets whom nobody speaks for, once there are many more than there were after the last
    /// time.
    fn sweep(&mut self) {
        if self.memories.len() < self.sweep_at {
            return;
        }
        // With the lock held nobody gets a clone of a count that is in the table only.
        self.memories.retain(|_, memory| {
            let is_shared = memory.is_shared();
            debug_assert!(
                is_shared || memory.held_bytes() == 0,
                "a permit has a clone"
            );
            is_shared
        });
        self.sweep_at = UNSWEPT_MAX.max(2 * self.memories.len());
        debug_assert!(self.memories.len() < self.sweep_at, "there is room for one");
        self.memories.shrink_to(self.sweep_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> DeviceId {
        DeviceId::parse(&format!("meter-{number}")).unwrap()
    }

    #[test]
    fn connections_of_a_device_share_one_count_and_nobody_elses() {
        let devices = Devices::default();
        let (one, same, other) = (
            devices.memory(&id(1)),
            devices.memory(&id(1)),
            devices.memory(&id(2)),
        );
        static RESERVED_BYTES: std::sync::atomic::AtomicUsize =
            std::sync::atomic::AtomicUsize::new(0);
        let mut permit = crate::record::Permit::of_device(&RESERVED_BYTES, one);
        permit.add(7);
        assert_eq!((same.held_bytes(), other.held_bytes()), (7, 0));
    }

    /// A hundred thousand devices that come and go leave a table of those that stay.
    #[test]
    fn the_table_is_bounded_by_who_is_there() {
        let devices = Devices::default();
        let staying: Vec<_> = (0..1000)
            .map(|number| devices.memory(&id(number)))
            .collect();
        for number in 1000..100_000 {
            devices.memory(&id(number));
        }
        assert!(devices.len() <= 2 * staying.len() + PARTS * UNSWEPT_MAX);
        for (number, memory) in staying.iter().enumerate() {
            assert!(memory.is_shared(), "{number} is still known");
        }
    }
}
