//! Counts of the requests that a connection sent: accepted, refused, bytes.

use crate::record::Timestamp;

/// The requests of a connection or of a device, since some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Answered 200 or 204.
    pub accepted: u64,
    /// Answered otherwise.
    pub refused: u64,
    /// Bytes of the decoded bodies of accepted requests.
    pub bytes: u64,
}

impl Counts {
    pub(super) fn is_nothing(&self) -> bool {
        debug_assert!(
            self.accepted > 0 || self.bytes == 0,
            "bytes are of requests"
        );
        self.accepted == 0 && self.refused == 0
    }

    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            accepted: self.accepted + other.accepted,
            refused: self.refused + other.refused,
            bytes: self.bytes + other.bytes,
        }
    }

    /// Returns the counts since they were `before`.
    pub(super) fn since(&self, before: &Self) -> Self {
        debug_assert!(self.accepted >= before.accepted && self.refused >= before.refused);
        Self {
            accepted: self.accepted - before.accepted,
            refused: self.refused - before.refused,
            bytes: self.bytes - before.bytes,
        }
    }
}

/// Counts of a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub from: Timestamp,
    pub to: Timestamp,
    pub counts: Counts,
}

impl Usage {
    /// Adds two usages, from the earlier beginning to the later end.
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            from: self.from.min(other.from),
            to: self.to.max(other.to),
            counts: self.counts.plus(&other.counts),
        }
    }
}
