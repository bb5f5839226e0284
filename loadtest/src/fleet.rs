//! The conductor: starts worker processes, lets them begin together, gathers what they count,
//! watches server and generator, runs hooks, and makes the report.
//!
//! One thread waits for messages; each worker has one that reads its stdout. Setup (certificates,
//! connections) comes before the run and is reported apart. Bounds: messages wait in a queue of
//! fixed length; setup has `SETUP_MAX`; workers that have not ended well after the run are killed,
//! and the verdict says so.

mod crew;
mod device;
mod gather;
mod hooks;
mod observer;
mod results;
mod verdict;
pub(crate) mod worker;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Fleet;
use crate::payload::{RunId, Template};
use crate::random::Random;
use crate::report::{self, Report};
use crew::Line;
use gather::Gathered;
use hooks::Hooks;
use observer::Observer;

/// The most that certificates and connections may take; 100,000 take less than a minute.
const SETUP_MAX: Duration = Duration::from_secs(1800);

/// The time from the last worker that is ready to the first sending.
const LEAD: Duration = Duration::from_millis(500);

/// The time that workers have to end, once the last answer must have come.
const GRACE: Duration = Duration::from_secs(10);

/// Time between two looks at hooks and counters.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Messages that wait for the conductor.
const MESSAGES_MAX: usize = 4096;

/// A message of a worker.
enum Message {
    Line(Line),
    /// The worker's stdout has ended, or holds what is no line.
    End,
}

/// Runs a fleet and returns whether the figures are fit to be trusted.
pub(crate) fn run(options: Fleet) -> Result<bool> {
    options.check()?;
    let run = options.run.unwrap_or_else(new_run);
    if let Some(worker) = options.worker {
        return worker::run(options, worker, run).map(|()| true);
    }
    Template::new(run, options.server.payload_bytes)?;
    if let Some(path) = &options.ledger {
        crate::ledger::create(path, run)?;
    }
    if let Some(path) = &options.visits {
        crate::visits::create(path)?;
    }
    let report = conduct(&options, run)?;
    report::write(&report, options.report.as_deref(), options.html.as_deref())?;
    print!("{}", report::text::summary(&report));
    Ok(report.verdict.fit)
}

fn new_run() -> RunId {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanos = since_epoch.map_or(0, |time| time.as_nanos() as u64);
    let seed = nanos ^ u64::from(std::process::id());
    RunId(Random::new(seed).next() as u32)
}

fn conduct(options: &Fleet, run: RunId) -> Result<Report> {
    let (sender, messages) = sync_channel(MESSAGES_MAX);
    let mut workers = Workers::start(options, run, &sender)?;
    drop(sender);
    let bar = ProgressBar::no_length();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}")?);
    let gathered = set_up(options, &messages, &bar)?;
    let mut running = Running {
        options,
        start: workers.begin(options.settle)?,
        hooks: Hooks::new(options.hooks.clone()),
        observer: Observer::new(options.server.pid, workers.ids()),
        workers,
        messages,
        gathered,
        bar,
    };
    running.gather()?;
    Ok(running.end(run))
}

/// Waits until the threads of all workers have connected their devices.
fn set_up(options: &Fleet, messages: &Receiver<Message>, bar: &ProgressBar) -> Result<Gathered> {
    bar.set_message(format!(
        "{} certificates, then connections at {}/s",
        options.devices, options.connect_rate
    ));
    bar.enable_steady_tick(Duration::from_millis(100));
    let began = Instant::now();
    let mut gathered = Gathered::new(options.slots());
    let mut ready = 0;
    while ready < options.slots() {
        ensure!(
            began.elapsed() < SETUP_MAX,
            "the fleet was not ready within {SETUP_MAX:?}"
        );
        match messages.recv_timeout(Duration::from_secs(1)) {
            Ok(Message::Line(Line::Ready)) => ready += 1,
            Ok(Message::Line(Line::Certificates { count, seconds })) => {
                gathered.take_certificates(count, seconds);
            }
            Ok(Message::Line(Line::Counted(snapshot))) => gathered.take(*snapshot),
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => {
                bail!("a worker ended before the run")
            }
        }
    }
    bar.disable_steady_tick();
    gathered.setup_seconds = began.elapsed().as_secs_f64();
    Ok(gathered)
}

