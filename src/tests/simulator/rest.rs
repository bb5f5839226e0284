//! The end of a life: all that was begun is through, and a gateway at rest is looked at.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::broker::attempt_of;
use super::counts::{Told, miscounted};
use super::gateway::Gateway;
use super::ledger::Sent;
use super::reception::Visit;
use super::world::{Ended, World};
use crate::config::SpoolMode;
use crate::spool::{GatewayDisk, Log};

/// Once nothing fails any more, everything is delivered after this.
const REST_WITHIN: Duration = Duration::from_secs(180);

/// A device has sent for the last time by then, and has its answer; each answer has a bound of its
/// own.
const THROUGH_WITHIN: Duration = Duration::from_secs(600);

/// The first of the devices that send when all others are through, one to each stream.
const PROBE: usize = 99;

impl World {
    /// Waits until all is done, and looks at a gateway at rest.
    pub(crate) async fn see_through(&self, gateway: &Gateway, devices: Vec<JoinHandle<()>>) {
        sleep_until(self.began_at + self.plan.length).await;
        self.ledger.tell("nothing fails any more");
        for device in devices {
            match timeout(THROUGH_WITHIN, device).await {
                Ok(Ok(())) => {}
                ended => self.wrong(format!("a device is not through: {ended:?}")),
            }
        }
        self.rest(gateway).await;
        // The gauges of the spool are set when its logs are tended.
        sleep(Duration::from_secs(5)).await;
        for wrong in miscounted(self, gateway) {
            self.wrong(wrong);
        }
        if !self.is_stuck.get() || gateway.has_room() {
            self.probe(gateway).await;
        }
    }

    async fn rest(&self, gateway: &Gateway) {
        let by = Instant::now() + REST_WITHIN;
        while let Some(unrest) = gateway.unrest() {
            if Instant::now() > by && gateway.is_stuck() {
                self.ledger.met("disk: the dead letters are full");
                return self.is_stuck.set(true);
            }
            if Instant::now() > by {
                return self.wrong(format!("no rest: {unrest}"));
            }
            sleep(Duration::from_millis(100)).await;
        }
        self.ledger.tell("at rest");
    }

    /// Checks that a gateway at rest takes a reading of each stream at once, and to the stream if
    /// it may.
    async fn probe(&self, gateway: &Gateway) {
        let shape = &self.plan.shape;
        let spooled_to = |logs: &[Log<GatewayDisk>; 2]| logs[0].places().end;
        let before = gateway.logs.as_ref().map(spooled_to);
        for stream in 0..shape.streams {
            let attempt = self.ledger.sent(Sent {
                device: PROBE + stream,
                reading: stream as u64,
                stream,
                worker: 0,
                process: self.process(),
            });
            let (visit, answered) = Visit::of_probe(PROBE + stream, stream, attempt);
            // It is answered, or not: either is told.
            let _ = gateway.doors[0].try_send(visit);
            let status = answered.await.ok();
            self.ledger.told(attempt, status);
            if status != Some(204) {
                self.wrong(format!("a probe: stream {stream} is answered {status:?}"));
            }
        }
        self.rest(gateway).await;
        let after = gateway.logs.as_ref().map(spooled_to);
        if shape.spool == Some(SpoolMode::Overflow) && before != after {
            self.wrong(format!("a probe went to disk: {before:?}, {after:?}"));
        }
    }

    /// Notes the records that are left on disk.
    pub(crate) fn read_logs(&self, gateway: &Gateway) {
        let Some([backlog, dead_letters]) = &gateway.logs else {
            return;
        };
        each_record(backlog, |attempt| self.ledger.on_disk(attempt));
        each_record(dead_letters, |attempt| self.ledger.dead_letter(attempt));
    }

    /// Counts the records that a process has dropped, and frames that it could not read. An exit
    /// that is clean tells of none that was dropped for want of a spool: docs/operations.md.
    pub(crate) fn note_dropped(&self, gateway: &Gateway, ended: Ended) {
        let told = Told(gateway.metrics.render());
        let by_delivery = told.sum("forebay_delivery_dropped_records_total", "");
        let dropped = told.sum("forebay_spool_dropped_records_total", "") + by_delivery;
        self.dropped.set(self.dropped.get() + dropped);
        let damaged = told.sum("forebay_spool_damaged_frames_total", "");
        self.damaged.set(self.damaged.get() + damaged);
        let is_clean = matches!(ended, Ended::Exited(exit) if exit.told.is_clean);
        if is_clean && by_delivery > 0 {
            self.wrong(format!(
                "exit: {by_delivery} records were dropped, {ended:?}"
            ));
        }
    }
}

/// Reads a log on a disk that is well.
fn each_record(log: &Log<GatewayDisk>, mut note: impl FnMut(usize)) {
    let mut reader = log.reader();
    while let Some(frame) = reader.next_frame().expect("the disk is well") {
        for record in &frame.records {
            note(attempt_of(&record.payload));
        }
    }
}
