//! The visits of each device, as it remembers them, for the audit of fleet events: a file of JSON
//! lines, one a device, with its connections and requests.
//!
//! The conductor makes the file, every device appends its line when its run is over. What a device
//! cannot know is kept apart: a connection on which nothing was answered may not have come to be for
//! the server, and a request without an answer may have had one.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::ledger::Status;

/// The requests that ended in one way, and the bytes of their decoded bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub count: u64,
    pub bytes: u64,
}

impl Requests {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

/// Visits of one device, as it remembers them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Visits {
    pub device: String,
    /// Connections on which something was answered.
    pub connections: u64,
    /// Connections that were tried, and on which nothing was answered.
    pub uncertain: u64,
    /// Answered 200 or 204.
    pub accepted: Requests,
    /// Answered otherwise.
    pub refused: Requests,
    /// Begun, and not answered.
    pub unknown: Requests,
    /// Something was answered on the connection that was tried last.
    #[serde(skip)]
    is_certain: bool,
}

impl Visits {
    pub(crate) fn of(device: String) -> Self {
        Self {
            device,
            ..Self::default()
        }
    }

    /// Counts a connection that was tried, whatever came of it.
    pub(crate) fn tried(&mut self) {
        self.uncertain += 1;
        self.is_certain = false;
    }

    /// Something was answered on the connection that was tried last.
    pub(crate) fn answered(&mut self) {
        if !std::mem::replace(&mut self.is_certain, true) {
            debug_assert!(self.uncertain > 0, "it was tried");
            self.uncertain -= 1;
            self.connections += 1;
        }
    }

    /// Counts a request, with the size of its decoded body.
    pub(crate) fn count(&mut self, status: Status, bytes: u64) {
        match status {
            Status::UNSENT => {}
            Status::UNANSWERED => self.unknown.add(bytes),
            Status::SAFE | Status::OK => self.accepted.add(bytes),
            _ => self.refused.add(bytes),
        }
    }
}

/// Makes an empty file, in place of one that was there.
pub(crate) fn create(path: &Path) -> Result<()> {
    std::fs::write(path, "").with_context(|| path.display().to_string())
}

/// Reads the visits of all devices from a file.
pub(crate) fn read(path: &Path) -> Result<Vec<Visits>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut all = Vec::new();
    for (place, line) in text.lines().enumerate() {
        let visits = serde_json::from_str(line);
        let line = place + 1;
        all.push(visits.with_context(|| format!("{}, line {line}", path.display()))?);
    }
    Ok(all)
}

/// Appends whole lines, each in one write, so that writers do not mix.
pub(crate) struct Writer(File);

impl Writer {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().append(true).open(path);
        Ok(Self(file.with_context(|| path.display().to_string())?))
    }

    pub(crate) fn append(&self, visits: &Visits) -> Result<()> {
        let mut line = serde_json::to_vec(visits)?;
        line.push(b'\n');
        Ok((&self.0).write_all(&line)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_known_is_kept_apart() {
        let mut visits = Visits::of("load-000001".into());
        visits.tried();
        for (status, bytes) in [(204, 5), (429, 6), (200, 7), (0, 8), (1, 9)] {
            visits.count(Status(status), bytes);
        }
        visits.answered();
        visits.answered();
        visits.tried();
        let requests = |count, bytes| Requests { count, bytes };
        assert_eq!((visits.connections, visits.uncertain), (1, 1));
        assert_eq!(visits.accepted, requests(2, 12));
        assert_eq!(visits.refused, requests(1, 6));
        assert_eq!(visits.unknown, requests(1, 8));
    }

    #[test]
    fn what_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("visits");
        create(&path).unwrap();
        let writer = Writer::open(&path).unwrap();
        let written = ["a", "b"].map(|device| Visits::of(device.into()));
        written.iter().for_each(|one| writer.append(one).unwrap());
        assert_eq!(read(&path).unwrap(), written);
        std::fs::write(&path, "{}\n").unwrap();
        let fault = read(&path).unwrap_err().to_string();
        assert!(fault.ends_with("visits, line 1"), "{fault}");
    }
}
