//! Records that were dropped to make room, as the log tells of them: at once, then once a minute, and none is left out.
//!
//! The metric counts them as they are dropped. Time is an argument.

use std::time::{Duration, Instant};

const LOG_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Dropped {
    /// Not told of yet.
    records: u64,
    told_at: Option<Instant>,
}

impl Dropped {
    pub fn add(&mut self, records: u64) {
        self.records += records;
    }

    /// When to tell next; `None` while there is nothing to tell, or it may be told at once.
    pub fn due(&self) -> Option<Instant> {
        self.told_at.filter(|_| self.records > 0).map(|at| at + LOG_INTERVAL)
    }

    /// Tells of what has gathered, if it is time.
    pub fn tell(&mut self, now: Instant) {
        if self.records > 0 && self.due().is_none_or(|due| now >= due) {
            tracing::warn!(records = self.records, "the spool is full: its oldest records were dropped");
            *self = Self { records: 0, told_at: Some(now) };
        }
    }
}
