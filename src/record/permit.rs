//! A record's share of the memory budget, and the device that it is reckoned to.
//!
//! `admission` hands permits out, lets them grow while a body arrives, and keeps them within the
//! budget. A permit travels with its record and gives its bytes back when it is dropped, on
//! whatever thread that is: nothing here waits or locks (`tests/loom_admission.rs` walks the
//! interleavings).

use crate::sync::{Arc, AtomicUsize, Ordering};

/// A count of the bytes that the records of one device hold of the memory budget. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DeviceMemory(Arc<AtomicUsize>);

impl DeviceMemory {
    pub fn held_bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether a connection or a permit has a clone of this one.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// A share of the memory budget, in bytes; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    reserved_bytes: &'static AtomicUsize,
    /// `None` for a record that was read back from disk.
    device: Option<DeviceMemory>,
    bytes: usize,
}

/// The bytes that are reserved, with a permit's latest growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub in_all: usize,
    pub of_device: usize,
}

impl Permit {
    /// Returns a permit that holds nothing yet, and will hold bytes for no device.
    pub(crate) fn of_nobody(reserved_bytes: &'static AtomicUsize) -> Self {
        Self {
            reserved_bytes,
            device: None,
            bytes: 0,
        }
    }

    /// Returns a permit that holds nothing yet, and will hold bytes for the device.
    pub fn of_device(reserved_bytes: &'static AtomicUsize, device: DeviceMemory) -> Self {
        Self {
            reserved_bytes,
            device: Some(device),
            bytes: 0,
        }
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Reserves `bytes` more without asking whether they are there: the caller judges by the sum
    /// that is reserved then, and gives them back if it is too much.
    pub(crate) fn add(&mut self, bytes: usize) -> Reserved {
        self.bytes += bytes;
        let in_all = self.reserved_bytes.fetch_add(bytes, Ordering::Relaxed);
        let of_device = match &self.device {
            Some(device) => device.0.fetch_add(bytes, Ordering::Relaxed),
            None => 0,
        };
        debug_assert!(
            in_all + bytes >= self.bytes,
            "the sum has this permit in it"
        );
        Reserved {
            in_all: in_all + bytes,
            of_device: of_device + bytes,
        }
    }

    /// Returns the bytes that are reserved now.
    pub(crate) fn reserved(&self) -> Reserved {
        Reserved {
            in_all: self.reserved_bytes.load(Ordering::Relaxed),
            of_device: self.device.as_ref().map_or(0, DeviceMemory::held_bytes),
        }
    }

    /// Splits off `bytes` of those that it holds, for a permit of their own.
    pub(crate) fn split_off(&mut self, bytes: usize) -> Self {
        debug_assert!(bytes <= self.bytes, "it holds what it parts with");
        self.bytes -= bytes;
        Self {
            reserved_bytes: self.reserved_bytes,
            device: self.device.clone(),
            bytes,
        }
    }

    /// Parts with all that it holds.
    #[inline]
    pub(crate) fn take(&mut self) -> Self {
        let nothing = Self::of_nobody(self.reserved_bytes);
        std::mem::replace(self, nothing)
    }

    /// Gives back all but `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let excess = self.bytes.saturating_sub(bytes);
        if excess == 0 {
            return;
        }
        self.bytes -= excess;
        give_back(self.reserved_bytes, excess);
        if let Some(device) = &self.device {
            give_back(&device.0, excess);
        }
    }
}

fn give_back(reserved_bytes: &AtomicUsize, bytes: usize) {
    let before = reserved_bytes.fetch_sub(bytes, Ordering::Relaxed);
    debug_assert!(before >= bytes, "what is given back was reserved");
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
