//! The bounds of what a spool takes at once, and whether the batches fit them.
//!
//! The spool asserts that these bounds fit its format; a configuration is held against them before
//! anything is opened.

use super::value::{self, Parsed};
use super::{BatchConfig, SpoolConfig};

/// The least quota of a spool.
pub(crate) const SPOOL_BYTES_MIN: u64 = 32 << 20;

/// Payload bytes of a batch that any frame of a spool takes, whatever the quota.
pub(crate) const SPOOLED_BATCH_BYTES_MAX: usize = 32 << 20;

/// Records of a batch that any frame of a spool takes.
pub(crate) const SPOOLED_BATCH_RECORDS_MAX: usize = 65_536;

/// The part of the quota that a batch may have, so that several fit.
pub(crate) const BATCHES_PER_QUOTA: u64 = 4;

const _: () = assert!(BATCHES_PER_QUOTA > 1, "a quota holds more than one batch");

/// A quota that the spool's logs can roll their segments over in.
pub(crate) fn bytes(text: &str) -> Parsed<u64> {
    match value::size(text, usize::MAX)? as u64 {
        bytes if bytes < SPOOL_BYTES_MIN => Err("is too little for a spool: 32MiB at least".into()),
        bytes => Ok(bytes),
    }
}

/// The variable that makes batches too large for this spool, and how.
pub(crate) fn fault(spool: &SpoolConfig, batch: &BatchConfig) -> Option<(&'static str, String)> {
    let bytes_max = (spool.bytes_max / BATCHES_PER_QUOTA).min(SPOOLED_BATCH_BYTES_MAX as u64);
    if batch.bytes_max as u64 > bytes_max {
        let fault = format!(
            "is more than {}MiB, which is what this spool takes at once (32MiB, and a quarter of \
             FOREBAY_SPOOL_BYTES_MAX)",
            bytes_max >> 20
        );
        return Some(("FOREBAY_BATCH_BYTES", fault));
    }
    if batch.records_max > SPOOLED_BATCH_RECORDS_MAX {
        let fault =
            format!("is more than {SPOOLED_BATCH_RECORDS_MAX}, which a spool takes at once");
        return Some(("FOREBAY_BATCH_RECORDS", fault));
    }
    None
}
