//! Devices that send one reading after the other while the spool empties: none waits for more than
//! its own last record on disk, and then for its own answer.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::wide_spool::{Fleet, TELEMETRY, assert_in_order, count, wide};
use super::*;

const ACK_TIME: Duration = Duration::from_millis(100);

/// Interval at which each device means to send; it sends when it has its answer.
const INTERVAL: Duration = Duration::from_millis(100);

/// Resolution at which the test looks at time.
const STEP: Duration = Duration::from_millis(5);

/// A fleet whose devices wait for each answer.
#[derive(Default)]
struct Waiting {
    sent: BTreeMap<u32, (u16, Instant)>,
    /// Time of each device's next record.
    due: BTreeMap<u16, Instant>,
    slowest: Duration,
    answered: u64,
}

impl Waiting {
    fn of(devices: u16) -> Self {
        let now = Instant::now();
        let due = (0..devices).map(|device| (device, now + STEP * u32::from(device)));
        Self {
            due: due.collect(),
            ..Self::default()
        }
    }

    /// Sends the records that are due in one batch, as a lane does.
    fn send(&mut self, bench: &Bench, number: &mut u64) {
        let now = Instant::now();
        let is_due = |(_, at): &(&u16, &Instant)| **at <= now;
        let due = self.due.iter().filter(is_due);
        let devices: Vec<u16> = due.map(|(device, _)| *device).collect();
        let mut records = Vec::new();
        let mut slots = Vec::new();
        for device in devices {
            self.due.remove(&device);
            self.sent.insert(*number as u32, (device, now));
            slots.push(AckSlot(*number as u32));
            records.push((device, *number));
            *number += 1;
        }
        if !records.is_empty() {
            bench.send_as(0, &records, slots);
        }
    }

    fn take_in(&mut self, bench: &mut Bench) {
        while let Some(settled) = bench.settled.try_recv() {
            for ack in settled.acks.iter().filter(|ack| **ack != AckSlot::NONE) {
                let (device, sent_at) = self.sent.remove(&ack.0).expect("it waits");
                self.slowest = self.slowest.max(sent_at.elapsed());
                self.answered += 1;
                self.due
                    .insert(device, Instant::now().max(sent_at + INTERVAL));
            }
        }
    }
}

#[test]
fn no_reading_waits_for_more_than_its_device_s_last_record_on_disk() {
    const DEVICES: u16 = 20;
    const SPOOLED: u64 = 10_000;
    on_simulated_time(async {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::start_as(wide(|_, _| ACK_TIME), Some(dir.path()), delivered);
        bench.away.set(Some(TELEMETRY));
        sleep(Duration::from_secs(2)).await;
        let mut fleet = Fleet {
            devices: DEVICES,
            sent: 0,
        };
        fleet.spool(&mut bench, 0, SPOOLED).await;
        bench.away.set(None);
        while count(&bench, 0) == 0 {
            sleep(STEP).await;
        }
        let (mut waiting, began_at) = (Waiting::of(DEVICES), Instant::now());
        while began_at.elapsed() < Duration::from_secs(20) {
            if began_at.elapsed() < Duration::from_secs(15) {
                waiting.send(&bench, &mut fleet.sent);
            }
            sleep(STEP).await;
            waiting.take_in(&mut bench);
        }
        assert_eq!(count(&bench, 0), fleet.sent, "nothing is on disk any more");
        assert_eq!(waiting.answered, fleet.sent - SPOOLED);
        assert!(waiting.slowest <= 3 * ACK_TIME, "{:?}", waiting.slowest);
        assert_in_order(&bench, 0);
        bench.leave().await;
    });
}
