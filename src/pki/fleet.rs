//! Devices by the thousand, on all cores.

use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use super::{Authority, Days, PkiError};
use crate::record::DeviceId;

/// The most devices of one fleet.
pub(crate) const FLEET_DEVICES_MAX: u32 = 1_000_000;

/// The digits that a number has at least.
const DIGITS: usize = 6;

/// Counts of a fleet's certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fleet {
    pub made: u32,
    /// Certificates that were there before, and were left alone.
    pub kept: u32,
}

impl Authority {
    /// `prefix` and a number of six digits, from 1 to `count`. Devices that have a certificate keep
    /// it, so a fleet can grow, and one that was interrupted can be completed.
    pub(crate) fn issue_fleet(
        &self,
        prefix: &str,
        count: u32,
        days: Days,
    ) -> Result<Fleet, PkiError> {
        let count = count.min(FLEET_DEVICES_MAX);
        // The last number is the longest: if that is an id, all of them are.
        id(prefix, count)?;
        let next = AtomicU32::new(1);
        let work = || {
            let mut made = 0;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number > count {
                    return Ok(made);
                }
                made += self.issue_missing(&id(prefix, number)?, days)?;
            }
        };
        let made = on_all_cores(work)?;
        debug_assert!(made <= count, "each number is taken once");
        Ok(Fleet {
            made,
            kept: count - made,
        })
    }

    /// Issues the certificate where it is missing; returns the number made, 1 or 0.
    fn issue_missing(&self, id: &DeviceId, days: Days) -> Result<u32, PkiError> {
        if self.folder.device(id).exists() {
            return Ok(0);
        }
        self.issue_device(id, days).map(|()| 1)
    }
}

fn id(prefix: &str, number: u32) -> Result<DeviceId, PkiError> {
    let id = format!("{prefix}{number:0DIGITS$}");
    DeviceId::parse(&id).ok_or(PkiError::NotAnId(id))
}

/// The sum of what the threads have made, or the first error.
fn on_all_cores(work: impl Fn() -> Result<u32, PkiError> + Sync) -> Result<u32, PkiError> {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let mut made = Ok(0);
        for thread in threads {
            let result = thread.join().unwrap_or_else(|panic| resume_unwind(panic));
            made = made.and_then(|made| Ok(made + result?));
        }
        made
    })
}
