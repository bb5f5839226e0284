//! A worker process: threads, each with its part of the fleet, one single-threaded runtime and its
//! own sockets.
//!
//! The conductor starts it and reads its stdout, a [`Line`] as JSON each: certificates once they
//! are made, counts once a second, that a thread is ready, and the end of the stream. On stdin
//! comes the start of the run, in nanoseconds since the Unix epoch; where stdin ends before that,
//! so does the worker.

use std::io::{BufRead, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
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
use crate::target::{Target, Tls};

/// Lines on their way to stdout.
const LINES_MAX: usize = 1024;

/// What all threads of the process share.
struct Shared {
    options: Arc<Fleet>,
    authority: Arc<Authority>,
    tls: Arc<Tls>,
    target: Arc<Target>,
    template: Template,
    start: watch::Receiver<Option<Instant>>,
    lines: SyncSender<Line>,
}

/// Which part of the fleet a thread has: every device whose number is `slot` modulo `slots`.
struct Part {
    devices: Vec<u32>,
    certificates: Vec<DeviceCertificate>,
}

pub fn run(options: Fleet, worker: u32, run: RunId) -> Result<()> {
    let server = &options.server;
    let authority = Authority::read(&server.ca_cert, &server.ca_key)?;
    let (start_sender, start) = watch::channel(None);
    let (lines, printed) = sync_channel(LINES_MAX);
    let shared = Arc::new(Shared {
        authority: Arc::new(authority),
        tls: Arc::new(Tls::new(server.server_ca())?),
        target: Arc::new(Target::parse(
            &server.url,
            server.stream.as_deref(),
            server.method.clone(),
        )?),
        template: Template::new(run, server.payload_bytes)?,
        options: Arc::new(options),
        start,
        lines,
    });
    let parts = parts(&shared, worker)?;
    let printer = std::thread::spawn(move || print(&printed));
    std::thread::spawn(move || wait_for_start(&start_sender));
    let threads: Vec<_> = parts
        .into_iter()
        .map(|part| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name("devices".into())
                .spawn(move || run_part(&shared, part))
        })
        .collect::<std::io::Result<_>>()?;
    drop(shared);
    for thread in threads {
        thread
            .join()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))?;
    }
    printer
        .join()
        .unwrap_or_else(|_| Err(anyhow::anyhow!("the printer panicked")))
}

fn parts(shared: &Shared, worker: u32) -> Result<Vec<Part>> {
    let options = &shared.options;
    let slots = (worker * options.threads)..((worker + 1) * options.threads);
    let began = std::time::Instant::now();
    let mut made = 0;
    let mut parts = Vec::new();
    for slot in slots {
        let devices: Vec<u32> = (slot..options.devices)
            .step_by(options.slots() as usize)
            .collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let certificates = shared
            .authority
            .fleet(&devices, cores.div_ceil(options.processes as usize))?;
        made += certificates.len() as u64;
        parts.push(Part {
            devices,
            certificates,
        });
    }
    shared.lines.send(Line::Certificates {
        count: made,
        seconds: began.elapsed().as_secs_f64(),
    })?;
    Ok(parts)
}

fn print(lines: &Receiver<Line>) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    for line in lines {
        writeln!(stdout, "{}", serde_json::to_string(&line)?)?;
    }
    Ok(())
}

/// The clock of the conductor and ours is the same; only its name differs.
fn wait_for_start(start: &watch::Sender<Option<Instant>>) {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    let nanos: Option<u64> = read.ok().and_then(|_| line.trim().parse().ok());
    let at = nanos.map(|nanos| UNIX_EPOCH + Duration::from_nanos(nanos));
    let Some(at) = at else {
        #[expect(
            clippy::disallowed_methods,
            reason = "nobody is left to give a result to"
        )]
        std::process::exit(1)
    };
    let now = (SystemTime::now(), Instant::now());
    let instant = match at.duration_since(now.0) {
        Ok(ahead) => now.1 + ahead,
        Err(behind) => now.1 - behind.duration(),
    };
    start.send_replace(Some(instant));
}

fn run_part(shared: &Arc<Shared>, part: Part) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(LocalSet::new().run_until(play(shared, part)))
}

async fn play(shared: &Shared, part: Part) -> Result<()> {
    let crew = Rc::new(crew(shared)?);
    let (devices_ready, mut ready) = watch::channel(0_usize);
    let count = part.devices.len();
    check_server(&crew, &part).await?;
    let mut devices = spawn_devices(&crew, part, devices_ready);
    let _ = ready.wait_for(|ready| *ready == count).await;
    shared
        .lines
        .send(Line::Counted(Box::new(crew.snapshot(None))))?;
    shared.lines.send(Line::Ready)?;
    let start = crew.wait_for_start().await;
    let mut seconds = interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !devices.is_empty() {
        tokio::select! {
            biased;
            at = seconds.tick() => {
                let second = (at - start).as_secs() as u32 - 1;
                shared.lines.send(Line::Counted(Box::new(crew.snapshot(Some(second)))))?;
            }
            _ = devices.join_next() => {}
        }
    }
    if let Some(ledger) = &crew.ledger {
        ledger.borrow_mut().flush().context("the ledger")?;
    }
    let second = start.elapsed().as_secs() as u32;
    shared
        .lines
        .send(Line::Counted(Box::new(crew.snapshot(Some(second)))))?;
    Ok(())
}

/// A server that is not there is better known before a hundred thousand devices look for it.
async fn check_server(crew: &Crew, part: &Part) -> Result<()> {
    let (Some(device), Some(certificate)) = (part.devices.first(), part.certificates.first())
    else {
        return Ok(());
    };
    let protocol = crew.options.protocol.of(*device);
    let tls = crew.tls.device(protocol, certificate, false)?;
    let connected = crew.dialer.connect(protocol, &tls, *device).await;
    connected
        .map(drop)
        .with_context(|| format!("no connection to {}", crew.options.server.url))
}

fn crew(shared: &Shared) -> Result<Crew> {
    let options = &shared.options;
    let sources = Sources {
        addresses: options.source_addresses,
        sockets: options.sockets.into(),
    };
    let ledger = options
        .ledger
        .as_ref()
        .map(|path| Writer::open(path))
        .transpose()?;
    Ok(Crew {
        options: options.clone(),
        authority: shared.authority.clone(),
        tls: shared.tls.clone(),
        dialer: Dialer::new(shared.target.clone(), options.server.timeout, &sources)?,
        template: shared.template,
        handshakes: Semaphore::new(options.handshakes_max.div_ceil(options.slots()) as usize),
        open: 0.into(),
        start: shared.start.clone(),
        tallies: Default::default(),
        ledger: ledger.map(Into::into),
        complaints: Default::default(),
    })
}

fn spawn_devices(crew: &Rc<Crew>, part: Part, ready: watch::Sender<usize>) -> JoinSet<()> {
    let options = &crew.options;
    let now = Instant::now();
    let mut tasks = JoinSet::new();
    let ready = Rc::new(ready);
    for (number, certificate) in part.devices.into_iter().zip(part.certificates) {
        let mut random = Random::of(!options.seed, number);
        let share = f64::from(number) / f64::from(options.devices);
        let plan = options.scenario.plan(
            number,
            share,
            options.interval(),
            options.duration,
            &mut random,
        );
        let device = Device::new(
            number,
            options.protocol.of(number),
            plan,
            certificate,
            crew.clone(),
        );
        let turn = now + Duration::from_secs_f64(f64::from(number) / options.connect_rate);
        tasks.spawn_local(device.live(turn, ready.clone()));
    }
    tasks
}
