//! Room for the events that wait for their stream: a share of memory apart from that of readings, so
//! that neither takes the other's.

use std::sync::atomic::AtomicUsize;

use crate::record::Permit;

/// Events of the gateway that wait for their stream, at most. A fleet of a thousand devices may come
/// back within a second while its stream is away for four.
pub(super) const EVENTS_WAITING_MAX: usize = 8192;

/// Bytes that an event is reckoned at: with the longest names that it may have, and with what goes
/// with it in memory.
const EVENT_BYTES: usize = 2048;

/// A count of the bytes of all events that wait. Clones share it.
#[derive(Clone)]
pub(super) struct Room(&'static AtomicUsize);

impl Room {
    /// Leaked once a process, as permits outlive everything that could own it.
    pub(super) fn empty() -> Self {
        Self(Box::leak(Box::default()))
    }

    /// Takes room for one event, until the permit is dropped; `None` where there is none.
    pub(super) fn take(&self) -> Option<Permit> {
        let mut permit = Permit::of_nobody(self.0);
        let reserved = permit.add(EVENT_BYTES);
        (reserved.in_all <= EVENTS_WAITING_MAX * EVENT_BYTES).then_some(permit)
    }

    /// Takes room that may not be there.
    pub(super) fn take_anyway(&self) -> Permit {
        let mut permit = Permit::of_nobody(self.0);
        permit.add(EVENT_BYTES);
        permit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_again_when_one_is_gone() {
        let room = Room::empty();
        let mut waiting: Vec<_> = (0..EVENTS_WAITING_MAX).map(|_| room.take()).collect();
        assert!(waiting.iter().all(Option::is_some) && room.take().is_none());
        waiting.pop();
        let _beyond = (room.take().unwrap(), room.take_anyway());
        assert!(room.take().is_none());
    }
}
