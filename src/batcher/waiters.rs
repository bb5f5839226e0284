//! The requests of one worker that wait for their record's ack.
//!
//! A slot belongs to one record from its push until both sides have let go: the batch has come
//! back, and the request has its answer or is gone. Only then is it used again, so that a late ack
//! never reaches another request.

mod group;

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use slab::Slab;
use tokio::time::Instant;

use crate::record::{AckSlot, Outcome};
use group::Group;

/// The wait of one request, and its standing.
#[derive(Debug)]
enum Slot {
    /// The request waits, until the instant at most.
    Waiting(Option<Waker>, Instant),
    /// The batch is out still; the request has waited long enough.
    Expired,
    /// The batch is out still; the request has gone.
    Abandoned,
    /// The batch came back; the request has not looked yet.
    Settled(Outcome),
    /// The request waits for many records.
    Group(Box<Group>),
    /// One of these records.
    Member { group: u32, index: u32 },
}

/// Slots are many in a burst; once all are free, room for more than this is given back.
const SLOTS_KEPT_MAX: usize = 4096;

/// The slots of all requests of one worker whose records are on their way.
#[derive(Debug, Default)]
pub(crate) struct Waiters(RefCell<Slab<Slot>>);

impl Waiters {
    /// Opens a slot that waits until `deadline`; its record must be settled some day, or the slot
    /// is never free again.
    pub(crate) fn open(&self, deadline: Instant) -> AckSlot {
        let key = self.0.borrow_mut().insert(Slot::Waiting(None, deadline));
        debug_assert!(
            key < AckSlot::NONE.0 as usize,
            "records are bounded by memory"
        );
        AckSlot(key as u32)
    }

    /// Waits for the outcome of the slot's record; [`Outcome::Unknown`] once the deadline has
    /// passed.
    pub(crate) fn wait(&self, slot: AckSlot) -> Wait<'_> {
        debug_assert_ne!(slot, AckSlot::NONE, "somebody waits for the record");
        Wait {
            waiters: self,
            slot,
            has_answer: false,
        }
    }

    /// Settles the slot's record, which came back.
    pub(crate) fn settle(&self, slot: AckSlot, outcome: &Outcome) {
        let key = slot.0 as usize;
        let mut slots = self.0.borrow_mut();
        match slots.get_mut(key) {
            Some(waiting @ Slot::Waiting(..)) => {
                wake(std::mem::replace(waiting, Slot::Settled(outcome.clone())));
            }
            Some(expired @ Slot::Expired) => *expired = Slot::Settled(Outcome::Unknown),
            Some(Slot::Abandoned) => free(&mut slots, key),
            Some(&mut Slot::Member { group, index }) => {
                slots.remove(key);
                group::settle(&mut slots, group, index, outcome);
            }
            Some(Slot::Settled(_) | Slot::Group(_)) | None => {
                debug_assert!(slot == AckSlot::NONE, "a record is settled once")
            }
        }
    }

    /// Answers the requests whose deadline has passed. Linear in the number of slots.
    pub(crate) fn expire(&self, now: Instant) {
        self.expire_if(|deadline| deadline <= now);
    }

    /// Answers all requests.
    pub(crate) fn expire_all(&self) {
        self.expire_if(|_| true);
    }

    fn expire_if(&self, is_over: impl Fn(Instant) -> bool) {
        for (_, slot) in self.0.borrow_mut().iter_mut() {
            match slot {
                Slot::Waiting(_, deadline) if is_over(*deadline) => {
                    wake(std::mem::replace(slot, Slot::Expired));
                }
                Slot::Group(group) => group.expire_if(&is_over),
                _ => {}
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Slots that there is room for.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.0.borrow().capacity()
    }
}

/// Gives the slot back: both sides have let go of it.
fn free(slots: &mut Slab<Slot>, key: usize) {
    slots.remove(key);
    if slots.is_empty() && slots.capacity() > SLOTS_KEPT_MAX {
        *slots = Slab::new();
    }
}

/// Lets the request go with its outcome. Where the batch is out still, the slot waits for it.
#[inline]
fn leave(slots: &mut Slab<Slot>, key: usize) -> Outcome {
    match std::mem::replace(&mut slots[key], Slot::Abandoned) {
        Slot::Settled(outcome) => {
            free(slots, key);
            outcome
        }
        Slot::Waiting(..) | Slot::Expired => Outcome::Unknown,
        Slot::Abandoned | Slot::Group(_) | Slot::Member { .. } => {
            debug_assert!(false, "a request goes once");
            Outcome::Unknown
        }
    }
}

fn wake(slot: Slot) {
    if let Slot::Waiting(Some(waker), _) = slot {
        waker.wake();
    }
}

fn remember(known: &mut Option<Waker>, waker: &Waker) {
    match known {
        Some(known) => known.clone_from(waker),
        None => *known = Some(waker.clone()),
    }
}

/// A request that waits for one record. Dropping it gives up waiting, not the record.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    waiters: &'a Waiters,
    slot: AckSlot,
    has_answer: bool,
}

impl Future for Wait<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let key = self.slot.0 as usize;
        let mut slots = self.waiters.0.borrow_mut();
        if let Slot::Waiting(waker, _) = &mut slots[key] {
            remember(waker, context.waker());
            return Poll::Pending;
        }
        let outcome = leave(&mut slots, key);
        drop(slots);
        self.has_answer = true;
        Poll::Ready(outcome)
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.has_answer {
            leave(&mut self.waiters.0.borrow_mut(), self.slot.0 as usize);
        }
    }
}
