//! The audit log: who was let in no more, who was turned away, and what the operator changed; a
//! JSON object a line.
//!
//! `accept`, `http` and `gateway` record events as they happen. [`Audit::record`] never waits: see
//! [`Journal`]. Of each kind of event at most [`PER_SECOND_MAX`] a second are written, so that a
//! flood fills no disk; what is left out is counted in `forebay_audit_omitted_events_total` and in
//! a line of its own. The last lines of all are kept for whoever looks at the live page
//! ([`Recent`]), also where there is no log.
//!
//! Invariant: no payload or key of a client is ever a field: a device is named by its certificate's
//! id, which has a fixed alphabet, a certificate by the hex of its serial number. Of a certificate
//! that was refused the names are told as well: cut, and visible ASCII only.
//! Failure: a file that cannot be opened at start is an error; later the events count as dropped,
//! and the log says so.

mod recent;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::journal::{Fields, Journal, line, omitted};
use super::metrics::JournalMetrics;
use crate::config::JournalTarget as Target;
use crate::record::Timestamp;
use recent::Recent;

/// The most lines of one kind in one second.
const PER_SECOND_MAX: u32 = 100;

/// An event of the audit log, with its fields.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event<'a> {
    Started {
        listen: &'a str,
    },
    Stopped {
        clean: bool,
    },
    /// A handshake has come to nothing. The certificate is the leaf, where it has been seen.
    HandshakeRefused {
        address: IpAddr,
        transport: &'static str,
        reason: &'static str,
        certificate: Option<Certificate<'a>>,
    },
    /// A device has as many connections as it may: one more is closed. Without a device where the
    /// certificate names none.
    ConnectionRefused {
        peer: Peer<'a>,
        serial: Option<&'a [u8]>,
    },
    /// A request was answered 403; without a device where the certificate names none.
    Forbidden {
        peer: Peer<'a>,
        code: &'static str,
    },
    /// A connection is ended because its certificate has been revoked.
    ConnectionCut {
        peer: Peer<'a>,
        serial: Option<&'a [u8]>,
    },
    /// A request was answered 403 because the devices file denies its device.
    DeviceDenied {
        peer: Peer<'a>,
        serial: Option<&'a [u8]>,
    },
    /// A live connection is ended because of what the devices file says now.
    DeviceCut {
        peer: Peer<'a>,
        serial: Option<&'a [u8]>,
        reason: &'static str,
    },
    /// A connection is ended because of what it sends beside its requests.
    FloodEnded {
        peer: Peer<'a>,
    },
    CertificateReloaded {
        names: &'a str,
    },
    /// Authorities and revocations are in force; so many serial numbers are revoked.
    RevocationsApplied {
        authorities: usize,
        revoked: usize,
    },
    /// A devices file is in force, with so many rules of each kind.
    DevicesReloaded {
        exact: usize,
        globs: usize,
        pins: usize,
    },
    ReloadFailed {
        what: &'static str,
        error: &'a str,
    },
}

/// The client at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer<'a> {
    pub address: IpAddr,
    /// Protocol that is spoken, or the transport where nothing has been spoken yet.
    pub protocol: &'static str,
    /// `None` where the certificate names no device.
    pub device: Option<&'a str>,
}

/// Fields of a certificate that was refused, as it states them; nothing of them is verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Certificate<'a> {
    pub serial: &'a [u8],
    /// Visible ASCII, within a bound.
    pub subject: &'a str,
    pub issuer: &'a str,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

/// The name of each [`Event`], in their order.
const KINDS: [&str; 13] = [
    "started",
    "stopped",
    "handshake-refused",
    "connection-refused",
    "forbidden",
    "connection-cut",
    "device-denied",
    "device-cut",
    "flood-ended",
    "certificate-reloaded",
    "revocations-applied",
    "devices-reloaded",
    "reload-failed",
];

/// Recorder of events: it keeps the last ones, and writes all of them to the log where one is set.
/// Clones share it.
#[derive(Clone)]
pub(crate) struct Audit(Arc<Recorder>);

struct Recorder {
    log: Option<AuditLog>,
    recent: Recent,
    windows: Arc<Windows>,
}

struct AuditLog {
    journal: Journal,
    metrics: JournalMetrics,
}

/// A window for each kind of event.
type Windows = [Window; KINDS.len()];

impl Audit {
    /// Keeps the last events, and has no log.
    pub(crate) fn off() -> Self {
        Self::new(None, Arc::default())
    }

    /// Opens the log and starts its thread.
    pub(crate) fn start(target: Target, metrics: JournalMetrics) -> io::Result<Self> {
        let windows = Arc::<Windows>::default();
        let summary = {
            let windows = windows.clone();
            move || summary(&windows)
        };
        let journal = Journal::start("FOREBAY_AUDIT_LOG", target, metrics.clone(), summary)?;
        Ok(Self::new(Some(AuditLog { journal, metrics }), windows))
    }

    fn new(log: Option<AuditLog>, windows: Arc<Windows>) -> Self {
        Self(Arc::new(Recorder {
            log,
            recent: Recent::default(),
            windows,
        }))
    }

