//! The audit log: who was let in no more, who was turned away, and what the operator changed; a JSON object a line.
//!
//! `accept`, `http` and `gateway` record events as they happen. [`Audit::record`] never waits: the line goes into a queue of
//! [`QUEUE_MAX`], which a thread of its own writes to a file or to stdout. Of each kind of event at most
//! [`PER_SECOND_MAX`] a second are written, so that a flood fills no disk; what is left out is counted in
//! `forebay_audit_omitted_events_total` and in a line of its own. The file is opened anew after SIGHUP, and when
//! another one has taken its name or its place is empty.
//!
//! Invariant: one event is one line, control characters escaped. No payload, key or text of a client is ever a field: a
//! device is named by its certificate's id, which has a fixed alphabet, a certificate by the hex of its serial number.
//! Failure: a file that cannot be opened at start is an error; later the events count as dropped, and the log says so.

mod writer;

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::log::one_line;
use super::metrics::AuditMetrics;
use crate::config::AuditTarget as Target;
use writer::Writer;

/// Lines that wait to be written.
const QUEUE_MAX: usize = 4096;

/// Lines of one kind in one second.
const PER_SECOND_MAX: u32 = 100;

/// At the end of the process, what waits gets this long to be written.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

/// What has happened.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    Started {
        listen: &'a str,
    },
    Stopped {
        clean: bool,
    },
    /// A handshake that came to nothing. The serial number is the leaf's, where it has been seen.
    HandshakeRefused {
        address: IpAddr,
        transport: &'static str,
        reason: &'static str,
        serial: Option<&'a [u8]>,
    },
    /// A request was answered 403; without a device where the certificate names none.
    Forbidden {
        address: IpAddr,
        protocol: &'static str,
        device: Option<&'a str>,
        code: &'static str,
    },
    /// A connection is ended because its certificate has been revoked.
    ConnectionCut {
        address: IpAddr,
        protocol: &'static str,
        device: Option<&'a str>,
        serial: Option<&'a [u8]>,
    },
    /// A connection is ended because of what it sends beside its requests.
    FloodEnded {
        address: IpAddr,
        protocol: &'static str,
        device: Option<&'a str>,
    },
    CertificateReloaded {
        names: &'a str,
    },
    /// Authorities and revocations are in force; so many serial numbers are revoked.
    RevocationsApplied {
        authorities: usize,
        revoked: usize,
    },
    ReloadFailed {
        what: &'static str,
        error: &'a str,
    },
}

/// One for each [`Event`].
const KINDS: [&str; 9] = [
    "started",
    "stopped",
    "handshake-refused",
    "forbidden",
    "connection-cut",
    "flood-ended",
    "certificate-reloaded",
    "revocations-applied",
    "reload-failed",
];

/// The log, or none. Clones write to the same one.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

struct Inner {
    queue: SyncSender<Message>,
    state: Arc<State>,
    /// Only [`Audit::stop`] takes it.
    ended: std::sync::Mutex<Receiver<()>>,
}

/// What threads share with the writer.
struct State {
    metrics: AuditMetrics,
    windows: [Window; KINDS.len()],
    dropped: AtomicU64,
}

enum Message {
    Line(String),
    Reopen,
    Stop,
}

impl Audit {
    /// No log.
    pub fn off() -> Self {
        Self(None)
    }

    /// Opens the log and starts its thread.
    pub fn start(target: Target, metrics: AuditMetrics) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE_MAX);
        let (ends, ended) = sync_channel(1);
        let state = Arc::new(State { metrics, windows: Default::default(), dropped: AtomicU64::new(0) });
        let writer = Writer::open(target, state.clone())?;
        std::thread::Builder::new().name("forebay-audit".into()).spawn(move || {
            writer.run(&lines);
            // Nobody waits where the process does not end.
            let _ = ends.send(());
        })?;
        Ok(Self(Some(Arc::new(Inner { queue, state, ended: ended.into() }))))
    }

    /// Writes the event down, unless there are too many.
    pub fn record(&self, event: Event<'_>) {
        let Some(inner) = &self.0 else { return };
        let now = jiff::Timestamp::now();
        if inner.state.windows[event.kind()].admits(now.as_second().unsigned_abs()) {
            inner.state.send(&inner.queue, Message::Line(line(now, KINDS[event.kind()], &event.fields())));
        } else {
            inner.state.metrics.event_sampled();
        }
    }

    /// The file may have been moved away.
    pub fn reopen(&self) {
        if let Some(inner) = &self.0 {
            // A full queue is being written: the writer looks at the file by itself.
            let _ = inner.queue.try_send(Message::Reopen);
        }
    }

    /// Writes what waits, within a bound, and nothing more.
    pub fn stop(&self) {
        let Some(inner) = &self.0 else { return };
        if inner.queue.try_send(Message::Stop).is_ok()
            && let Ok(ended) = inner.ended.lock()
        {
            let _ = ended.recv_timeout(LAST_LINES_TIMEOUT);
        }
    }
}

