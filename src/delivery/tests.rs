//! Delivery over a scripted sink, on paused time: order, loss, and the end.

mod leaving;
mod slow;
mod spooled_partitions;
mod stragglers;
mod wide_spool;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use proptest::prelude::*;
use tokio::task::{LocalSet, spawn_blocking, spawn_local, yield_now};
use tokio::time::sleep;

use super::{Backlog, Delivery, DeliveryOptions, Promised};
use crate::config::{BatchConfig, SpoolMode, StreamConfig, WhenFull};
use crate::handover::{self, Receiver, Sender};
use crate::health::Health;
use crate::lifecycle::{Lifecycle, Phase};
use crate::record::{
    AckSlot, Batch, DeviceId, Outcome, Outcomes, Record, Settled, StreamIndex, Timestamp,
};
use crate::sink::{Arrived, Partitions, Progress, Scripted, Sink, SinkError};
use crate::spool::tests::either::{SEGMENT_BYTES, Shape};
use crate::spool::tests::sim::SimDisk;
use crate::spool::{Keys, Options, Spool};
use crate::telemetry::metrics::{Metrics, SpoolMetrics};

const STREAMS: [&str; 2] = ["telemetry", "alarms"];

/// Most steps of a wait, of 10 ms each.
const STEPS_MAX: usize = 20_000;

/// The outcomes of the records of one call.
type Script = Box<dyn Fn(StreamIndex, &[Record]) -> Vec<Outcome>>;

/// The time until the sink answers a call.
type AckTime = Box<dyn Fn(StreamIndex, &[Record]) -> Duration>;

/// Records that take so much longer than the others of their calls.
type Stuck = (fn(&Record) -> bool, Duration);

/// Settings of the sink, and how much it may have at once.
struct Setup {
    records_max: usize,
    stream_batches_max: usize,
    shared_batches_max: usize,
    /// As the sink tells of it.
    told_ack_time: Duration,
    keeps_order_within_call: bool,
    ack_time: AckTime,
    stuck: Option<Stuck>,
    partitions: Option<Partitions>,
    answers_together: bool,
    /// The spool, if there is one, is on a disk that takes none of the time that is not simulated.
    has_simulated_disk: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            records_max: 50,
            stream_batches_max: 4,
            shared_batches_max: 0,
            told_ack_time: Duration::ZERO,
            keeps_order_within_call: true,
            ack_time: Box::new(|_, _| Duration::ZERO),
            stuck: None,
            partitions: None,
            answers_together: false,
            has_simulated_disk: false,
        }
    }
}

/// A record that the sink took.
struct Taken {
    /// The call that it came with: as they came, so they stand in the stream, whichever is answered
    /// first.
    call: u64,
    stream: StreamIndex,
    device: DeviceId,
    number: u64,
}

/// A sink that answers after a while as its script says, and keeps the records that it took.
struct TestSink {
    script: Rc<RefCell<Script>>,
    keeps_order_within_call: bool,
    ack_time: AckTime,
    told_ack_time: Duration,
    stuck: Option<Stuck>,
    partitions: Rc<RefCell<Option<Partitions>>>,
    answers_together: bool,
    taken: Rc<RefCell<Vec<Taken>>>,
    calls: Cell<u64>,
    away: Rc<Cell<Option<StreamIndex>>>,
}

impl Scripted for TestSink {
    fn verify(&self, stream: StreamIndex) -> Result<(), SinkError> {
        match self.away.get() {
            Some(away) if away == stream => Err(SinkError::Away("away".into())),
            _ => Ok(()),
        }
    }

    fn keeps_order_within_call(&self) -> bool {
        self.keeps_order_within_call
    }

    fn ack_time(&self) -> Duration {
        self.told_ack_time
    }

    fn answers_together(&self) -> bool {
        self.answers_together
    }

    fn partitions(&self, _: StreamIndex) -> Option<Partitions> {
        self.partitions.borrow().clone()
    }

