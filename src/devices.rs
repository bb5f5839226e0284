//! The devices file: who may speak, what each device is held to, and which certificates stand for a
//! device whoever has signed them.
//!
//! `gateway` reads the file at start and looks at it from then on ([`DevicesFile`]); `tls` asks
//! the current [`Devices`] for pins, `accept` and `http` for verdicts; `cli` explains and edits the
//! file ([`edit`], [`rewrite`]). A file is read as a whole or not at all.
//!
//! An exact id wins over every glob, among globs the first one wins, and what nothing names gets
//! the default. Asking is a hash, and a walk through the globs where no exact rule is found.
//! Limits: [`RULES_MAX`] rules for exact ids, as many pins, [`GLOBS_MAX`] globs, lines of
//! [`LINE_BYTES_MAX`] bytes. A million exact rules take some 40 MB. Failure: [`DevicesError`] names
//! the file, the line and the word.

mod edit;
mod file;
mod fingerprint;
mod read;
mod rewrite;
mod rule;
mod table;

use std::sync::Arc;

use crate::config::Quota;
pub use edit::{Change, edit};
pub(crate) use file::{DevicesFile, Reloaded};
pub use fingerprint::Fingerprint;
pub use read::{DevicesError, read, read_text};
pub(crate) use rewrite::{EditError, Edited, rewrite};
pub(crate) use table::Counts;
pub use table::{Devices, Pin, Source};

/// Rules for exact ids at most, and pins.
const RULES_MAX: usize = 10_000_000;

/// Globs at most: each connection without an exact rule walks through them.
const GLOBS_MAX: usize = 10_000;

/// The longest line, in bytes, with its end.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Verdict on a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Denied,
    Allowed(Settings),
}

/// Settings that the file gives a device; the environment gives those that it leaves out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    pub requests: Option<Quota>,
    pub bytes: Option<Quota>,
    /// The names of the streams that the device may write.
    pub streams: Option<Arc<[Box<str>]>>,
}

impl Settings {
    /// Whether the file says nothing.
    pub fn are_silent(&self) -> bool {
        self.requests.is_none() && self.bytes.is_none() && self.streams.is_none()
    }

    /// These settings, and those of `others` where these are silent.
    fn or(&self, others: &Self) -> Self {
        let streams = self.streams.as_ref().or(others.streams.as_ref());
        Self {
            requests: self.requests.or(others.requests),
            bytes: self.bytes.or(others.bytes),
            streams: streams.cloned(),
        }
    }
}

#[cfg(test)]
mod tests;
