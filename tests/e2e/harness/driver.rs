//! The Python clients: one process for the whole test binary, asked by lines of JSON (`tests/clients/driver.py`).
//!
//! It runs in the environment that `scripts/install-tools.sh` makes in `$TOOLS/venv` (`target/tools` unless set), and
//! ends when this process does: its standard input ends then.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::{Value, json};

use super::PATIENCE;
use crate::tools::tools;

type Waiting = Arc<Mutex<HashMap<u64, SyncSender<Value>>>>;

pub struct Driver {
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    ids: AtomicU64,
    /// Held, not waited for: it ends by itself.
    _process: Mutex<Child>,
}

/// A command that is under way.
pub struct Pending {
    pub id: u64,
    answer: Receiver<Value>,
}

impl Pending {
    /// The answer, or the error that the client met.
    pub fn wait(self) -> Result<Value, String> {
        let answer = self
            .answer
            .recv_timeout(PATIENCE)
            .expect("the driver answers");
        match answer["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(answer),
        }
    }
}

impl Driver {
    /// The one driver of this process.
    pub fn get() -> &'static Self {
        static DRIVER: OnceLock<Driver> = OnceLock::new();
        DRIVER.get_or_init(Self::start)
    }

    fn start() -> Self {
        let mut process = Command::new(tools().join("venv/bin/python"))
            .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/driver.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect(
                "`make tools` installs the Python clients in target/tools/venv, or $TOOLS/venv",
            );
        let (stdin, stdout) = (
            process.stdin.take().expect("piped"),
            process.stdout.take().expect("piped"),
        );
        let waiting = Waiting::default();
        let answered = waiting.clone();
        std::thread::spawn(move || pass_on(stdout, &answered));
        Self {
            stdin: Mutex::new(stdin),
            waiting,
            ids: AtomicU64::new(1),
            _process: Mutex::new(process),
        }
    }

    /// Begins a command; `fields` is an object.
    pub fn begin(&self, command: &str, fields: Value) -> Pending {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = sync_channel(1);
        self.waiting.lock().expect("no panic").insert(id, answered);
        let mut line = fields;
        line["do"] = json!(command);
        line["id"] = json!(id);
        writeln!(self.stdin.lock().expect("no panic"), "{line}").expect("the driver reads");
        Pending { id, answer }
    }

    /// Runs a command to its end.
    pub fn call(&self, command: &str, fields: Value) -> Result<Value, String> {
        self.begin(command, fields).wait()
    }
}

/// Gives each answer to whoever waits for it.
fn pass_on(stdout: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(stdout).lines() {
        let answer: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        let id = answer["id"].as_u64().expect("an id");
        if let Some(waits) = waiting.lock().expect("no panic").remove(&id) {
            // A waiter that has given up does not miss it.
            let _ = waits.send(answer);
        }
    }
}