    fn deliver<'a>(
        &'a self,
        stream: StreamIndex,
        records: &'a [Record],
        progress: &'a Progress,
    ) -> LocalBoxFuture<'a, Outcomes> {
        Box::pin(async move {
            let call = self.calls.get();
            self.calls.set(call + 1);
            for _ in 0..3 {
                yield_now().await;
            }
            let ack_time = (self.ack_time)(stream, records);
            if !ack_time.is_zero() {
                sleep(ack_time).await;
            }
            let outcomes = (self.script.borrow())(stream, records);
            let arrived = Arrived::none_of(records.len());
            progress.follow(arrived.clone());
            let is_stuck =
                |record: &Record| self.stuck.is_some_and(|(is_stuck, _)| is_stuck(record));
            for late in [false, true] {
                if late && records.iter().any(is_stuck) {
                    sleep(self.stuck.map_or(Duration::ZERO, |(_, time)| time)).await;
                }
                for (position, (record, outcome)) in records.iter().zip(&outcomes).enumerate() {
                    if is_stuck(record) == late && *outcome == Outcome::Delivered {
                        arrived.note(position);
                        self.take(call, stream, record);
                    }
                }
            }
            Outcomes::Each(outcomes)
        })
    }
}

impl TestSink {
    fn take(&self, call: u64, stream: StreamIndex, record: &Record) {
        self.taken.borrow_mut().push(Taken {
            call,
            stream,
            device: record.device.clone(),
            number: record.received_at.0,
        });
    }
}

fn delivered(_: StreamIndex, records: &[Record]) -> Vec<Outcome> {
    vec![Outcome::Delivered; records.len()]
}

struct Bench {
    script: Rc<RefCell<Script>>,
    taken: Rc<RefCell<Vec<Taken>>>,
    /// The stream that is not there.
    away: Rc<Cell<Option<StreamIndex>>>,
    partitions: Rc<RefCell<Option<Partitions>>>,
    health: Arc<Health>,
    batches: Option<Sender<Batch>>,
    home: Sender<Settled>,
    settled: Receiver<Settled>,
    promised: Promised,
    metrics: Arc<Metrics>,
    alarms: Rc<RefCell<Vec<&'static str>>>,
    lifecycle: Lifecycle,
    ended: Rc<Cell<bool>>,
}

impl Bench {
    /// Starts a bench on the local set that this is called on.
    fn start(
        spool_dir: Option<&Path>,
        script: impl Fn(StreamIndex, &[Record]) -> Vec<Outcome> + 'static,
    ) -> Self {
        Self::start_as(Setup::default(), spool_dir, script)
    }

