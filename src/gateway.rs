//! The composition root: builds the gateway from sink to accept, and drains it from accept to sink.
//!
//! `cli` calls [`run`] with a configuration; it returns when the gateway has drained. One thread delivers, one thread a
//! core serves, and the calling thread answers the admin address and waits for signals.

mod alarm;
mod listen;
mod notify;
mod observers;
mod reload;
mod shutdown;
mod spool;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;

use anyhow::{Context, anyhow};
use http::HeaderValue;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::spawn_local;

use crate::accept::Capacity;
use crate::admission::Admission;
use crate::batcher::IN_FLIGHT_BATCHES_MAX;
use crate::config::{AckMode, Config, SinkConfig, host};
use crate::delivery::{Backlog, Delivery, DeliveryOptions, Health, Promised};
use crate::handover::{self, Receiver};
use crate::http::openapi;
use crate::identity::{Identity, ServerCertificate};
use crate::ingest::{Authorities, Routes};
use crate::limits::{Clock, Limits};
use crate::record::Batch;
use crate::sink::{Sink, SinkOptions};
use crate::telemetry::admin::{self, Status};
use crate::telemetry::audit::Event;
use crate::telemetry::metrics::{Metrics, Reload};
use crate::tls::Reloader;
use crate::worker::{self, Shared};
use alarm::SINK_THREAD;
use notify::Notifier;
use observers::Observers;
use shutdown::{Phases, Threads};

/// Runs the gateway until it has drained. `on_bound` learns the address once the gateway listens, and would drain at a
/// signal. An error is a gateway that could not start; the exit code tells whether a record was left behind.
pub(crate) fn run(config: Config, on_bound: impl FnOnce(SocketAddr)) -> anyhow::Result<ExitCode> {
    warn_of_broken_promises(&config);
    let reloader = Reloader::start(config.tls.clone())?;
    let health = Arc::new(first_health(&config));
    let limits = Arc::new(Limits::new(&config.limits));
    let admission = Arc::new(Admission::new(
        config.memory_bytes_max,
        config.http.body_bytes_max,
        health.clone(),
    ));
    let observers = Observers::start(&config, &limits, &admission)?;
    let metrics = observers.metrics.clone();
    let (delivery, batches) = handover::channel(lanes(&config) * IN_FLIGHT_BATCHES_MAX);
    let phases = Phases::new();
    phases.alarm().raise_at_panics();
    let backlog = spool::open(&config, &metrics)?;
    let promised = Promised::default();
    let delivering = start_delivery(
        &config,
        backlog,
        health.clone(),
        metrics.clone(),
        batches,
        &phases,
        promised.clone(),
    )?;
    let (listen, sockets) = listen::bind(&config.listen)?;
    let places = listen::keep_places(&sockets)?;
    let admin = admin::bind(config.admin_listen).with_context(|| {
        format!(
            "FOREBAY_ADMIN_LISTEN: cannot listen on {}",
            config.admin_listen
        )
    })?;
    let shared = Arc::new(shared(
        &config,
        &reloader,
        limits,
        admission.clone(),
        &observers,
        &phases,
        listen,
    )?);
    let watched = reload::Watch::new(&config, reloader, shared.routes.clone(), observers.clone());
    let workers = start_workers(sockets, &phases, shared, delivery)?;
    let admin_address = admin.local_addr()?;
    let status = status(health, &observers, phases.draining());
    let notifier = Notifier::from_environment();
    let (alarm, places_left) = (phases.alarm(), phases.places_left());
    let run_beside = |hangup| {
        spawn_local(async move {
            places_left.await;
            drop(places);
        });
        alarm.start("the admin address", admin::serve(admin, status.clone()));
        alarm.start(
            "the watch over files",
            watched.run(hangup, notifier.clone()),
        );
        alarm.start("the count of devices", observers.clone().keep_top());
        alarm.start("the heartbeat", notifier.clone().beat(status));
    };
    let on_ready = || {
        tracing::info!(%listen, admin = %admin_address, workers = config.listen.workers, "listening");
        observers.audit.record(Event::Started {
            listen: &listen.to_string(),
        });
        notifier.ready();
        on_bound(listen);
    };
    let ended = shutdown::serve_until_drained(
        run_beside,
        on_ready,
        phases,
        &notifier,
        &admission,
        config.drain_timeout,
        Threads {
            workers,
            delivering,
            promised,
        },
    );
    observers.audit.record(Event::Stopped {
        clean: matches!(ended, Ok(ExitCode::SUCCESS)),
    });
    observers.stop();
    ended
}