/// A run that is under way.
struct Running<'a> {
    options: &'a Fleet,
    start: Instant,
    hooks: Hooks,
    observer: Observer,
    workers: Workers,
    messages: Receiver<Message>,
    gathered: Gathered,
    bar: ProgressBar,
}

impl Running<'_> {
    /// Takes what the workers say, until all of them have ended or the deadline has come.
    fn gather(&mut self) -> Result<()> {
        let deadline = self.deadline();
        let mut open = self.options.processes;
        while open > 0 {
            if Instant::now() > deadline {
                let fault = "a worker did not end in time and was killed";
                self.gathered.faults.push(fault.into());
                self.workers.kill();
                return Ok(());
            }
            self.look();
            match self.messages.recv_timeout(LOOK_INTERVAL) {
                Ok(Message::Line(Line::Counted(snapshot))) => self.gathered.take(*snapshot),
                Ok(Message::Line(line)) => bail!("a worker said {line:?} in the run"),
                Ok(Message::End) => open -= 1,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
        Ok(())
    }

    fn deadline(&self) -> Instant {
        let last_answer = self.options.duration + 2 * self.options.server.timeout;
        self.start + last_answer + GRACE
    }

    /// Runs the hooks that are due and, once a second, reads the counters.
    fn look(&mut self) {
        let Some(running) = Instant::now().checked_duration_since(self.start) else {
            return;
        };
        self.hooks.run_due(running);
        let duration = self.options.duration;
        if self.observer.observe(running, duration) {
            self.bar.set_message(self.gathered.line(running, duration));
            self.bar.tick();
        }
    }

    fn end(mut self, run: RunId) -> Report {
        self.bar.finish_and_clear();
        self.gathered.faults.extend(self.workers.end());
        self.gathered.finish();
        let events = self.hooks.end();
        results::of(self.options, run, self.gathered, &self.observer, events)
    }
}

/// Starts this program with the same arguments, and the number of the worker.
fn spawn_worker(number: u32, run: RunId) -> Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1));
    command.args(["--worker", &number.to_string()]);
    command.args(["--run", &run.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// Hands on what a worker says, until it has no more to say.
fn forward(stdout: ChildStdout, messages: &SyncSender<Message>) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        let Ok(line) = serde_json::from_str(&line) else {
            break;
        };
        if messages.send(Message::Line(line)).is_err() {
            return;
        }
    }
    // If nobody listens any more, the run is over.
    let _ = messages.send(Message::End);
}

/// The worker processes; killed when dropped.
struct Workers(Vec<Child>);

impl Workers {
    fn start(options: &Fleet, run: RunId, messages: &SyncSender<Message>) -> Result<Self> {
        let mut workers = Self(Vec::new());
        for number in 0..options.processes {
            let mut child = spawn_worker(number, run)?;
            let stdout = child.stdout.take().expect("it is piped");
            workers.0.push(child);
            let messages = messages.clone();
            std::thread::spawn(move || forward(stdout, &messages));
        }
        Ok(workers)
    }

    fn ids(&self) -> Vec<u32> {
        self.0.iter().map(Child::id).collect()
    }

    /// Tells all workers when to begin: `settle` from now.
    fn begin(&mut self, settle: Duration) -> Result<Instant> {
        let start = SystemTime::now() + LEAD + settle;
        let instant = Instant::now() + LEAD + settle;
        for worker in &mut self.0 {
            let stdin = worker.stdin.as_mut().expect("it is piped");
            writeln!(stdin, "{}", start.duration_since(UNIX_EPOCH)?.as_nanos())?;
        }
        Ok(instant)
    }

    fn kill(&mut self) {
        for worker in &mut self.0 {
            // Gone already where all went well.
            let _ = worker.kill();
        }
    }

    /// Waits for the workers, whose output has ended, and tells what went wrong.
    fn end(mut self) -> Vec<String> {
        let ended = |worker: &mut Child| match worker.wait() {
            Ok(status) if status.success() => None,
            Ok(status) => Some(format!("a worker ended with {status}")),
            Err(error) => Some(format!("a worker was lost: {error}")),
        };
        self.0.iter_mut().filter_map(ended).collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.kill();
        for worker in &mut self.0 {
            let _ = worker.wait();
        }
    }
}
