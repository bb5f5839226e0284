//! Keeps the devices file in force, and tells what has become of it.

use std::sync::Arc;

use anyhow::anyhow;
use tokio::sync::watch;

use crate::config::{Config, StreamConfig};
use crate::devices::{Counts, Devices, DevicesError, DevicesFile, Reloaded};
use crate::telemetry::audit::Event;
use crate::telemetry::observers::Observers;
use crate::tls::Reloader;
use crate::words::Reload;

/// The variable that names the file.
const VARIABLE: &str = "FOREBAY_DEVICES_FILE";

/// The devices file, and the streams that it may name.
pub(crate) struct DevicesWatch {
    file: DevicesFile,
    streams: Vec<String>,
}

impl DevicesWatch {
    /// Reads the file, where one is configured.
    pub(crate) fn start(config: &Config) -> anyhow::Result<Self> {
        let name = |stream: &StreamConfig| stream.name.clone();
        let file = DevicesFile::start(config.devices_file.clone());
        let file = file.map_err(|error| anyhow!("{VARIABLE}: {error}"))?;
        let watch = Self {
            file,
            streams: config.streams.iter().map(name).collect(),
        };
        watch.warn_of_unknown_streams();
        Ok(watch)
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Devices>> {
        self.file.subscribe()
    }

    /// Reads the file if it has changed, or if it is to be read anyway. Blocks for as long as that
    /// takes. `reloader` voids the tickets of certificates that are pinned no more.
    pub(crate) fn look(
        &mut self,
        reads_anyway: bool,
        reloader: &mut Reloader,
        observers: &Observers,
    ) {
        match self.file.look(reads_anyway) {
            None => {}
            Some(Ok(reloaded)) => self.make_known(reloaded, reloader, observers),
            Some(Err(error)) => tell_failure(&error, observers),
        }
    }

    fn make_known(&self, reloaded: Reloaded, reloader: &mut Reloader, observers: &Observers) {
        if reloaded.has_unpinned
            && let Err(error) = reloader.void_tickets()
        {
            tracing::error!(%error, "tickets of certificates that are pinned no more are still good");
        }
        self.warn_of_unknown_streams();
        let Counts { exact, globs, pins } = reloaded.counts;
        tracing::info!(exact, globs, pins, "devices file reloaded");
        observers.metrics.reload_succeeded(Reload::Devices);
        observers
            .audit
            .record(Event::DevicesReloaded { exact, globs, pins });
    }

    /// A name may be that of a stream to come, so it is no fault.
    fn warn_of_unknown_streams(&self) {
        let devices = self.file.subscribe();
        let unknown = devices.borrow().unknown_streams(&self.streams);
        if !unknown.is_empty() {
            let streams = unknown.join(",");
            tracing::warn!(
                streams,
                "the devices file names streams that FOREBAY_STREAMS does not"
            );
        }
    }
}

fn tell_failure(error: &DevicesError, observers: &Observers) {
    observers.reload_failed(Reload::Devices, error);
    tracing::error!(variable = VARIABLE, %error, "a changed file cannot be used: what was there before stays in force");
}