fn first_health(config: &Config) -> Health {
    let health = Health::new(&config.streams);
    match config.ack.mode {
        AckMode::Durable => health,
        AckMode::Queued => health.with_memory(),
    }
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

fn lanes(config: &Config) -> usize {
    config.listen.workers.get() * config.streams.len()
}

/// Starts the delivery thread once its sink is open and found fit. A sink that is away is waited for, not ready.
fn start_delivery(
    config: &Config,
    backlog: Option<Backlog>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    batches: Receiver<Batch>,
    phases: &Phases,
    promised: Promised,
) -> anyhow::Result<thread::JoinHandle<()>> {
    let (mut hurrying, alarm) = (phases.hurrying(), phases.alarm());
    let ending = phases.ending("delivery");
    let (sink_config, sink_options, options) = (
        config.sink.clone(),
        sink_options(config),
        delivery_options(config),
    );
    let (opened, was_opened) = mpsc::sync_channel(1);
    let run = move || {
        let _told_at_the_end = ending;
        host::schedule_as_batch();
        let runtime = match Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
        {
            Ok(runtime) => runtime,
            Err(error) => return drop(opened.send(Err(anyhow!(error)))),
        };
        runtime.block_on(async move {
            let open = async {
                let told = metrics.clone();
                let on_bad_password = move || told.reload_failed(Reload::Password);
                let sink = Sink::open(&sink_config, sink_options, on_bad_password).await?;
                let delivery = Delivery::new(sink, backlog, health, metrics, options)
                    .counting(promised)
                    .alarming(move |what| alarm.raise(what));
                delivery.verify().await.map(|()| delivery)
            };
            let delivery = match open.await {
                Ok(delivery) => delivery,
                Err(error) => return drop(opened.send(Err(anyhow!(error)))),
            };
            // The receiver waits for this one message.
            let _ = opened.send(Ok(()));
            let hurried = async move { drop(hurrying.wait_for(|hurrying| *hurrying).await) };
            delivery.run(batches, hurried).await;
        });
    };
    let thread = thread::Builder::new().name(SINK_THREAD.into()).spawn(run)?;
    was_opened
        .recv()
        .map_err(|_| anyhow!("the delivery thread ended before the sink was open"))??;
    Ok(thread)
}

fn sink_options(config: &Config) -> SinkOptions {
    SinkOptions {
        streams: config.streams.clone(),
        body_bytes_max: config.http.body_bytes_max,
        ack_timeout: config.ack.timeout,
        memory_bytes_max: config.memory_bytes_max,
        // Each stream has one from the spool.
        in_flight_batches_max: lanes(config) * IN_FLIGHT_BATCHES_MAX + config.streams.len(),
    }
}

fn delivery_options(config: &Config) -> DeliveryOptions {
    DeliveryOptions {
        streams: config.streams.clone(),
        batch: config.batch,
        in_flight_batches_max: lanes(config) * IN_FLIGHT_BATCHES_MAX,
        ack_timeout: config.ack.timeout,
    }
}

fn shared(
    config: &Config,
    reloader: &Reloader,
    limits: Arc<Limits>,
    admission: Arc<Admission>,
    observers: &Observers,
    phases: &Phases,
    listen: SocketAddr,
) -> anyhow::Result<Shared> {
    let certificate = reloader.certificate();
    observers
        .metrics
        .set_certificate_expiry(certificate.not_after);
    let authorities = authorities(certificate, &config.http.authorities);
    let identity =
        Identity::new(config.device_id_sources.clone()).with_expiry_notice(config.expiry_notice);
    let alt_svc = format!("h3=\":{}\"; ma=86400", listen.port());
    Ok(Shared {
        workers: config.listen.workers.get(),
        streams: u16::try_from(config.streams.len())?,
        tls: reloader.tls(),
        identity: Arc::new(identity),
        limits,
        admission,
        routes: Arc::new(Routes::new(
            authorities,
            &config.streams,
            &config.stream_access,
        )),
        metrics: observers.metrics.clone(),
        clock: Clock::new(),
        capacity: Arc::new(Capacity::new(config.listen.connections)),
        audit: observers.audit.clone(),
        access: observers.access.clone(),
        spans: observers.spans(),
        top: observers.top.clone(),
        batch: config.batch,
        ack: config.ack,
        http: config.http.clone(),
        handshake_timeout: config.listen.handshake_timeout,
        alt_svc: config
            .listen
            .http3
            .then(|| HeaderValue::try_from(alt_svc))
            .transpose()?,
        draining: phases.draining(),
        hurrying: phases.hurrying(),
    })
}

/// The names of the server's certificate, and those beside them.
fn authorities(certificate: &ServerCertificate, further: &[String]) -> Authorities {
    Authorities::new(certificate.names.iter().chain(further).map(String::as_str))
}

type Workers = Vec<thread::JoinHandle<std::io::Result<usize>>>;

fn start_workers(
    sockets: Vec<worker::Sockets>,
    phases: &Phases,
    shared: Arc<Shared>,
    delivery: handover::Sender<Batch>,
) -> anyhow::Result<Workers> {
    let start = |(index, sockets)| {
        let own = worker::Own {
            index,
            sockets,
            closing: phases.closing(),
        };
        let place = phases.place();
        let (shared, delivery) = (shared.clone(), delivery.clone());
        let ending = phases.ending("a worker");
        let run = move || {
            let _told_at_the_end = ending;
            worker::run(own, place, &shared, delivery)
        };
        thread::Builder::new()
            .name(format!("forebay-{index}"))
            .spawn(run)
    };
    Ok(sockets
        .into_iter()
        .enumerate()
        .map(start)
        .collect::<Result<_, _>>()?)
}

fn status(
    health: Arc<Health>,
    observers: &Observers,
    draining: watch::Receiver<bool>,
) -> Arc<Status> {
    let of_drain = draining.clone();
    let ready = move || match *draining.borrow() {
        true => Err("draining".to_owned()),
        false => health.report(),
    };
    let metrics = observers.metrics.clone();
    Arc::new(Status {
        ready: Box::new(ready),
        draining: Box::new(move || *of_drain.borrow()),
        openapi: openapi::document,
        metrics: Box::new(move || metrics.render()),
        top: observers.top.clone(),
    })
}
