//! The accumulator: a lane's records until they are sealed, in a plain buffer that is told the
//! time.

use std::time::Duration;
use tokio::time::Instant;

use super::spares::Buffers;
use crate::config::BatchConfig;
use crate::record::{AckSlot, Record};
use crate::words::SealReason;

/// Records that travel together, and why they are sent.
#[derive(Debug)]
pub struct Sealed {
    pub records: Vec<Record>,
    pub acks: Vec<AckSlot>,
    pub reason: SealReason,
    /// Payload bytes of all records.
    pub bytes: usize,
    /// Arrival of the first record.
    pub opened_at: Instant,
}

/// Records that wait for company. Holds less than a full batch between calls.
#[derive(Debug)]
pub struct Accumulator {
    limits: BatchConfig,
    gathered: Buffers,
    bytes: usize,
    /// Arrival of the first record; `None` while there is none.
    opened_at: Option<Instant>,
}

impl Accumulator {
    pub fn new(limits: BatchConfig) -> Self {
        assert!(
            limits.records_max > 0 && limits.bytes_max > 0,
            "an empty batch is not full"
        );
        Self {
            limits,
            gathered: Buffers::default(),
            bytes: 0,
            opened_at: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.opened_at.is_none()
    }

    pub fn len(&self) -> usize {
        self.gathered.records.len()
    }

    /// Adds a record. Seals the earlier records if both together would be too many bytes, and then
    /// the buffer if it is full; so up to two batches come out, in order.
    pub fn push(&mut self, record: Record, ack: AckSlot, now: Instant) -> [Option<Sealed>; 2] {
        self.check();
        let overflow = self.bytes + record.sent_bytes() > self.limits.bytes_max;
        let before = if overflow {
            self.seal(SealReason::Bytes)
        } else {
            None
        };
        self.opened_at.get_or_insert(now);
        self.bytes += record.sent_bytes();
        self.gathered.records.push(record);
        self.gathered.acks.push(ack);
        let full = self.full().and_then(|reason| self.seal(reason));
        self.check();
        [before, full]
    }

    /// Asserts the invariants between calls.
    fn check(&self) {
        let records = self.gathered.records.len();
        debug_assert_eq!(records, self.gathered.acks.len());
        debug_assert_eq!(records > 0, self.opened_at.is_some());
        debug_assert!(self.full().is_none(), "a full batch does not wait");
    }

    fn full(&self) -> Option<SealReason> {
        if self.bytes >= self.limits.bytes_max {
            Some(SealReason::Bytes)
        } else if self.gathered.records.len() >= self.limits.records_max {
            Some(SealReason::Records)
        } else {
            None
        }
    }

    /// Records that there is room for.
    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.gathered.records.capacity()
    }

    /// Returns the time at which the oldest record will have waited for the linger.
    pub fn due_at(&self) -> Option<Instant> {
        self.opened_at
            .map(|opened_at| opened_at + self.limits.linger)
    }

    /// Takes the gathered records; `None` if there are none.
    pub fn seal(&mut self, reason: SealReason) -> Option<Sealed> {
        let opened_at = self.opened_at.take()?;
        let Buffers { records, acks } = std::mem::take(&mut self.gathered);
        debug_assert!(!records.is_empty(), "what was opened has a record");
        Some(Sealed {
            records,
            acks,
            reason,
            bytes: std::mem::take(&mut self.bytes),
            opened_at,
        })
    }

    /// Gathers in these buffers, which are empty, as there is nothing yet.
    pub fn gather_in(&mut self, buffers: Buffers) {
        debug_assert!(self.is_empty() && buffers.is_empty());
        self.gathered = buffers;
    }
}

impl Sealed {
    pub(crate) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.opened_at)
    }
}
