//! From the first signal to the exit code.

use std::future::Future;
use std::process::ExitCode;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep};

use super::Workers;
use super::alarm::{Alarm, Ending};
use super::notify::Notifier;
use crate::admission::Admission;
use crate::delivery::Promised;

/// How often the threads are looked at while the gateway drains.
const THREAD_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// After the deadline of the drain, threads get this long to answer what waits.
const HURRY_TIMEOUT: Duration = Duration::from_secs(3);

/// Far more than workers need to close their listeners.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How far the gateway is on its way out.
pub(crate) struct Phases {
    closing: watch::Sender<bool>,
    draining: watch::Sender<bool>,
    places: watch::Sender<()>,
    hurrying: watch::Sender<bool>,
    alarm: Alarm,
    ended: mpsc::Receiver<&'static str>,
}

impl Phases {
    pub(crate) fn new() -> Self {
        let [closing, draining, hurrying] = [false; 3].map(watch::Sender::new);
        let (alarm, ended) = Alarm::new();
        Self {
            closing,
            draining,
            places: watch::Sender::new(()),
            hurrying,
            alarm,
            ended,
        }
    }

    /// For a thread without which the gateway cannot go on.
    pub(crate) fn ending(&self, what: &'static str) -> Ending {
        self.alarm.at_end(what)
    }

    /// For tasks without which the gateway cannot go on.
    pub(crate) fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// For each TCP listener one, which is dropped when it has closed.
    pub(crate) fn closing(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// For each UDP socket one, which is dropped when it has closed.
    pub(crate) fn place(&self) -> watch::Receiver<()> {
        self.places.subscribe()
    }

    /// Returns when all UDP sockets have been closed.
    pub(crate) fn places_left(&self) -> impl Future<Output = ()> + use<> {
        let places = self.places.clone();
        async move { places.closed().await }
    }

    pub(crate) fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    pub(crate) fn hurrying(&self) -> watch::Receiver<bool> {
        self.hurrying.subscribe()
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
    mut phases: Phases,
    notifier: &Notifier,
    admission: &Admission,
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
            what = phases.ended.recv() => {
                tracing::error!(what, "draining, since this has ended");
                phases.alarm.mark();
            }
        }
        notifier.stopping();
        // Connections that are told to go come back at once: by then nobody of this gateway takes them.
        phases.closing.send_replace(true);
        within(CLOSE_TIMEOUT, phases.closing.closed()).await;
        phases.draining.send_replace(true);
        let drained = ended(|| threads.are_finished());
        tokio::select! {
            () = drained => return Ok(exit_code(threads, &phases.alarm)),
            () = signals.next() => tracing::warn!("a second signal: leaving now"),
            () = sleep(drain_timeout) => tracing::warn!("the drain deadline has passed: leaving now"),
        }
        admission.close();
        phases.hurrying.send_replace(true);
        within(HURRY_TIMEOUT, ended(|| threads.are_finished())).await;
        Ok(exit_code(threads, &phases.alarm))
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
