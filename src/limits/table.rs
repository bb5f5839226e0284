//! The table of buckets: a bounded number of keys, two buckets each, found once per connection.
//!
//! A connection looks its key up under the lock and keeps a [`Handle`]; from then on a take touches atomics only.
//! A full bucket carries no state, so when the table is full an entry with two full buckets makes room, also while
//! connections hold handles to it. If none is found, the newcomer is refused ([`TableFull`]). A clock hand looks for
//! one, [`SCAN_MAX`] places at a time. When a whole turn found none, the earliest instant at which there can be one is
//! remembered: until then a refusal costs one comparison. Entries stay until their place is needed; the capacity bounds
//! them, at some 80 bytes each (`benches/limits.rs` measures it).
//!
//! Why eviction grants nothing, and a key never has two buckets that grant:
//! 1. Entries enter and leave the map under the lock only, so a key has at most one entry in the map.
//! 2. An entry leaves the map only after both its buckets, by compare-and-swap from a full value, became evicted. From
//!    then on no take changes them. A take that came first changed the value, so the swap fails and the entry stays.
//! 3. If the second swap fails the first bucket is restored. A take that saw it evicted waits for the lock, and then
//!    finds the same entry, restored: the unlock orders the store before its load.
//! 4. A take that sees an evicted bucket looks the key up and takes under the lock, where nothing is evicted: one more
//!    look is enough.
//! 5. Threads read the clock before they take, so an eviction may be a little ahead of a take. A new bucket is therefore
//!    full only from the latest eviction on, never earlier than the bucket that it replaces.
//!
//! `tests/loom_limits.rs` walks the interleavings of 2 to 4.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::PoisonError;

use hashbrown::HashTable;

use super::sync::{Arc, ArcSwap, Mutex, MutexGuard};
use super::token_bucket::{Bucket, Evicted, Nanos, Refusal, Rule};

/// Places that one insertion looks at before it gives up; the next one goes on from there. Bounds the time under
/// the lock: whoever is refused before the hand has gone round may find room when it asks again.
const SCAN_MAX: usize = 16_384;

/// Places made at start, so that a table up to this size never rehashes under the lock.
const PLACES_MADE_AT_START_MAX: usize = 1 << 20;

/// 128 bits of a keyed hash stand for the key itself. Among 10^9 keys two collide with a chance of 10^-21, and as the
/// hash's secret is drawn at start nobody can search for a collision from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key(u128);

impl Key {
    fn short(self) -> u64 {
        self.0 as u64
    }
}

#[derive(Debug)]
struct Entry {
    key: Key,
    buckets: [Bucket; 2],
}

impl Entry {
    /// Evicts both buckets or none; the error is no later than the instant at which both are full.
    fn evict(&self, now: Nanos) -> Result<(), Nanos> {
        let [first, second] = &self.buckets;
        let first_full_at = first.evict(now)?;
        second
            .evict(now)
            .inspect_err(|_| first.restore(first_full_at))?;
        Ok(())
    }
}

/// Every place is held by a bucket that is not full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table of limits is full")]
pub struct TableFull;

/// Why a take through a handle was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Refused(Refusal),
    TableFull,
}

/// Which of an entry's two buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    First = 0,
    Second = 1,
}

/// Keys and their buckets.
pub(crate) struct Table {
    secrets: [RandomState; 2],
    places: Mutex<Places>,
}

impl Table {
    /// A table of at most `capacity` keys, at least one.
    pub(crate) fn new(capacity: usize) -> Self {
        let secrets = [RandomState::new(), RandomState::new()];
        Self {
            secrets,
            places: Mutex::new(Places::new(capacity.clamp(1, u32::MAX as usize))),
        }
    }

    /// The buckets of `name`, full when they are new.
    pub(crate) fn handle(
        self: &Arc<Self>,
        name: impl Hash,
        now: Nanos,
    ) -> Result<Handle, TableFull> {
        let entry = self.lock().entry(self.key(name), now)?;
        Ok(Handle {
            table: self.clone(),
            entry: ArcSwap::new(entry),
        })
    }

    /// Keys in the table.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    #[cfg(test)]
    pub(crate) fn none_full_before(&self) -> Nanos {
        self.lock().none_full_before
    }

