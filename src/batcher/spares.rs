//! The emptied buffers of a worker's batches, to be filled again by whichever lane opens next.
//!
//! Few and small enough to be kept for good: what a burst needed beyond that is given back when its
//! batches have come home, however many lanes it went through.

use std::cell::RefCell;

use crate::record::{AckSlot, Record};

/// Buffers that are kept.
pub(crate) const SPARES_MAX: usize = 8;

/// A buffer with room for more records is not kept: a batch of so many pays for a new one.
pub(crate) const SPARE_RECORDS_MAX: usize = 1024;

/// Records and, for each, who waits for it.
#[derive(Debug, Default)]
pub struct Buffers {
    pub records: Vec<Record>,
    pub acks: Vec<AckSlot>,
}

/// The buffers that a worker keeps.
#[derive(Debug, Default)]
pub(crate) struct Spares(RefCell<Vec<Buffers>>);

impl Spares {
    /// Buffers that are empty.
    pub(crate) fn take(&self) -> Buffers {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Drops the records, and keeps the buffers where they are worth it.
    pub(crate) fn give(&self, mut buffers: Buffers) {
        buffers.records.clear();
        buffers.acks.clear();
        let capacity = buffers.records.capacity().max(buffers.acks.capacity());
        let mut spares = self.0.borrow_mut();
        if capacity <= SPARE_RECORDS_MAX && spares.len() < SPARES_MAX {
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