    fn start_as(
        setup: Setup,
        spool_dir: Option<&Path>,
        script: impl Fn(StreamIndex, &[Record]) -> Vec<Outcome> + 'static,
    ) -> Self {
        let script: Rc<RefCell<Script>> = Rc::new(RefCell::new(Box::new(script)));
        let taken = Rc::default();
        let away = Rc::new(Cell::new(None));
        let partitions = Rc::new(RefCell::new(setup.partitions));
        let sink = TestSink {
            script: script.clone(),
            keeps_order_within_call: setup.keeps_order_within_call,
            ack_time: setup.ack_time,
            told_ack_time: setup.told_ack_time,
            stuck: setup.stuck,
            partitions: partitions.clone(),
            answers_together: setup.answers_together,
            taken: Rc::clone(&taken),
            calls: Cell::default(),
            away: away.clone(),
        };
        let streams = STREAMS.map(|name| StreamConfig {
            name: name.into(),
            target: name.into(),
        });
        let options = DeliveryOptions {
            streams: streams.to_vec(),
            batch: BatchConfig {
                bytes_max: 1 << 20,
                records_max: setup.records_max,
                linger: Duration::ZERO,
            },
            stream_batches_max: setup.stream_batches_max,
            shared_batches_max: setup.shared_batches_max,
            ack_timeout: Duration::from_secs(10),
        };
        let metrics = Arc::new(Metrics::new(1, &STREAMS.map(String::from), vec![]));
        let (promised, alarms) = (Promised::default(), Rc::<RefCell<Vec<_>>>::default());
        let open = |dir| match setup.has_simulated_disk {
            true => simulated_spool(metrics.spool()),
            false => spool(dir, metrics.spool()),
        };
        let spool = spool_dir.map(open);
        let backlog = spool.map(|spool| Backlog::new(spool, SpoolMode::Overflow));
        let (health, told) = (Arc::new(Health::up(STREAMS.len())), alarms.clone());
        let sink = Sink::Scripted(Box::new(sink));
        let delivery = Delivery::new(sink, backlog, health.clone(), metrics.clone(), options)
            .counting(promised.clone())
            .alarming(move |what| told.borrow_mut().push(what));
        let (batches, received) = handover::channel(1024);
        let (home, settled) = handover::channel(1024);
        let lifecycle = Lifecycle::new();
        let phases = lifecycle.phases();
        let ended = Rc::new(Cell::new(false));
        let tells = ended.clone();
        spawn_local(async move {
            delivery.run(received, phases).await;
            tells.set(true);
        });
        Self {
            script,
            taken,
            away,
            partitions,
            health,
            batches: Some(batches),
            home,
            settled,
            promised,
            metrics,
            alarms,
            lifecycle,
            ended,
        }
    }

    /// Sends one batch of records, each of which is a device and a number.
    fn send(&self, stream: u16, records: &[(u16, u64)], ack: AckSlot) {
        self.send_as(stream, records, vec![ack; records.len()]);
    }

    /// Sends as [`send`](Self::send) does, each record with an ack of its own.
    fn send_as(&self, stream: u16, records: &[(u16, u64)], acks: Vec<AckSlot>) {
        let records = records
            .iter()
            .map(|(device, number)| record(*device, *number));
        let batch = Batch::new(
            StreamIndex(stream),
            records.collect(),
            acks,
            self.home.clone(),
        );
        let sent = self.batches.as_ref().unwrap().push(batch);
        assert!(sent.is_ok(), "there is room");
    }

    fn script(&self, script: impl Fn(StreamIndex, &[Record]) -> Vec<Outcome> + 'static) {
        *self.script.borrow_mut() = Box::new(script);
    }

    /// Returns each device's records, in the order in which they were taken.
    fn taken(&self, stream: u16) -> HashMap<String, Vec<u64>> {
        let mut taken = self.taken.borrow_mut();
        taken.sort_by_key(|taken| taken.call);
        let mut by_device: HashMap<String, Vec<u64>> = HashMap::new();
        for taken in taken.iter() {
            if taken.stream == StreamIndex(stream) {
                let numbers = by_device.entry(taken.device.to_string()).or_default();
                numbers.push(taken.number);
            }
        }
        by_device
    }

    /// Lets time pass until it is so.
    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        for _ in 0..STEPS_MAX {
            if is_so(self) {
                return;
            }
            pass(Duration::from_millis(10)).await;
        }
        panic!("not so: {what}");
    }

    /// Sends as a request does that waits for its answer, which says that the record is safe.
    async fn send_and_wait(&mut self, stream: u16, device: u16, number: u64) {
        self.send(stream, &[(device, number)], AckSlot(0));
        let settled = self.settled.recv().await.unwrap();
        assert_eq!(*settled.outcomes.get(0), Outcome::Delivered);
    }

    /// Waits until the spool is free for another process.
    async fn gone(self) {
        drop(self);
        pass_seconds(10).await;
    }

    /// Ends the batches, and waits for delivery to end.
    async fn leave(&mut self) {
        self.batches = None;
        self.until("it has ended", |bench| bench.ended.get()).await;
    }
}

pub(super) fn record(device: impl Into<u16>, number: u64) -> Record {
    let device = format!("device-{}", device.into());
    Record::bare(&device, number.to_string(), Timestamp(number))
}

