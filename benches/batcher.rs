//! The cost of a record from its push to its ack: in the accumulator, over the hand-over, and the
//! whole way with a delivery thread that acknowledges at once. Figures are for a batch of [`RECORDS`]
//! where the name says so.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use forebay::internals::admission::Admission;
use forebay::internals::batcher::Accumulator;
use forebay::internals::batcher::Buffers;
use forebay::internals::batcher::IdleSignal;
use forebay::internals::batcher::{Batcher, Queues, in_flight_batches_max};
use forebay::internals::config::{AckConfig, AckMode, BatchConfig};
use forebay::internals::handover;
use forebay::internals::health::Health;
use forebay::internals::lifecycle::Phases;
use forebay::internals::record::{
    AckSlot, Batch, DeviceId, DeviceMemory, Headers, Outcomes, Record, RecordId, StreamIndex,
    Timestamp,
};
use forebay::internals::telemetry::Metrics;
use forebay::internals::words::SealReason;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

const RECORDS: usize = 512;
const PAYLOAD: Bytes = Bytes::from_static(&[b'x'; 344]);
const LIMITS: BatchConfig = BatchConfig {
    bytes_max: 512 * 1024,
    records_max: RECORDS,
    linger: Duration::from_millis(5),
};
const STREAM: StreamIndex = StreamIndex(0);

struct Readings {
    admission: Admission,
    device: DeviceId,
    memory: DeviceMemory,
}

impl Readings {
    fn new() -> Self {
        let device = DeviceId::parse("meter-1").expect("an id");
        Self {
            admission: Admission::new(
                usize::MAX / 2,
                256 * 1024,
                Arc::new(Health::up(1)),
                Phases::serving(),
            ),
            device,
            memory: DeviceMemory::default(),
        }
    }

    fn next(&self) -> Record {
        let received_at = Timestamp::now();
        Record {
            device: self.device.clone(),
            permit: self
                .admission
                .reserve(STREAM, &self.memory, Some(PAYLOAD.len()))
                .expect("there is room"),
            payload: PAYLOAD,
            content_type: None,
            id: RecordId::new(received_at),
            trace: None,
            headers: Headers::default(),
            received_at,
        }
    }
}

fn accumulator(criterion: &mut Criterion) {
    let readings = Readings::new();
    let mut group = criterion.benchmark_group("accumulator");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("make and drop a batch's records", |bench| {
        bench.iter(|| black_box((0..RECORDS).map(|_| readings.next()).collect::<Vec<_>>()))
    });
    group.bench_function("make, push and seal them", |bench| {
        let mut accumulator = Accumulator::new(LIMITS);
        let now = Instant::now();
        bench.iter(|| {
            for _ in 0..RECORDS {
                let [_, full] = accumulator.push(readings.next(), AckSlot::NONE, now);
                if let Some(sealed) = full {
                    assert_eq!(sealed.reason, SealReason::Records);
                    let (mut records, mut acks) = (sealed.records, sealed.acks);
                    records.clear();
                    acks.clear();
                    accumulator.gather_in(Buffers { records, acks });
                }
            }
        })
    });
    group.finish();
}

fn hand_over(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hand-over");
    let (sender, mut receiver) = handover::channel(1024);
    group.bench_function("push and pop", |bench| {
        bench.iter(|| {
            sender.push(black_box(1_u64)).expect("there is room");
            receiver.try_recv()
        })
    });
    group.bench_function("there and back between two threads", |bench| {
        let (there, mut ping) = handover::channel(1);
        let (back, mut pong) = handover::channel(1);
        let echo = std::thread::spawn(move || {
            runtime().0.block_on(async {
                while let Some(item) = ping.recv().await {
                    back.push(item).expect("there is room");
                }
            })
        });
        let (runtime, _) = runtime();
        bench.iter(|| {
            there.push(1_u64).expect("there is room");
            runtime.block_on(pong.recv())
        });
        drop(there);
        echo.join().expect("the echo ends");
    });
    group.finish();
}

fn runtime() -> (Runtime, IdleSignal) {
    let mut runtime = Builder::new_current_thread();
    let idle = IdleSignal::of(&mut runtime);
    (runtime.enable_all().build().expect("a runtime"), idle)
}

/// [`RECORDS`] requests push at once and wait; another thread settles every batch as delivered.
fn ack_path(criterion: &mut Criterion) {
    let metrics = Metrics::new(1, &["telemetry".into()], vec![]);
    let ack = AckConfig {
        mode: AckMode::Durable,
        timeout: Duration::from_secs(10),
    };
    let (delivery, mut batches) = handover::channel::<Batch>(in_flight_batches_max(1));
    let (home, settled) = handover::channel(in_flight_batches_max(1));
    let batcher = Rc::new(Batcher::new(
        1,
        LIMITS,
        ack,
        Queues { delivery, home },
        metrics.worker(0),
    ));
    let settling = std::thread::spawn(move || {
        runtime().0.block_on(async {
            while let Some(batch) = batches.recv().await {
                batch.settle(Outcomes::DELIVERED);
            }
        })
    });
    let ((runtime, idle), local, readings) = (runtime(), LocalSet::new(), Rc::new(Readings::new()));
    let running = local.spawn_local({
        let batcher = batcher.clone();
        async move { batcher.run(settled, idle).await }
    });
    let mut group = criterion.benchmark_group("ack path");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("push to ack", |bench| {
        bench.iter(|| {
            local.block_on(&runtime, async {
                let mut requests = JoinSet::new();
                for _ in 0..RECORDS {
                    let (batcher, readings) = (batcher.clone(), readings.clone());
                    requests
                        .spawn_local(async move { batcher.push(STREAM, readings.next()).await });
                }
                requests.join_all().await.len()
            })
        })
    });
    group.finish();
    batcher.drain();
    local.block_on(&runtime, running).expect("the batcher ends");
    drop((local, batcher));
    settling.join().expect("delivery ends");
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = accumulator, hand_over, ack_path
}
criterion_main!(benches);
