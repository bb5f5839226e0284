//! A worker process: threads, each with its part of the fleet, one single-threaded runtime and its
//! own sockets.
//!
//! The conductor starts it and reads its stdout, a [`Line`] as JSON each: certificates once they
//! are made, counts once a second, that a thread is ready, and the end of the stream. On stdin
//! comes the start of the run, in nanoseconds since the Unix epoch; where stdin ends before that,
//! so does the worker.

use std::cell::{Cell, RefCell};
use std::io::{BufRead, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::crew::{Crew, Line};
use super::device::Device;
use crate::certificates::{Authority, DeviceCertificate};
use crate::cli::Fleet;
use crate::client::{Dialer, Sources};
use crate::ledger::Writer;
use crate::payload::{RunId, Template};
use crate::random::Random;
use crate::scenario::{self, Plan};
use crate::target::{Target, Tls};
use crate::visits;

/// Lines on their way to stdout.
const LINES_MAX: usize = 1024;

/// The parts that all threads of the process share.
struct Process {
    options: Arc<Fleet>,
    authority: Arc<Authority>,
    tls: Arc<Tls>,
    target: Arc<Target>,
    template: Template,
    start: watch::Receiver<Option<Instant>>,
    lines: SyncSender<Line>,
}

/// The part of the fleet that a thread has: every device whose number is `slot` modulo `slots`.
struct Part {
    devices: Vec<u32>,
    certificates: Vec<DeviceCertificate>,
}

pub(crate) fn run(options: Fleet, worker: u32, run: RunId) -> Result<()> {
    let (start_sender, start) = watch::channel(None);
    let (lines, printed) = sync_channel(LINES_MAX);
    let process = Arc::new(Process::new(options, run, start, lines)?);
    let parts = process.parts(worker)?;
    let printer = thread::spawn(move || print(&printed));
    thread::spawn(move || wait_for_start(&start_sender));
    let mut threads = Vec::new();
    for part in parts {
        let process = process.clone();
        let thread = thread::Builder::new().name("devices".into());
        threads.push(thread.spawn(move || run_part(&process, part))?);
    }
    // The printer ends with the last of those who print.
    drop(process);
    for thread in threads {
        joined(thread, "a thread panicked")?;
    }
    joined(printer, "the printer panicked")
}

fn joined(thread: JoinHandle<Result<()>>, panicked: &'static str) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(anyhow!(panicked)))
}

impl Process {
    fn new(
        options: Fleet,
        run: RunId,
        start: watch::Receiver<Option<Instant>>,
        lines: SyncSender<Line>,
    ) -> Result<Self> {
        let server = &options.server;
        let authority = Authority::read(&server.ca_cert, &server.ca_key)?;
        Ok(Self {
            authority: Arc::new(authority),
            tls: Arc::new(Tls::new(server.server_ca())?),
            target: Arc::new(Target::of(server)?),
            template: Template::new(run, server.payload_bytes)?,
            options: Arc::new(options),
            start,
            lines,
        })
    }

    /// The parts of the worker's threads, with their certificates.
    fn parts(&self, worker: u32) -> Result<Vec<Part>> {
        let began = std::time::Instant::now();
        let first_slot = worker * self.options.threads;
        let mut made = 0;
        let mut parts = Vec::new();
        for slot in first_slot..first_slot + self.options.threads {
            let part = self.part(slot)?;
            made += part.certificates.len() as u64;
            parts.push(part);
        }
        self.lines.send(Line::Certificates {
            count: made,
            seconds: began.elapsed().as_secs_f64(),
        })?;
        Ok(parts)
    }

    fn part(&self, slot: u32) -> Result<Part> {
        let options = &self.options;
        assert!(slot < options.slots(), "the conductor starts no more");
        let devices = (slot..options.devices).step_by(options.slots() as usize);
        let devices: Vec<u32> = devices.collect();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.div_ceil(options.processes as usize);
        Ok(Part {
            certificates: self.authority.fleet(&devices, threads)?,
            devices,
        })
    }

    /// Hands the conductor what a crew has counted.
    fn count(&self, crew: &Crew, second: Option<u32>) -> Result<()> {
        let snapshot = crew.snapshot(second);
        self.lines.send(Line::Counted(Box::new(snapshot)))?;
        Ok(())
    }

    /// Makes the parts that the devices of one thread share.
    fn crew(&self) -> Result<Crew> {
        let options = &self.options;
        let sources = Sources {
            addresses: options.source_addresses,
            sockets: options.sockets.into(),
        };
        let ledger = options.ledger.as_deref().map(Writer::open).transpose()?;
        let visits = options.visits.as_deref();
        let visits = visits.map(visits::Writer::open).transpose()?;
        let dialer = Dialer::new(self.target.clone(), options.server.timeout, &sources)?;
        let handshakes_max = options.handshakes_max.div_ceil(options.slots());
        Ok(Crew {
            options: options.clone(),
            authority: self.authority.clone(),
            tls: self.tls.clone(),
            dialer,
            template: self.template,
            handshakes: Semaphore::new(handshakes_max as usize),
            open: Cell::new(0),
            start: self.start.clone(),
            tallies: RefCell::default(),
            protocols: RefCell::default(),
            ledger: ledger.map(RefCell::new),
            visits,
            complaints: RefCell::default(),
        })
    }
}

fn print(lines: &Receiver<Line>) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{}", serde_json::to_string(&line)?)?;
    }
    Ok(())
}

