//! The table of buckets: a bounded number of keys, two buckets each, found once per connection.
//!
//! A connection looks its key up under the lock and keeps a [`Handle`]; from then on a take touches
//! atomics only. A full bucket carries no state, so when the table is full an entry with two full
//! buckets makes room, also while connections hold handles to it. If none is found, the newcomer is
//! refused ([`TableFull`]). A clock hand looks for one, [`SCAN_MAX`] places at a time. When a whole
//! turn found none, the earliest instant at which there can be one is remembered: until then a
//! refusal costs one comparison. Entries stay until their place is needed; the capacity bounds
//! them, at some 80 bytes each (`benches/limits.rs` measures it).
//!
//! Why eviction grants nothing, and a key never has two buckets that grant:
//! 1. Entries enter and leave the map under the lock only, so a key has at most one entry in the
//!    map.
//! 2. An entry leaves the map only after both its buckets, by compare-and-swap from a full value,
//!    became evicted. From then on no take changes them. A take that came first changed the value,
//!    so the swap fails and the entry stays.
//! 3. If the second swap fails the first bucket is restored. A take that saw it evicted waits for
//!    the lock, and then finds the same entry, restored: the unlock orders the store before its
//!    load.
//! 4. A take that sees an evicted bucket looks the key up and takes under the lock, where nothing
//!    is evicted: one more look is enough.
//! 5. Threads read the clock before they take, so an eviction may be a little ahead of a take. A
//!    new bucket is therefore full only from the latest eviction on, never earlier than the bucket
//!    that it replaces.
//!
//! `tests/loom_limits.rs` walks the interleavings of 2 to 4.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::PoisonError;

use hashbrown::HashTable;

use super::sync::{Arc, AtomicU64, Mutex, MutexGuard, Ordering};
use super::token_bucket::{Bucket, Evicted, Nanos, Rule, Shortfall};

/// Places that one insertion looks at before it gives up; the next one goes on from there. Bounds
/// the time under the lock: whoever is refused before the hand has gone round may find room when it
/// asks again.
const SCAN_MAX: usize = 16_384;

/// Places made at start, so that a table up to this size never rehashes under the lock.
const PLACES_MADE_AT_START_MAX: usize = 1 << 20;

/// 128 bits of a keyed hash stand for the key itself. Among 10^9 keys two collide with a chance of
/// 10^-21, and as the hash's secret is drawn at start nobody can search for a collision from
/// outside. Two words, as one of 128 bits would be aligned, and an entry larger for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyHash([u64; 2]);

impl KeyHash {
    fn short(self) -> u64 {
        self.0[1]
    }
}

/// The two buckets of a key, and what has been told of refusals by either.
#[derive(Debug)]
struct BucketPair {
    key: KeyHash,
    both: [Bucket; 2],
    refusals: Refusals,
}

/// The time between two notices of a key's refusals, in seconds.
const NOTICE_SECONDS: u64 = 60;

/// Refusals that nobody was told of, in the lower half, and the second before which nobody is told
/// again, in the upper one; seconds are those of [`Nanos`], and last for 136 years.
#[derive(Debug, Default)]
struct Refusals(AtomicU64);

impl Refusals {
    /// Counts a refusal. Gives how many there were since the last notice, this one included, where
    /// it is time for another.
    fn note(&self, now: Nanos) -> Option<u32> {
        let second = (now.0 / 1_000_000_000).min(u64::from(u32::MAX) - NOTICE_SECONDS);
        let mut noted = self.0.load(Ordering::Relaxed);
        loop {
            let (quiet_until, untold) = (noted >> 32, (noted as u32).saturating_add(1));
            let is_due = second >= quiet_until;
            let next = match is_due {
                true => (second + NOTICE_SECONDS) << 32,
                false => quiet_until << 32 | u64::from(untold),
            };
            let swapped =
                self.0
                    .compare_exchange_weak(noted, next, Ordering::Relaxed, Ordering::Relaxed);
            match swapped {
                Ok(_) => return is_due.then_some(untold),
                Err(seen) => noted = seen,
            }
        }
    }
}

impl BucketPair {
    /// Buckets that are full from `instant` on.
    fn full_from(key: KeyHash, instant: Nanos) -> Self {
        let both = [(); 2].map(|()| Bucket::full_from(instant));
        Self {
            key,
            both,
            refusals: Refusals::default(),
        }
    }

    /// Evicts both buckets or none; the error is no later than the instant at which both are full.
    fn evict(&self, now: Nanos) -> Result<(), Nanos> {
        let [first, second] = &self.both;
        let first_full_at = first.evict(now)?;
        if let Err(full_at) = second.evict(now) {
            first.restore(first_full_at);
            return Err(full_at);
        }
        Ok(())
    }
}

/// The table has no room: every place is held by a bucket that is not full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the table of limits is full")]
pub struct TableFull;

/// Why nothing was taken through a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Short(Shortfall),
    TableFull,
}

/// Which of a key's two buckets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    First = 0,
    Second = 1,
}

