//! The shards that have more to do than they get done: a record for one of them would wait, or be
//! refused in the end.
//!
//! `pending` reports waiting records and refusals, and passes the time in. A shard is overloaded
//! once a record was turned away because too many wait for it, or once it has refused records for
//! [`REFUSES_LONG`] and has written none; it is so until nothing waits for it and it refuses none.
//! Other shards are looked at when something happens to them, so one without trouble costs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

/// Time for which a shard refuses records before it counts: longer than a large one waits for its
/// turn.
const REFUSES_LONG: Duration = Duration::from_secs(3);

/// A shard that has refused nothing for so long refuses records no more: longer than a device
/// rests.
const REFUSAL_MEMORY: Duration = Duration::from_secs(2);

/// The overloaded shards of a stream, by their positions.
#[derive(Debug, Default)]
pub(super) struct Overload {
    /// Shards that have refused records and written none since.
    refusing: BTreeMap<usize, Refusing>,
    overloaded: BTreeSet<u32>,
}

/// Times of a shard's refusals.
#[derive(Debug)]
struct Refusing {
    since: Instant,
    latest: Instant,
}

impl Overload {
    pub(crate) fn shards(&self) -> &BTreeSet<u32> {
        &self.overloaded
    }

    /// Whether there is something to look at with time.
    pub(crate) fn is_needed(&self) -> bool {
        !self.overloaded.is_empty() || self.any_refusing()
    }

    /// Notes that a record was turned away: the shard would not get to it in time.
    pub(crate) fn turned_away(&mut self, shard: usize) {
        self.overloaded.insert(shard as u32);
    }

    /// Notes that the shard has refused a record for its rate.
    pub(crate) fn refused(&mut self, shard: usize, now: Instant) {
        let refusing = self.refusing.entry(shard).or_insert(Refusing {
            since: now,
            latest: now,
        });
        debug_assert!(refusing.since <= now, "time goes on");
        refusing.latest = now;
    }

    /// Whether any shard has refused a record and written none since.
    pub(crate) fn any_refusing(&self) -> bool {
        !self.refusing.is_empty()
    }

    /// Notes that the shard has written a record.
    pub(crate) fn wrote(&mut self, shard: usize) {
        self.refusing.remove(&shard);
    }

    /// Reviews the shards as time goes on. `has_work` tells whether records wait for a shard.
    pub(crate) fn review(&mut self, now: Instant, has_work: impl Fn(usize) -> bool) {
        self.refusing
            .retain(|_, refusing| now.saturating_duration_since(refusing.latest) < REFUSAL_MEMORY);
        for (shard, refusing) in &self.refusing {
            if refusing.latest.saturating_duration_since(refusing.since) >= REFUSES_LONG {
                self.overloaded.insert(*shard as u32);
            }
        }
        let refusing = &self.refusing;
        self.overloaded
            .retain(|shard| has_work(*shard as usize) || refusing.contains_key(&(*shard as usize)));
    }

    /// Forgets all shards: they are others now.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_overloaded_by_what_waits_or_by_what_it_refuses_until_both_end() {
        let (mut overload, now) = (Overload::default(), Instant::now());
        let shards = |overload: &Overload| Vec::from_iter(overload.shards().clone());
        overload.turned_away(2);
        overload.refused(3, now);
        overload.refused(4, now);
        overload.review(now, |_| true);
        assert_eq!(shards(&overload), [2]);
        overload.wrote(4);
        overload.refused(3, now + REFUSES_LONG / 2);
        overload.refused(3, now + REFUSES_LONG);
        overload.review(now + REFUSES_LONG, |_| true);
        assert_eq!(shards(&overload), [2, 3]);
        overload.review(now + REFUSES_LONG, |shard| shard != 2);
        assert_eq!(shards(&overload), [3], "nothing waits for 2 any more");
        overload.review(now + REFUSES_LONG, |_| false);
        assert_eq!(shards(&overload), [3], "it would be refused");
        overload.review(now + REFUSES_LONG + REFUSAL_MEMORY, |_| false);
        assert!(!overload.any_refusing() && !overload.is_needed());
        overload.turned_away(2);
        overload.forget();
        assert!(!overload.is_needed());
    }
}
