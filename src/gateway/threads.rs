//! The threads that have to end before the process may, and what their end says of its exit code.

use std::io;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::interval;

use super::alarm::Alarm;
use crate::delivery::Promised;

/// Time between two looks at the threads while the gateway drains.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Gives the number of records that a worker has answered and left behind.
pub(crate) type WorkerThread = JoinHandle<io::Result<usize>>;

/// The thread of delivery.
pub(crate) struct DeliveryThread {
    pub handle: JoinHandle<()>,
    /// Records that delivery has taken over and not made safe.
    pub promised: Promised,
}

/// The threads that have to end before the process may.
pub(crate) struct Threads {
    pub workers: Vec<WorkerThread>,
    pub delivery: DeliveryThread,
}

impl DeliveryThread {
    /// A thread that goes on is one that was left: what it has taken over counts.
    fn has_ended_well(self) -> bool {
        let has_panicked = self.handle.is_finished() && self.handle.join().is_err();
        if has_panicked {
            tracing::error!("the delivery thread panicked");
        }
        !has_panicked
    }
}

impl Threads {
    /// Returns when all threads have ended. They are looked at: at its end a thread cannot wake a
    /// runtime that is not its own.
    pub(crate) async fn ended(&self) {
        let mut checks = interval(CHECK_INTERVAL);
        while !self.are_finished() {
            checks.tick().await;
        }
    }

    fn are_finished(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished) && self.delivery.handle.is_finished()
    }

    /// 0 when every thread ended well, and with nothing left behind that was answered.
    pub(crate) fn exit_code(self, alarm: &Alarm) -> ExitCode {
        let promised = self.delivery.promised.clone();
        // Every thread is looked at, so that each failure is logged.
        let mut is_clean = self.delivery.has_ended_well() && !alarm.is_raised();
        let mut records = promised.unsafe_records();
        for worker in self.workers {
            match left_behind(worker) {
                Some(left) => records += left,
                None => is_clean = false,
            }
        }
        if records > 0 {
            tracing::error!(
                records,
                "records that were answered 204 are lost, or not known to be safe"
            );
            is_clean = false;
        }
        tracing::info!(clean = is_clean, "stopped");
        if is_clean {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

/// Number of records that a worker has answered and left behind; `None` when it did not end well.
fn left_behind(worker: WorkerThread) -> Option<usize> {
    if !worker.is_finished() {
        tracing::error!("a worker did not end in time");
        return None;
    }
    match worker.join() {
        Ok(Ok(records)) => Some(records),
        Ok(Err(error)) => {
            tracing::error!(%error, "a worker failed");
            None
        }
        Err(_) => {
            tracing::error!("a worker panicked");
            None
        }
    }
}
