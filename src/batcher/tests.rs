//! The batcher's looks at lanes, and its memory: from within, where lanes can be seen.

use std::task::{Context, Poll};

use futures_util::FutureExt;
use tokio::time::Instant;

use super::lane::READY_KEPT_MAX;
use super::spares::{SPARE_RECORDS_MAX, SPARES_MAX};
use super::*;
use crate::handover;
use crate::record::{Outcomes, Timestamp};
use crate::telemetry::metrics::Metrics;

const STREAMS: u16 = 64;
const RECORDS_MAX: usize = 512;

fn record() -> Record {
    Record::bare("meter-1", "21.5", Timestamp(0))
}

struct Bench {
    batcher: Batcher,
    batches: Receiver<Batch>,
    settled: Receiver<Settled>,
}

fn bench(mode: AckMode) -> Bench {
    let limits = BatchConfig {
        bytes_max: 1 << 20,
        records_max: RECORDS_MAX,
        linger: Duration::from_millis(5),
    };
    let ack = AckConfig {
        mode,
        timeout: Duration::from_secs(10),
    };
    let places = in_flight_batches_max(usize::from(STREAMS));
    let (delivery, batches) = handover::channel(places);
    let (home, settled) = handover::channel(places);
    let metrics = Metrics::new(1, &["telemetry".into()], vec![]).worker(0);
    let batcher = Batcher::new(STREAMS, limits, ack, Queues { delivery, home }, metrics);
    Bench {
        batcher,
        batches,
        settled,
    }
}

impl Bench {
    /// Brings all batches in flight home. Returns their number.
    fn settle_all(&mut self) -> usize {
        let mut batches = 0;
        while let Some(batch) = self.batches.try_recv() {
            batches += 1;
            batch.settle(Outcomes::DELIVERED);
            while let Some(settled) = self.settled.try_recv() {
                self.batcher.settle(settled);
            }
        }
        batches
    }

    /// Records that the batcher has room for.
    fn room(&self) -> usize {
        let lanes = self.batcher.lanes.iter().map(|lane| lane.borrow());
        let of_lanes: usize = lanes
            .map(|lane| lane.accumulator.capacity() + lane.ready.capacity())
            .sum();
        of_lanes + self.batcher.spares.capacity()
    }
}

/// Records come by themselves, one every so often, to a worker that is idle in between, and are
/// acknowledged before the next one comes: so many travel together.
fn records_a_batch(every: Duration, partitions: u32) -> usize {
    const RECORDS: usize = 20_000;
    let stream = StreamIndex(0);
    let health = Arc::new(Health::up(usize::from(STREAMS)));
    health.set_partitions(stream, partitions);
    let mut bench = bench(AckMode::Queued);
    bench.batcher = bench.batcher.for_partitions_of(health);
    let (mut now, mut batches) = (Instant::now(), 0);
    for _ in 0..RECORDS {
        now += every;
        bench.batcher.accept(stream, record(), AckSlot::NONE, now);
        bench.batcher.seal_due(now, true);
        batches += bench.settle_all();
    }
    RECORDS / batches
}

/// The linger, of 5 ms here, is spent where a request to a broker gets company for its records.
#[test]
fn a_busy_fleets_records_travel_together_and_a_quiet_ones_alone() {
    let rate = |per_second| Duration::from_secs(1) / per_second;
    assert_eq!(records_a_batch(rate(10), 48), 1);
    assert_eq!(records_a_batch(rate(300), 1), 1);
    assert!((50..=62).contains(&records_a_batch(rate(12_000), 48)));
    assert!((20..=26).contains(&records_a_batch(rate(12_000), 1)));
}

