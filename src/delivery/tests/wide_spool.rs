//! The spool on its way to a sink that takes its time: how fast it empties, and that order holds
//! however wide it is.
//!
//! Time is simulated: it passes from one timer to the next, and stands still during reads and
//! writes of the disk. The measure is how often the sink was waited for, not how fast this machine
//! is.

use std::collections::HashSet;

use tokio::time::Instant;

use super::*;

pub(super) const TELEMETRY: StreamIndex = StreamIndex(0);

const ACK_TIME: Duration = Duration::from_millis(100);

pub(super) const TICK: Duration = Duration::from_millis(100);

/// The spool reports its content a few times a second of its own time, in which many ticks pass.
const TICKS_TO_LEAVE_MAX: u32 = 2000;

/// Returns the limits of a gateway with one worker, by default.
pub(super) fn wide(ack_time: impl Fn(StreamIndex, &[Record]) -> Duration + 'static) -> Setup {
    Setup {
        records_max: 512,
        stream_batches_max: 16,
        ack_time: Box::new(ack_time),
        has_simulated_disk: true,
        ..Setup::default()
    }
}

/// Devices that send one record after the other, each with a number that counts up.
pub(super) struct Fleet {
    pub(super) devices: u16,
    /// Number of all records that were sent.
    pub(super) sent: u64,
}

impl Fleet {
    fn next(&mut self, records: u64) -> Vec<(u16, u64)> {
        let numbers = self.sent..self.sent + records;
        self.sent += records;
        let devices = u64::from(self.devices);
        let device = |number: u64| (number % devices) as u16;
        numbers.map(|number| (device(number), number)).collect()
    }

    /// Sends records of a stream and lets no time pass until all of them are on disk.
    pub(super) async fn spool(&mut self, bench: &mut Bench, stream: u16, records: u64) {
        let _held = HeldTime::new();
        for first in (0..records).step_by(500) {
            let batch = self.next((records - first).min(500));
            bench.send(stream, &batch, AckSlot(0));
            let settled = bench.settled.recv().await.unwrap();
            assert_eq!(*settled.outcomes.get(0), Outcome::Delivered);
        }
    }
}

/// Waits until the records that a batch has for the disk are there, before time passes; the sink's
/// records need time.
async fn let_disk_work(bench: &mut Bench) {
    let _held = HeldTime::new();
    for _ in 0..200 {
        if bench.settled.try_recv().is_some() {
            return;
        }
        moment().await;
    }
}

pub(super) fn count(bench: &Bench, stream: u16) -> u64 {
    let taken = bench.taken.borrow();
    let of_stream = taken
        .iter()
        .filter(|taken| taken.stream == StreamIndex(stream));
    of_stream.count() as u64
}

pub(super) fn assert_in_order(bench: &Bench, stream: u16) {
    for (device, numbers) in bench.taken(stream) {
        assert!(numbers.is_sorted(), "{device}: {numbers:?}");
    }
}

/// Records that are on disk and not done with.
fn on_disk(bench: &Bench) -> u64 {
    let metrics = bench.metrics.render();
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("forebay_spool_records "));
    count.unwrap().parse().unwrap()
}

/// Spools records while the stream is away, and tells how long it takes from its return until no
/// more are on their way than three ack times of live ones: those are sent all the while, so many a
/// tick. Then none is on disk, although they go on.
async fn time_to_empty(devices: u16, spooled: u64, live: u64, setup: Setup) -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::start_as(setup, Some(dir.path()), delivered);
    bench.away.set(Some(TELEMETRY));
    // It has been asked by then.
    sleep(Duration::from_secs(2)).await;
    let mut fleet = Fleet { devices, sent: 0 };
    fleet.spool(&mut bench, 0, spooled).await;
    assert_eq!(count(&bench, 0), 0);
    bench.away.set(None);
    while count(&bench, 0) == 0 {
        sleep(TICK).await;
    }
    let began_at = Instant::now();
    while fleet.sent - count(&bench, 0) > 3 * live {
        bench.send(0, &fleet.next(live), AckSlot(0));
        let_disk_work(&mut bench).await;
        sleep(TICK).await;
        assert!(began_at.elapsed() < Duration::from_secs(120), "it grows");
    }
    let took = began_at.elapsed();
    let mut ticks = 0;
    while on_disk(&bench) > 0 {
        bench.send(0, &fleet.next(live), AckSlot(0));
        let_disk_work(&mut bench).await;
        sleep(TICK).await;
        ticks += 1;
        assert!(ticks < TICKS_TO_LEAVE_MAX, "devices do not leave the spool");
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(
        count(&bench, 0),
        fleet.sent,
        "nothing is lost, or sent twice"
    );
    assert_in_order(&bench, 0);
    bench.leave().await;
    took
}

