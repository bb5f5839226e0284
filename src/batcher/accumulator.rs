//! Where a lane's records gather until they are sealed: a plain buffer that is told the time.

use std::time::Duration;
use tokio::time::Instant;

use crate::config::BatchConfig;
use crate::record::{AckSlot, Record};
use crate::telemetry::metrics::SealReason;

/// Records that travel together, and why they set out.
#[derive(Debug)]
pub struct Sealed {
    pub records: Vec<Record>,
    pub acks: Vec<AckSlot>,
    pub reason: SealReason,
    /// Payload bytes of all records.
    pub bytes: usize,
    /// When the first record came in.
    pub opened_at: Instant,
}

/// Records that wait for company. Holds less than a full batch between calls.
#[derive(Debug)]
pub struct Accumulator {
    limits: BatchConfig,
    records: Vec<Record>,
    /// Of each record.
    acks: Vec<AckSlot>,
    bytes: usize,
    opened_at: Option<Instant>,
}

impl Accumulator {
    pub fn new(limits: BatchConfig) -> Self {
        Self {
            limits,
            records: Vec::new(),
            acks: Vec::new(),
            bytes: 0,
            opened_at: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Adds a record. Seals what was there before when both together would be too many bytes, and what is there
    /// then when it is full; so up to two batches come out, in order.
    pub fn push(&mut self, record: Record, ack: AckSlot, now: Instant) -> [Option<Sealed>; 2] {
        let overflow = self.bytes + record.payload.len() > self.limits.bytes_max;
        let before = if overflow {
            self.seal(SealReason::Bytes)
        } else {
            None
        };
        self.opened_at.get_or_insert(now);
        self.bytes += record.payload.len();
        self.records.push(record);
        self.acks.push(ack);
        let full = self.full().and_then(|reason| self.seal(reason));
        [before, full]
    }

    fn full(&self) -> Option<SealReason> {
        if self.bytes >= self.limits.bytes_max {
            Some(SealReason::Bytes)
        } else if self.records.len() >= self.limits.records_max {
            Some(SealReason::Records)
        } else {
            None
        }
    }

    /// When the oldest record will have waited for the linger.
    pub fn due_at(&self) -> Option<Instant> {
        self.opened_at
            .map(|opened_at| opened_at + self.limits.linger)
    }

    /// Takes what has gathered; `None` when that is nothing.
    pub fn seal(&mut self, reason: SealReason) -> Option<Sealed> {
        let opened_at = self.opened_at.take()?;
        let (records, acks) = (
            std::mem::take(&mut self.records),
            std::mem::take(&mut self.acks),
        );
        Some(Sealed {
            records,
            acks,
            reason,
            bytes: std::mem::take(&mut self.bytes),
            opened_at,
        })
    }

    /// Takes emptied buffers back, to be filled again.
    pub fn reuse(&mut self, records: Vec<Record>, acks: Vec<AckSlot>) {
        reuse(&mut self.records, records);
        reuse(&mut self.acks, acks);
    }
}

fn reuse<T>(buffer: &mut Vec<T>, mut spare: Vec<T>) {
    if buffer.capacity() == 0 {
        spare.clear();
        *buffer = spare;
    }
}

impl Sealed {
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened_at)
    }
}