/// While acknowledgements take long, a quiet lane's record does not wait for those before it.
#[test]
fn a_quiet_lane_sends_at_once_be_there_batches_in_flight() {
    let (stream, mut now) = (StreamIndex(0), Instant::now());
    let bench = bench(AckMode::Queued);
    for sent in 1..=8 {
        now += Duration::from_millis(100);
        bench.batcher.accept(stream, record(), AckSlot::NONE, now);
        if sent <= 3 {
            // It is not known yet that it is quiet.
            now += Duration::from_millis(5);
        }
        bench.batcher.seal_due(now, true);
        let in_flight = bench.batcher.lanes[0].borrow().credit.in_flight();
        assert_eq!(in_flight, sent);
    }
}

/// Every lane is filled far beyond its credit; afterwards the batcher is as large as after a quiet
/// day.
#[test]
fn what_a_burst_needed_is_given_back() {
    let mut bench = bench(AckMode::Queued);
    for _ in 0..2 {
        for stream in 0..STREAMS {
            // One lane has far more ready than it may send.
            let batches = if stream == 0 { 100 } else { 20 };
            for _ in 0..batches * RECORDS_MAX {
                let (stream, now) = (StreamIndex(stream), Instant::now());
                bench.batcher.accept(stream, record(), AckSlot::NONE, now);
            }
        }
        bench.settle_all();
        let room = bench.room();
        let most = SPARES_MAX * SPARE_RECORDS_MAX + usize::from(STREAMS) * READY_KEPT_MAX;
        assert!(room <= most, "room for {room} records is kept");
    }
}

/// Requests of a burst that have been answered leave no slots behind.
#[test]
fn slots_of_a_burst_are_given_back() {
    let waiters = Waiters::default();
    let deadline = Instant::now() + Duration::from_secs(10);
    let slots: Vec<_> = (0..100_000).map(|_| waiters.open(deadline)).collect();
    for slot in slots {
        drop(waiters.wait(slot));
        waiters.settle(slot, &Outcome::Delivered);
    }
    assert!(waiters.is_empty() && waiters.capacity() <= 4096);
}

/// A body may end when the worker has sent its last batch: its record is not told to be safe, in
/// whatever sense, and its request does not wait.
#[tokio::test]
async fn a_record_that_comes_after_the_last_batch_goes_back() {
    for mode in [AckMode::Durable, AckMode::Queued] {
        let Bench {
            batcher, settled, ..
        } = bench(mode);
        batcher.drain();
        batcher.run(settled, IdleSignal::default()).await;
        let outcome = batcher.push(StreamIndex(0), record()).now_or_never();
        assert!(
            matches!(outcome, Some(Outcome::Retryable(_))),
            "{outcome:?}"
        );
        assert_eq!(batcher.unsafe_records(), 0);
    }
}

/// However many lanes there are, a wake looks at those that are due: one of them has been noted.
#[test]
fn a_lane_that_is_due_is_sealed_and_no_other_is_looked_at() {
    let bench = bench(AckMode::Queued);
    let now = Instant::now();
    // A look at these would find them borrowed.
    let others: Vec<_> = bench.batcher.lanes[1..]
        .iter()
        .map(|lane| lane.borrow_mut())
        .collect();
    bench
        .batcher
        .accept(StreamIndex(0), record(), AckSlot::NONE, now);
    assert_eq!(bench.batcher.unsent_records(), 1);
    let due_at = bench.batcher.seal_due(now, false);
    assert_eq!(due_at, Some(now + Duration::from_millis(5)));
    assert_eq!(bench.batcher.seal_due(due_at.unwrap(), false), None);
    assert_eq!(bench.batcher.unsent_records(), 0);
    drop(others);
    assert_eq!(bench.batcher.lanes[0].borrow().credit.in_flight(), 1);
}

