//! The outcomes of one batch's records, and the delivery that waits for them.
//!
//! Each record in flight has a [`Reply`]; the batch's [`Told`] gathers what they say. The outcome
//! of a record whose reply is dropped unsaid is unknown. Nothing is allocated for a record.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::record::{Outcome, Outcomes};
use crate::sink::Arrivals;

/// Outcomes that have been told of the records of one batch. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Told(Arc<Batch>);

#[derive(Debug)]
struct Batch {
    /// Outcomes by the records' positions; `None` until one is told.
    outcomes: Mutex<Vec<Option<Outcome>>>,
    /// Records whose outcomes may still be told.
    open: AtomicUsize,
    none_is_open: Notify,
    is_unwanted: AtomicBool,
}

/// The way back of a record's outcome, with its position in its batch.
#[derive(Debug)]
pub(super) struct Reply {
    index: u32,
    batch: Arc<Batch>,
}

/// The wait for a batch's outcomes; once it is dropped they are not wanted.
pub(super) struct Waiting(Told);

impl Told {
    pub(crate) fn nothing_of(records: usize) -> Self {
        Self(Arc::new(Batch {
            outcomes: Mutex::new(vec![None; records]),
            open: AtomicUsize::new(0),
            none_is_open: Notify::new(),
            is_unwanted: AtomicBool::new(false),
        }))
    }

    /// Makes the reply of the record at this position; there is one of each.
    pub(crate) fn reply(&self, index: u32) -> Reply {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Reply {
            index,
            batch: self.0.clone(),
        }
    }

    pub(crate) fn wait(&self) -> Waiting {
        Waiting(self.clone())
    }

    /// Takes the outcomes that have been told since they were taken last.
    #[cfg(test)]
    pub(crate) fn take(&self) -> Vec<(u32, Outcome)> {
        let mut outcomes = self.0.lock_outcomes();
        let taken = (0..).zip(&mut *outcomes);
        taken
            .filter_map(|(index, outcome)| Some((index, outcome.take()?)))
            .collect()
    }
}

impl Waiting {
    /// Waits for the outcomes; those that are not told by `deadline` are unknown.
    pub(crate) async fn outcomes(self, deadline: Instant) -> Outcomes {
        let batch = &*self.0.0;
        let _ = timeout_at(deadline, batch.none_is_open.notified()).await;
        let outcomes = batch.lock_outcomes();
        let is_delivered = |outcome: &Option<Outcome>| *outcome == Some(Outcome::Delivered);
        if outcomes.iter().all(is_delivered) {
            return Outcomes::DELIVERED;
        }
        let known = |outcome: &Option<Outcome>| outcome.clone().unwrap_or(Outcome::Unknown);
        Outcomes::Each(outcomes.iter().map(known).collect())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.is_unwanted.store(true, Ordering::Relaxed);
    }
}

impl Reply {
    /// Whether the outcome is not wanted any more.
    pub(crate) fn is_unwanted(&self) -> bool {
        self.batch.is_unwanted.load(Ordering::Relaxed)
    }

    pub(crate) fn send(self, outcome: Outcome) {
        let told = self.batch.lock_outcomes()[self.index as usize].replace(outcome);
        debug_assert!(told.is_none(), "a record is told of once");
    }

    #[cfg(test)]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let open = self.batch.open.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(open > 0, "each reply was counted");
        if open == 1 {
            self.batch.none_is_open.notify_one();
        }
    }
}

impl Batch {
    fn lock_outcomes(&self) -> MutexGuard<'_, Vec<Option<Outcome>>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Arrivals for Told {
    fn has_arrived(&self, position: usize) -> bool {
        self.0.lock_outcomes()[position] == Some(Outcome::Delivered)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn in_a_second() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_is_home_with_its_last_record_and_what_is_never_told_is_unknown() {
        let told = Told::nothing_of(3);
        let [first, second, third] = [0, 1, 2].map(|index| told.reply(index));
        let waiting = told.wait();
        third.send(Outcome::Delivered);
        assert!(told.has_arrived(2) && !told.has_arrived(0));
        first.send(Outcome::Delivered);
        drop(second);
        let began = Instant::now();
        let outcomes = waiting.outcomes(in_a_second()).await;
        assert_eq!(began.elapsed(), Duration::ZERO, "nothing is open");
        let expected = [Outcome::Delivered, Outcome::Unknown, Outcome::Delivered];
        assert_eq!(outcomes, Outcomes::Each(expected.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_no_longer_is_known_and_nothing_is_waited_for_longer_than_allowed() {
        let told = Told::nothing_of(1);
        let (reply, deadline) = (told.reply(0), in_a_second());
        assert!(!reply.is_unwanted());
        let outcomes = told.wait().outcomes(deadline).await;
        assert_eq!(outcomes, Outcomes::Each([Outcome::Unknown].into()));
        assert_eq!(Instant::now(), deadline);
        assert!(reply.is_unwanted());
    }
}
