//! The count of each device's connections.
//!
//! `accept` takes a seat once the handshake has said which device it is, and keeps it for as long
//! as it serves. A device that reconnects without end, or whose key is a thief's, gets no more than
//! its share; the connection beyond that is closed. The lock is taken when a connection begins and
//! when it ends. The table is bounded by the connections.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the connections of each device, for all workers.
pub(crate) struct Seats {
    device_max: usize,
    /// Drawn at start, so that nobody can look for two names of one key.
    secret: RandomState,
    taken: Mutex<HashMap<u64, usize>>,
}

/// The place of one connection among those of its device; freed on drop.
pub(crate) struct Seat {
    seats: Arc<Seats>,
    device: u64,
}

impl Seats {
    pub(crate) fn new(device_max: usize) -> Self {
        Self {
            device_max,
            secret: RandomState::new(),
            taken: Mutex::default(),
        }
    }

    /// Takes a seat. `None` when the device of this name has all of them.
    pub(crate) fn take(self: &Arc<Self>, name: &[u8]) -> Option<Seat> {
        let device = self.secret.hash_one(name);
        let mut taken = self.lock();
        let seats = taken.entry(device).or_default();
        if *seats >= self.device_max {
            return None;
        }
        *seats += 1;
        debug_assert!(*seats <= self.device_max);
        Some(Seat {
            seats: self.clone(),
            device,
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        let Entry::Occupied(mut seats) = taken.entry(self.device) else {
            debug_assert!(false, "a device is in the table while it has a seat");
            return;
        };
        *seats.get_mut() -= 1;
        if *seats.get() == 0 {
            seats.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_so_many_seats() {
        let seats = Arc::new(Seats::new(2));
        let mut held: Vec<_> = (0..3).map(|_| seats.take(b"plc-1")).collect();
        let are_taken: Vec<_> = held.iter().map(Option::is_some).collect();
        assert_eq!(are_taken, [true, true, false]);
        assert!(seats.take(b"plc-2").is_some());
        held.remove(0);
        held.push(seats.take(b"plc-1"));
        assert!(held.last().is_some_and(Option::is_some));
        drop(held);
        assert!(seats.lock().is_empty(), "who is gone is forgotten");
    }
}
