//! Records of one partition that take long, or for ever: the others of their batches do not wait.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::*;
use crate::batcher::OWN_BATCHES_MAX;
use crate::health::Spread;

/// Time for which a stuck record stays so: a producer's time-out.
pub(super) const STUCK_TIME: Duration = Duration::from_secs(9);

pub(super) const ACK_TIME: Duration = Duration::from_millis(5);

/// The last device of each batch has its partition stuck.
pub(super) const DEVICES: u16 = 10;

pub(super) fn is_stuck(record: &Record) -> bool {
    record.device.as_str() == format!("device-{}", DEVICES - 1)
}

fn with_a_stuck_partition() -> Setup {
    Setup {
        stream_batches_max: OWN_BATCHES_MAX,
        ack_time: Box::new(|_, _| ACK_TIME),
        stuck: Some((is_stuck, STUCK_TIME)),
        ..Setup::default()
    }
}

/// A lane as the batcher has it: it sends as many batches ahead as it may, and knows of each record
/// when it was answered.
#[derive(Default)]
struct TestLane {
    in_flight: usize,
    sent_at: BTreeMap<u32, Instant>,
    answered: BTreeMap<u32, Duration>,
}

impl TestLane {
    fn send(&mut self, bench: &Bench, records: &[(u16, u64)]) {
        let first = self.sent_at.len() as u32;
        let slots = (first..).map(AckSlot).take(records.len());
        for slot in slots.clone() {
            self.sent_at.insert(slot.0, Instant::now());
        }
        self.in_flight += 1;
        bench.send_as(0, records, slots.collect());
    }

    fn take_in(&mut self, bench: &mut Bench) {
        while let Some(settled) = bench.settled.try_recv() {
            self.in_flight -= usize::from(settled.lane_records.is_some());
            for ack in settled.acks.iter().filter(|ack| **ack != AckSlot::NONE) {
                let waited = self.sent_at[&ack.0].elapsed();
                let before = self.answered.insert(ack.0, waited);
                assert!(before.is_none(), "a record is answered once");
            }
        }
    }
}

/// Sends the readings of all devices, every 10 ms for as long as this. Returns the longest wait of
/// a device whose partition is well, and the number of batches that found no credit.
async fn serve(bench: &mut Bench, lane: &mut TestLane, ticks: u64) -> (Duration, usize) {
    let mut held_up = 0;
    for tick in 0..ticks {
        let records: Vec<_> = (0..DEVICES).map(|device| (device, tick)).collect();
        match lane.in_flight < OWN_BATCHES_MAX {
            true => lane.send(bench, &records),
            false => held_up += 1,
        }
        sleep(Duration::from_millis(10)).await;
        moment().await;
        lane.take_in(bench);
    }
    for _ in 0..10 {
        sleep(Duration::from_millis(10)).await;
        lane.take_in(bench);
    }
    let is_well = |slot: &u32| *slot as u16 % DEVICES != DEVICES - 1;
    let well: BTreeSet<_> = lane.sent_at.keys().filter(|slot| is_well(slot)).collect();
    let waited = well.iter().map(|slot| lane.answered.get(slot).copied());
    let slowest = waited
        .map(|waited| waited.expect("it has its answer"))
        .max();
    (slowest.unwrap(), held_up)
}

/// No answer waits for a partition that is not its own, and no batch for credit.
#[test]
fn a_partition_that_is_stuck_holds_up_its_own_records_only() {
    for has_spool in [false, true] {
        on_simulated_time(async {
            let dir = tempfile::tempdir().unwrap();
            let spool_dir = has_spool.then(|| dir.path());
            let mut bench = Bench::start_as(with_a_stuck_partition(), spool_dir, delivered);
            sleep(Duration::from_secs(2)).await;
            let mut lane = TestLane::default();
            let (slowest, held_up) = serve(&mut bench, &mut lane, 80).await;
            assert!(slowest <= Duration::from_millis(30), "{slowest:?}");
            assert_eq!(held_up, 0, "stragglers leave their credit to others");
            sleep(2 * STUCK_TIME).await;
            for _ in 0..STEPS_MAX {
                // The disk takes time that is not simulated.
                moment().await;
                lane.take_in(&mut bench);
                if lane.answered.len() == lane.sent_at.len() {
                    break;
                }
            }
            assert_eq!(lane.answered.len(), lane.sent_at.len(), "each in the end");
            assert_eq!(lane.in_flight, 0);
            bench.leave().await;
        });
    }
}

/// A shard that is slow for long makes no batch's usual time of its own: the others' records are
/// told of as soon as they show that the rest waits for another try.
#[test]
fn a_shard_that_is_slow_for_long_holds_up_its_own_records_only() {
    on_simulated_time(async {
        let setup = Setup {
            stuck: Some((is_stuck, Duration::from_millis(400))),
            answers_together: true,
            ..with_a_stuck_partition()
        };
        let mut bench = Bench::start_as(setup, None, delivered);
        sleep(Duration::from_secs(2)).await;
        let mut lane = TestLane::default();
        let (slowest, held_up) = serve(&mut bench, &mut lane, 500).await;
        assert!(slowest <= 4 * ACK_TIME, "{slowest:?}");
        assert_eq!(held_up, 0);
        sleep(Duration::from_secs(1)).await;
        lane.take_in(&mut bench);
        assert_eq!(lane.answered.len(), lane.sent_at.len());
        bench.leave().await;
    });
}

