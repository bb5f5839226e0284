//! Which delivery reports are still to come.
//!
//! A message carries one word through librdkafka: the place of its batch in a fixed table, and its own in the batch.
//! A report that says "delivered" only counts down; the last report of a batch wakes whoever waits for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use tokio::sync::Notify;

use crate::record::{Outcome, Outcomes};

/// Bits of the word that are the record's place in its batch.
const INDEX_BITS: u32 = usize::BITS / 2;

/// All batches whose reports are still to come.
pub struct InFlight {
    batches: Box<[ArcSwapOption<Reported>]>,
    free: ArrayQueue<usize>,
}

/// The reports of one batch.
struct Reported {
    records: usize,
    remaining: AtomicUsize,
    /// Records that were not delivered; locked only for those.
    failed: Mutex<Vec<(usize, Outcome)>>,
    complete: Notify,
}

impl InFlight {
    pub fn new(batches_max: usize) -> Self {
        let free = ArrayQueue::new(batches_max.max(1));
        // The queue has room for each of them.
        for place in 0..free.capacity() {
            let _ = free.push(place);
        }
        Self { batches: (0..free.capacity()).map(|_| ArcSwapOption::empty()).collect(), free }
    }

    /// A place for a batch of so many records; `None` when all are taken.
    pub fn begin(&self, records: usize) -> Option<BatchInFlight<'_>> {
        let place = self.free.pop()?;
        let remaining = AtomicUsize::new(records);
        let reported = Reported { records, remaining, failed: Mutex::default(), complete: Notify::new() };
        let reported = Arc::new(reported);
        self.batches[place].store(Some(reported.clone()));
        Some(BatchInFlight { table: self, place, reported })
    }
}

/// One batch on its way; its place is free again once every report is in.
pub struct BatchInFlight<'a> {
    table: &'a InFlight,
    place: usize,
    reported: Arc<Reported>,
}

impl BatchInFlight<'_> {
    /// The word that the record's message carries.
    pub fn opaque(&self, index: usize) -> usize {
        self.place << INDEX_BITS | index
    }

    /// A record was delivered (`None`) or not.
    pub fn report(&self, index: usize, failure: Option<Outcome>) {
        self.reported.report(index, failure);
    }

    /// Waits for the last report.
    pub async fn reported(self) -> Outcomes {
        while self.reported.remaining.load(Ordering::Acquire) > 0 {
            self.reported.complete.notified().await;
        }
        self.table.batches[self.place].store(None);
        // The place came out of this queue, so there is room for it.
        let _ = self.table.free.push(self.place);
        self.reported.outcomes()
    }
}

impl Reported {
    fn report(&self, index: usize, failure: Option<Outcome>) {
        if let Some(outcome) = failure {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
        }
        if self.remaining.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.complete.notify_one();
        }
    }

    fn outcomes(&self) -> Outcomes {
        let failed = std::mem::take(&mut *self.failed.lock().unwrap_or_else(PoisonError::into_inner));
        if failed.is_empty() {
            return Outcomes::DELIVERED;
        }
        let mut outcomes = vec![Outcome::Delivered; self.records];
        failed.into_iter().for_each(|(index, outcome)| outcomes[index] = outcome);
        Outcomes::Each(outcomes)
    }
}

/// librdkafka's reports and logs, on the poll thread.
pub struct Reports(pub Arc<InFlight>);

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (place, index) = (opaque >> INDEX_BITS, opaque & ((1 << INDEX_BITS) - 1));
        let failure = result.as_ref().err().map(|(error, _)| super::outcome(error));
        if let Some(batch) = self.0.batches[place].load().as_ref() {
            batch.report(index, failure);
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Debug => tracing::debug!(facility, message, "librdkafka"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => tracing::info!(facility, message, "librdkafka"),
            _ => tracing::warn!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "librdkafka");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_report_completes_the_batch_and_frees_its_place() {
        let table = InFlight::new(1);
        let reports = |place: usize, index| table.batches[place].load().as_ref().unwrap().report(index, None);
        let batch = table.begin(2).unwrap();
        assert!(table.begin(1).is_none());
        assert_eq!(batch.opaque(1), 1);
        batch.report(1, Some(Outcome::Unknown));
        reports(0, 0);
        assert_eq!(batch.reported().await, Outcomes::Each(vec![Outcome::Delivered, Outcome::Unknown]));
        assert!(table.begin(1).is_some());
    }
}
