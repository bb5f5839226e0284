//! May this record come in? The memory budget over all records that are not yet safe, and whether
//! its stream is there.
//!
//! Ingest asks before it reads a body, and again as the body arrives: what is reserved is what has
//! come, so a head alone costs next to nothing. What it gets is a [`Permit`] that travels with the
//! record and gives its bytes back when the record is dropped, wherever that is. The sum of all
//! permits never exceeds the budget, and no device holds more than its share of it ([`budget`]).

mod budget;
mod devices;

use std::sync::Arc;

use crate::config::MEMORY_HEADROOM_BYTES;
use crate::health::Health;
use crate::lifecycle::{Phase, Phases};
use crate::record::{DeviceId, DeviceMemory, Permit, StreamIndex};
use budget::{Budget, Full};
use devices::Devices;

/// Bytes that a record is reckoned at beside its payload: itself, its headers, and its share of the
/// buffers that its payload pins and that the sink's client makes.
pub const RECORD_OVERHEAD_BYTES: usize = 1024;

const _: () = assert!(
    RECORD_OVERHEAD_BYTES <= MEMORY_HEADROOM_BYTES,
    "a budget that is accepted holds the largest record"
);

/// So much of what a head declares is reserved with it: most readings are reserved in one go.
const DECLARED_BYTES_AT_ONCE_MAX: usize = 1024;

/// Why nothing can come in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    MemoryBudget,
    /// The device holds its share of the memory budget.
    DeviceShare,
    SinkAway,
    Draining,
}

impl From<Full> for Shed {
    fn from(full: Full) -> Self {
        match full {
            Full::Budget => Self::MemoryBudget,
            Full::Share => Self::DeviceShare,
        }
    }
}

/// Judges what may come in, for all workers.
pub struct Admission {
    budget: Budget,
    devices: Devices,
    sink: Arc<Health>,
    phases: Phases,
}

impl Admission {
    /// The budget holds at least one body of `body_bytes_max` bytes and what it costs beside.
    pub fn new(bytes_max: usize, body_bytes_max: usize, sink: Arc<Health>, phases: Phases) -> Self {
        Self {
            budget: Budget::new(bytes_max, body_bytes_max + RECORD_OVERHEAD_BYTES),
            devices: Devices::default(),
            sink,
            phases,
        }
    }

    /// Tells what the records of a device hold, to be looked up once per connection.
    pub fn device(&self, device: &DeviceId) -> DeviceMemory {
        self.devices.memory(device)
    }

    /// Whether the partition of the stream to which the device's records go takes some.
    pub(crate) fn check_partition(
        &self,
        stream: StreamIndex,
        device: &DeviceId,
    ) -> Result<(), Shed> {
        let is_admitted = self.sink.admits_device(stream, device);
        is_admitted.then_some(()).ok_or(Shed::SinkAway)
    }

    /// Gives a permit for a record of the stream whose body is still to come. A body that is
    /// declared must have room now, which is not kept for it.
    pub fn reserve(
        &self,
        stream: StreamIndex,
        device: &DeviceMemory,
        declared_bytes: Option<usize>,
    ) -> Result<Permit, Shed> {
        if self.phases.has_reached(Phase::Hurrying) {
            return Err(Shed::Draining);
        }
        if !self.sink.admits(stream) {
            return Err(Shed::SinkAway);
        }
        let declared_bytes = declared_bytes.unwrap_or(0);
        let mut permit = self.budget.permit(device);
        self.grow(&mut permit, declared_bytes.min(DECLARED_BYTES_AT_ONCE_MAX))?;
        if declared_bytes > DECLARED_BYTES_AT_ONCE_MAX {
            self.budget
                .has_room(&permit, declared_bytes + RECORD_OVERHEAD_BYTES)?;
        }
        debug_assert!(permit.bytes() >= RECORD_OVERHEAD_BYTES);
        Ok(permit)
    }

    /// Lets the permit hold a payload of so many bytes, and what a record costs beside it.
    pub(crate) fn grow(&self, permit: &mut Permit, payload_bytes: usize) -> Result<(), Shed> {
        Ok(self
            .budget
            .grow(permit, payload_bytes + RECORD_OVERHEAD_BYTES)?)
    }

    /// Bytes of all records that are not yet safe.
    pub fn reserved_bytes(&self) -> usize {
        self.budget.reserved_bytes()
    }
}

#[cfg(test)]
mod tests;