/// A stream that stands still as a whole has no stragglers: nothing is gained by sending on.
#[test]
fn a_stream_that_stands_still_gives_no_credit_back() {
    on_simulated_time(async {
        let setup = Setup {
            ack_time: Box::new(|_, _| STUCK_TIME),
            ..with_a_stuck_partition()
        };
        let mut bench = Bench::start_as(setup, None, delivered);
        sleep(Duration::from_secs(2)).await;
        let mut lane = TestLane::default();
        for tick in 0..OWN_BATCHES_MAX as u64 {
            lane.send(&bench, &[(1, tick)]);
        }
        sleep(STUCK_TIME / 2).await;
        lane.take_in(&mut bench);
        assert_eq!(lane.in_flight, OWN_BATCHES_MAX);
        sleep(STUCK_TIME).await;
        lane.take_in(&mut bench);
        assert_eq!(lane.answered.len(), OWN_BATCHES_MAX);
        bench.leave().await;
    });
}

/// Records answered before they are safe go on too, and a device whose record is stuck keeps its
/// order.
#[test]
fn queued_records_of_other_partitions_do_not_wait() {
    on_simulated_time(async {
        let mut bench = Bench::start_as(with_a_stuck_partition(), None, delivered);
        sleep(Duration::from_secs(2)).await;
        let ticks = 80;
        for tick in 0..ticks {
            let records: Vec<_> = (0..DEVICES).map(|device| (device, tick)).collect();
            bench.send(0, &records, AckSlot::NONE);
            sleep(Duration::from_millis(10)).await;
        }
        sleep(Duration::from_millis(100)).await;
        let well = bench.taken(0);
        assert_eq!(well.len(), usize::from(DEVICES) - 1);
        assert!(well.values().all(|numbers| numbers.len() == ticks as usize));
        bench.leave().await;
        for numbers in bench.taken(0).values() {
            assert!(numbers.is_sorted() && numbers.len() == ticks as usize);
        }
        assert_eq!(bench.promised.unsafe_records(), 0);
    });
}

/// Places device 3 on partition 3.
pub(super) fn by_number(key: &[u8], partitions: u32) -> u32 {
    let number = str::from_utf8(key).unwrap().rsplit('-').next().unwrap();
    number.parse::<u32>().unwrap() % partitions
}

pub(super) fn partitions(leaderless: &[u32]) -> Option<Partitions> {
    Some(Partitions {
        spread: Spread::Hashed {
            find: by_number,
            partitions: u32::from(DEVICES),
        },
        away: leaderless.iter().copied().collect(),
        may_be_silent: true,
    })
}

fn device(number: u16) -> DeviceId {
    record(number, 0).device
}

/// Without a spool a device whose partition is away is refused at once; the others are not.
#[test]
fn a_partition_without_a_leader_refuses_its_own_devices() {
    on_simulated_time(async {
        let setup = Setup {
            partitions: partitions(&[3]),
            ..Setup::default()
        };
        let mut bench = Bench::start_as(setup, None, delivered);
        sleep(Duration::from_secs(2)).await;
        let admitted = |bench: &Bench| {
            let admits =
                |number: &u16| bench.health.admits_device(StreamIndex(0), &device(*number));
            (0..DEVICES).filter(admits).count()
        };
        assert_eq!(admitted(&bench), usize::from(DEVICES) - 1);
        assert!(!bench.health.admits_device(StreamIndex(0), &device(3)));
        let told = bench.health.report().unwrap();
        assert!(told.contains("stream stream-0: partition 3 away"), "{told}");
        let metrics = bench.metrics.render();
        assert!(metrics.contains("forebay_sink_partitions_away{stream=\"telemetry\"} 1"));
        bench.partitions.replace(partitions(&[]));
        sleep(Duration::from_secs(2)).await;
        assert_eq!(admitted(&bench), usize::from(DEVICES));
        assert_eq!(bench.health.report(), Ok(String::new()));
        bench.leave().await;
    });
}

/// With one, its devices' records go to disk at once, are not tried meanwhile, and arrive in their
/// order when it is back.
#[test]
fn a_partition_without_a_leader_spools_its_own_devices() {
    on_simulated_time(async {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup {
            partitions: partitions(&[3]),
            ..Setup::default()
        };
        let mut bench = Bench::start_as(setup, Some(dir.path()), delivered);
        sleep(Duration::from_secs(2)).await;
        for number in 0..50 {
            bench.send_and_wait(0, 3, number).await;
            bench.send_and_wait(0, 4, number).await;
        }
        sleep(Duration::from_secs(30)).await;
        assert_eq!(bench.taken(0).keys().collect::<Vec<_>>(), ["device-4"]);
        bench.partitions.replace(partitions(&[]));
        sleep(Duration::from_secs(3)).await;
        assert_eq!(bench.taken(0)["device-3"], (0..50).collect::<Vec<_>>());
        bench.leave().await;
    });
}

/// A partition that has a leader and owes answers is away too, until it answers again.
#[test]
fn a_silent_partition_is_known_by_its_stragglers() {
    on_simulated_time(async {
        let setup = Setup {
            partitions: partitions(&[]),
            ..with_a_stuck_partition()
        };
        let mut bench = Bench::start_as(setup, None, delivered);
        sleep(Duration::from_secs(2)).await;
        let mut lane = TestLane::default();
        serve(&mut bench, &mut lane, 200).await;
        let admits = |bench: &Bench, number| {
            let device = device(number);
            bench.health.admits_device(StreamIndex(0), &device)
        };
        assert!(!admits(&bench, DEVICES - 1) && admits(&bench, 3));
        sleep(2 * STUCK_TIME).await;
        assert!(admits(&bench, DEVICES - 1), "one may try again");
        lane.take_in(&mut bench);
        bench.leave().await;
    });
}
