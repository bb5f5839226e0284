//! The gateway as a process of its own, with its certificates and its file sink in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually};
use crate::pki::{Identity, Pki};

/// A gateway that has not been started: its variables.
pub struct Setup {
    dir: TempDir,
    pub pki: Arc<Pki>,
    variables: BTreeMap<String, String>,
    /// Words in front of the program's own, which end by running it.
    through: Vec<String>,
}

impl Setup {
    /// The defaults of the program, but for two workers and ports that are free. The sink is the file sink.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("forebay-e2e-")
            .tempdir()
            .expect("a folder");
        let pki = Arc::new(Pki::new(&dir.path().join("pki")));
        let path = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        let variables = [
            ("FOREBAY_LISTEN", "127.0.0.1:0".into()),
            ("FOREBAY_ADMIN_LISTEN", "127.0.0.1:0".into()),
            ("FOREBAY_WORKERS", "2".into()),
            ("FOREBAY_TLS_CERT", path(pki.server.cert.clone())),
            ("FOREBAY_TLS_KEY", path(pki.server.key.clone())),
            ("FOREBAY_TLS_CLIENT_CA", path(pki.ca())),
            ("FOREBAY_FILE_DIR", path(dir.path().join("data"))),
        ];
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        Self {
            dir,
            pki,
            variables,
            through: Vec::new(),
        }
    }

    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.insert(name.to_owned(), value.to_string());
        self
    }

    pub fn set_all(self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        variables
            .into_iter()
            .fold(self, |setup, (name, value)| setup.set(&name, value))
    }

    pub fn unset(mut self, name: &str) -> Self {
        self.variables.remove(name);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// With a spool in a folder of its own.
    pub fn with_spool(self, mode: &str) -> Self {
        let dir = self.path("spool");
        self.set("FOREBAY_SPOOL_DIR", dir.display())
            .set("FOREBAY_SPOOL_MODE", mode)
    }

    /// The process may have so many files open.
    pub fn open_files(self, files: usize) -> Self {
        self.after(&[], &format!("ulimit -n {files}"))
    }

    /// A shell, itself started by `shell`, does this first.
    pub fn after(mut self, shell: &[&str], this: &str) -> Self {
        let command = format!("{this} && exec \"$0\" \"$@\"");
        self.through = [shell, &["/bin/sh", "-c", &command]]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect();
        self
    }

    /// No limits: for what is not about them.
    pub fn without_limits(self) -> Self {
        self.set("FOREBAY_DEVICE_RATE", 0)
            .set("FOREBAY_DEVICE_BYTE_RATE", 0)
            .set("FOREBAY_ADDRESS_RATE", 0)
    }

    /// Runs a command that is expected to end by itself.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command()
            .args(arguments)
            .output()
            .expect("forebay runs")
    }

    /// The same for one that is expected to succeed; gives what it printed.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// A gateway that is ready.
    pub fn start(self) -> Gateway {
        let gateway = self.start_unready();
        gateway.wait_until_ready();
        gateway
    }

    /// A gateway that listens; whether it is ready is another matter.
    pub fn start_unready(self) -> Gateway {
        let mut process = self
            .command()
            .arg("serve")
            .stderr(Stdio::piped())
            .spawn()
            .expect("forebay starts");
        let (listening, listens) = sync_channel(1);
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = process.stderr.take().expect("piped");
        let kept = log.clone();
        std::thread::spawn(move || follow(stderr, &kept, &listening));
        let addresses = listens.recv_timeout(PATIENCE);
        let (address, admin) =
            addresses.unwrap_or_else(|_| panic!("it does not listen:\n{}", log.lock().unwrap()));
        Gateway {
            process,
            address,
            admin,
            pki: self.pki,
            dir: self.dir,
            variables: self.variables,
            log,
        }
    }

    /// Nothing of this process' environment gets in.
    fn command(&self) -> Command {
        // Measurements ask for a release build.
        let forebay = std::env::var("FOREBAY_BINARY")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_forebay").into());
        let words: Vec<&str> = self
            .through
            .iter()
            .map(String::as_str)
            .chain([&*forebay])
            .collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command
            .env_clear()
            .envs(&self.variables)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }
}

/// A gateway that runs; killed when dropped.
pub struct Gateway {
    process: Child,
    /// TCP and UDP.
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub pki: Arc<Pki>,
    dir: TempDir,
    variables: BTreeMap<String, String>,
    log: Arc<Mutex<String>>,
}