/// Twenty devices at 10/s each with 10,000 records on disk: one record of a device a wave would be
/// 50 s at least, while as many come in.
#[test]
fn a_spool_of_few_devices_empties_although_each_answer_takes_its_time() {
    on_simulated_time(async {
        let took = time_to_empty(20, 10_000, 20, wide(|_, _| ACK_TIME)).await;
        assert!(took <= Duration::from_secs(15), "{took:?}");
    });
}

/// 1,000 devices at 4/s each with 50,000 records on disk: at 8,000/s net they are gone in 6.25 s.
#[test]
fn a_spool_of_many_devices_empties_faster_than_they_fill_it() {
    on_simulated_time(async {
        let took = time_to_empty(1_000, 50_000, 400, wide(|_, _| ACK_TIME)).await;
        let net_per_second = 50_000.0 / took.as_secs_f64();
        assert!(net_per_second >= 8_000.0, "{net_per_second} a second");
    });
}

/// A device that sends again before the sink has answered has something in flight at all times:
/// its next record waits for that in memory, and then goes on without the spool.
#[test]
fn devices_leave_the_spool_although_they_send_faster_than_the_sink_answers() {
    on_simulated_time(async {
        let setup = wide(|_, _| ACK_TIME * 5 / 2);
        let took = time_to_empty(5, 50, 5, setup).await;
        assert!(took <= Duration::from_secs(2), "{took:?}");
    });
}

/// A sink that does not keep the order of a device within a call has one record of it at a time.
#[test]
fn a_sink_that_sends_one_by_one_is_given_one_record_of_a_device_at_a_time() {
    on_simulated_time(async {
        let setup = Setup {
            keeps_order_within_call: false,
            ..wide(|_, records| {
                let devices: HashSet<_> = records.iter().map(|record| &record.device).collect();
                assert_eq!(devices.len(), records.len(), "each device has one");
                ACK_TIME
            })
        };
        let took = time_to_empty(20, 1_000, 0, setup).await;
        assert!(took >= ACK_TIME * 40, "{took:?}");
    });
}

/// A device whose partition has no leader has its answers late. Others share a wave with it once,
/// not for ever.
#[test]
fn a_device_that_is_stuck_on_disk_holds_up_no_other_one() {
    const STUCK_TIME: Duration = Duration::from_secs(9);
    fn is_stuck(record: &Record) -> bool {
        record.device.as_str() == "device-1"
    }
    on_simulated_time(async {
        let dir = tempfile::tempdir().unwrap();
        let setup = wide(|_, records| match records.iter().any(is_stuck) {
            true => STUCK_TIME,
            false => ACK_TIME,
        });
        let mut bench = Bench::start_as(setup, Some(dir.path()), |_, records| {
            let late = || Outcome::Retryable("no leader".into());
            let outcome = |record| {
                if is_stuck(record) {
                    late()
                } else {
                    Outcome::Delivered
                }
            };
            records.iter().map(outcome).collect()
        });
        bench.away.set(Some(TELEMETRY));
        sleep(Duration::from_secs(2)).await;
        let mut fleet = Fleet {
            devices: 100,
            sent: 0,
        };
        fleet.spool(&mut bench, 0, 3_000).await;
        bench.away.set(None);
        // One wave is late, and another one while it was on its way may be.
        sleep(2 * STUCK_TIME).await;
        assert_eq!(count(&bench, 0), 3_000 - 30, "all but those of one device");
        bench.script(delivered);
        // The wave that was in flight, one to see whether it arrives, and the others with the next.
        sleep(4 * STUCK_TIME).await;
        assert_eq!(count(&bench, 0), 3_000);
        assert_in_order(&bench, 0);
        bench.leave().await;
    });
}

/// A stream that answers nothing takes up its own part of the sink's places, and its backlog holds
/// up no other.
#[test]
fn a_stream_that_hangs_does_not_hold_up_the_readings_of_another_one() {
    const HANGS: Duration = Duration::from_secs(9);
    const PER_TICK: u64 = 40;
    on_simulated_time(async {
        let dir = tempfile::tempdir().unwrap();
        let setup = wide(|stream, _| if stream == TELEMETRY { HANGS } else { ACK_TIME });
        let mut bench = Bench::start_as(setup, Some(dir.path()), |stream, records| match stream {
            TELEMETRY => vec![Outcome::Retryable("timed out".into()); records.len()],
            _ => delivered(stream, records),
        });
        let fleet = || Fleet {
            devices: 5,
            sent: 0,
        };
        let (mut hung, mut healthy) = (fleet(), fleet());
        for tick in 0..600 {
            // Smaller batches than a lane would make, so that they are many.
            for _ in 0..4 {
                bench.send(0, &hung.next(PER_TICK / 4), AckSlot(0));
            }
            bench.send(1, &healthy.next(PER_TICK), AckSlot(1));
            sleep(TICK).await;
            while bench.settled.try_recv().is_some() {}
            let late = healthy.sent - count(&bench, 1);
            assert!(late <= 3 * PER_TICK, "{late} are late, {tick} ticks on");
        }
        sleep(Duration::from_secs(1)).await;
        assert_eq!(count(&bench, 1), healthy.sent);
        assert_in_order(&bench, 1);
        assert_eq!(count(&bench, 0), 0);
        bench.script(delivered);
        bench.lifecycle.advance(Phase::Hurrying);
        bench.leave().await;
    });
}