/// Returns a spool whose commits are a task of this local set.
fn simulated_spool(metrics: SpoolMetrics) -> Spool {
    let shape = Shape {
        disk: SimDisk::new(1),
        bytes_max: 1000 * SEGMENT_BYTES,
        when_full: WhenFull::Reject,
        is_encrypted: false,
        dead_letter_bytes_max: 1000 * SEGMENT_BYTES,
        metrics,
    };
    let (spool, committing) = shape.open(yield_now).unwrap();
    spawn_local(committing);
    spool
}

fn spool(dir: &Path, metrics: SpoolMetrics) -> Spool {
    let options = Options {
        dir: dir.to_owned(),
        bytes_max: 32 << 20,
        when_full: WhenFull::Reject,
        keys: Keys::default(),
        metrics,
    };
    Spool::open(options).unwrap().0
}

/// Opens the spool that a process before this one has left behind.
fn left_in(dir: &Path) -> Spool {
    spool(dir, SpoolMetrics::unseen())
}

/// Runs a test on time that only [`pass`] moves: waiting for a disk makes no hours pass.
fn on_paused_time(test: impl Future<Output = ()>) {
    on_simulated_time(async {
        let _held = HeldTime::new();
        test.await;
    });
}

/// Runs a test on time that passes from timer to timer as fast as there is nothing left to do, but
/// not during a read from disk.
fn on_simulated_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// Time does not pass by itself while this lives: tokio lets none pass while a blocking task runs.
struct HeldTime {
    _stop: std::sync::mpsc::SyncSender<()>,
}

impl HeldTime {
    fn new() -> Self {
        let (stop, stopped) = std::sync::mpsc::sync_channel::<()>(0);
        spawn_blocking(move || stopped.recv().is_err());
        Self { _stop: stop }
    }
}

/// Lets so much time pass, and the threads of the disk have a moment of theirs.
async fn pass(time: Duration) {
    tokio::time::advance(time).await;
    moment().await;
}

/// Lets the threads of the disk have a moment of theirs.
async fn moment() {
    let moment = || std::thread::park_timeout(Duration::from_micros(50));
    spawn_blocking(moment).await.unwrap();
}

