//! The emptied buffers of a worker's batches, to be filled again by whichever lane opens next.
//!
//! Few and small enough to be kept for good: further ones of a burst are given back when its
//! batches have come home, however many lanes it went through.

use std::cell::RefCell;

use crate::record::{AckSlot, Record};

/// Buffers that are kept.
pub(crate) const SPARES_MAX: usize = 8;

/// A buffer with room for more records is not kept: a batch of so many pays for a new one.
pub(crate) const SPARE_RECORDS_MAX: usize = 1024;

/// The records of a batch and, for each, who waits for its ack.
#[derive(Debug, Default)]
pub struct Buffers {
    pub records: Vec<Record>,
    pub acks: Vec<AckSlot>,
}

impl Buffers {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.acks.is_empty()
    }

    fn capacity(&self) -> usize {
        self.records.capacity().max(self.acks.capacity())
    }
}

/// The buffers that a worker keeps.
#[derive(Debug, Default)]
pub(crate) struct Spares(RefCell<Vec<Buffers>>);

impl Spares {
    /// Buffers that are empty.
    pub(crate) fn take(&self) -> Buffers {
        let buffers = self.0.borrow_mut().pop().unwrap_or_default();
        debug_assert!(buffers.is_empty(), "they were emptied when they were given");
        buffers
    }

    /// Drops the records, and keeps the buffers where they are worth it.
    pub(crate) fn give(&self, mut buffers: Buffers) {
        buffers.records.clear();
        buffers.acks.clear();
        let mut spares = self.0.borrow_mut();
        if buffers.capacity() <= SPARE_RECORDS_MAX && spares.len() < SPARES_MAX {
            spares.push(buffers);
        }
    }

    /// Records that there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        let spares = self.0.borrow();
        spares
            .iter()
            .map(|buffers| buffers.records.capacity())
            .sum()
    }
}