    fn key(&self, name: impl Hash) -> Key {
        let [high, low] = self
            .secrets
            .each_ref()
            .map(|secret| u128::from(secret.hash_one(&name)));
        Key(high << 64 | low)
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's way to its buckets.
pub(crate) struct Handle {
    table: Arc<Table>,
    entry: ArcSwap<Entry>,
}

impl Handle {
    /// Takes `cost` tokens from one of the two buckets.
    pub(crate) fn take(
        &self,
        which: Which,
        rule: &Rule,
        cost: u64,
        now: Nanos,
    ) -> Result<(), Denied> {
        let taken = self.entry.load().buckets[which as usize].take(rule, cost, now);
        match taken {
            Ok(taken) => taken.map_err(Denied::Refused),
            Err(Evicted) => self.take_anew(which, rule, cost, now),
        }
    }

    #[cold]
    fn take_anew(&self, which: Which, rule: &Rule, cost: u64, now: Nanos) -> Result<(), Denied> {
        let key = self.entry.load().key;
        let mut places = self.table.lock();
        let entry = places
            .entry(key, now)
            .map_err(|TableFull| Denied::TableFull)?;
        let taken = entry.buckets[which as usize].take(rule, cost, now);
        drop(places);
        self.entry.store(entry);
        debug_assert!(taken.is_ok(), "nothing is evicted while the lock is held");
        taken.unwrap_or(Ok(())).map_err(Denied::Refused)
    }
}

/// What the lock guards.
struct Places {
    capacity: usize,
    entries: Vec<Arc<Entry>>,
    /// Places in `entries`, by key.
    index: HashTable<u32>,
    /// The place that is looked at next.
    hand: usize,
    /// Places looked at since the last eviction or whole turn, and the earliest instant at which one of them is full.
    turn: (usize, Nanos),
    /// No entry is full before this instant.
    none_full_before: Nanos,
    /// The latest eviction.
    evicted_at: Nanos,
}

const TURN_BEGINS: (usize, Nanos) = (0, Nanos(u64::MAX));

impl Places {
    fn new(capacity: usize) -> Self {
        let made = capacity.min(PLACES_MADE_AT_START_MAX);
        Self {
            capacity,
            entries: Vec::with_capacity(made),
            index: HashTable::with_capacity(made),
            hand: 0,
            turn: TURN_BEGINS,
            none_full_before: Nanos(0),
            evicted_at: Nanos(0),
        }
    }

    fn entry(&mut self, key: Key, now: Nanos) -> Result<Arc<Entry>, TableFull> {
        let found = self.index.find(key.short(), |&place| {
            self.entries[place as usize].key == key
        });
        match found {
            Some(&place) => Ok(self.entries[place as usize].clone()),
            None => self.insert(key, now),
        }
    }

    fn insert(&mut self, key: Key, now: Nanos) -> Result<Arc<Entry>, TableFull> {
        let vacated = if self.entries.len() < self.capacity {
            None
        } else {
            Some(self.make_room(now)?)
        };
        let buckets = [(); 2].map(|()| Bucket::full_from(self.evicted_at));
        let entry = Arc::new(Entry { key, buckets });
        let place = vacated.unwrap_or(self.entries.len());
        match vacated {
            Some(place) => self.entries[place] = entry.clone(),
            None => self.entries.push(entry.clone()),
        }
        self.index
            .insert_unique(key.short(), place as u32, |&place| {
                self.entries[place as usize].key.short()
            });
        Ok(entry)
    }

    /// Evicts an entry that is full and gives its place.
    fn make_room(&mut self, now: Nanos) -> Result<usize, TableFull> {
        for _ in 0..SCAN_MAX {
            if now < self.none_full_before {
                break;
            }
            let place = self.hand;
            self.hand = (place + 1) % self.entries.len();
            match self.entries[place].evict(now) {
                Ok(()) => {
                    self.forget(place, now);
                    return Ok(place);
                }
                Err(full_at) => self.pass_by(full_at),
            }
        }
        Err(TableFull)
    }

    fn forget(&mut self, place: usize, now: Nanos) {
        let short = self.entries[place].key.short();
        if let Ok(found) = self
            .index
            .find_entry(short, |&other| other as usize == place)
        {
            found.remove();
        }
        self.turn = TURN_BEGINS;
        self.evicted_at = self.evicted_at.max(now);
    }

    /// Counts an entry that is not full. Its instant can only move on, so at the end of a turn the earliest one seen
    /// is a lower bound for all.
    fn pass_by(&mut self, full_at: Nanos) {
        let (looked_at, earliest) = self.turn;
        self.turn = (looked_at + 1, earliest.min(full_at));
        if self.turn.0 == self.entries.len() {
            self.none_full_before = self.turn.1;
            self.turn = TURN_BEGINS;
        }
    }
}
