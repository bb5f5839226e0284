//! The thread that writes the lines.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{Losses, Message, Target, omitted};
use crate::durable::new_file;

/// Time between two looks at the file, which may have been moved away, and at the count of lines
/// that were left out.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Writes lines until it is told to stop.
pub(crate) struct JournalWriter<F> {
    /// The variable that names the target.
    variable: &'static str,
    target: Target,
    losses: Arc<Losses>,
    /// `None` while the file cannot be opened.
    output: Option<Output>,
    /// Whether it has been logged that lines cannot be written.
    is_failing: bool,
    summary: F,
}

enum Output {
    Stdout(io::Stdout),
    File(File),
}

impl Output {
    fn open(target: &Target) -> io::Result<Self> {
        match target {
            Target::Stdout => Ok(Self::Stdout(io::stdout())),
            // Addresses and names of devices are nobody else's business.
            Target::File(path) => {
                let file = new_file().append(true).create(true).open(path);
                file.map(Self::File)
            }
        }
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => {
                stdout.write_all(line.as_bytes())?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(line.as_bytes()),
        }
    }

    /// Whether this is still the file of this name.
    fn is_at(&self, path: &Path) -> bool {
        let Self::File(file) = self else { return true };
        let identity =
            |metadata: io::Result<Metadata>| metadata.map(|data| (data.dev(), data.ino())).ok();
        identity(file.metadata()) == identity(std::fs::metadata(path))
    }
}

impl<F: FnMut() -> Vec<String>> JournalWriter<F> {
    pub(crate) fn open(
        variable: &'static str,
        target: Target,
        losses: Arc<Losses>,
        summary: F,
    ) -> io::Result<Self> {
        let output = Some(Output::open(&target)?);
        Ok(Self {
            variable,
            target,
            losses,
            output,
            is_failing: false,
            summary,
        })
    }

    /// Writes until it is told to stop.
    pub(crate) fn run(mut self, lines: &Receiver<Message>) {
        let mut look_at = Instant::now() + LOOK_INTERVAL;
        loop {
            match lines.recv_timeout(look_at.saturating_duration_since(Instant::now())) {
                Ok(Message::Line(line)) => self.write(&line),
                Ok(Message::Reopen) => self.reopen(),
                Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return self.summarize(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if Instant::now() >= look_at {
                look_at = Instant::now() + LOOK_INTERVAL;
                self.look();
            }
        }
    }

    fn look(&mut self) {
        let is_moved = match (&self.target, &self.output) {
            (Target::File(path), Some(output)) => !output.is_at(path),
            (_, output) => output.is_none(),
        };
        if is_moved {
            self.reopen();
        }
        self.summarize();
    }

    fn reopen(&mut self) {
        self.output = match Output::open(&self.target) {
            Ok(output) => Some(output),
            Err(error) => {
                self.fail(&error);
                None
            }
        };
    }

    fn write(&mut self, line: &str) {
        if !self.writes(line) {
            self.losses.drop_one();
        }
    }

    /// Writes a line; whether it could.
    fn writes(&mut self, line: &str) -> bool {
        let Some(output) = &mut self.output else {
            return false;
        };
        let written = output.write(line);
        match &written {
            Ok(()) => self.is_failing = false,
            Err(error) => self.fail(error),
        }
        written.is_ok()
    }

    /// Says how many events have no line.
    fn summarize(&mut self) {
        for line in (self.summary)() {
            self.write(&line);
        }
        let dropped = self.losses.dropped.swap(0, Ordering::Relaxed);
        let line = omitted("dropped", None, dropped);
        // Saying it may fail too: no event is lost by that, and the next one says it.
        if line.is_some_and(|line| !self.writes(&line)) {
            self.losses.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    /// Logs an error once, until a line has been written again.
    fn fail(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(%error, "{}: lines cannot be written down", self.variable);
        }
    }
}
