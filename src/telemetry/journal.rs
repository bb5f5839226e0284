//! A log of JSON lines that nobody waits for: the audit log is one, the access log another.
//!
//! [`Journal::write`] puts a line into a queue of [`QUEUE_MAX`], which a thread of its own writes
//! to a file or to stdout; what does not fit is counted, and said in a line of its own once a
//! second. The file is opened anew after SIGHUP, and when another one has taken its name or its
//! place is empty.
//!
//! Invariant: one event is one line, control characters escaped ([`Fields`], [`line`]). Failure: a
//! file that cannot be opened at start is an error; later the lines count as dropped, and the log
//! says so.

mod writer;

use std::fmt::Write as _;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::log::one_line;
use super::metrics::JournalMetrics;
use crate::config::JournalTarget as Target;
use writer::JournalWriter;

/// The most lines that wait to be written.
const QUEUE_MAX: usize = 4096;

/// Time that waiting lines have to be written at the end of the process.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(2);

/// A log of lines; clones write to the same one.
#[derive(Clone)]
pub(crate) struct Journal(Arc<WriterHandle>);

/// Handle of the thread that writes the log.
struct WriterHandle {
    queue: SyncSender<Message>,
    losses: Arc<Losses>,
    /// Tells that the writer has ended; only [`Journal::stop`] takes it.
    ended: Mutex<Receiver<()>>,
}

/// Lines that are lost, counted by whoever loses them and told by the writer.
struct Losses {
    metrics: JournalMetrics,
    dropped: AtomicU64,
}

enum Message {
    Line(String),
    Reopen,
    Stop,
}

impl Journal {
    /// Opens the log that this variable asks for, and starts its thread. `summary` is asked once a
    /// second for lines about what was left out on purpose.
    pub(crate) fn start(
        variable: &'static str,
        target: Target,
        metrics: JournalMetrics,
        summary: impl FnMut() -> Vec<String> + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, lines) = sync_channel(QUEUE_MAX);
        let (ends, ended) = sync_channel(1);
        let losses = Arc::new(Losses {
            metrics,
            dropped: AtomicU64::new(0),
        });
        let writer = JournalWriter::open(variable, target, losses.clone(), summary)?;
        let thread = thread::Builder::new().name("forebay-journal".into());
        thread.spawn(move || {
            writer.run(&lines);
            // Nobody waits where the process does not end.
            let _ = ends.send(());
        })?;
        Ok(Self(Arc::new(WriterHandle {
            queue,
            losses,
            ended: ended.into(),
        })))
    }

    /// Writes the line down, unless too many wait.
    pub(crate) fn write(&self, line: String) {
        if self.0.queue.try_send(Message::Line(line)).is_err() {
            self.0.losses.drop_one();
        }
    }

    /// Has the file opened anew: it may have been moved away.
    pub(crate) fn reopen(&self) {
        // A full queue is being written: the writer looks at the file by itself.
        let _ = self.0.queue.try_send(Message::Reopen);
    }

    /// Writes what waits, within a bound, and nothing more.
    pub(crate) fn stop(&self) {
        if self.0.queue.try_send(Message::Stop).is_ok()
            && let Ok(ended) = self.0.ended.lock()
        {
            let _ = ended.recv_timeout(LAST_LINES_TIMEOUT);
        }
    }
}

impl Losses {
    fn drop_one(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.metrics.dropped();
    }
}

/// The fields of a line, each with a comma before it.
#[derive(Default)]
pub(crate) struct Fields(pub String);

impl Fields {
    pub(crate) fn raw(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        // Writing to memory does not fail.
        let _ = write!(self.0, ",\"{name}\":{value}");
        self
    }

    pub(crate) fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.raw(name, serde_json::Value::from(value))
    }

    /// Names the client: address, protocol, and the device where its certificate names one.
    pub(crate) fn of(
        &mut self,
        address: IpAddr,
        protocol: &str,
        device: Option<&str>,
    ) -> &mut Self {
        self.text("address", &address.to_canonical().to_string())
            .text("protocol", protocol)
            .optional("device", device)
    }

    pub(crate) fn optional(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// Bytes, as hex.
    pub(crate) fn hex(&mut self, name: &str, bytes: Option<&[u8]>) -> &mut Self {
        let Some(bytes) = bytes else { return self };
        let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
        self.text(name, &digits.collect::<String>())
    }
}

/// Writes one line: the time in RFC 3339, the event, its fields.
pub(crate) fn line(now: jiff::Timestamp, event: &str, fields: &Fields) -> String {
    let Fields(fields) = fields;
    let line = format!("{{\"at\":\"{now:.3}\",\"event\":\"{event}\"{fields}}}\n");
    one_line(&line).into_owned()
}

/// The line that says that so many were left out; none where there are none.
pub(crate) fn omitted(why: &str, kind: Option<&str>, count: u64) -> Option<String> {
    if count == 0 {
        return None;
    }
    let mut fields = Fields::default();
    fields
        .optional("kind", kind)
        .text("why", why)
        .raw("count", count);
    Some(line(jiff::Timestamp::now(), "omitted", &fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer whose queue nobody reads goes on at once, and counts the lines that it drops.
    #[test]
    fn a_full_queue_drops_and_never_waits() {
        let (queue, _lines) = sync_channel(1);
        let (_ends, ended) = sync_channel(1);
        let losses = Arc::new(Losses {
            metrics: JournalMetrics::unseen(),
            dropped: AtomicU64::new(0),
        });
        let journal = Journal(Arc::new(WriterHandle {
            queue,
            losses: losses.clone(),
            ended: ended.into(),
        }));
        (0..3).for_each(|_| journal.write("{}\n".into()));
        journal.stop();
        assert_eq!(losses.dropped.load(Ordering::Relaxed), 2);
    }
}
