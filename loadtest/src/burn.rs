//! A closed loop: each connection sends its next request when the last is answered, or makes a new
//! connection for each.
//!
//! For what only the server's CPU and memory tell: microseconds of CPU a request, a handshake,
//! bytes of an idle connection. Latencies of a closed loop hide stalls (a waiting client sends
//! nothing that could be late): none are told. One thread; every device is a connection with its
//! own certificate. The server's CPU is read when the loop begins and when it ends, connections are
//! made before that.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, timeout};

use crate::certificates::{Authority, DeviceCertificate};
use crate::cli::{Burn, Reconnect};
use crate::client::{Connection, Dialer, Sources};
use crate::envelope::Envelope;
use crate::payload::{RunId, Template};
use crate::process;
use crate::protocol::Protocol;
use crate::random::Random;
use crate::target::{Target, Tls};

/// UDP sockets of the thread.
const SOCKETS: usize = 4;

/// The most connections that are made at the same time.
const CONNECTING_MAX: usize = 64;

/// The pause before the memory of idle connections is read: handshakes leave garbage.
const SETTLING: Duration = Duration::from_secs(2);

/// A measurement that is under way.
struct Bench {
    options: Burn,
    dialer: Dialer,
    tls: Tls,
    certificates: Vec<DeviceCertificate>,
    body: Bytes,
    left: Cell<u64>,
    done: Cell<u64>,
    failed: Cell<u64>,
}

pub(crate) fn run(options: Burn) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let is_json = options.json;
    let result = runtime.block_on(LocalSet::new().run_until(measure(options)))?;
    if is_json {
        println!("{result}");
    } else {
        print!("{}", text(&result));
    }
    Ok(())
}

fn text(result: &Value) -> String {
    let fields: BTreeMap<_, _> = result.as_object().into_iter().flatten().collect();
    let mut text = String::new();
    for (name, value) in fields {
        text += &format!("{name:<28}{value}\n");
    }
    text
}

async fn measure(options: Burn) -> Result<Value> {
    let bench = Rc::new(Bench::new(options)?);
    match (bench.options.idle, bench.options.reconnect) {
        (Some(_), _) => idle(&bench).await,
        (None, Some(how)) => reconnect(&bench, how).await,
        (None, None) => stream(&bench).await,
    }
}

impl Bench {
    fn new(options: Burn) -> Result<Self> {
        let server = &options.server;
        let target = Arc::new(Target::of(server)?);
        let sources = Sources {
            addresses: 0,
            sockets: SOCKETS,
        };
        let template = Template::new(RunId(0), server.payload_bytes)?;
        Ok(Self {
            dialer: Dialer::new(target, server.timeout, &sources)?,
            tls: Tls::new(server.server_ca())?,
            certificates: certificates(&options)?,
            body: body(server.envelope(), template)?,
            left: Cell::new(options.requests.unwrap_or(u64::MAX)),
            done: Cell::new(0),
            failed: Cell::new(0),
            options,
        })
    }

    fn tls(&self, device: u32, resume: bool) -> Result<Arc<rustls::ClientConfig>> {
        let certificate = &self.certificates[device as usize];
        self.tls.device(self.options.protocol, certificate, resume)
    }

    async fn connect(&self, tls: &Arc<rustls::ClientConfig>, device: u32) -> Result<Connection> {
        let protocol = self.options.protocol;
        self.dialer.connect(protocol, tls, device).await
    }

    /// Sends one request, which must be answered as expected.
    async fn send(&self, connection: &mut Connection) -> Result<()> {
        let server = &self.options.server;
        let answer = timeout(server.timeout, connection.send(self.body.clone(), None)).await;
        let answer = answer.map_err(|_| anyhow!("no answer within {:?}", server.timeout))??;
        let status = answer.status;
        ensure!(
            status == server.expect,
            "status {status} in place of {}",
            server.expect
        );
        Ok(())
    }

    /// Makes a connection and sends one request on it.
    async fn open(&self, tls: &Arc<rustls::ClientConfig>, device: u32) -> Result<Connection> {
        let mut connection = self.connect(tls, device).await?;
        self.send(&mut connection).await?;
        Ok(connection)
    }

    /// Opens a connection for each device.
    async fn open_all(self: &Rc<Self>) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        let mut opening = JoinSet::new();
        for device in 0..self.certificates.len() as u32 {
            if opening.len() >= CONNECTING_MAX {
                connections.extend(joined(opening.join_next().await)?);
            }
            let bench = self.clone();
            opening
                .spawn_local(async move { bench.open(&bench.tls(device, false)?, device).await });
        }
        while let Some(connection) = joined(opening.join_next().await)? {
            connections.push(connection);
        }
        assert_eq!(connections.len(), self.certificates.len(), "one each");
        Ok(connections)
    }

    /// Whether another request is to be sent.
    fn take(&self, end: Instant) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0 && Instant::now() < end
    }

    /// Counts how a request ended; the first failure is told.
    fn count(&self, result: Result<()>) {
        let Err(error) = result else {
            return self.done.set(self.done.get() + 1);
        };
        self.failed.set(self.failed.get() + 1);
        if self.failed.get() == 1 {
            eprintln!("loadtest: {error:#}");
        }
    }
}

