//! Backlog of partitions that are slow or away: other partitions' records do not wait for it,
//! neither in a wave nor in the records read ahead.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::stragglers::{ACK_TIME, DEVICES, STUCK_TIME, is_stuck, partitions};
use super::wide_spool::{Fleet, TELEMETRY, TICK, assert_in_order, count, wide};
use super::*;

/// Records on disk: about three times as many as are read ahead at once.
const SPOOLED: u64 = 12_000;

/// Starts a bench whose stream comes back when so much of these devices is on disk.
async fn spooled(setup: Setup, spool_dir: &Path, devices: u16) -> Bench {
    let mut bench = Bench::start_as(setup, Some(spool_dir), delivered);
    bench.away.set(Some(TELEMETRY));
    // It has been asked by then.
    sleep(Duration::from_secs(2)).await;
    let mut fleet = Fleet { devices, sent: 0 };
    fleet.spool(&mut bench, 0, SPOOLED).await;
    bench.away.set(None);
    while count(&bench, 0) == 0 {
        sleep(TICK).await;
    }
    bench
}

/// Lets time pass until so much has arrived, and tells how long that was.
async fn time_to_take(bench: &Bench, records: u64) -> Duration {
    let began_at = Instant::now();
    while count(bench, 0) < records && began_at.elapsed() < 10 * STUCK_TIME {
        sleep(TICK).await;
    }
    assert_eq!(count(bench, 0), records);
    began_at.elapsed()
}

/// Checks that all but the records of one device, which are stuck, arrive at once; those come
/// later, in order.
fn assert_that_stuck_records_hold_up_no_others(setup: Setup) {
    on_simulated_time(async {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup {
            stuck: Some((is_stuck, STUCK_TIME)),
            ..setup
        };
        let mut bench = spooled(setup, dir.path(), DEVICES).await;
        let stuck = SPOOLED / u64::from(DEVICES);
        let took = time_to_take(&bench, SPOOLED - stuck).await;
        assert!(took <= Duration::from_secs(3), "{took:?}");
        time_to_take(&bench, SPOOLED).await;
        assert_in_order(&bench, 0);
        bench.leave().await;
    });
}

/// The sink knows no partitions: the first sign is that some records straggle.
#[test]
fn a_wave_comes_home_without_what_is_stuck_of_it() {
    assert_that_stuck_records_hold_up_no_others(wide(|_, _| ACK_TIME));
}

/// A full window of a partition that is away does not hide the records of another one.
#[test]
fn a_partition_that_is_away_holds_up_no_other_one_on_disk() {
    on_simulated_time(async {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup {
            partitions: partitions(&[1]),
            ..wide(|_, _| ACK_TIME)
        };
        let mut bench = spooled(setup, dir.path(), 2).await;
        let took = time_to_take(&bench, SPOOLED / 2).await;
        assert!(took <= Duration::from_secs(3), "{took:?}");
        sleep(Duration::from_secs(60)).await;
        let taken = bench.taken(0);
        assert_eq!(taken.keys().collect::<Vec<_>>(), ["device-0"]);
        bench.partitions.replace(partitions(&[]));
        let took = time_to_take(&bench, SPOOLED).await;
        assert!(took <= Duration::from_secs(3), "{took:?}");
        assert_in_order(&bench, 0);
        bench.leave().await;
    });
}

/// A partition falls silent while its records are in flight, and the others' are behind them: only
/// its stragglers tell that it is away.
#[test]
fn a_partition_that_falls_silent_holds_up_no_other_one_on_disk() {
    assert_that_stuck_records_hold_up_no_others(Setup {
        partitions: partitions(&[]),
        ..wide(|_, _| ACK_TIME)
    });
}

/// Time for which partitions come and go.
const MOVES_FOR: Duration = Duration::from_secs(40);

/// The model: records go to disk, or not, while partitions lose their leaders and have them again,
/// known or not, and one device is late whatever happens. Each record arrives once, a device's in
/// the order in which they were sent.
async fn order_holds(records: Vec<u16>, moves: Vec<BTreeSet<u32>>, keeps_order_within_call: bool) {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup {
        records_max: 20,
        stream_batches_max: 8,
        keeps_order_within_call,
        has_simulated_disk: true,
        ack_time: Box::new(|_, _| ACK_TIME),
        stuck: Some((is_stuck, Duration::from_millis(1_700))),
        partitions: partitions(&[]),
        ..Setup::default()
    };
    let leaderless = Rc::new(RefCell::new(BTreeSet::new()));
    let now_leaderless = leaderless.clone();
    let mut bench = Bench::start_as(setup, Some(dir.path()), move |_, records| {
        let leaderless = now_leaderless.borrow();
        let outcome = |record: &Record| match leaderless.contains(&number_of(record)) {
            true => Outcome::Retryable("no leader".into()),
            false => Outcome::Delivered,
        };
        records.iter().map(outcome).collect()
    });
    let (began_at, mut sent) = (Instant::now(), HashMap::<_, Vec<u64>>::new());
    for (number, device) in (0..).zip(records) {
        let move_at = began_at.elapsed().as_millis() / 300;
        let leaders = &moves[move_at as usize % moves.len()];
        *leaderless.borrow_mut() = leaders.clone();
        let leaders: Vec<u32> = leaders.iter().copied().collect();
        bench.partitions.replace(partitions(&leaders));
        sent.entry(format!("device-{device}"))
            .or_default()
            .push(number);
        bench.send(0, &[(device, number)], AckSlot::NONE);
        sleep(Duration::from_millis(number % 90)).await;
    }
    for at in 0.. {
        if began_at.elapsed() >= MOVES_FOR {
            break;
        }
        let leaders: Vec<u32> = moves[at % moves.len()].iter().copied().collect();
        *leaderless.borrow_mut() = leaders.iter().copied().collect();
        bench.partitions.replace(partitions(&leaders));
        sleep(Duration::from_millis(1_300)).await;
    }
    leaderless.borrow_mut().clear();
    bench.partitions.replace(partitions(&[]));
    let give_up_at = Instant::now() + Duration::from_secs(300);
    while bench.taken(0) != sent && Instant::now() < give_up_at {
        sleep(TICK).await;
        moment().await;
    }
    assert_eq!(bench.taken(0), sent);
    bench.leave().await;
    assert_eq!(bench.promised.unsafe_records(), 0);
}

fn number_of(record: &Record) -> u32 {
    let number = record.device.as_str().rsplit('-').next().unwrap();
    number.parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn order_holds_while_partitions_come_and_go(
        records in prop::collection::vec(0..DEVICES, 50..300),
        moves in prop::collection::vec(prop::collection::btree_set(0..u32::from(DEVICES), 0..4), 1..20),
        keeps_order_within_call in any::<bool>(),
    ) {
        on_simulated_time(order_holds(records, moves, keeps_order_within_call));
    }
}
