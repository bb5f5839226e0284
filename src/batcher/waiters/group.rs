//! Requests of many records: each record has a slot, and all of them one wait.
//!
//! A record's slot is free again when its batch has come back; the group's when all have, and the
//! request has its answer or is gone.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::time::Instant;

use super::{Slot, Waiters, free, remember};
use crate::record::{AckSlot, Outcome};

/// The records of one request that are on their way, and the outcomes of the others.
#[derive(Debug)]
pub(super) struct Group {
    standing: Standing,
    /// Records whose batch is out still.
    left: usize,
    /// The outcome of each record, unknown until it has come back.
    outcomes: Vec<Outcome>,
}

/// Whether a request waits.
#[derive(Debug)]
enum Standing {
    /// It does, until the instant at most.
    Waiting(Option<Waker>, Instant),
    /// It has waited long enough, and has not looked yet.
    Expired,
    /// It has its answer, or is gone.
    Abandoned,
}

impl Group {
    /// Ends the wait where it is over.
    pub(super) fn expire_if(&mut self, is_over: impl Fn(Instant) -> bool) {
        if matches!(self.standing, Standing::Waiting(_, deadline) if is_over(deadline)) {
            self.end(Standing::Expired);
        }
    }

    fn end(&mut self, standing: Standing) {
        if let Standing::Waiting(Some(waker), _) = std::mem::replace(&mut self.standing, standing) {
            waker.wake();
        }
    }

    /// Notes the outcome of a record. Returns whether the group can be freed.
    fn settle(&mut self, index: usize, outcome: &Outcome) -> bool {
        debug_assert!(self.left > 0, "a record is settled once");
        self.left -= 1;
        if let Some(place) = self.outcomes.get_mut(index) {
            *place = outcome.clone();
        }
        if self.left > 0 {
            return false;
        }
        let is_abandoned = matches!(self.standing, Standing::Abandoned);
        if !is_abandoned {
            self.end(Standing::Expired);
        }
        is_abandoned
    }
}

/// Settles a record of a group, which came back.
pub(super) fn settle(slots: &mut Slab<Slot>, group: u32, index: u32, outcome: &Outcome) {
    let key = group as usize;
    let is_done = match slots.get_mut(key) {
        Some(Slot::Group(group)) => group.settle(index as usize, outcome),
        _ => {
            debug_assert!(false, "a group outlives its records");
            false
        }
    };
    if is_done {
        free(slots, key);
    }
}

impl Waiters {
    /// Opens a group of so many records, which waits until `deadline`. Each of them is opened and
    /// must be settled some day.
    pub(crate) fn open_group(&self, records: usize, deadline: Instant) -> AckSlot {
        debug_assert!(records > 0, "a group without records is never settled");
        let group = Group {
            standing: Standing::Waiting(None, deadline),
            left: records,
            outcomes: vec![Outcome::Unknown; records],
        };
        let key = self.0.borrow_mut().insert(Slot::Group(Box::new(group)));
        AckSlot(key as u32)
    }

    /// Opens the slot of the record at `index` of a group.
    pub(crate) fn open_member(&self, group: AckSlot, index: usize) -> AckSlot {
        let member = Slot::Member {
            group: group.0,
            index: index as u32,
        };
        AckSlot(self.0.borrow_mut().insert(member) as u32)
    }

    /// Waits for the outcome of each record of a group; [`Outcome::Unknown`] for those that are out
    /// still once the deadline has passed.
    pub(crate) fn wait_for_group(&self, group: AckSlot) -> WaitForGroup<'_> {
        WaitForGroup {
            waiters: self,
            group,
            has_answer: false,
        }
    }
}

/// A request that waits for many records. Dropping it gives up waiting, not the records.
#[derive(Debug)]
pub(crate) struct WaitForGroup<'a> {
    waiters: &'a Waiters,
    group: AckSlot,
    has_answer: bool,
}

impl WaitForGroup<'_> {
    /// Lets the request go with the outcomes so far.
    fn leave(&mut self) -> Vec<Outcome> {
        self.has_answer = true;
        let (key, slots) = (self.group.0 as usize, &mut *self.waiters.0.borrow_mut());
        let Slot::Group(group) = &mut slots[key] else {
            debug_assert!(false, "a request waits for its own group");
            return Vec::new();
        };
        group.standing = Standing::Abandoned;
        let outcomes = std::mem::take(&mut group.outcomes);
        if group.left == 0 {
            free(slots, key);
        }
        outcomes
    }
}

impl Future for WaitForGroup<'_> {
    type Output = Vec<Outcome>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<Outcome>> {
        let key = self.group.0 as usize;
        if let Slot::Group(group) = &mut self.waiters.0.borrow_mut()[key]
            && let Standing::Waiting(waker, _) = &mut group.standing
        {
            remember(waker, context.waker());
            return Poll::Pending;
        }
        Poll::Ready(self.leave())
    }
}

impl Drop for WaitForGroup<'_> {
    fn drop(&mut self) {
        if !self.has_answer {
            self.leave();
        }
    }
}
