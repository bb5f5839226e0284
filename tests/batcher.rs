//! The batcher as a request sees it: each record gets its own outcome, in whatever batches it travelled.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay::internals::admission::Admission;
use forebay::internals::batcher::Accumulator;
use forebay::internals::batcher::IdleSignal;
use forebay::internals::batcher::{Batcher, Queues, in_flight_batches_max};
use forebay::internals::config::{AckConfig, AckMode, BatchConfig};
use forebay::internals::handover;
use forebay::internals::health::Health;
use forebay::internals::lifecycle::Phases;
use forebay::internals::record::{
    AckSlot, Batch, DeviceId, DeviceMemory, Headers, Outcome, Outcomes, Record, RecordId, Settled,
    StreamIndex, Timestamp,
};
use forebay::internals::telemetry::Metrics;
use proptest::prelude::*;
use tokio::task::{JoinHandle, LocalSet, yield_now};
use tokio::time::Instant;

const STREAM: StreamIndex = StreamIndex(0);

fn record(admission: &Admission, payload: Bytes) -> Record {
    Record {
        device: DeviceId::parse("meter-1").unwrap(),
        permit: admission
            .reserve(
                StreamIndex(0),
                &DeviceMemory::default(),
                Some(payload.len()),
            )
            .unwrap(),
        payload,
        content_type: None,
        id: RecordId::new(Timestamp::now()),
        trace: None,
        headers: Headers::default(),
        received_at: Timestamp::now(),
    }
}

fn admission() -> Admission {
    Admission::new(
        usize::MAX / 2,
        1 << 20,
        Arc::new(Health::up(1)),
        Phases::serving(),
    )
}

struct Bench {
    batcher: Rc<Batcher>,
    batches: handover::Receiver<Batch>,
    settled: Option<handover::Receiver<Settled>>,
}

fn bench(records_max: usize, ack_timeout: Duration) -> Bench {
    let metrics = Metrics::new(1, &["telemetry".into()], vec![]);
    let limits = BatchConfig {
        bytes_max: 1 << 20,
        records_max,
        linger: Duration::from_millis(5),
    };
    let ack = AckConfig {
        mode: AckMode::Durable,
        timeout: ack_timeout,
    };
    let (delivery, batches) = handover::channel(in_flight_batches_max(1));
    let (home, settled) = handover::channel(in_flight_batches_max(1));
    let batcher = Rc::new(Batcher::new(
        1,
        limits,
        ack,
        Queues { delivery, home },
        metrics.worker(0),
    ));
    Bench {
        batcher,
        batches,
        settled: Some(settled),
    }
}

impl Bench {
    fn run(&mut self) {
        self.run_with(IdleSignal::default());
    }

    fn run_with(&mut self, idle: IdleSignal) -> JoinHandle<()> {
        let (batcher, settled) = (self.batcher.clone(), self.settled.take().unwrap());
        tokio::task::spawn_local(async move { batcher.run(settled, idle).await })
    }
}

/// The outcome that the payload asks for.
fn wanted(payload: &[u8]) -> Outcome {
    match payload[0] % 4 {
        0 => Outcome::Delivered,
        1 => Outcome::Retryable("busy".into()),
        2 => Outcome::Permanent("too large".into()),
        _ => Outcome::Unknown,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_request_gets_the_outcome_of_its_own_record(
        payloads in prop::collection::vec(any::<u8>(), 1..200),
        records_max in 1_usize..40,
        in_reverse in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let mut bench = bench(records_max, Duration::from_secs(60));
            bench.run();
            let admission = Rc::new(admission());
            let requests: Vec<_> = payloads.iter().map(|payload| {
                let (batcher, payload) = (bench.batcher.clone(), Bytes::copy_from_slice(&[*payload]));
                let record = record(&admission, payload.clone());
                tokio::task::spawn_local(async move { (batcher.push(STREAM, record).await, wanted(&payload)) })
            }).collect();
            let mut seen = 0;
            while seen < payloads.len() {
                let mut ready = vec![bench.batches.recv().await.unwrap()];
                ready.extend(std::iter::from_fn(|| bench.batches.try_recv()));
                if in_reverse {
                    ready.reverse();
                }
                for batch in ready {
                    assert!((1..=records_max).contains(&batch.records().len()));
                    seen += batch.records().len();
                    let outcomes = batch.records().iter().map(|record| wanted(&record.payload)).collect();
                    batch.settle(Outcomes::Each(outcomes));
                }
            }
            for request in requests {
                let (outcome, wanted) = request.await.unwrap();
                assert_eq!(outcome, wanted);
            }
            assert_eq!(admission.reserved_bytes(), 0, "every permit came back");
        });
    }

    #[test]
    fn an_accumulator_keeps_order_and_bounds(
        sizes in prop::collection::vec(1_usize..400, 1..100),
        bytes_max in 1_usize..1000,
        records_max in 1_usize..20,
    ) {
        let limits = BatchConfig { bytes_max, records_max, linger: Duration::ZERO };
        let (mut accumulator, admission, now) = (Accumulator::new(limits), admission(), Instant::now());
        let mut sealed = Vec::new();
        for (index, size) in sizes.iter().enumerate() {
            let mut record = record(&admission, vec![0; *size].into());
            record.received_at = Timestamp(index as u64);
            sealed.extend(accumulator.push(record, AckSlot(index as u32), now).into_iter().flatten());
        }
        sealed.extend(accumulator.seal(forebay::internals::words::SealReason::Drain));
        let order: Vec<u64> = sealed.iter().flat_map(|batch| &batch.records).map(|record| record.received_at.0).collect();
        prop_assert_eq!(order, (0..sizes.len() as u64).collect::<Vec<_>>());
        for batch in sealed {
            let acks: Vec<_> = batch.records.iter().map(|record| AckSlot(record.received_at.0 as u32)).collect();
            prop_assert_eq!(&batch.acks, &acks);
            prop_assert!(batch.records.len() <= records_max);
            prop_assert_eq!(batch.bytes, batch.records.iter().map(|record| record.payload.len()).sum::<usize>());
            prop_assert!(batch.bytes <= bytes_max || batch.records.len() == 1, "only a record larger than a batch exceeds it");
        }
    }
}