    /// Writes the event down, unless there are too many.
    pub(crate) fn record(&self, event: Event<'_>) {
        let Recorder { log, recent, .. } = &*self.0;
        let (now, kind) = (jiff::Timestamp::now(), event.kind());
        if self.0.windows[kind].admits(now.as_second().unsigned_abs()) {
            let line = line(now, KINDS[kind], &event.fields());
            if let Some(log) = log {
                log.journal.write(line.clone());
            }
            recent.push(line);
        } else if let Some(log) = log {
            log.metrics.sampled();
        }
    }

    /// The last events, JSON objects, the newest first.
    pub(crate) fn recent(&self) -> Vec<String> {
        self.0.recent.lines()
    }

    /// See [`Journal::reopen`].
    pub(crate) fn reopen(&self) {
        self.0.log.iter().for_each(|log| log.journal.reopen());
    }

    /// See [`Journal::stop`].
    pub(crate) fn stop(&self) {
        self.0.log.iter().for_each(|log| log.journal.stop());
    }
}

/// The lines that say how many events have none because there were too many.
fn summary(windows: &Windows) -> Vec<String> {
    let mut lines = Vec::new();
    for (kind, window) in KINDS.iter().zip(windows) {
        let left_out = window.left_out.swap(0, Ordering::Relaxed);
        lines.extend(omitted("sampled", Some(kind), left_out));
    }
    lines
}

/// Count of one kind's events within a second, and of those left out since the log last said so.
#[derive(Default)]
struct Window {
    /// The second in the upper half, the count in the lower one.
    counted: AtomicU64,
    left_out: AtomicU64,
}

impl Window {
    fn admits(&self, second: u64) -> bool {
        let count = |counted: u64| Some(with_one_more(counted, second));
        let relaxed = Ordering::Relaxed;
        let before = self.counted.fetch_update(relaxed, relaxed, count);
        let before = before.expect("every update is made");
        let admits = with_one_more(before, second) as u32 <= PER_SECOND_MAX;
        if !admits {
            self.left_out.fetch_add(1, relaxed);
        }
        admits
    }
}

/// The count of a window after one more event in a second.
fn with_one_more(counted: u64, second: u64) -> u64 {
    let second = second << 32;
    if counted & !u64::from(u32::MAX) == second {
        counted + 1
    } else {
        second | 1
    }
}

impl Event<'_> {
    fn kind(&self) -> usize {
        match self {
            Self::Started { .. } => 0,
            Self::Stopped { .. } => 1,
            Self::HandshakeRefused { .. } => 2,
            Self::ConnectionRefused { .. } => 3,
            Self::Forbidden { .. } => 4,
            Self::ConnectionCut { .. } => 5,
            Self::DeviceDenied { .. } => 6,
            Self::DeviceCut { .. } => 7,
            Self::FloodEnded { .. } => 8,
            Self::CertificateReloaded { .. } => 9,
            Self::RevocationsApplied { .. } => 10,
            Self::DevicesReloaded { .. } => 11,
            Self::ReloadFailed { .. } => 12,
        }
    }

    fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        match *self {
            Self::Started { listen } => fields
                .text("version", env!("CARGO_PKG_VERSION"))
                .text("listen", listen),
            Self::Stopped { clean } => fields.raw("clean", clean),
            Self::HandshakeRefused {
                address,
                transport,
                reason,
                certificate,
            } => fields
                .of(address, transport, None)
                .text("reason", reason)
                .certificate(certificate),
            Self::ConnectionRefused { peer, serial }
            | Self::ConnectionCut { peer, serial }
            | Self::DeviceDenied { peer, serial } => fields.peer(peer).hex("serial", serial),
            Self::Forbidden { peer, code } => fields.peer(peer).text("code", code),
            Self::DeviceCut {
                peer,
                serial,
                reason,
            } => fields
                .peer(peer)
                .text("reason", reason)
                .hex("serial", serial),
            Self::FloodEnded { peer } => fields.peer(peer),
            Self::CertificateReloaded { names } => fields.text("names", names),
            Self::RevocationsApplied {
                authorities,
                revoked,
            } => fields
                .raw("authorities", authorities)
                .raw("revoked", revoked),
            Self::DevicesReloaded { exact, globs, pins } => fields
                .raw("exact", exact)
                .raw("globs", globs)
                .raw("pins", pins),
            Self::ReloadFailed { what, error } => fields.text("what", what).text("error", error),
        };
        fields
    }
}

impl Fields {
    fn peer(&mut self, peer: Peer<'_>) -> &mut Self {
        self.of(peer.address, peer.protocol, peer.device)
    }

    /// Adds a certificate's fields, where one was sent. Its dates stand beside the line's own time.
    fn certificate(&mut self, certificate: Option<Certificate<'_>>) -> &mut Self {
        let Some(certificate) = certificate else {
            return self;
        };
        self.hex("serial", Some(certificate.serial))
            .text("subject", certificate.subject)
            .text("issuer", certificate.issuer)
            .text("not_before", &certificate.not_before.rfc3339())
            .text("not_after", &certificate.not_after.rfc3339())
    }
}

#[cfg(test)]
mod tests;
