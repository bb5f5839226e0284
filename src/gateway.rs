//! The composition root: builds the gateway from sink to accept, and drains it from accept to sink.
//!
//! `cli` calls [`run`] with a configuration; it returns when the gateway has drained. One thread delivers, one thread a
//! core serves, and the calling thread answers the admin address and waits for signals.

mod alarm;
mod delivery;
mod front;
mod listen;
mod notify;
mod observers;
mod reload;
mod shutdown;
mod spool;
mod threads;
mod workers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::admission::Admission;
use crate::batcher::IN_FLIGHT_BATCHES_MAX;
use crate::config::{AckMode, Config, SinkConfig};
use crate::delivery::Health;
use crate::handover;
use crate::http::openapi;
use crate::identity::ServerCertificate;
use crate::ingest::{Authorities, Gate};
use crate::lifecycle::Phases;
use crate::limits::Limits;
use crate::telemetry::admin::{self, Status};
use crate::telemetry::observers::Observers;
use crate::tls::Reloader;
use front::Front;
use notify::Notifier;
use shutdown::Shutdown;
use threads::Threads;

/// Runs the gateway until it has drained. `on_bound` learns the address once the gateway listens, and would drain at a
/// signal. An error is a gateway that could not start; the exit code tells whether a record was left behind.
pub(crate) fn run(config: Config, on_bound: impl FnOnce(SocketAddr)) -> anyhow::Result<ExitCode> {
    warn_of_broken_promises(&config);
    let shutdown = Shutdown::new();
    let reloader = Reloader::start(config.tls.clone())?;
    let health = Arc::new(first_health(&config));
    let gate = gate(&config, health.clone(), shutdown.phases());
    let observers = observers::start(&config, &gate)?;
    let (to_delivery, batches) = handover::channel(in_flight_batches_max(&config));
    let status = status(health.clone(), &observers, shutdown.phases());
    let delivery = delivery::start(&config, batches, health, &observers, &shutdown)?;
    let listening = listen::bind(&config.listen)?;
    let admin = bind_admin(config.admin_listen)?;
    let port = listening.address.port();
    let blueprint = workers::blueprint(&config, &reloader, gate, port, shutdown.phases())?;
    let front = Front {
        listen: listening.address,
        places: listening.places,
        admin,
        status,
        watch: reload::Watch::new(&config.http, reloader, blueprint.routes.clone(), &observers),
        observers: observers.clone(),
        notifier: Notifier::from_environment(),
    };
    let workers = workers::start(
        blueprint,
        listening.sockets,
        &observers,
        to_delivery,
        &shutdown,
    )?;
    let threads = Threads { workers, delivery };
    let ended = front.serve(shutdown, threads, config.drain_timeout, on_bound);
    observers.stop(matches!(ended, Ok(ExitCode::SUCCESS)));
    ended
}

fn warn_of_broken_promises(config: &Config) {
    if config.ack.mode == AckMode::Queued {
        tracing::warn!(
            "FOREBAY_ACK=queued: a 204 does not mean safe; what is in memory is lost with the process"
        );
    }
    if matches!(config.sink, SinkConfig::Null) {
        tracing::warn!(
            "FOREBAY_SINK=null: every reading is thrown away; this sink is for benchmarks"
        );
    }
}

fn first_health(config: &Config) -> Health {
    let health = Health::new(&config.streams);
    match config.ack.mode {
        AckMode::Durable => health,
        AckMode::Queued => health.with_memory(),
    }
}

fn gate(config: &Config, health: Arc<Health>, phases: Phases) -> Gate {
    let admission = Admission::new(
        config.memory_bytes_max,
        config.http.body_bytes_max,
        health,
        phases,
    );
    Gate::new(Limits::new(&config.limits), admission)
}

/// Batches that are on their way to delivery, and in it, at most: each lane of each worker has as many as it may.
fn in_flight_batches_max(config: &Config) -> usize {
    config.listen.workers.get() * config.streams.len() * IN_FLIGHT_BATCHES_MAX
}

fn status(health: Arc<Health>, observers: &Observers, phases: Phases) -> Arc<Status> {
    Arc::new(Status {
        health,
        phases,
        openapi: openapi::document,
        metrics: observers.metrics.clone(),
        top: observers.top.clone(),
    })
}

fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    admin::bind(address)
        .with_context(|| format!("FOREBAY_ADMIN_LISTEN: cannot listen on {address}"))
}

/// The names of the server's certificate, and those beside them.
fn authorities(certificate: &ServerCertificate, further: &[String]) -> Authorities {
    Authorities::new(certificate.names.iter().chain(further).map(String::as_str))
}

/// The runtime of a thread that serves no devices.
fn local_runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}