/// Tells the devices when to begin, once the conductor has said it. The clock is the same; only its
/// name differs.
fn wait_for_start(start: &watch::Sender<Option<Instant>>) {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let nanos: Option<u64> = read.ok().and_then(|_| line.trim().parse().ok());
    let Some(nanos) = nanos else {
        #[expect(
            clippy::disallowed_methods,
            reason = "nobody is left to give a result to"
        )]
        std::process::exit(1)
    };
    let at = UNIX_EPOCH + Duration::from_nanos(nanos);
    start.send_replace(Some(instant_of(at)));
}

fn instant_of(at: SystemTime) -> Instant {
    let (now, instant) = (SystemTime::now(), Instant::now());
    match at.duration_since(now) {
        Ok(ahead) => instant + ahead,
        Err(behind) => instant - behind.duration(),
    }
}

fn run_part(process: &Process, part: Part) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(play(process, part)))
}

async fn play(process: &Process, part: Part) -> Result<()> {
    let crew = Rc::new(process.crew()?);
    let (devices_ready, mut ready) = watch::channel(0_usize);
    let count = part.devices.len();
    check_server(&crew, &part).await?;
    let devices = spawn_devices(&crew, part, devices_ready);
    // It ends early where all devices have panicked; then there is nothing to wait for.
    let _ = ready.wait_for(|ready| *ready == count).await;
    process.count(&crew, None)?;
    process.lines.send(Line::Ready)?;
    let start = crew.wait_for_start().await;
    count_each_second(process, &crew, devices, start).await?;
    if let Some(ledger) = &crew.ledger {
        ledger.borrow_mut().flush().context("the ledger")?;
    }
    process.count(&crew, Some(start.elapsed().as_secs() as u32))
}

/// Hands over the counts of each second, until all devices have ended.
async fn count_each_second(
    process: &Process,
    crew: &Crew,
    mut devices: JoinSet<()>,
    start: Instant,
) -> Result<()> {
    const SECOND: Duration = Duration::from_secs(1);
    let mut seconds = interval_at(start + SECOND, SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !devices.is_empty() {
        tokio::select! {
            biased;
            at = seconds.tick() => {
                let second = (at - start).as_secs() as u32 - 1;
                process.count(crew, Some(second))?;
            }
            _ = devices.join_next() => {}
        }
    }
    Ok(())
}

/// Connects once: a server that is not there is better known before a hundred thousand devices look
/// for it.
async fn check_server(crew: &Crew, part: &Part) -> Result<()> {
    let (Some(device), Some(certificate)) = (part.devices.first(), part.certificates.first())
    else {
        return Ok(());
    };
    let protocol = crew.options.protocol.of(*device);
    let tls = crew.tls.device(protocol, certificate, false)?;
    let connected = crew.dialer.connect(protocol, &tls, *device).await;
    let url = &crew.options.server.url;
    connected.with_context(|| format!("no connection to {url}"))?;
    Ok(())
}

fn spawn_devices(crew: &Rc<Crew>, part: Part, ready: watch::Sender<usize>) -> JoinSet<()> {
    assert_eq!(part.devices.len(), part.certificates.len(), "one each");
    let options = &crew.options;
    let now = Instant::now();
    let mut tasks = JoinSet::new();
    let ready = Rc::new(ready);
    let first = part.devices.first().copied();
    for (number, certificate) in part.devices.into_iter().zip(part.certificates) {
        let mut device = Device::new(number, plan(options, number), certificate, crew.clone());
        if first == Some(number) {
            // It has looked whether the server is there.
            device.visits.tried();
        }
        let turn = Duration::from_secs_f64(f64::from(number) / options.connect_rate);
        tasks.spawn_local(device.live(now + turn, ready.clone()));
    }
    tasks
}

fn plan(options: &Fleet, number: u32) -> Plan {
    let mut random = Random::of(!options.seed, number);
    let run = scenario::Run {
        interval: options.interval(),
        duration: options.duration,
    };
    let share = f64::from(number) / f64::from(options.devices);
    options.scenario.plan(number, share, run, &mut random)
}
