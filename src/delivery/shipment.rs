//! Records on their way to the sink or to disk, and what is told of them when they have arrived.
//!
//! [`overflow`](super::overflow) makes a shipment safe as far as it can, and tells whoever it came from: a worker whose
//! requests wait, or the memory of records that were answered before ([`queued`](super::queued)).

use std::sync::Arc;

use tokio::time::Instant;

use crate::record::{DeviceId, Outcome, Outcomes, Receipt, Record, StreamIndex};

/// Records of one stream, and who is told what became of them.
pub(crate) struct Shipment {
    pub stream: StreamIndex,
    pub records: Vec<Record>,
    /// When the first of them came in.
    pub opened_at: Instant,
    pub home: Home,
}

/// Who is told.
pub(crate) enum Home {
    /// The worker whose requests wait.
    Worker(Receipt),
    /// Nobody waits: memory keeps what is not safe.
    Memory(Sent),
}

impl Home {
    pub(crate) fn is_answered(&self) -> bool {
        matches!(self, Self::Memory(_))
    }
}

/// What became of records. Those that are safe need not be there any more.
pub(crate) struct Settlement {
    /// Those that went to the sink.
    pub live: Vec<Record>,
    pub of_live: Outcomes,
    /// Those that went to disk, which have one outcome in common.
    pub held: Vec<Record>,
    pub of_held: Outcome,
    /// Of each record of the shipment, whether it is held; empty where none is.
    pub is_held: Vec<bool>,
}

/// A wave that is under way: what has to be known of it when it comes home.
pub(crate) struct Sent {
    pub stream: Arc<str>,
    pub devices: Vec<DeviceId>,
    pub records: usize,
}