impl Gateway {
    /// Another one with the same variables, on the same port, where this one shares it. Its files stay this one's.
    pub fn beside(&self) -> Setup {
        let dir = tempfile::tempdir().expect("a folder");
        let setup = Setup {
            dir,
            pki: self.pki.clone(),
            variables: self.variables.clone(),
            through: Vec::new(),
        };
        setup.set("FOREBAY_LISTEN", self.address)
    }

    /// Kills the process, where it still runs, and gives back what it ran with: its folder, certificates, variables.
    pub fn kill(mut self) -> Setup {
        self.end();
        let empty = tempfile::tempdir().expect("a folder");
        let (dir, variables) = (
            std::mem::replace(&mut self.dir, empty),
            std::mem::take(&mut self.variables),
        );
        Setup {
            dir,
            pki: self.pki.clone(),
            variables,
            through: Vec::new(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// A good certificate with this id.
    pub fn device(&self, id: &str) -> Identity {
        self.pki.device(id)
    }

    pub fn wait_until_ready(&self) {
        eventually("a gateway that is ready", || self.is_ready());
    }

    pub fn is_ready(&self) -> bool {
        self.admin("/readyz").0 == 200
    }

    /// Status and body of an answer of the admin address.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).expect("the admin address accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        (status, body.to_owned())
    }

    /// The value of one series, as `/metrics` writes its name and labels; 0 where there is none.
    pub fn metric(&self, series: &str) -> f64 {
        let metrics = self.admin("/metrics").1;
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    /// Memory that it has resident, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS")
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: kill takes two integers; the process is our child and has not been waited for.
        let sent = unsafe { libc::kill(self.process.id() as i32, signal) };
        assert_eq!(sent, 0, "the gateway runs");
    }

    /// A size of the process in bytes, as `/proc` names it: `VmRSS`, `VmHWM`.
    pub fn memory(&self, name: &str) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .expect("a size");
        1024 * line
            .trim()
            .trim_end_matches(" kB")
            .parse::<u64>()
            .expect("a number")
    }

    /// Processor time that the process has used, in hundredths of a second (proc(5): utime and stime).
    pub fn processor_time(&self) -> u64 {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().expect("a number"))
            .sum()
    }

    pub fn terminate(&self) {
        self.signal(libc::SIGTERM);
    }

    /// Its exit code, once it has ended by itself.
    pub fn exit_code(&mut self) -> i32 {
        let mut status: Option<ExitStatus> = None;
        eventually("the gateway's end", || {
            status = self.process.try_wait().expect("its state");
            status.is_some()
        });
        status
            .and_then(|status| status.code())
            .expect("an exit code")
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    /// The records of a stream in the file sink, oldest first.
    pub fn files(&self, stream: &str) -> Vec<Line> {
        let line = |line| Line(serde_json::from_str(line).expect("one JSON object a line"));
        self.file_text(stream).lines().map(line).collect()
    }

    /// The files of a stream in the file sink, oldest first.
    pub fn file_text(&self, stream: &str) -> String {
        let folder = self.dir.path().join("data").join(stream);
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .expect("the folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        files
            .iter()
            .map(|file| fs::read_to_string(file).expect("UTF-8"))
            .collect()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the gateway's log:\n{}", self.log());
        }
        self.end();
        // One that the gateway survives, with the loss of a request or a connection, is a defect too.
        assert!(
            std::thread::panicking() || !self.log().contains("panicked at"),
            "{}",
            self.log()
        );
    }
}

/// A line of the file sink.
#[derive(Debug)]
pub struct Line(pub Value);

impl Line {
    pub fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_default()
    }

    /// The body, whichever way it was written. JSON is printed anew: its own text is the sink's test.
    pub fn payload(&self) -> Vec<u8> {
        match self.0["payload_base64"].as_str() {
            Some(base64) => BASE64.decode(base64).expect("base64"),
            None => self.0["payload"].to_string().into_bytes(),
        }
    }
}

/// Keeps the log, and tells the addresses once.
fn follow(
    stderr: ChildStderr,
    log: &Mutex<String>,
    listening: &SyncSender<(SocketAddr, SocketAddr)>,
) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["message"] == "listening" {
            let address = |field: &str| {
                event[field]
                    .as_str()
                    .and_then(|address| address.parse().ok())
            };
            let (listen, admin) = (address("listen"), address("admin"));
            // The waiter may have given up.
            let _ = listening.try_send((listen.expect("an address"), admin.expect("an address")));
        }
        let mut log = log.lock().expect("no panic");
        log.push_str(&line);
        log.push('\n');
    }
}
