//! From the first signal to the exit code.

use std::future::Future;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep};

use super::Workers;
use super::alarm::{Alarm, Ending};
use super::notify::Notifier;
use crate::delivery::Promised;
use crate::lifecycle::{Barrier, Lifecycle, Phase, Phases, Token};

/// How often the threads are looked at while the gateway drains.
const THREAD_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// After the deadline of the drain, threads get this long to answer what waits.
const HURRY_TIMEOUT: Duration = Duration::from_secs(3);

/// Far more than workers need to close their listeners.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the end of the gateway is steered by: its phases, the barriers that others pass on the way, and the alarm.
pub(crate) struct Shutdown {
    lifecycle: Lifecycle,
    /// Has a token of each TCP listener that is open.
    listeners: Barrier,
    /// Has a token of each UDP socket that is open.
    sockets: Barrier,
    alarm: Alarm,
    ended: mpsc::Receiver<&'static str>,
}

impl Shutdown {
    pub(crate) fn new() -> Self {
        let (alarm, ended) = Alarm::new();
        Self {
            lifecycle: Lifecycle::new(),
            listeners: Barrier::new(),
            sockets: Barrier::new(),
            alarm,
            ended,
        }
    }

    pub(crate) fn phases(&self) -> Phases {
        self.lifecycle.phases()
    }

    /// For tasks without which the gateway cannot go on.
    pub(crate) fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// To be held by a thread without which the gateway cannot go on.
    pub(crate) fn ending(&self, what: &'static str) -> Ending {
        self.alarm.at_end(what)
    }

    /// To be held by a TCP listener.
    pub(crate) fn listener(&self) -> Token {
        self.listeners.token()
    }

    /// To be held by a UDP socket.
    pub(crate) fn socket(&self) -> Token {
        self.sockets.token()
    }

    pub(crate) fn sockets(&self) -> Barrier {
        self.sockets.clone()
    }
}

/// What has to end before the process may.
pub(crate) struct Threads {
    pub workers: Workers,
    pub delivering: JoinHandle<()>,
    /// What delivery has counted.
    pub promised: Promised,
}

impl Threads {
    fn are_finished(&self) -> bool {
        self.workers.iter().all(JoinHandle::is_finished) && self.delivering.is_finished()
    }
}

/// Returns when a signal has come and the gateway has drained, or its time is up. What runs beside that is spawned by
/// `run_beside`, which is given SIGHUP. From `on_ready` on, no signal is missed.
pub(crate) fn serve_until_drained(
    run_beside: impl FnOnce(Signal),
    on_ready: impl FnOnce(),
    mut shutdown: Shutdown,
    notifier: &Notifier,
    drain_timeout: Duration,
    threads: Threads,
) -> anyhow::Result<ExitCode> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        run_beside(signal(SignalKind::hangup())?);
        on_ready();
        tokio::select! {
            () = signals.next() => tracing::info!("draining"),
            what = shutdown.ended.recv() => {
                tracing::error!(what, "draining, since this has ended");
                shutdown.alarm.mark();
            }
        }
        notifier.stopping();
        // Connections that are told to go come back at once: by then nobody of this gateway takes them.
        shutdown.lifecycle.advance(Phase::Closing);
        within(CLOSE_TIMEOUT, shutdown.listeners.passed()).await;
        shutdown.lifecycle.advance(Phase::Draining);
        let drained = ended(|| threads.are_finished());
        tokio::select! {
            () = drained => return Ok(exit_code(threads, &shutdown.alarm)),
            () = signals.next() => tracing::warn!("a second signal: leaving now"),
            () = sleep(drain_timeout) => tracing::warn!("the drain deadline has passed: leaving now"),
        }
        shutdown.lifecycle.advance(Phase::Hurrying);
        within(HURRY_TIMEOUT, ended(|| threads.are_finished())).await;
        Ok(exit_code(threads, &shutdown.alarm))
    })
}

/// 0 when every thread ended well, and with nothing left behind that was answered.
fn exit_code(threads: Threads, alarm: &Alarm) -> ExitCode {
    let mut is_clean = !alarm.is_raised();
    // Every thread is looked at, so that each failure is logged.
    if threads.delivering.is_finished() && threads.delivering.join().is_err() {
        tracing::error!("the delivery thread panicked");
        is_clean = false;
    }
    let mut records = threads.promised.unsafe_records();
    for worker in threads.workers {
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

/// How many records a worker has answered and left behind; `None` when it did not end well.
fn left_behind(worker: JoinHandle<std::io::Result<usize>>) -> Option<usize> {
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

/// Waits for threads: they cannot wake a runtime that is not theirs when they end.
async fn ended(are_finished: impl Fn() -> bool) {
    let mut checks = interval(THREAD_CHECK_INTERVAL);
    while !are_finished() {
        checks.tick().await;
    }
}

async fn within(timeout: Duration, future: impl Future<Output = ()>) {
    // Past the time-out the gateway leaves, finished or not.
    let _ = tokio::time::timeout(timeout, future).await;
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