/// A late ack must not answer the request that has since taken the place of the one that gave up.
#[tokio::test(start_paused = true)]
async fn a_late_ack_answers_nobody_else() {
    LocalSet::new()
        .run_until(async {
            let mut bench = bench(1, Duration::from_millis(100));
            bench.run();
            let admission = admission();
            let late = bench
                .batcher
                .push(STREAM, record(&admission, Bytes::from_static(&[0])))
                .await;
            assert_eq!(late, Outcome::Unknown, "no ack came within the time-out");
            let late_batch = bench.batches.recv().await.unwrap();
            let (batcher, record) = (
                bench.batcher.clone(),
                record(&admission, Bytes::from_static(&[1])),
            );
            let request =
                tokio::task::spawn_local(async move { batcher.push(STREAM, record).await });
            let batch = bench.batches.recv().await.unwrap();
            late_batch.settle(Outcomes::DELIVERED);
            batch.settle(Outcomes::All(Outcome::Retryable("busy".into())));
            assert_eq!(request.await.unwrap(), Outcome::Retryable("busy".into()));
        })
        .await;
}

/// A batch that is lost on its way leaves nobody waiting.
#[tokio::test]
async fn a_dropped_batch_is_unknown() {
    LocalSet::new()
        .run_until(async {
            let mut bench = bench(1, Duration::from_secs(60));
            bench.run();
            let admission = admission();
            let (batcher, record) = (
                bench.batcher.clone(),
                record(&admission, Bytes::from_static(&[0])),
            );
            let request =
                tokio::task::spawn_local(async move { batcher.push(STREAM, record).await });
            drop(bench.batches.recv().await);
            assert_eq!(request.await.unwrap(), Outcome::Unknown);
            assert_eq!(admission.reserved_bytes(), 0);
        })
        .await;
}

/// What is in the lanes goes out, and the batcher ends when all of it has come home.
#[tokio::test]
async fn a_drain_sends_everything_and_waits_for_it() {
    LocalSet::new()
        .run_until(async {
            let mut bench = bench(10, Duration::from_secs(60));
            let running = bench.run_with(IdleSignal::default());
            let admission = admission();
            let requests: Vec<_> = (0..25)
                .map(|_| {
                    let (batcher, record) = (
                        bench.batcher.clone(),
                        record(&admission, Bytes::from_static(&[0])),
                    );
                    tokio::task::spawn_local(async move { batcher.push(STREAM, record).await })
                })
                .collect();
            yield_now().await;
            bench.batcher.drain();
            let mut seen = 0;
            while seen < 25 {
                let batch = bench.batches.recv().await.unwrap();
                seen += batch.records().len();
                assert!(!running.is_finished());
                batch.settle(Outcomes::DELIVERED);
            }
            running.await.unwrap();
            for request in requests {
                assert_eq!(request.await.unwrap(), Outcome::Delivered);
            }
        })
        .await;
}

/// What a busy worker takes in travels together; a record that comes alone waits for nothing.
#[test]
fn a_batch_waits_while_its_worker_is_busy_and_no_longer() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let idle = IdleSignal::of(&mut runtime);
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let mut bench = bench(1000, Duration::from_secs(60));
        bench.run_with(idle);
        let (started_at, admission) = (Instant::now(), admission());
        for records in [50, 1, 7] {
            let batcher = bench.batcher.clone();
            let pushed: Vec<_> = (0..records)
                .map(|_| record(&admission, Bytes::from_static(&[0])))
                .collect();
            tokio::task::spawn_local(async move {
                for record in pushed {
                    let batcher = batcher.clone();
                    tokio::task::spawn_local(async move { batcher.push(STREAM, record).await });
                    yield_now().await;
                }
            });
            let batch = bench.batches.recv().await.unwrap();
            assert_eq!(batch.records().len(), records);
            batch.settle(Outcomes::DELIVERED);
        }
        assert_eq!(
            started_at.elapsed(),
            Duration::ZERO,
            "none has waited for the linger"
        );
    });
}
