//! The memory budget over all records that are not yet safe, and a device's share of it.
//!
//! [`Budget::grow`] is the only way by which a permit comes to hold more. Invariants, whatever the
//! interleaving (`tests/loom_admission.rs`): the permits that were granted never exceed the budget;
//! a device holds at most an eighth of what all others leave, or one record of the largest size.
//! So one device alone gets an eighth of the budget, and eight of them leave a third of it free.

use crate::record::{DeviceMemory, Permit, Reserved};
use crate::sync::{AtomicUsize, Ordering};

/// A device's share is what the others leave, divided by this.
pub(crate) const SHARE: usize = 8;

/// The bound that a permit would exceed if it grew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All records together hold as much as they may.
    Budget,
    /// The device holds its share; there is room for others.
    Share,
}

/// Shared by all workers. Sizes are in bytes.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Leaked once a process: permits outlive everything that could own it.
    reserved_bytes: &'static AtomicUsize,
    bytes_max: usize,
    /// Bytes of the largest record; a device may hold one whatever the others hold.
    record_bytes_max: usize,
}

impl Budget {
    pub(crate) fn new(bytes_max: usize, record_bytes_max: usize) -> Self {
        assert!(
            record_bytes_max <= bytes_max,
            "the budget holds the largest record"
        );
        Self {
            reserved_bytes: Box::leak(Box::new(AtomicUsize::new(0))),
            bytes_max,
            record_bytes_max,
        }
    }

    /// A permit that holds nothing yet.
    pub(crate) fn permit(&self, device: &DeviceMemory) -> Permit {
        Permit::of_device(self.reserved_bytes, device.clone())
    }

    /// Lets the permit hold `bytes`; it keeps what it had where they are too many.
    pub(crate) fn grow(&self, permit: &mut Permit, bytes: usize) -> Result<(), Full> {
        let before = permit.bytes();
        if bytes <= before {
            return Ok(());
        }
        let reserved = permit.add(bytes - before);
        let judged = self.judge(reserved, bytes);
        if judged.is_err() {
            permit.shrink_to(before);
        }
        let held = if judged.is_ok() { bytes } else { before };
        debug_assert_eq!(permit.bytes(), held, "all of it, or nothing");
        judged
    }

    /// Whether the permit could hold `bytes` now. Nothing is reserved.
    pub(crate) fn has_room(&self, permit: &Permit, bytes: usize) -> Result<(), Full> {
        let more = bytes.saturating_sub(permit.bytes());
        let Reserved { in_all, of_device } = permit.reserved();
        let reserved = Reserved {
            in_all: in_all.saturating_add(more),
            of_device: of_device.saturating_add(more),
        };
        self.judge(reserved, bytes)
    }

    /// Whether a permit of `bytes` may be among what is reserved. A device that holds nothing else
    /// may hold one request, whatever its size: of many records, or with a decoder's window.
    fn judge(&self, reserved: Reserved, bytes: usize) -> Result<(), Full> {
        let Some(free) = self.bytes_max.checked_sub(reserved.in_all) else {
            return Err(Full::Budget);
        };
        let share = (free + reserved.of_device) / SHARE;
        let request_bytes = self.record_bytes_max.max(bytes);
        if reserved.of_device <= share.max(request_bytes) {
            Ok(())
        } else {
            Err(Full::Share)
        }
    }

    /// Bytes of all records that are not yet safe.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.reserved_bytes.load(Ordering::Relaxed)
    }
}
