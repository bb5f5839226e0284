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
use crate::payload::{RunId, Template};
use crate::process;
use crate::protocol::Protocol;
use crate::random::Random;
use crate::target::{Target, Tls};

/// UDP sockets of the thread.
const SOCKETS: usize = 4;

/// Connections that are made at the same time.
const CONNECTING_MAX: usize = 64;

/// Before the memory of idle connections is read: handshakes leave garbage.
const SETTLING: Duration = Duration::from_secs(2);

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

pub fn run(options: Burn) -> Result<()> {
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
    fields
        .into_iter()
        .map(|(name, value)| format!("{name:<28}{value}\n"))
        .collect()
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
        let target = Target::parse(&server.url, server.stream.as_deref(), server.method.clone())?;
        let authority = Authority::read(&server.ca_cert, &server.ca_key)?;
        let devices: Vec<u32> = (0..options.idle.unwrap_or(options.connections)).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            dialer: Dialer::new(
                Arc::new(target),
                server.timeout,
                &Sources {
                    addresses: 0,
                    sockets: SOCKETS,
                },
            )?,
            tls: Tls::new(server.server_ca())?,
            certificates: authority.fleet(&devices, threads)?,
            body: Template::new(RunId(0), server.payload_bytes)?.render(0, 0, &mut Random::new(1)),
            left: Cell::new(options.requests.unwrap_or(u64::MAX)),
            done: Cell::new(0),
            failed: Cell::new(0),
            options,
        })
    }

    fn tls(&self, device: u32, resume: bool) -> Result<Arc<rustls::ClientConfig>> {
        self.tls.device(
            self.options.protocol,
            &self.certificates[device as usize],
            resume,
        )
    }

    async fn connect(&self, tls: &Arc<rustls::ClientConfig>, device: u32) -> Result<Connection> {
        self.dialer
            .connect(self.options.protocol, tls, device)
            .await
    }

    /// One request that must be answered as expected.
    async fn send(&self, connection: &mut Connection) -> Result<()> {
        let server = &self.options.server;
        let answer = timeout(server.timeout, connection.send(self.body.clone(), None)).await;
        let status = answer.map_err(|_| anyhow!("no answer within {:?}", server.timeout))??;
        ensure!(
            status == server.expect,
            "status {status} in place of {}",
            server.expect
        );
        Ok(())
    }

    /// All connections, in the order of their devices; each is made whole, and has carried a
    /// request.
    async fn connect_all(self: &Rc<Self>) -> Result<Vec<Connection>> {
        let mut connections = Vec::new();
        let mut connecting = JoinSet::new();
        for device in 0..self.certificates.len() as u32 {
            if connecting.len() >= CONNECTING_MAX {
                connections.extend(joined(connecting.join_next().await)?);
            }
            let bench = self.clone();
            connecting.spawn_local(async move {
                let mut connection = bench.connect(&bench.tls(device, false)?, device).await?;
                bench.send(&mut connection).await.map(|()| connection)
            });
        }
        while let Some(connection) = joined(connecting.join_next().await)? {
            connections.push(connection);
        }
        Ok(connections)
    }

    /// Whether another request is to be sent.
    fn take(&self, end: Instant) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0 && Instant::now() < end
    }

    fn count(&self, result: Result<()>) {
        let counter = if result.is_ok() {
            &self.done
        } else {
            &self.failed
        };
        counter.set(counter.get() + 1);
        if let Err(error) = result
            && self.failed.get() == 1
        {
            eprintln!("loadtest: {error:#}");
        }
    }
}

fn joined<T>(joined: Option<Result<Result<T>, tokio::task::JoinError>>) -> Result<Option<T>> {
    joined.map(|result| result?).transpose()
}

/// Requests on connections that stay.
async fn stream(bench: &Rc<Bench>) -> Result<Value> {
    let connections = bench.connect_all().await?;
    let meter = Meter::start(bench);
    let end = Instant::now() + bench.options.duration;
    let streams = if bench.options.protocol == Protocol::H1 {
        1
    } else {
        bench.options.streams
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

/// Ends with its connection.
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

/// A connection for each request.
async fn reconnect(bench: &Rc<Bench>, how: Reconnect) -> Result<Value> {
    let resume = how == Reconnect::Resumed;
    let configs: Vec<_> = (0..bench.options.connections)
        .map(|device| bench.tls(device, resume))
        .collect::<Result<_>>()?;
    for (device, tls) in configs.iter().enumerate() {
        // The first connection brings the ticket.
        let mut connection = bench.connect(tls, device as u32).await?;
        bench.send(&mut connection).await?;
    }
    let meter = Meter::start(bench);
    let end = Instant::now() + bench.options.duration;
    let mut loops = JoinSet::new();
    for (device, tls) in configs.into_iter().enumerate() {
        let bench = bench.clone();
        loops.spawn_local(async move {
            while bench.take(end) {
                let once = async {
                    let mut connection = bench.connect(&tls, device as u32).await?;
                    bench.send(&mut connection).await
                };
                let result = once.await;
                bench.count(result);
            }
        });
    }
    while loops.join_next().await.is_some() {}
    Ok(meter.stop(bench))
}

/// Connections that have carried one request each, and what they cost the server in memory.
async fn idle(bench: &Rc<Bench>) -> Result<Value> {
    let pid = bench.options.server.pid.context("--idle needs --pid")?;
    let pss = || {
        process::tree_pss_bytes(pid)
            .with_context(|| format!("the memory of process {pid} cannot be read"))
    };
    // A server's first connection brings things into memory that stay.
    let mut first = bench.connect(&bench.tls(0, false)?, 0).await?;
    bench.send(&mut first).await?;
    let before = pss()?;
    let connections = bench.connect_all().await?;
    tokio::time::sleep(SETTLING).await;
    let after = pss()?;
    let open = connections
        .iter()
        .filter(|connection| connection.is_open())
        .count();
    Ok(json!({
        "connections": connections.len(), "connections_open": open, "server_pss_before_bytes": before,
        "server_pss_after_bytes": after,
        "server_bytes_per_connection": after.saturating_sub(before) / (connections.len() as u64).max(1),
    }))
}

/// The clocks between start and end of a loop.
struct Meter {
    began: Instant,
    server: Option<f64>,
    own: Option<f64>,
}

impl Meter {
    fn start(bench: &Bench) -> Self {
        let server = bench.options.server.pid.and_then(process::tree_cpu_seconds);
        Self {
            began: Instant::now(),
            server,
            own: process::tree_cpu_seconds(std::process::id()),
        }
    }

    fn stop(self, bench: &Bench) -> Value {
        let seconds = self.began.elapsed().as_secs_f64();
        let server = bench.options.server.pid.and_then(process::tree_cpu_seconds);
        let own = process::tree_cpu_seconds(std::process::id());
        let used = |before: Option<f64>, after: Option<f64>| {
            before.zip(after).map(|(before, after)| after - before)
        };
        let done = bench.done.get();
        let micros = |cpu: f64| cpu * 1e6 / done.max(1) as f64;
        let (server, own) = (used(self.server, server), used(self.own, own));
        json!({
            "requests": done, "failed": bench.failed.get(), "seconds": seconds, "requests_per_second": done as f64 / seconds,
            "server_cores": server.map(|cpu| cpu / seconds), "server_cpu_us_per_request": server.map(micros),
            "generator_cores": own.map(|cpu| cpu / seconds), "generator_cpu_us_per_request": own.map(micros),
        })
    }
}