impl State {
    fn send(&self, queue: &SyncSender<Message>, message: Message) {
        if queue.try_send(message).is_err() {
            self.drop_one();
        }
    }

    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.metrics.event_dropped();
    }
}

/// How many of a kind there were in a second, and how many have been left out since that was last said.
#[derive(Default)]
struct Window {
    /// The second in the upper half, the count in the lower one.
    counted: AtomicU64,
    left_out: AtomicU64,
}

impl Window {
    fn admits(&self, second: u64) -> bool {
        let second = second << 32;
        let count = |counted: u64| if counted & !u64::from(u32::MAX) == second { counted + 1 } else { second | 1 };
        let before = self.counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |counted| Some(count(counted)));
        let admits = before.is_ok_and(|before| count(before) as u32 <= PER_SECOND_MAX);
        if !admits {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        admits
    }
}

impl Event<'_> {
    fn kind(&self) -> usize {
        match self {
            Self::Started { .. } => 0,
            Self::Stopped { .. } => 1,
            Self::HandshakeRefused { .. } => 2,
            Self::Forbidden { .. } => 3,
            Self::ConnectionCut { .. } => 4,
            Self::FloodEnded { .. } => 5,
            Self::CertificateReloaded { .. } => 6,
            Self::RevocationsApplied { .. } => 7,
            Self::ReloadFailed { .. } => 8,
        }
    }

    fn fields(&self) -> String {
        let mut fields = Fields::default();
        match *self {
            Self::Started { listen } => fields.text("version", env!("CARGO_PKG_VERSION")).text("listen", listen),
            Self::Stopped { clean } => fields.raw("clean", clean),
            Self::HandshakeRefused { address, transport, reason, serial } => {
                fields.of(address, transport).text("reason", reason).serial(serial)
            }
            Self::Forbidden { address, protocol, device, code } => {
                fields.of(address, protocol).optional("device", device).text("code", code)
            }
            Self::ConnectionCut { address, protocol, device, serial } => {
                fields.of(address, protocol).optional("device", device).serial(serial)
            }
            Self::FloodEnded { address, protocol, device } => fields.of(address, protocol).optional("device", device),
            Self::CertificateReloaded { names } => fields.text("names", names),
            Self::RevocationsApplied { authorities, revoked } => {
                fields.raw("authorities", authorities).raw("revoked", revoked)
            }
            Self::ReloadFailed { what, error } => fields.text("what", what).text("error", error),
        };
        fields.0
    }
}

/// The fields of a line, each with a comma before it.
#[derive(Default)]
struct Fields(String);

impl Fields {
    fn raw(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        // Writing to memory does not fail.
        let _ = write!(self.0, ",\"{name}\":{value}");
        self
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.raw(name, serde_json::Value::from(value))
    }

    fn of(&mut self, address: IpAddr, protocol: &str) -> &mut Self {
        self.text("address", &address.to_canonical().to_string()).text("protocol", protocol)
    }

    fn optional(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    fn serial(&mut self, serial: Option<&[u8]>) -> &mut Self {
        let hex = serial.map(|serial| serial.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        self.optional("serial", hex.as_deref())
    }
}

fn line(now: jiff::Timestamp, event: &str, fields: &str) -> String {
    one_line(&format!("{{\"at\":\"{now:.3}\",\"event\":\"{event}\"{fields}}}\n")).into_owned()
}

#[cfg(test)]
mod tests;
