//! The devices file as it is: read at start, and again when it has changed.
//!
//! `gateway` calls [`DevicesFile::look`] on a thread that may block. A file that cannot be used
//! leaves the last good one in force, and is an error once, until it changes again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::{Counts, Devices, DevicesError, read};
use crate::durable::stamp::{Stamp, stamp};

/// Keeps what the file says current.
pub(crate) struct DevicesFile {
    /// `None`: there is no file, and every device may speak.
    path: Option<PathBuf>,
    seen: Option<Stamp>,
    devices: watch::Sender<Arc<Devices>>,
}

/// A file that has come into force in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reloaded {
    pub counts: Counts,
    /// Whether a pin is gone, or stands for another device.
    pub has_unpinned: bool,
}

impl DevicesFile {
    /// Reads the file, where there is one.
    pub(crate) fn start(path: Option<PathBuf>) -> Result<Self, DevicesError> {
        // Before reading: what is written meanwhile is seen by the next look.
        let seen = path.as_deref().and_then(stamp);
        let devices = match &path {
            Some(path) => read(path)?,
            None => Devices::default(),
        };
        Ok(Self {
            path,
            seen,
            devices: watch::Sender::new(Arc::new(devices)),
        })
    }

    /// Subscribes to the table in force, now and after each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Devices>> {
        self.devices.subscribe()
    }

    /// Reads the file if it has changed, or if it is to be read anyway. `None` when nothing has
    /// come of that.
    pub(crate) fn look(&mut self, reads_anyway: bool) -> Option<Result<Reloaded, DevicesError>> {
        let path = self.path.as_ref()?;
        let stamp = stamp(path);
        if stamp == self.seen && !reads_anyway {
            return None;
        }
        self.seen = stamp;
        let devices = read(path);
        Some(devices.map(|devices| self.put_in_force(devices)))
    }

    /// Puts another table in force, in the place of a file that has changed.
    pub(crate) fn put_in_force(&self, mut devices: Devices) -> Reloaded {
        let now = Instant::now();
        devices.succeed(&self.devices.borrow(), now);
        let reloaded = Reloaded {
            counts: devices.counts(),
            has_unpinned: devices.unpinned_at() == Some(now),
        };
        self.devices.send_replace(Arc::new(devices));
        reloaded
    }
}