fn joined<T>(joined: Option<Result<Result<T>, tokio::task::JoinError>>) -> Result<Option<T>> {
    joined.map(|result| result?).transpose()
}

/// The certificates of all devices that the measurement needs.
fn certificates(options: &Burn) -> Result<Vec<DeviceCertificate>> {
    let server = &options.server;
    let authority = Authority::read(&server.ca_cert, &server.ca_key)?;
    let devices: Vec<u32> = (0..options.idle.unwrap_or(options.connections)).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    authority.fleet(&devices, threads)
}

/// Measures requests on connections that stay.
async fn stream(bench: &Rc<Bench>) -> Result<Value> {
    let connections = bench.open_all().await?;
    let meter = Meter::start(bench);
    let end = Instant::now() + bench.options.duration;
    let streams = match bench.options.protocol {
        Protocol::H1 => 1,
        _ => bench.options.streams,
    };
    let mut loops = JoinSet::new();
    for connection in connections {
        for _ in 1..streams {
            let shared = connection.share().context("requests at the same time")?;
            loops.spawn_local(send_until(bench.clone(), shared, end));
        }
        loops.spawn_local(send_until(bench.clone(), connection, end));
    }
    while loops.join_next().await.is_some() {}
    Ok(meter.stop(bench))
}

/// Sends one request after the other, until the end or until the connection is closed.
async fn send_until(bench: Rc<Bench>, mut connection: Connection, end: Instant) {
    while bench.take(end) {
        let result = bench.send(&mut connection).await;
        let is_over = result.is_err() && !connection.is_open();
        bench.count(result);
        if is_over {
            return;
        }
    }
}

/// Measures a connection for each request.
async fn reconnect(bench: &Rc<Bench>, how: Reconnect) -> Result<Value> {
    let mut configs = Vec::new();
    for device in 0..bench.options.connections {
        let tls = bench.tls(device, how == Reconnect::Resumed)?;
        // The first connection brings the ticket.
        bench.open(&tls, device).await?;
        configs.push((device, tls));
    }
    let meter = Meter::start(bench);
    let end = Instant::now() + bench.options.duration;
    let mut loops = JoinSet::new();
    for (device, tls) in configs {
        loops.spawn_local(open_until(bench.clone(), device, tls, end));
    }
    while loops.join_next().await.is_some() {}
    Ok(meter.stop(bench))
}

/// Opens one connection after the other.
async fn open_until(bench: Rc<Bench>, device: u32, tls: Arc<rustls::ClientConfig>, end: Instant) {
    while bench.take(end) {
        let opened = bench.open(&tls, device).await;
        bench.count(opened.map(drop));
    }
}

/// Measures what connections that have carried one request each cost the server in memory.
async fn idle(bench: &Rc<Bench>) -> Result<Value> {
    let pid = bench.options.server.pid.context("--idle needs --pid")?;
    // A server's first connection brings things into memory that stay.
    let _first = bench.open(&bench.tls(0, false)?, 0).await?;
    let before = pss_bytes(pid)?;
    let connections = bench.open_all().await?;
    tokio::time::sleep(SETTLING).await;
    let after = pss_bytes(pid)?;
    let open = connections.iter().filter(|one| one.is_open()).count();
    let count = connections.len() as u64;
    Ok(json!({
        "connections": count, "connections_open": open, "server_pss_before_bytes": before,
        "server_pss_after_bytes": after,
        "server_bytes_per_connection": after.saturating_sub(before) / count.max(1),
    }))
}

fn pss_bytes(pid: u32) -> Result<u64> {
    let bytes = process::tree_pss_bytes(pid);
    bytes.with_context(|| format!("the memory of process {pid} cannot be read"))
}

/// Readings of the clocks: the wall's, and the CPU time that the server and this process have used.
struct Meter {
    at: Instant,
    server: Option<f64>,
    own: Option<f64>,
}

impl Meter {
    fn start(bench: &Bench) -> Self {
        let server = bench.options.server.pid.and_then(process::tree_cpu_seconds);
        Self {
            at: Instant::now(),
            server,
            own: process::tree_cpu_seconds(std::process::id()),
        }
    }

    /// Returns the time used and the requests made since the start.
    fn stop(self, bench: &Bench) -> Value {
        let now = Self::start(bench);
        let seconds = (now.at - self.at).as_secs_f64();
        let server = used(self.server, now.server);
        let own = used(self.own, now.own);
        let done = bench.done.get();
        let micros = |cpu: f64| cpu * 1e6 / done.max(1) as f64;
        json!({
            "requests": done, "failed": bench.failed.get(), "seconds": seconds, "requests_per_second": done as f64 / seconds,
            "server_cores": server.map(|cpu| cpu / seconds), "server_cpu_us_per_request": server.map(micros),
            "generator_cores": own.map(|cpu| cpu / seconds), "generator_cpu_us_per_request": own.map(micros),
        })
    }
}

fn used(before: Option<f64>, after: Option<f64>) -> Option<f64> {
    Some(after? - before?)
}

/// The one body of all requests.
fn body(envelope: Envelope, template: Template) -> Result<Bytes> {
    let mut random = Random::new(1);
    let mut readings = Vec::new();
    for sequence in 0..envelope.count() {
        readings.push(template.render(0, sequence, &mut random));
    }
    envelope.wrap(&readings)
}
