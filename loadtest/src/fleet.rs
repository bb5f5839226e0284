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
pub mod worker;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::Fleet;
use crate::payload::{RunId, Template};
use crate::report::{self, Report};
use crew::Line;
use gather::Gathered;
use hooks::Hooks;
use observer::Observer;

/// Certificates and connections; 100,000 of them take less than a minute.
const SETUP_MAX: Duration = Duration::from_secs(1800);

/// From the last worker that is ready to the first sending.
const LEAD: Duration = Duration::from_millis(500);

const MESSAGES_MAX: usize = 4096;

/// What a worker said.
enum Message {
    Line(Line),
    /// Its stdout has ended, or holds what is no line.
    End,
}

/// Runs a fleet and returns whether the figures are fit to be trusted.
pub fn run(options: Fleet) -> Result<bool> {
    options.check()?;
    let run = options.run.unwrap_or_else(new_run);
    if let Some(worker) = options.worker {
        return worker::run(options, worker, run).map(|()| true);
    }
    Template::new(run, options.server.payload_bytes)?;
    if let Some(path) = &options.ledger {
        crate::ledger::create(path, run)?;
    }
    let report = conduct(&options, run)?;
    if let Some(path) = &options.report {
        std::fs::write(path, serde_json::to_string_pretty(&report)?)
            .with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &options.html {
        std::fs::write(path, report::html::page(&report))
            .with_context(|| path.display().to_string())?;
    }
    print!("{}", report::text::summary(&report));
    Ok(report.verdict.fit)
}

fn new_run() -> RunId {
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_nanos() as u64);
    RunId(crate::random::Random::new(nanos ^ u64::from(std::process::id())).next() as u32)
}

fn conduct(options: &Fleet, run: RunId) -> Result<Report> {
    let progress =
        ProgressBar::no_length().with_style(ProgressStyle::with_template("{spinner} {msg}")?);
    let (sender, messages) = sync_channel(MESSAGES_MAX);
    let mut workers = Workers::start(options, run, &sender)?;
    drop(sender);
    let mut gathered = Gathered::new(options.slots());
    set_up(options, &messages, &mut gathered, &progress)?;
    let start = workers.begin(options.settle)?;
    let mut hooks = Hooks::new(options.hooks.clone());
    let mut observer = Observer::new(options.server.pid, workers.ids());
    let deadline = start + options.duration + 2 * options.server.timeout + Duration::from_secs(10);
    let mut open = options.processes;
    while open > 0 {
        let now = Instant::now();
        if now > deadline {
            gathered
                .faults
                .push("a worker did not end in time and was killed".into());
            workers.kill();
            break;
        }
        if let Some(running) = now.checked_duration_since(start) {
            hooks.run_due(running);
            if observer.observe(running, options.duration) {
                progress.set_message(gathered.line(running, options.duration));
                progress.tick();
            }
        }
        match messages.recv_timeout(Duration::from_millis(50)) {
            Ok(Message::Line(Line::Counted(snapshot))) => gathered.take(*snapshot),
            Ok(Message::Line(line)) => bail!("a worker said {line:?} in the run"),
            Ok(Message::End) => open -= 1,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    progress.finish_and_clear();
    gathered.faults.extend(workers.end());
    gathered.finish();
    Ok(results::of(options, run, gathered, &observer, hooks.end()))
}

/// Until every worker's threads have connected their devices.
fn set_up(
    options: &Fleet,
    messages: &Receiver<Message>,
    gathered: &mut Gathered,
    bar: &ProgressBar,
) -> Result<()> {
    bar.set_message(format!(
        "{} certificates, then connections at {}/s",
        options.devices, options.connect_rate
    ));
    bar.enable_steady_tick(Duration::from_millis(100));
    let began = Instant::now();
    let mut ready = 0;
    while ready < options.slots() {
        ensure!(
            began.elapsed() < SETUP_MAX,
            "the fleet was not ready within {SETUP_MAX:?}"
        );
        match messages.recv_timeout(Duration::from_secs(1)) {
            Ok(Message::Line(Line::Ready)) => ready += 1,
            Ok(Message::Line(Line::Certificates { count, seconds })) => {
                gathered.certificates += count;
                gathered.certificate_seconds = gathered.certificate_seconds.max(seconds);
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
    Ok(())
}

/// The worker processes; killed when dropped.
struct Workers(Vec<Child>);

impl Workers {
    /// The same program with the same arguments, and the number of the worker.
    fn start(options: &Fleet, run: RunId, messages: &SyncSender<Message>) -> Result<Self> {
        let mut workers = Self(Vec::new());
        for number in 0..options.processes {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(std::env::args_os().skip(1)).args([
                "--worker",
                &number.to_string(),
                "--run",
                &run.to_string(),
            ]);
            let mut child = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let stdout = child.stdout.take().context("piped")?;
            workers.0.push(child);
            let messages = messages.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let Ok(line) = serde_json::from_str(&line) else {
                        break;
                    };
                    if messages.send(Message::Line(line)).is_err() {
                        return;
                    }
                }
                let _ = messages.send(Message::End);
            });
        }
        Ok(workers)
    }

    fn ids(&self) -> Vec<u32> {
        self.0.iter().map(Child::id).collect()
    }

    /// Tells all of them when to begin: `settle` from now.
    fn begin(&mut self, settle: Duration) -> Result<Instant> {
        let start = SystemTime::now() + LEAD + settle;
        let instant = Instant::now() + LEAD + settle;
        for worker in &mut self.0 {
            let stdin = worker.stdin.as_mut().context("piped")?;
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

    /// Waits for them, whose output has ended; what went wrong.
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