async fn pass_seconds(seconds: u64) {
    for _ in 0..seconds {
        pass(Duration::from_secs(1)).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever the sink gives back, and with it all of the call that is the same device's and
    /// later: with a spool and without.
    #[test]
    fn what_was_answered_arrives_once_and_in_order(
        batches in prop::collection::vec(prop::collection::vec(0..4_u16, 1..6), 1..30),
        fates in prop::collection::vec(0..6_u8, 1..40),
        has_spool in any::<bool>(),
    ) {
        on_paused_time(async move {
            let dir = tempfile::tempdir().unwrap();
            let calls = Cell::new(0);
            let mut bench = Bench::start(has_spool.then(|| dir.path()), move |_, records| {
                let fate = fates.get(calls.get()).copied().unwrap_or(5);
                calls.set(calls.get() + 1);
                let outcome = match fate {
                    0 => Outcome::Unknown,
                    1 => Outcome::Barred("closed".into()),
                    2 | 3 => Outcome::Retryable("busy".into()),
                    _ => Outcome::Delivered,
                };
                vec![outcome; records.len()]
            });
            let mut sent: HashMap<String, Vec<u64>> = HashMap::new();
            for (batch, devices) in (0..).zip(&batches) {
                let records: Vec<_> = (0..).zip(devices).map(|(at, device)| (*device, batch * 10 + at)).collect();
                for (device, number) in &records {
                    sent.entry(format!("device-{device}")).or_default().push(*number);
                }
                bench.send(0, &records, AckSlot::NONE);
                pass(Duration::from_millis(batch % 7)).await;
            }
            bench.until("all of it arrived", |bench| bench.taken(0) == sent).await;
            bench.leave().await;
            assert_eq!(bench.promised.unsafe_records(), 0);
            assert!(bench.taken(0) == sent && bench.alarms.borrow().is_empty());
        });
    }
}

/// A device's own records are the price of its order, and no others: the rest of the stream goes
/// on.
#[test]
fn a_device_that_fails_holds_up_nobody_else() {
    on_paused_time(async {
        let bench = Bench::start(None, |_, records| {
            let stuck = DeviceId::parse("device-1").unwrap();
            let outcome = |record: &Record| match record.device == stuck {
                true => Outcome::Retryable("its partition has no leader".into()),
                false => Outcome::Delivered,
            };
            records.iter().map(outcome).collect()
        });
        bench.send(0, &[(1, 1), (2, 2), (1, 3), (3, 4)], AckSlot::NONE);
        bench
            .until("2 and 3", |bench| bench.taken(0).len() == 2)
            .await;
        bench.script(delivered);
        bench
            .until("1", |bench| {
                bench.taken(0).get("device-1") == Some(&vec![1, 3])
            })
            .await;
    });
}

#[test]
fn what_is_refused_for_good_and_cannot_be_set_aside_is_counted() {
    on_paused_time(async {
        let mut bench = Bench::start(None, |_, records| {
            let outcome = |record: &Record| match record.received_at.0 {
                2 => Outcome::Permanent("too large".into()),
                _ => Outcome::Delivered,
            };
            records.iter().map(outcome).collect()
        });
        bench.send(0, &[(1, 1), (1, 2), (1, 3)], AckSlot::NONE);
        bench.leave().await;
        assert_eq!(bench.taken(0)["device-1"], [1, 3]);
        assert_eq!(bench.promised.unsafe_records(), 1);
        let metrics = bench.metrics.render();
        assert!(
            metrics.contains("forebay_delivery_dropped_records_total 1"),
            "{metrics}"
        );
    });
}

#[test]
fn what_is_left_when_the_gateway_hurries_is_counted() {
    on_paused_time(async {
        let mut bench = Bench::start(None, |_, records| {
            vec![Outcome::Retryable("busy".into()); records.len()]
        });
        bench.send(0, &[(1, 1), (2, 2)], AckSlot::NONE);
        bench.batches = None;
        pass_seconds(600).await;
        assert!(
            !bench.ended.get(),
            "it is tried for as long as there is time"
        );
        bench.lifecycle.advance(Phase::Hurrying);
        bench.leave().await;
        assert_eq!(bench.promised.unsafe_records(), 2);
    });
}

#[test]
fn what_is_left_when_the_gateway_hurries_is_spooled() {
    on_paused_time(async {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(Some(dir.path()), delivered);
        bench.lifecycle.advance(Phase::Hurrying);
        pass_seconds(1).await;
        bench.send(0, &[(1, 1), (2, 2), (1, 3)], AckSlot::NONE);
        bench.leave().await;
        assert_eq!(bench.promised.unsafe_records(), 0);
        bench.gone().await;
        assert_eq!(left_in(dir.path()).backlog.records(), 3);
    });
}

/// A closed stream is tried again, others go on beside it, and nothing is set aside before an hour
/// has passed.
#[test]
fn a_stream_that_is_closed_for_a_while_loses_nothing() {
    on_paused_time(async {
        let dir = tempfile::tempdir().unwrap();
        let closed = |stream: StreamIndex, records: &[Record]| match stream {
            StreamIndex(0) => vec![Outcome::Barred("closed".into()); records.len()],
            _ => delivered(stream, records),
        };
        let mut bench = Bench::start(Some(dir.path()), closed);
        for number in 0..200 {
            bench.send_and_wait(0, (number % 9) as u16, number).await;
        }
        pass_seconds(600).await;
        for number in 0..200 {
            bench
                .send_and_wait(0, (number % 9) as u16, 200 + number)
                .await;
            bench.send_and_wait(1, (number % 9) as u16, number).await;
        }
        let all = |stream, count| {
            move |bench: &Bench| bench.taken(stream).values().map(Vec::len).sum::<usize>() == count
        };
        bench.until("the other stream's", all(1, 200)).await;
        bench.script(delivered);
        bench.until("the records of both", all(0, 400)).await;
        for numbers in bench.taken(0).values() {
            assert!(numbers.is_sorted(), "{numbers:?}");
        }
        bench.leave().await;
        bench.gone().await;
        let spool = left_in(dir.path());
        assert_eq!(
            (spool.backlog.records(), spool.dead_letters.records()),
            (0, 0)
        );
    });
}

/// A full window of a stream that is away does not hide the records of another one.
#[test]
fn a_stream_that_is_away_holds_up_no_other_one() {
    const RECORDS: u64 = 5000;
    on_paused_time(async {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(Some(dir.path()), |_, records| {
            vec![Outcome::Retryable("slow".into()); records.len()]
        });
        bench.away.set(Some(StreamIndex(0)));
        for first in (0..RECORDS).step_by(100) {
            let records: Vec<_> = (first..first + 100)
                .map(|number| ((number % 50) as u16, number))
                .collect();
            bench.send(0, &records, AckSlot(0));
            bench.settled.recv().await.unwrap();
        }
        bench.send_and_wait(1, 1, 1).await;
        bench.script(delivered);
        let count =
            |stream| move |bench: &Bench| bench.taken(stream).values().map(Vec::len).sum::<usize>();
        bench
            .until("the other stream's", |bench| count(1)(bench) == 1)
            .await;
        bench.away.set(None);
        let all = |bench: &Bench| count(0)(bench) as u64 == RECORDS;
        bench.until("those of the stream that is back", all).await;
        for numbers in bench.taken(0).values() {
            assert!(numbers.is_sorted(), "{numbers:?}");
        }
        bench.leave().await;
    });
}

#[test]
fn a_stream_that_is_closed_for_an_hour_gives_way() {
    on_paused_time(async {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start(Some(dir.path()), |_, records| {
            vec![Outcome::Barred("closed".into()); records.len()]
        });
        for number in 0..300 {
            bench.send_and_wait(0, (number % 9) as u16, number).await;
        }
        pass_seconds(3500).await;
        let refused = bench.metrics.render();
        assert!(
            refused.contains("forebay_sink_records_total{stream=\"telemetry\",outcome=\"barred\"}")
        );
        assert!(
            !dir.path()
                .join("dead-letters/segment-0000000001.spool")
                .exists()
        );
        pass_seconds(100).await;
        bench
            .until("dead letters", |bench| {
                bench.metrics.render().contains("forebay_spool_records 0\n")
            })
            .await;
        bench.leave().await;
        bench.gone().await;
        let spool = left_in(dir.path());
        assert_eq!(
            (spool.backlog.records(), spool.dead_letters.records()),
            (0, 300)
        );
    });
}

/// A task that panics is reported; its batches come home, and the other tasks go on.
#[test]
fn a_panic_raises_the_alarm() {
    for (ack, is_lost) in [(AckSlot(7), false), (AckSlot::NONE, true)] {
        on_paused_time(async {
            let mut bench = Bench::start(None, |_, records| {
                assert!(records[0].received_at.0 != 1, "as the test wants it");
                delivered(StreamIndex(0), records)
            });
            bench.send(0, &[(1, 1)], ack);
            bench
                .until("an alarm", |bench| !bench.alarms.borrow().is_empty())
                .await;
            let home = bench.settled.try_recv().unwrap();
            let unknown = Outcomes::All(Outcome::Unknown);
            assert_eq!(home.outcomes == unknown, !is_lost);
            bench.send(0, &[(2, 2)], ack);
            bench.until("2", |bench| bench.taken(0).len() == 1).await;
            let unsafe_records = bench.promised.unsafe_records();
            assert_eq!(unsafe_records, usize::from(is_lost));
        });
    }
}
