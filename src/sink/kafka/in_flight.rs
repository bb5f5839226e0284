//! Which delivery reports are still to come.
//!
//! A message carries one word through librdkafka: the place of its batch in a fixed table, and its own in the batch.
//! A report that says "delivered" only counts down; the last report of a batch frees its place and wakes whoever waits
//! for it. librdkafka reports each message exactly once, so a place is never free while a message still names it,
//! even when nobody waits any more.
#![allow(unsafe_code)] // rd_kafka_message_status, which the client library does not wrap

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use crossbeam_queue::ArrayQueue;
use rdkafka::ClientContext;
use rdkafka::bindings::{rd_kafka_message_status, rd_kafka_msg_status_t};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult};
use rdkafka::producer::ProducerContext;
use tokio::sync::Notify;

use super::{InTopic, code_of, outcome};
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

    /// A place for a batch of so many records, at least one; `None` when all are taken.
    pub fn begin(&self, records: usize) -> Option<BatchInFlight<'_>> {
        let place = self.free.pop()?;
        let remaining = AtomicUsize::new(records);
        let reported = Reported { records, remaining, failed: Mutex::default(), complete: Notify::new() };
        let reported = Arc::new(reported);
        self.batches[place].store(Some(reported.clone()));
        Some(BatchInFlight { table: self, place, reported })
    }

    /// A record was delivered (`None`) or not.
    fn report(&self, place: usize, index: usize, failure: Option<Outcome>) {
        let batch = self.batches[place].load_full();
        if batch.is_some_and(|batch| batch.report(index, failure)) {
            self.batches[place].store(None);
            // The place came out of this queue, so there is room for it.
            let _ = self.free.push(place);
        }
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

    /// A record will have no report of librdkafka's: this is what became of it.
    pub fn report(&self, index: usize, failure: Option<Outcome>) {
        self.table.report(self.place, index, failure);
    }

    /// Waits for the last report.
    pub async fn reported(self) -> Outcomes {
        while self.reported.remaining.load(Ordering::Acquire) > 0 {
            self.reported.complete.notified().await;
        }
        self.reported.outcomes()
    }
}

impl Reported {
    /// Whether this was the last one.
    fn report(&self, index: usize, failure: Option<Outcome>) -> bool {
        if let Some(outcome) = failure {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).push((index, outcome));
        }
        let is_last = self.remaining.fetch_sub(1, Ordering::AcqRel) == 1;
        if is_last {
            self.complete.notify_one();
        }
        is_last
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

/// librdkafka's reports and logs, on the poll threads.
#[derive(Clone)]
pub struct Reports {
    in_flight: Arc<InFlight>,
    trouble: Arc<ArcSwapOption<Trouble>>,
}

/// Why brokers could not be reached.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub code: RDKafkaErrorCode,
    pub reason: String,
}

impl Trouble {
    /// A password or a certificate is refused, by the broker or by us; asking again will not help.
    pub fn turns_us_away(&self) -> bool {
        // TLS 1.3 servers judge a client's certificate after the handshake: librdkafka sees a connection that breaks.
        let is_alert = self.reason.contains("SSL alert number");
        is_alert || matches!(self.code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)
    }
}

impl Reports {
    pub fn new(in_flight: Arc<InFlight>) -> Self {
        Self { in_flight, trouble: Arc::default() }
    }

    /// The latest trouble with a broker since [`Self::all_is_well`].
    pub fn trouble(&self) -> Option<Arc<Trouble>> {
        self.trouble.load_full()
    }

    pub fn all_is_well(&self) {
        self.trouble.store(None);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        let (place, index) = (opaque >> INDEX_BITS, opaque & ((1 << INDEX_BITS) - 1));
        let failure = result.as_ref().err().map(|(error, message)| outcome(code_of(error), in_topic(message)));
        self.in_flight.report(place, index, failure);
    }
}

/// What librdkafka knows of a message that it failed to deliver.
fn in_topic(message: &BorrowedMessage<'_>) -> InTopic {
    // SAFETY: the pointer is librdkafka's own and lives as long as the message; the call only reads.
    let status = unsafe { rd_kafka_message_status(message.ptr()) };
    match status {
        rd_kafka_msg_status_t::RD_KAFKA_MSG_STATUS_NOT_PERSISTED => InTopic::No,
        _ => InTopic::Perhaps,
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            // A young broker that is not ready to number producers: librdkafka asks again.
            _ if facility == "GETPID" => tracing::debug!(facility, text = message, "librdkafka"),
            RDKafkaLogLevel::Debug => tracing::debug!(facility, text = message, "librdkafka"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Notice => tracing::info!(facility, text = message, "librdkafka"),
            _ => tracing::warn!(facility, text = message, "librdkafka"),
        }
    }

    /// Kept for whoever asks why the brokers do not answer; librdkafka has logged it.
    fn error(&self, error: KafkaError, reason: &str) {
        let code = code_of(&error);
        // It follows the trouble with the last of them, and says less.
        if code != RDKafkaErrorCode::AllBrokersDown {
            self.trouble.store(Some(Arc::new(Trouble { code, reason: reason.into() })));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_report_completes_the_batch_and_frees_its_place() {
        let table = InFlight::new(1);
        let batch = table.begin(2).unwrap();
        assert!(table.begin(1).is_none());
        assert_eq!(batch.opaque(1), 1);
        batch.report(1, Some(Outcome::Unknown));
        assert!(table.begin(1).is_none());
        table.report(0, 0, None);
        assert_eq!(batch.reported().await, Outcomes::Each(vec![Outcome::Delivered, Outcome::Unknown]));
        assert!(table.begin(1).is_some());
    }

    #[test]
    fn a_batch_that_nobody_waits_for_keeps_its_place_until_the_last_report() {
        let table = InFlight::new(1);
        drop(table.begin(2).unwrap());
        table.report(0, 0, None);
        assert!(table.begin(1).is_none());
        table.report(0, 1, None);
        assert!(table.begin(1).is_some());
    }
}
