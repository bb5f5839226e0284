//! The threads that have to end before the process may, and what their end says of its exit code.

use std::io;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

#[cfg(test)]
use futures_util::FutureExt;
use tokio::time::interval;

use super::alarm::Alarm;
use crate::delivery::Promised;

/// Time between two looks at the threads while the gateway drains.
const CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// A thread of the gateway, or the task that stands in for one in the simulator.
pub(crate) enum Running<T> {
    Thread(JoinHandle<T>),
    #[cfg(test)]
    Task(tokio::task::JoinHandle<T>),
}

impl<T> Running<T> {
    fn is_finished(&self) -> bool {
        match self {
            Self::Thread(thread) => thread.is_finished(),
            #[cfg(test)]
            Self::Task(task) => task.is_finished(),
        }
    }

    /// Gives its result, now that it is finished; `None` if it panicked.
    fn end(self) -> Option<T> {
        assert!(self.is_finished(), "nobody waits for one that goes on");
        match self {
            Self::Thread(thread) => thread.join().ok(),
            #[cfg(test)]
            Self::Task(task) => tokio::task::unconstrained(task).now_or_never()?.ok(),
        }
    }
}

/// Gives the number of records that a worker has answered and left behind.
pub(crate) type WorkerThread = Running<io::Result<usize>>;

/// The thread of delivery.
pub(crate) struct DeliveryThread {
    pub handle: Running<()>,
    /// Records that delivery has taken over and not made safe.
    pub promised: Promised,
}

/// The threads that have to end before the process may.
pub(crate) struct Threads {
    pub workers: Vec<WorkerThread>,
    pub delivery: DeliveryThread,
}

/// The end of a process, as its threads tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Every thread ended well, and nothing was left behind that was answered.
    pub is_clean: bool,
    /// Records that were answered 204 and are lost, or not known to be safe.
    pub unsafe_records: usize,
}

impl Exit {
    /// Returns the exit code, which tells the supervisor whether all is well.
    pub(crate) fn code(self) -> ExitCode {
        assert!(
            !self.is_clean || self.unsafe_records == 0,
            "records that are not safe are no clean end"
        );
        if self.is_clean {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

impl DeliveryThread {
    /// A thread that goes on is one that was left: what it has taken over counts.
    fn has_ended_well(self) -> bool {
        let has_panicked = self.handle.is_finished() && self.handle.end().is_none();
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
        self.workers.iter().all(Running::is_finished) && self.delivery.handle.is_finished()
    }

    /// Says how the process ends, whatever its threads do.
    pub(crate) fn exit(self, alarm: &Alarm) -> Exit {
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
        Exit {
            is_clean,
            unsafe_records: records,
        }
    }
}

/// Number of records that a worker has answered and left behind; `None` when it did not end well.
fn left_behind(worker: WorkerThread) -> Option<usize> {
    if !worker.is_finished() {
        tracing::error!("a worker did not end in time");
        return None;
    }
    match worker.end() {
        Some(Ok(records)) => Some(records),
        Some(Err(error)) => {
            tracing::error!(%error, "a worker failed");
            None
        }
        None => {
            tracing::error!("a worker panicked");
            None
        }
    }
}