/// Returns the outcomes of a call: of a device, this record and all behind it fail.
fn cut(records: &[Record], cuts: &[u8], call: usize) -> Vec<Outcome> {
    let mut failed = HashSet::new();
    let mut outcomes = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let fate = cuts.get((call * 7 + index) % (cuts.len() + 1));
        if fate.is_some_and(|fate| *fate < 2) {
            failed.insert(record.device.clone());
        }
        outcomes.push(match failed.contains(&record.device) {
            true if fate == Some(&0) => Outcome::Unknown,
            true => Outcome::Retryable("late".into()),
            false => Outcome::Delivered,
        });
    }
    outcomes
}

/// Time for which calls fail in the middle.
const FAILS_FOR: Duration = Duration::from_secs(60);

/// Time after that by which everything has arrived: a pause, and some hundred records one by one,
/// each with an answer that takes its time.
const EMPTY_WITHIN: Duration = Duration::from_secs(600);

/// The model: records of two streams and some devices go to disk, in any order; calls take their
/// time, and in each call any devices fail in the middle. Each record arrives once, a device's in
/// the order in which they were sent, and failed records are given back to their own device only:
/// other devices have no gap.
async fn order_holds(
    records: Vec<(u16, u16)>,
    cuts: Vec<u8>,
    ack_millis: Vec<u64>,
    keeps_order_within_call: bool,
) {
    let dir = tempfile::tempdir().unwrap();
    let calls = Rc::new(Cell::new(0));
    let called = calls.clone();
    let setup = Setup {
        records_max: 20,
        stream_batches_max: 8,
        keeps_order_within_call,
        has_simulated_disk: true,
        ack_time: Box::new(move |_, _| {
            called.set(called.get() + 1);
            Duration::from_millis(ack_millis[called.get() % ack_millis.len()])
        }),
        ..Setup::default()
    };
    // By time: how many calls are made in it is up to the pauses between them.
    let heals_at = Instant::now() + FAILS_FOR;
    let mut bench = Bench::start_as(setup, Some(dir.path()), move |_, records| {
        match Instant::now() < heals_at {
            true => cut(records, &cuts, calls.get()),
            false => delivered(TELEMETRY, records),
        }
    });
    let mut sent = [HashMap::new(), HashMap::new()];
    for (number, (stream, device)) in (0..).zip(&records) {
        // Numbers count up over all streams.
        let name = format!("device-{device}");
        let numbers = sent[usize::from(*stream)].entry(name);
        numbers.or_insert_with(Vec::new).push(number);
        bench.send(*stream, &[(*device, number)], AckSlot::NONE);
        if number % 5 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    let give_up_at = heals_at + EMPTY_WITHIN;
    while Instant::now() < give_up_at {
        if [0, 1].map(|stream| bench.taken(stream)) == sent {
            break;
        }
        sleep(TICK).await;
        moment().await;
    }
    assert_eq!([0, 1].map(|stream| bench.taken(stream)), sent);
    bench.leave().await;
    assert_eq!(bench.promised.unsafe_records(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn order_holds_on_a_wide_way_from_disk(
        records in prop::collection::vec((0..2_u16, 0..6_u16), 50..400),
        cuts in prop::collection::vec(0..8_u8, 1..40),
        ack_millis in prop::collection::vec(0..1500_u64, 1..10),
        keeps_order_within_call in any::<bool>(),
    ) {
        on_simulated_time(order_holds(records, cuts, ack_millis, keeps_order_within_call));
    }
}

/// The oldest record of each wave fails, whatever the call: one call at a time is tried then, with
/// pauses of seconds.
#[test]
fn order_holds_where_the_oldest_record_fails_in_every_call() {
    let records = (0..100).map(|number| (0, number % 6)).collect();
    let (cuts, ack_millis) = (vec![1, 4, 0, 1, 3, 5], vec![209, 1295, 249, 1033]);
    on_simulated_time(order_holds(records, cuts, ack_millis, false));
}
