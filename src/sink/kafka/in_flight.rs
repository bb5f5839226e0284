//! The delivery reports that are still to come.
//!
//! A message carries one word through librdkafka: the place of its batch in a fixed table, and its
//! own in the batch. A report that says "delivered" only counts down; the last report of a batch
//! frees its place and wakes the delivery that waits for it. librdkafka reports each message
//! exactly once, so a place is never free while a message still names it, even if its delivery was
//! cancelled.
//!
//! Each record that was delivered is noted, for questions before the last report is in.
//!
//! Bounds: as many batches as delivery has in flight, each of fewer than 2^32 records.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::Notify;

use super::ack_time::AckTime;
use super::strands::Places;
use super::{Arrivals, InTopic, outcome};
use crate::record::{Outcome, Outcomes};

/// Bits of the word that are the record's place in its batch.
const INDEX_BITS: u32 = usize::BITS / 2;

/// Holds all batches whose reports are still to come.
pub(crate) struct InFlight {
    batches: Box<[ArcSwapOption<Reported>]>,
    free: ArrayQueue<usize>,
    /// Takes the time in which half of the records of each batch were acknowledged.
    ack_time: AckTime,
}

/// Gathers the reports of one batch.
struct Reported {
    records: usize,
    began_at: Instant,
    remaining: AtomicUsize,
    /// A bit for each record that was delivered.
    delivered: Box<[AtomicU64]>,
    /// Records that were not delivered; locked only for those.
    failed: Mutex<Vec<(usize, Outcome)>>,
    complete: Notify,
    /// Strands that are told of the reports as well.
    strands: Option<Arc<Places>>,
}

impl InFlight {
    pub(crate) fn new(batches_max: usize) -> Self {
        let free = ArrayQueue::new(batches_max.max(1));
        for place in 0..free.capacity() {
            free.push(place).expect("the queue has room for each");
        }
        Self {
            batches: (0..free.capacity())
                .map(|_| ArcSwapOption::empty())
                .collect(),
            free,
            ack_time: AckTime::default(),
        }
    }

    /// Returns the time that acknowledgements take of late; 0 while it is not known.
    pub(crate) fn ack_time(&self) -> Duration {
        self.ack_time.get()
    }

    /// Returns the least time in which the first record of a batch was acknowledged since the last
    /// call; `None` if none was.
    pub(crate) fn take_least_ack_time(&self) -> Option<Duration> {
        self.ack_time.take_least()
    }

    /// Takes a place for a batch of so many records, at least one; `None` when all are taken.
    /// `strands` are those of its records, if these go in rounds.
    pub(crate) fn begin(
        &self,
        records: usize,
        strands: Option<Arc<Places>>,
    ) -> Option<BatchInFlight> {
        debug_assert!(records > 0, "nothing would report an empty batch");
        let place = self.free.pop()?;
        let words = records.div_ceil(u64::BITS as usize);
        let reported = Reported {
            records,
            began_at: Instant::now(),
            remaining: AtomicUsize::new(records),
            delivered: (0..words).map(|_| AtomicU64::new(0)).collect(),
            failed: Mutex::default(),
            complete: Notify::new(),
            strands,
        };
        let reported = Arc::new(reported);
        self.batches[place].store(Some(reported.clone()));
        Some(BatchInFlight { place, reported })
    }

    /// Counts that the record whose message carries this word is not on its way.
    pub(crate) fn fail(&self, opaque: usize, code: RDKafkaErrorCode) {
        let failure = outcome(code, InTopic::No);
        self.report(opaque, Some(failure));
    }

    /// Notes the time of an acknowledgement, if it tells of others.
    fn note_ack_time(&self, batch: &Reported) {
        let remaining = batch.remaining.load(Ordering::Relaxed);
        if remaining == batch.records {
            self.ack_time.note_first(batch.began_at.elapsed());
        }
        // The one in the middle.
        if remaining == batch.records / 2 + 1 {
            self.ack_time.note(batch.began_at.elapsed());
        }
    }

    /// Counts that the record whose message carries this word was delivered (`None`) or not.
    pub(crate) fn report(&self, opaque: usize, failure: Option<Outcome>) {
        let (place, index) = (opaque >> INDEX_BITS, opaque & ((1 << INDEX_BITS) - 1));
        let batch = self.batches[place].load();
        let Some(batch) = &*batch else {
            debug_assert!(false, "a place is taken until its last report");
            return;
        };
        if failure.is_none() {
            self.note_ack_time(batch);
        }
        if let Some(strands) = &batch.strands {
            strands.report(index, failure.as_ref());
        }
        if batch.report(index, failure) {
            self.batches[place].store(None);
            // The place came out of this queue, so there is room for it. It is free before the
            // batch is known to be complete, so that the woken delivery finds it for its next
            // batch.
            let freed = self.free.push(place);
            debug_assert!(freed.is_ok(), "it has room for each place");
            batch.complete.notify_one();
        }
    }
}