/// Records that could not set out for lack of credit do so when a batch comes home.
#[test]
fn credit_that_comes_home_is_used_at_once() {
    let mut bench = bench(AckMode::Queued);
    let (stream, now) = (StreamIndex(3), Instant::now());
    let credit = OWN_BATCHES_MAX + SHARED_BATCHES_MAX / 2;
    for _ in 0..(credit + 2) * RECORDS_MAX + 1 {
        bench.batcher.accept(stream, record(), AckSlot::NONE, now);
    }
    assert_eq!(
        bench.batcher.seal_due(now + Duration::from_secs(1), true),
        None,
        "no credit"
    );
    let batch = bench.batches.try_recv().unwrap();
    batch.settle(Outcomes::DELIVERED);
    let settled = bench.settled.try_recv().unwrap();
    bench.batcher.settle(settled);
    let lane = &bench.batcher.lanes[stream.get()];
    assert_eq!(lane.borrow().credit.in_flight(), credit);
    assert_eq!(lane.borrow().ready.len(), 1);
    bench.settle_all();
    assert_eq!(bench.batcher.unsent_records(), 1);
}

/// A request of many records has one wait, which ends when the last of them has come home, with the
/// outcome of each.
#[tokio::test]
async fn records_of_one_request_are_answered_together() {
    let mut bench = bench(AckMode::Durable);
    let records = (0..RECORDS_MAX + 1).map(|_| record()).collect();
    let mut pushed = polled(bench.batcher.push_all(StreamIndex(0), records));
    assert!(pushed.poll().is_pending());
    let linger_is_over = Instant::now() + Duration::from_secs(1);
    bench.batcher.seal_due(linger_is_over, false);
    let (full, rest) = (bench.batches.try_recv(), bench.batches.try_recv());
    let refused = Outcome::Permanent("no".into());
    rest.unwrap().settle(Outcomes::All(refused.clone()));
    bench.batcher.settle(bench.settled.try_recv().unwrap());
    assert!(pushed.poll().is_pending(), "most are out still");
    full.unwrap().settle(Outcomes::DELIVERED);
    bench.batcher.settle(bench.settled.try_recv().unwrap());
    let Poll::Ready(outcomes) = pushed.poll() else {
        panic!("all have come home");
    };
    assert_eq!(outcomes.len(), RECORDS_MAX + 1);
    assert_eq!(outcomes.last(), Some(&refused));
    let delivered = |outcome: &&Outcome| **outcome == Outcome::Delivered;
    assert_eq!(outcomes.iter().filter(delivered).count(), RECORDS_MAX);
    drop(pushed);
    assert!(bench.batcher.waiters.is_empty());
}

/// When its time is over, a request knows of the records that are safe, and its slots are free once
/// the others have come home. So are those of a request that has gone.
#[tokio::test]
async fn a_request_whose_time_is_over_knows_what_is_safe() {
    let mut bench = bench(AckMode::Durable);
    let records = (0..RECORDS_MAX + 1).map(|_| record()).collect();
    let mut pushed = polled(bench.batcher.push_all(StreamIndex(0), records));
    assert!(pushed.poll().is_pending());
    let mut gone = polled(bench.batcher.push_all(StreamIndex(0), vec![record()]));
    assert!(gone.poll().is_pending());
    drop(gone);
    bench
        .batches
        .try_recv()
        .unwrap()
        .settle(Outcomes::DELIVERED);
    bench.batcher.settle(bench.settled.try_recv().unwrap());
    bench.batcher.give_up();
    let Poll::Ready(outcomes) = pushed.poll() else {
        panic!("its time is over");
    };
    assert_eq!(outcomes[0], Outcome::Delivered);
    assert_eq!(outcomes[RECORDS_MAX], Outcome::Unknown);
    drop(pushed);
    assert!(!bench.batcher.waiters.is_empty(), "records are out still");
    bench.batcher.seal_due(Instant::now(), true);
    bench.settle_all();
    assert!(bench.batcher.waiters.is_empty());
}

struct Polled<F>(std::pin::Pin<Box<F>>);

fn polled<F: Future>(future: F) -> Polled<F> {
    Polled(Box::pin(future))
}

impl<F: Future> Polled<F> {
    fn poll(&mut self) -> Poll<F::Output> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        self.0.as_mut().poll(&mut context)
    }
}
