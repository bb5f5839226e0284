//! The access log: a JSON object a line, for a share of all requests.
//!
//! `gateway` opens it, each worker has an [`AccessLog`] of its own that picks its share evenly:
//! with a share of 0.01 every hundredth request has a line. `http` hands over each answered
//! request; one that is not picked costs an addition. Lines are written as [`Journal`] does: never
//! waited for, counted when they are lost.
//!
//! Invariant: no payload, header or path of a client is ever a field.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::Duration;

use super::journal::{Fields, Journal, line};

/// A request that has been answered.
pub(crate) struct Exchange<'a> {
    pub address: IpAddr,
    pub protocol: &'static str,
    /// The device; `None` where the certificate names none.
    pub device: Option<&'a str>,
    pub status: u16,
    /// The code of the problem, where the answer is one.
    pub code: Option<&'static str>,
    /// The time from the head's end to the answer.
    pub duration: Duration,
}

/// A worker's writer of the access log; it drops lines where there is no log.
pub(crate) struct AccessLog {
    journal: Option<Journal>,
    share: f64,
    /// The part of a line that has gathered, below 1.
    due: Cell<f64>,
}

impl AccessLog {
    /// No log.
    pub(crate) fn off() -> Self {
        Self {
            journal: None,
            share: 0.0,
            due: Cell::default(),
        }
    }

    /// A line for this share of requests.
    pub(crate) fn new(journal: Option<Journal>, share: f64) -> Self {
        Self {
            journal,
            share,
            due: Cell::default(),
        }
    }

    /// Whether the next request has a line.
    pub(crate) fn picks(&self) -> bool {
        let due = self.due.get() + self.share;
        debug_assert!(due < 2.0, "a share is 1 at most");
        let picks = due >= 1.0;
        self.due.set(if picks { due - 1.0 } else { due });
        picks
    }

    /// Writes the line.
    #[cold]
    pub(crate) fn record(&self, exchange: &Exchange<'_>) {
        let Some(journal) = &self.journal else { return };
        let mut fields = Fields::default();
        fields
            .of(exchange.address, exchange.protocol, exchange.device)
            .raw("status", exchange.status)
            .optional("code", exchange.code);
        fields.raw("duration_seconds", exchange.duration.as_secs_f64());
        journal.write(line(jiff::Timestamp::now(), "request", &fields));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_share_is_picked_evenly() {
        for (share, of, picked) in [
            (1.0, 10, 10),
            (0.01, 1000, 10),
            (0.3, 100, 30),
            (0.0, 1000, 0),
        ] {
            let log = AccessLog::new(None, share);
            let count = (0..of).filter(|_| log.picks()).count();
            assert!(count.abs_diff(picked) <= 1, "{count} of {of} for {share}");
        }
    }
}
