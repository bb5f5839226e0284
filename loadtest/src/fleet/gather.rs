//! Puts the workers' snapshots together: per second for the plots, and in total.
//!
//! A second is closed when all threads have told theirs, or when three later ones have begun; what
//! comes later still counts in the total. Closed seconds are kept as a few numbers each, so a day's
//! run fits in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use super::crew::Snapshot;
use crate::ledger::Status;
use crate::protocol::Protocol;
use crate::report::Second;
use crate::scenario::Group;
use crate::statistics::Tally;

/// Seconds that may be open at once.
const OPEN_SECONDS_MAX: usize = 4;

/// A second that is not closed yet.
#[derive(Default)]
struct OpenSecond {
    parts: u32,
    connections: i64,
    tally: Tally,
}

impl OpenSecond {
    fn add(&mut self, snapshot: &Snapshot) {
        self.parts += 1;
        self.connections += snapshot.open;
        for tally in &snapshot.groups {
            self.tally.merge(tally);
        }
    }

    fn close(self, second: u32) -> Second {
        let Self {
            connections, tally, ..
        } = self;
        let latency = &tally.latency;
        Second {
            t: second + 1,
            ended: tally.ended(),
            statuses: tally.statuses_by_name(),
            connections,
            p50: latency.quantile(0.5),
            p90: latency.quantile(0.9),
            p99: latency.quantile(0.99),
            p99_9: latency.quantile(0.999),
            max: latency.max(),
            behind: tally.behind,
            missed: tally.missed,
            send_lateness_p99: tally.lateness.quantile(0.99),
            handshakes: tally.handshakes.count(),
            handshakes_failed: tally.handshakes_failed,
        }
    }
}

/// Counts of all workers so far.
pub(crate) struct Gathered {
    slots: u32,
    open: BTreeMap<u32, OpenSecond>,
    /// Closed seconds as the report shows them.
    pub seconds: Vec<Second>,
    /// Counts from before the run.
    pub setup: Tally,
    pub groups: [Tally; Group::COUNT],
    /// The same counts, by what was spoken.
    pub protocols: [Tally; Protocol::ALL.len()],
    pub certificates: u64,
    pub certificate_seconds: f64,
    pub setup_seconds: f64,
    /// Faults of the generator.
    pub faults: Vec<String>,
}

impl Gathered {
    pub(crate) fn new(slots: u32) -> Self {
        Self {
            slots,
            open: BTreeMap::new(),
            seconds: Vec::new(),
            setup: Tally::default(),
            groups: Default::default(),
            protocols: Default::default(),
            certificates: 0,
            certificate_seconds: 0.0,
            setup_seconds: 0.0,
            faults: Vec::new(),
        }
    }

    /// Takes in what one thread has counted.
    pub(crate) fn take(&mut self, snapshot: Snapshot) {
        let Some(second) = snapshot.second else {
            let groups = snapshot.groups.iter();
            return groups.for_each(|tally| self.setup.merge(tally));
        };
        for (all, tally) in self.groups.iter_mut().zip(&snapshot.groups) {
            all.merge(tally);
        }
        for (all, tally) in self.protocols.iter_mut().zip(&snapshot.protocols) {
            all.merge(tally);
        }
        let is_closed = self.seconds.last().is_some_and(|last| last.t > second);
        if is_closed {
            return;
        }
        self.open.entry(second).or_default().add(&snapshot);
        while self.first_is_whole() || self.open.len() > OPEN_SECONDS_MAX {
            self.close_first();
        }
    }

    /// Takes in that certificates were made, in so many seconds.
    pub(crate) fn take_certificates(&mut self, count: u64, seconds: f64) {
        self.certificates += count;
        self.certificate_seconds = self.certificate_seconds.max(seconds);
    }

    pub(crate) fn finish(&mut self) {
        while !self.open.is_empty() {
            self.close_first();
        }
    }

    /// Whether all threads have told their part of the first open second.
    fn first_is_whole(&self) -> bool {
        let first = self.open.first_key_value();
        first.is_some_and(|(_, open)| open.parts == self.slots)
    }

    fn close_first(&mut self) {
        let (second, open) = self.open.pop_first().expect("who asks has seen one");
        debug_assert!(
            self.seconds.last().is_none_or(|last| last.t <= second),
            "seconds are closed in their order"
        );
        self.seconds.push(open.close(second));
    }

    /// Adds up all groups.
    pub(crate) fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.groups.iter().for_each(|group| total.merge(group));
        total
    }

    /// The line that the terminal shows while the fleet runs.
    pub(crate) fn line(&self, running: Duration, duration: Duration) -> String {
        let Some(last) = self.seconds.last() else {
            return "begun".into();
        };
        let is_bad = |tally: &Tally| tally.ended() - tally.count(Status::SAFE);
        let bad: u64 = self.groups.iter().map(is_bad).sum();
        format!(
            "{:.0}/{:.0} s · {} /s · p50 {:.1} ms · p99 {:.1} ms · max {:.1} ms · {} open · {} not 204",
            running.as_secs_f64(),
            duration.as_secs_f64(),
            last.ended,
            last.p50 as f64 / 1e3,
            last.p99 as f64 / 1e3,
            last.max as f64 / 1e3,
            last.connections,
            bad,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(second: u32, answers: u64) -> Snapshot {
        let mut groups: [Tally; Group::COUNT] = Default::default();
        groups[0].statuses.insert(Status::SAFE, answers);
        Snapshot {
            second: Some(second),
            open: 5,
            groups,
            protocols: Default::default(),
        }
    }

    #[test]
    fn a_second_is_closed_by_its_last_part() {
        let mut gathered = Gathered::new(2);
        gathered.take(snapshot(0, 3));
        assert!(gathered.seconds.is_empty());
        gathered.take(snapshot(0, 4));
        assert_eq!(
            (gathered.seconds[0].ended, gathered.seconds[0].connections),
            (7, 10)
        );
    }

    #[test]
    fn what_comes_late_counts_in_the_total() {
        let mut gathered = Gathered::new(2);
        (0..10).for_each(|second| gathered.take(snapshot(second, 1)));
        assert_eq!(gathered.seconds.len(), 10 - OPEN_SECONDS_MAX);
        gathered.take(snapshot(0, 1));
        gathered.finish();
        assert_eq!((gathered.seconds.len(), gathered.total().ended()), (10, 11));
    }
}
