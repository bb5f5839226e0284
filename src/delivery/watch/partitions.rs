//! State of the partitions, or shards, of a stream. Away are those without a leader, those that
//! have more to do than they get done, and those that owe answers although others of their stream
//! answer.
//!
//! The sink tells of the first two; stragglers tell of silence. A partition that is away is named
//! on `/readyz`. Its devices' records go to disk at once if there is a spool, and are refused at
//! once if there is none; its records on disk wait. Silence is believed for [`SILENCE_MEMORY`]:
//! then some records are let in, and show whether it lasts.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use tokio::time::Instant;

use crate::health::Spread;
use crate::record::DeviceId;
use crate::sink::Partitions;

/// Acknowledgement times for which a partition owes an answer until it counts as silent.
const SILENT_AFTER_ACKS: u32 = 8;

/// The least time until a partition counts as silent; the most is this part of the ack time-out,
/// where that is more.
const SILENT_AFTER_MIN: Duration = Duration::from_secs(1);
const SILENT_AFTER_PART: u32 = 2;

/// Time for which silence is believed without a straggler that confirms it.
const SILENCE_MEMORY: Duration = Duration::from_secs(2);

/// The least time between two lines of the log about the partitions of a stream.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Returns the time for which a partition owes an answer until it counts as silent.
pub(crate) fn silent_after(ack_time: Duration, ack_timeout: Duration) -> Duration {
    let most = ack_timeout / SILENT_AFTER_PART;
    let after = ack_time.saturating_mul(SILENT_AFTER_ACKS).min(most);
    after.max(SILENT_AFTER_MIN)
}

/// State of the partitions of one stream.
#[derive(Debug, Default)]
pub(super) struct StreamPartitions {
    /// `None` while it is not known where a device's records go.
    spread: Option<Spread>,
    /// Partitions that the sink reports as away.
    told: BTreeSet<u32>,
    may_be_silent: bool,
    /// Silent partitions, each with the time until which that is believed.
    silent: BTreeMap<u32, Instant>,
    away: BTreeSet<u32>,
    /// Devices go elsewhere than they did when it was reviewed last.
    is_respread: bool,
    moves: u64,
    has_news: bool,
    logged_at: Option<Instant>,
}

impl StreamPartitions {
    /// Takes in the sink's latest report of them.
    pub(super) fn found(&mut self, found: Option<Partitions>) {
        let Some(Partitions {
            spread,
            away,
            may_be_silent,
        }) = found
        else {
            return;
        };
        let known = self.spread.as_ref();
        if !known.is_some_and(|known| known.is_as(&spread)) {
            self.silent.clear();
            self.is_respread = true;
        }
        self.spread = Some(spread);
        self.told = away;
        self.may_be_silent = may_be_silent;
    }

    /// Records of these devices straggle.
    pub(super) fn straggle<'a>(
        &mut self,
        devices: impl Iterator<Item = &'a DeviceId>,
        now: Instant,
    ) {
        let Some(spread) = self.spread.as_ref().filter(|_| self.may_be_silent) else {
            return;
        };
        for device in devices {
            let until = now + SILENCE_MEMORY;
            self.silent.insert(spread.partition(device), until);
        }
    }

    /// Whether other partitions are away than before, or other devices go there.
    pub(super) fn review(&mut self, now: Instant) -> bool {
        self.silent.retain(|_, until| *until > now);
        let mut away = self.told.clone();
        away.extend(self.silent.keys());
        let is_respread = mem::take(&mut self.is_respread) && !away.is_empty();
        let has_changed = is_respread || away != self.away;
        self.moves += u64::from(has_changed);
        self.has_news |= has_changed;
        self.away = away;
        has_changed
    }

    /// Logs which partitions of this stream are away, at most once per [`LOG_INTERVAL`]: a
    /// partition that comes and goes is no news each time.
    pub(super) fn log_news(&mut self, stream: &str, now: Instant) {
        let logged_lately = |at| now - at < LOG_INTERVAL;
        if !self.has_news || self.logged_at.is_some_and(logged_lately) {
            return;
        }
        self.has_news = false;
        self.logged_at = Some(now);
        match self.spread.as_ref().filter(|_| self.any_away()) {
            None => tracing::info!(stream, "all partitions are back"),
            Some(spread) => {
                let which = spread.names(&self.away);
                tracing::warn!(stream, which, "partitions are away");
            }
        }
    }

    /// Returns how many times the set of partitions that are away has changed.
    pub(super) fn moves(&self) -> u64 {
        self.moves
    }

    /// Returns the partitions that are away, and the stream's spread.
    pub(super) fn away(&self) -> (Option<&Spread>, &BTreeSet<u32>) {
        debug_assert!(self.spread.is_some() || self.away.is_empty());
        (self.spread.as_ref(), &self.away)
    }

    /// Whether any is away.
    pub(super) fn any_away(&self) -> bool {
        !self.away.is_empty()
    }

    /// Whether the device's records go to a partition that is away.
    pub(super) fn has_away(&self, device: &DeviceId) -> bool {
        let spread = self.spread.as_ref().filter(|_| self.any_away());
        spread.is_some_and(|spread| self.away.contains(&spread.partition(device)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_length(key: &[u8], partitions: u32) -> u32 {
        key.len() as u32 % partitions
    }

    fn found(partitions: u32, away: &[u32]) -> Option<Partitions> {
        let spread = Spread::Hashed {
            find: by_length,
            partitions,
        };
        Some(Partitions {
            spread,
            away: away.iter().copied().collect(),
            may_be_silent: true,
        })
    }

    /// Brokers that are merely slow, as those on object storage are, have no silent partition.
    #[test]
    fn silence_is_longer_than_acknowledgements_take() {
        let after = |ack_millis, timeout_secs| {
            let ack_time = Duration::from_millis(ack_millis);
            silent_after(ack_time, Duration::from_secs(timeout_secs)).as_millis()
        };
        assert_eq!([0, 1, 100].map(|ack| after(ack, 10)), [1000; 3]);
        assert_eq!([400, 500].map(|ack| after(ack, 10)), [3200, 4000]);
        assert_eq!([1000, 9000].map(|ack| after(ack, 10)), [5000; 2]);
        assert_eq!(after(400, 1), 1000, "as long as a request waits");
    }

    #[test]
    fn a_partition_is_away_without_a_leader_or_while_it_is_silent() {
        let (now, device) = (Instant::now(), |name| DeviceId::parse(name).unwrap());
        let mut partitions = StreamPartitions::default();
        partitions.straggle([device("a")].iter(), now);
        assert!(!partitions.review(now), "nobody knows where it went");
        partitions.found(found(4, &[2]));
        assert!(partitions.review(now) && !partitions.review(now));
        assert!(partitions.has_away(&device("bb")) && !partitions.has_away(&device("ccc")));
        partitions.straggle([device("ccc")].iter(), now);
        partitions.found(found(4, &[]));
        assert!(partitions.review(now) && partitions.has_away(&device("ccc")));
        assert!(!partitions.has_away(&device("bb")), "it has a leader again");
        assert!(partitions.review(now + SILENCE_MEMORY) && !partitions.any_away());
        partitions.found(found(4, &[2]));
        assert!(partitions.review(now) && partitions.has_away(&device("bb")));
        partitions.found(found(3, &[2]));
        assert!(partitions.review(now), "others go there");
        assert!(partitions.has_away(&device("bb")) && partitions.has_away(&device("ccccc")));
    }
}
