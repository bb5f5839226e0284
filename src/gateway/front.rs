//! The main thread beside the workers: it answers the admin address, looks at files, waits for
//! signals, and speaks with systemd.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_local;

use super::Bound;
use super::foundation::Foundation;
use super::listen::Addresses;
use super::local_runtime;
use super::notify::Notifier;
use super::reload::Watch;
use super::shutdown::{Shutdown, Signals};
use super::story;
use super::threads::Threads;
use crate::telemetry::admin::{self, Status};
use crate::telemetry::audit::Event;
use crate::telemetry::observers::Observers;

/// The parts that the main thread works with.
pub(crate) struct Front {
    addresses: Addresses,
    watch: Watch,
    status: Arc<Status>,
    observers: Observers,
    notifier: Notifier,
    started_at: Instant,
}

impl Front {
    pub(crate) fn new(
        addresses: Addresses,
        watch: Watch,
        foundation: &Foundation,
        started_at: Instant,
    ) -> Self {
        Self {
            addresses,
            watch,
            status: foundation.status(),
            observers: foundation.observers.clone(),
            notifier: Notifier::from_environment(),
            started_at,
        }
    }

    /// Serves until the gateway has drained. `on_bound` learns where it is; from then on, no signal
    /// is missed.
    pub(crate) fn serve(
        self,
        mut shutdown: Shutdown,
        threads: Threads,
        drain_timeout: Duration,
        on_bound: impl FnOnce(Bound),
    ) -> anyhow::Result<ExitCode> {
        local_runtime()?.block_on(async {
            let mut signals = Signals::new()?;
            let hangup = signal(SignalKind::hangup())?;
            on_bound(self.announce(threads.workers.len())?);
            let notifier = self.notifier.clone();
            self.start(hangup, &shutdown);
            shutdown.asked_for(signals.next()).await;
            notifier.stopping();
            let exit = shutdown.drain(signals.next(), drain_timeout, threads);
            Ok(exit.await.code())
        })
    }

    /// Tells the log and systemd that the gateway listens; gives where.
    fn announce(&self, workers: usize) -> anyhow::Result<Bound> {
        let (listen, admin) = (self.addresses.listen, self.addresses.admin.local_addr()?);
        tracing::info!(%listen, %admin, workers, "listening");
        self.observers.audit.record(Event::Started {
            listen: &listen.to_string(),
        });
        self.notifier.ready();
        Ok(Bound { listen, admin })
    }

    /// Starts the tasks of this thread, each of which the gateway cannot do without.
    fn start(self, hangup: Signal, shutdown: &Shutdown) {
        let (alarm, sockets) = (shutdown.alarm(), shutdown.sockets());
        let (Addresses { places, admin, .. }, notifier) = (self.addresses, self.notifier);
        spawn_local(async move {
            sockets.passed().await;
            drop(places);
        });
        spawn_local(story::tell_ready(self.status.clone(), self.started_at));
        let serving = admin::serve(admin, self.status.clone());
        alarm.start("the admin address", serving);
        alarm.start(
            "the watch over files",
            self.watch.run(hangup, notifier.clone()),
        );
        alarm.start("the count of devices", self.observers.gather_devices());
        alarm.start("the heartbeat", notifier.beat(self.status));
    }
}