/// The keys and their buckets.
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
            entry: RefCell::new(entry),
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

    fn key(&self, name: impl Hash) -> KeyHash {
        let [high, low] = self.secrets.each_ref();
        let (high, low) = (high.hash_one(&name), low.hash_one(&name));
        KeyHash([high, low])
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way of a connection to its buckets.
pub(crate) struct Handle {
    table: Arc<Table>,
    /// The buckets that the key had when the connection last looked.
    entry: RefCell<Arc<BucketPair>>,
}

impl Handle {
    /// Takes `cost` tokens from one of the two buckets.
    pub(crate) fn take(
        &self,
        which: Which,
        rule: &Rule,
        cost: u64,
        now: Nanos,
    ) -> Result<(), NotTaken> {
        let taken = self.entry.borrow().both[which as usize].take(rule, cost, now);
        match taken {
            Ok(taken) => taken.map_err(NotTaken::Short),
            Err(Evicted) => self.take_anew(which, rule, cost, now),
        }
    }

    /// Counts a refusal of the key, be it by a bucket that is not its own. Gives how many there were
    /// since the last notice, this one included, where it is time for another: at most one a minute.
    #[cold]
    pub(crate) fn note_refusal(&self, now: Nanos) -> Option<u32> {
        self.entry.borrow().refusals.note(now)
    }

    /// Takes from the buckets that the key has now.
    #[cold]
    fn take_anew(&self, which: Which, rule: &Rule, cost: u64, now: Nanos) -> Result<(), NotTaken> {
        let key = self.entry.borrow().key;
        let mut places = self.table.lock();
        let found = places.entry(key, now);
        let entry = found.map_err(|TableFull| NotTaken::TableFull)?;
        let taken = entry.both[which as usize].take(rule, cost, now);
        drop(places);
        debug_assert_eq!(entry.key, key, "a key finds its own buckets");
        self.entry.replace(entry);
        debug_assert!(taken.is_ok(), "nothing is evicted while the lock is held");
        taken.unwrap_or(Ok(())).map_err(NotTaken::Short)
    }
}

/// The places of the table, which its lock guards.
struct Places {
    capacity: usize,
    entries: Vec<Arc<BucketPair>>,
    /// Places in `entries`, by key.
    index: HashTable<u32>,
    /// The place that is looked at next.
    hand: usize,
    turn: Turn,
    /// No entry is full before this instant.
    none_full_before: Nanos,
    /// The latest eviction.
    evicted_at: Nanos,
}

/// The places that the hand has looked at since the last eviction or whole turn.
struct Turn {
    looked_at: usize,
    /// The earliest instant at which one of them is full.
    earliest: Nanos,
}

impl Turn {
    const BEGINS: Self = Self {
        looked_at: 0,
        earliest: Nanos(u64::MAX),
    };
}

impl Places {
    fn new(capacity: usize) -> Self {
        let made = capacity.min(PLACES_MADE_AT_START_MAX);
        Self {
            capacity,
            entries: Vec::with_capacity(made),
            index: HashTable::with_capacity(made),
            hand: 0,
            turn: Turn::BEGINS,
            none_full_before: Nanos(0),
            evicted_at: Nanos(0),
        }
    }

    fn entry(&mut self, key: KeyHash, now: Nanos) -> Result<Arc<BucketPair>, TableFull> {
        let found = self.index.find(key.short(), |&place| {
            self.entries[place as usize].key == key
        });
        match found {
            Some(&place) => Ok(self.entries[place as usize].clone()),
            None => self.insert(key, now),
        }
    }

    fn insert(&mut self, key: KeyHash, now: Nanos) -> Result<Arc<BucketPair>, TableFull> {
        let place = if self.entries.len() < self.capacity {
            self.entries.len()
        } else {
            self.make_room(now)?
        };
        let entry = Arc::new(BucketPair::full_from(key, self.evicted_at));
        self.put(place, entry.clone());
        let entries = &self.entries;
        let short = |&place: &u32| entries[place as usize].key.short();
        self.index.insert_unique(key.short(), place as u32, short);
        debug_assert_eq!(self.index.len(), self.entries.len(), "each has its place");
        Ok(entry)
    }

    /// Puts an entry into a place that is vacant, or the next one.
    fn put(&mut self, place: usize, entry: Arc<BucketPair>) {
        debug_assert!(place < self.capacity);
        if place == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[place] = entry;
        }
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

    /// Takes an entry out of the index, whose buckets were evicted.
    fn forget(&mut self, place: usize, now: Nanos) {
        let short = self.entries[place].key.short();
        let found = self
            .index
            .find_entry(short, |&other| other as usize == place);
        debug_assert!(found.is_ok(), "an entry is in the index");
        if let Ok(found) = found {
            found.remove();
        }
        self.turn = Turn::BEGINS;
        self.evicted_at = self.evicted_at.max(now);
    }

    /// Counts an entry that is not full. Its instant can only move on, so at the end of a turn the
    /// earliest one seen is a lower bound for all.
    fn pass_by(&mut self, full_at: Nanos) {
        self.turn.looked_at += 1;
        self.turn.earliest = self.turn.earliest.min(full_at);
        debug_assert!(self.turn.looked_at <= self.entries.len());
        if self.turn.looked_at == self.entries.len() {
            self.none_full_before = self.turn.earliest;
            self.turn = Turn::BEGINS;
        }
    }
}
