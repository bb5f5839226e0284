//! The composition root: builds the gateway from sink to accept, and drains it from accept to sink.
//!
//! `cli` calls [`run`] with a configuration; it returns when the gateway has drained. One thread
//! delivers, one thread a core serves, and the calling thread answers the admin address and waits
//! for signals.

mod alarm;
pub(crate) mod delivery;
mod devices;
mod ends;
mod foundation;
mod front;
mod listen;
mod notify;
mod observers;
mod reload;
pub(crate) mod shutdown;
mod spool;
mod story;
pub(crate) mod threads;
mod workers;

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

use crate::batcher;
use crate::config::{AckMode, Config, DoorsConfig, OpenDoors, OtlpStreams, SinkConfig};
use crate::handover;
use crate::identity::ServerCertificate;
use crate::ingest::Authorities;
use crate::tls::Reloader;
pub(crate) use delivery::sink_options;
use devices::DevicesWatch;
use foundation::Foundation;
use front::Front;
pub(crate) use reload::check_rules;
use reload::{Reloaded, Watch};
use shutdown::Shutdown;
use threads::Threads;

/// The addresses of a gateway that listens.
pub(crate) struct Bound {
    /// Address that devices connect to.
    pub listen: SocketAddr,
    /// Address that operators connect to.
    pub admin: SocketAddr,
}

/// Runs the gateway until it has drained. `on_bound` learns where it is once the gateway listens,
/// and would drain at a signal. An error is a gateway that could not start; the exit code tells
/// whether a record was left behind.
pub(crate) fn run(config: Config, on_bound: impl FnOnce(Bound)) -> anyhow::Result<ExitCode> {
    let started_at = Instant::now();
    story::begin(&config);
    warn_of_broken_promises(&config);
    let shutdown = Shutdown::new();
    let devices = DevicesWatch::start(&config)?;
    let tls = Reloader::start(config.tls.clone(), devices.subscribe())?;
    story::tell_files(&tls);
    let foundation = Foundation::lay(&config, shutdown.phases())?;
    let rules = reload::rules(&config, &foundation)?;
    let reloaded = Reloaded {
        tls,
        devices,
        rules,
    };
    let (to_delivery, batches) = handover::channel(in_flight_batches_max(&config));
    let delivery = delivery::start(&config, &foundation, batches, &shutdown)?;
    let (addresses, sockets) = listen::bind(&config)?;
    let blueprint = workers::blueprint(&config, &foundation, &reloaded, addresses.listen.port())?;
    let watch = Watch::new(&config.http, reloaded, &blueprint.routes, &foundation);
    let workers = workers::start(blueprint, sockets, &foundation, to_delivery, &shutdown)?;
    let threads = Threads { workers, delivery };
    let front = Front::new(addresses, watch, &foundation, started_at);
    let ended = front.serve(shutdown, threads, config.drain_timeout, on_bound);
    let is_clean = matches!(ended, Ok(ExitCode::SUCCESS));
    foundation.observers.stop(is_clean);
    ended
}

fn warn_of_broken_promises(config: &Config) {
    if config.ack.mode == AckMode::Queued {
        tracing::warn!(
            "FOREBAY_ACK=queued: a 204 does not mean safe; what is in memory is lost with the process"
        );
    }
    warn_of_doors(config);
    if matches!(config.sink, SinkConfig::Null) {
        tracing::warn!(
            "FOREBAY_SINK=null: every reading is thrown away; this sink is for benchmarks"
        );
    }
}

/// Tells of doors what would surprise: headers that no record keeps, and streams of a door that is
/// shut.
fn warn_of_doors(config: &Config) {
    let DoorsConfig {
        open,
        topics,
        otlp_streams,
    } = &config.doors;
    if *open != OpenDoors::default() && !config.sink.keeps_headers() {
        tracing::warn!(
            "FOREBAY_FRONT_DOORS: Kinesis keeps no headers: topics, properties and the encoding of OTLP are dropped"
        );
    }
    if !open.iot_core && !topics.is_empty() {
        tracing::warn!("FOREBAY_TOPICS does nothing: FOREBAY_FRONT_DOORS does not name iot-core");
    }
    if !open.otlp && *otlp_streams != OtlpStreams::default() {
        tracing::warn!("FOREBAY_OTLP_STREAMS does nothing: FOREBAY_FRONT_DOORS does not name otlp");
    }
}

/// Batches that are on their way to delivery, and in it, at most: the lanes of each worker have as
/// many as they may.
fn in_flight_batches_max(config: &Config) -> usize {
    assert!(!config.streams.is_empty(), "a configuration has a stream");
    config.listen.workers.get() * batcher::in_flight_batches_max(config.streams.len())
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
