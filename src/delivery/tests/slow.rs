//! A sink that is slow to acknowledge is not away: its records wait for it, and none is refused.

use super::stragglers::{DEVICES, is_stuck, partitions};
use super::*;

const ACK_TIME: Duration = Duration::from_millis(400);

/// Batches of one stream that the sink may have of its own.
const OWN_BATCHES: usize = 4;

fn slow(ack_time: Duration) -> Setup {
    Setup {
        stream_batches_max: OWN_BATCHES,
        shared_batches_max: 100,
        ack_time: Box::new(move |_, _| ack_time),
        told_ack_time: ACK_TIME,
        has_simulated_disk: true,
        ..Setup::default()
    }
}

fn settled(bench: &mut Bench) -> usize {
    std::iter::from_fn(|| bench.settled.try_recv()).count()
}

/// They are more than a stream's own places, and take longer than a fast sink would get.
#[test]
fn records_of_a_slow_sink_do_not_go_to_disk() {
    on_simulated_time(async {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start_as(slow(3 * ACK_TIME), Some(dir.path()), delivered);
        sleep(Duration::from_secs(2)).await;
        for device in 0..40 {
            bench.send(0, &[(device, 0)], AckSlot(0));
        }
        sleep(3 * ACK_TIME - Duration::from_millis(50)).await;
        moment().await;
        assert_eq!(settled(&mut bench), 0, "what is on disk is answered");
        sleep(Duration::from_millis(100)).await;
        moment().await;
        assert_eq!(settled(&mut bench), 40);
        assert_eq!(bench.taken(0).len(), 40);
        bench.leave().await;
    });
}

/// The places that streams share are for those that answer.
#[test]
fn records_of_a_sink_that_stands_still_go_to_disk() {
    on_simulated_time(async {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start_as(slow(Duration::from_secs(9)), Some(dir.path()), delivered);
        sleep(Duration::from_secs(2)).await;
        for device in 0..40 {
            bench.send(0, &[(device, 0)], AckSlot(0));
        }
        sleep(Duration::from_secs(2)).await;
        moment().await;
        assert_eq!(settled(&mut bench), 40, "out of patience");
        for device in 40..50 {
            bench.send(0, &[(device, 0)], AckSlot(0));
        }
        sleep(Duration::from_millis(50)).await;
        moment().await;
        assert_eq!(settled(&mut bench), 10, "at once");
        bench.leave().await;
    });
}

/// A partition that has its turn a few acknowledgement times later owes no answer yet.
#[test]
fn a_partition_that_has_its_turn_later_is_not_away() {
    on_simulated_time(async {
        let setup = Setup {
            stuck: Some((is_stuck, 5 * ACK_TIME)),
            partitions: partitions(&[]),
            ..slow(ACK_TIME)
        };
        let mut bench = Bench::start_as(setup, None, delivered);
        sleep(Duration::from_secs(2)).await;
        let last = record(DEVICES - 1, 0).device;
        for tick in 0..500 {
            let records: Vec<_> = (0..DEVICES).map(|device| (device, tick)).collect();
            if tick % 10 == 0 {
                bench.send(0, &records, AckSlot(0));
            }
            sleep(Duration::from_millis(10)).await;
            moment().await;
            settled(&mut bench);
            assert!(bench.health.admits_device(StreamIndex(0), &last), "{tick}");
        }
        sleep(Duration::from_secs(4)).await;
        assert_eq!(bench.taken(0).len(), usize::from(DEVICES));
        bench.leave().await;
    });
}
