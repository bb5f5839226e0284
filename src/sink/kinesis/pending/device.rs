//! The waiting records of one device, and its rest.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::super::entry::Entry;
use super::super::pace::Load;
use crate::record::Outcome;

/// The records of one device that wait, and when they go on.
#[derive(Debug)]
pub(in super::super) struct Device {
    /// The records that wait; those in a call are not among them.
    pub entries: VecDeque<Entry>,
    pub in_call: usize,
    /// Its rest, which begins once the last one in the call is back.
    pub rests_until: Option<Instant>,
    /// The position of its shard.
    pub shard: usize,
    /// Time of its latest place in the index.
    pub due_at: Option<Instant>,
    /// Whether it has a record that the index does not know yet.
    pub is_new: bool,
}

impl Device {
    pub(crate) fn new(entry: Entry, shard: usize) -> Self {
        Self {
            entries: [entry].into(),
            in_call: 0,
            rests_until: None,
            shard,
            due_at: None,
            is_new: false,
        }
    }

    /// Gives up its records once the first one's time is over, and returns their load. The later
    /// ones go with it: a caller tries again from the first. Records whose caller has gone are
    /// dropped.
    pub(crate) fn drop_overdue(&mut self, now: Instant) -> Load {
        let mut dropped = Load::default();
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.is_unwanted()) {
            dropped += Load::of(&entry);
        }
        if self
            .entries
            .front()
            .is_some_and(|entry| entry.deadlines.last_call <= now)
        {
            dropped += self.load();
            give_up(self.entries.drain(..));
        }
        dropped
    }

    pub(crate) fn load(&self) -> Load {
        self.entries.iter().map(Load::of).sum()
    }

    pub(crate) fn is_needed(&self) -> bool {
        self.in_call > 0 || !self.entries.is_empty()
    }

    /// Ends its rest if that is over.
    pub(crate) fn has_rested(&mut self, now: Instant) -> bool {
        let is_over = |until: &mut Instant| *until <= now;
        self.in_call == 0 && self.rests_until.take_if(is_over).is_some()
    }

    /// Returns the time of its next event: its rest ends, or its first record is overdue.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let overdue_at = self.entries.front()?.deadlines.last_call;
        let rests_until = self.rests_until.filter(|_| self.in_call == 0);
        Some(rests_until.map_or(overdue_at, |until| until.min(overdue_at)))
    }
}

/// Reports a device's records, the first one with its reason, as not delivered in time.
fn give_up(entries: impl Iterator<Item = Entry>) {
    let mut reason = None;
    for entry in entries {
        let why = entry
            .reason
            .clone()
            .or(reason)
            .unwrap_or_else(|| "too many records wait".into());
        entry.give_up(Outcome::Retryable(why.clone()));
        reason = Some(why);
    }
}