/// Waits for one batch in flight; its place is free again once every report is in.
pub(crate) struct BatchInFlight {
    place: usize,
    reported: Arc<Reported>,
}

impl BatchInFlight {
    /// Makes the word that the record's message carries.
    pub(crate) fn opaque(&self, index: usize) -> usize {
        debug_assert!(index < self.reported.records, "a record of this batch");
        self.place << INDEX_BITS | index
    }

    /// Tells which records have been reported as delivered.
    pub(crate) fn arrivals(&self) -> impl Arrivals + 'static {
        self.reported.clone()
    }

    /// Waits for the last report.
    pub(crate) async fn reported(self) -> Outcomes {
        self.reported.complete.notified().await;
        self.reported.outcomes()
    }
}

impl Reported {
    /// Counts a report, and says whether this was the last one.
    fn report(&self, index: usize, failure: Option<Outcome>) -> bool {
        debug_assert!(index < self.records, "the word names a record of the batch");
        match failure {
            None => self.note_delivered(index),
            Some(outcome) => {
                let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                failed.push((index, outcome));
            }
        }
        let remaining = self.remaining.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(remaining > 0, "each message is reported once");
        remaining == 1
    }

    fn note_delivered(&self, index: usize) {
        let (word, bit) = place_of(index);
        self.delivered[word].fetch_or(bit, Ordering::Relaxed);
    }

    fn outcomes(&self) -> Outcomes {
        let failed =
            std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner));
        if failed.is_empty() {
            return Outcomes::DELIVERED;
        }
        let mut outcomes = vec![Outcome::Delivered; self.records];
        for (index, outcome) in failed {
            outcomes[index] = outcome;
        }
        Outcomes::Each(outcomes)
    }
}

impl Arrivals for Arc<Reported> {
    fn has_arrived(&self, position: usize) -> bool {
        let (word, bit) = place_of(position);
        self.delivered[word].load(Ordering::Relaxed) & bit != 0
    }
}

/// Returns the word of a record's bit, and the bit.
fn place_of(index: usize) -> (usize, u64) {
    let bits = u64::BITS as usize;
    (index / bits, 1 << (index % bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_in_the_middle_of_a_batch_tells_the_ack_time() {
        let table = InFlight::new(2);
        let [first, second] = [3, 1].map(|records| table.begin(records, None).unwrap());
        table.report(first.opaque(0), None);
        assert!(table.ack_time().is_zero(), "others take longer");
        table.report(first.opaque(1), Some(Outcome::Unknown));
        assert!(table.ack_time().is_zero(), "it was not acknowledged");
        table.report(second.opaque(0), None);
        assert!(!table.ack_time().is_zero());
    }

    #[tokio::test]
    async fn the_last_report_completes_the_batch_and_frees_its_place() {
        let table = InFlight::new(1);
        let batch = table.begin(2, None).unwrap();
        assert!(table.begin(1, None).is_none());
        assert_eq!(batch.opaque(1), 1);
        table.report(batch.opaque(1), Some(Outcome::Unknown));
        assert!(table.begin(1, None).is_none());
        let arrivals = batch.arrivals();
        assert_eq!([0, 1].map(|index| arrivals.has_arrived(index)), [false; 2]);
        table.report(batch.opaque(0), None);
        assert_eq!(
            [0, 1].map(|index| arrivals.has_arrived(index)),
            [true, false]
        );
        assert_eq!(
            batch.reported().await,
            Outcomes::Each(vec![Outcome::Delivered, Outcome::Unknown])
        );
        assert!(table.begin(1, None).is_some());
    }

    #[test]
    fn a_batch_that_nobody_waits_for_keeps_its_place_until_the_last_report() {
        let table = InFlight::new(1);
        let words = [0, 1].map(|index| table.begin(2, None).map(|batch| batch.opaque(index)));
        assert_eq!(words, [Some(0), None]);
        table.report(0, None);
        assert!(table.begin(1, None).is_none());
        table.report(1, None);
        assert!(table.begin(1, None).is_some());
    }
}
