//! The alarm: something has ended without which the gateway cannot go on.
//!
//! Tasks and threads of the gateway hold it; [`shutdown`](super::shutdown) drains at the first that
//! it is told of, and ends with exit code 1 where it was raised. What is told later is logged, and
//! no news.

use std::future::Future;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use crate::sink::file;
#[cfg(feature = "kinesis")]
use crate::sink::kinesis;
use crate::spool;

/// The threads on which records are delivered: the sink's tasks, its writer of files, its calls into
/// Kinesis, and the spool.
const DELIVERY_THREADS: &[&str] = &[
    SINK_THREAD,
    file::THREAD,
    #[cfg(feature = "kinesis")]
    kinesis::threads::THREAD,
    spool::THREAD,
];

/// Name of the thread that runs delivery and the tasks of the sink's client.
pub(crate) const SINK_THREAD: &str = "forebay-sink";

/// Tells that something has ended without which the gateway cannot go on: it drains then, and its
/// exit code is 1.
#[derive(Clone)]
pub(crate) struct Alarm {
    ended: mpsc::Sender<&'static str>,
    is_raised: Arc<AtomicBool>,
}

impl Alarm {
    /// Makes an alarm, and what it tells: the first that has ended.
    pub(crate) fn new() -> (Self, mpsc::Receiver<&'static str>) {
        let (ended, told) = mpsc::channel(1);
        let alarm = Self {
            ended,
            is_raised: Arc::default(),
        };
        (alarm, told)
    }

    /// Makes the exit code that of a failure.
    pub(crate) fn mark(&self) {
        self.is_raised.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.is_raised.load(Ordering::Relaxed)
    }

    /// Makes the guard that a thread holds without which the gateway cannot go on.
    pub(crate) fn at_end(&self, what: &'static str) -> Ending {
        Ending {
            what,
            alarm: self.clone(),
        }
    }

    pub(crate) fn raise(&self, what: &'static str) {
        tracing::error!(what, "has ended: the gateway cannot go on");
        self.mark();
        self.tell(what);
    }

    /// Raises it at every panic of one of [`DELIVERY_THREADS`], whichever of the tasks there it ends:
    /// what the sink's client or the spool has begun would never be answered. Nobody else tells of
    /// such a panic.
    pub(crate) fn raise_at_panics(&self) {
        let (alarm, tell) = (self.clone(), panic::take_hook());
        panic::set_hook(Box::new(move |panic| {
            tell(panic);
            let thread = thread::current();
            if thread
                .name()
                .is_some_and(|name| DELIVERY_THREADS.contains(&name))
            {
                alarm.raise("a task of delivery");
            }
        }));
    }

    fn tell(&self, what: &'static str) {
        // The first alarm starts the drain; a further one changes nothing.
        let _ = self.ended.try_send(what);
    }

    /// Starts a task on this thread that must not end.
    pub(crate) fn start<T>(&self, what: &'static str, task: impl Future<Output = T> + 'static) {
        let alarm = self.clone();
        spawn_local(async move {
            // Whether by a panic, which has been told, or by itself.
            let _ = AssertUnwindSafe(task).catch_unwind().await;
            alarm.raise(what);
        });
    }
}

/// Held by a thread, it tells that the thread ends, be it by a panic.
pub(crate) struct Ending {
    what: &'static str,
    alarm: Alarm,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.alarm.tell(self.what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_on_a_thread_of_delivery_raises_the_alarm_and_another_one_does_not() {
        let (alarm, mut told) = Alarm::new();
        alarm.raise_at_panics();
        let panic_on = |name: &str| {
            let thread = thread::Builder::new().name(name.into());
            let joined = thread.spawn(|| panic!("on purpose")).unwrap().join();
            assert!(joined.is_err());
        };
        panic_on("forebay-0");
        assert!(!alarm.is_raised());
        panic_on(file::THREAD);
        assert!(alarm.is_raised());
        assert_eq!(told.try_recv(), Ok("a task of delivery"));
    }
}
