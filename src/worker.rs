//! A worker: one thread, one single-threaded runtime, with its own listeners, connections and lanes.
//!
//! The gateway starts one a core. A connection lives and dies on the worker that accepted it, so that nothing on the
//! way of a request is shared but buckets, the memory budget and the two hand-over queues. A worker ends when the
//! gateway has drained: its connections first, then its batches.

use std::cell::Cell;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, spawn_local};
use tokio::time::timeout;

use crate::accept::{Acceptor, Capacity, Place, Quic, Turns, WorkerConnectionIds};
use crate::admission::Admission;
use crate::batcher::idle::IdleSignal;
use crate::batcher::{Batcher, IN_FLIGHT_BATCHES_MAX};
use crate::config::{AckConfig, BatchConfig, HttpConfig};
use crate::handover::{self, Sender};
use crate::http::bell::Bell;
use crate::http::h1::Accepted;
use crate::http::{Date, Service};
use crate::identity::Identity;
use crate::ingest::{Ingest, Routes};
use crate::limits::{Clock, Limits};
use crate::record::Batch;
use crate::telemetry::access::AccessLog;
use crate::telemetry::audit::Audit;
use crate::telemetry::journal::Journal;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Spans;
use crate::telemetry::top::Top;
use crate::tls::{Buffers, Tls};

/// Batches that are out when the gateway hurries get this long to come home.
const LAST_BATCHES_TIMEOUT: Duration = Duration::from_secs(1);

/// Requests that wait when the gateway hurries get this long to take their answer.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Tasks polled before the sockets are asked for news, while there are tasks to poll. tokio's 61 would let handshakes that
/// are refused, or a flooded connection that gives way, hold up a request for as many of their turns.
const POLLS_BETWEEN_EVENTS: u32 = 8;

/// What all workers share.
pub(crate) struct Shared {
    pub workers: usize,
    pub streams: u16,
    pub tls: Tls,
    pub identity: Arc<Identity>,
    pub limits: Arc<Limits>,
    pub admission: Arc<Admission>,
    pub routes: Arc<Routes>,
    pub metrics: Arc<Metrics>,
    pub clock: Clock,
    pub capacity: Arc<Capacity>,
    pub audit: Audit,
    /// The access log, where there is one, and its share of all requests.
    pub access: (Option<Journal>, f64),
    pub spans: Spans,
    pub top: Top,
    pub batch: BatchConfig,
    pub ack: AckConfig,
    pub http: HttpConfig,
    pub handshake_timeout: Duration,
    pub alt_svc: Option<HeaderValue>,
    /// Turns true when the gateway drains, its TCP listeners being closed: nothing new, finish what there is.
    pub draining: watch::Receiver<bool>,
    /// Turns true when there is no time left: answer what waits, and go.
    pub hurrying: watch::Receiver<bool>,
}

/// Where one worker listens.
pub(crate) struct Sockets {
    pub tcp: TcpListener,
    pub udp: Option<UdpSocket>,
}

/// What one worker is given of its own.
pub(crate) struct Own {
    pub index: usize,
    pub sockets: Sockets,
    /// Turns true when TCP listeners are to close; it is dropped when this worker's is.
    pub closing: watch::Receiver<bool>,
}

/// Runs a worker until it has drained. Gives the number of records that it has answered and leaves behind; an error is a
/// worker that could not go on. `place` is dropped when the worker's UDP socket is closed.
pub(crate) fn run(
    own: Own,
    place: watch::Receiver<()>,
    shared: &Shared,
    delivery: Sender<Batch>,
) -> io::Result<usize> {
    // Declared before the runtime, so that it goes after it, and with it the socket.
    let place = Place::new(Cell::new(Some(place)));
    let mut runtime = Builder::new_current_thread();
    let lull = IdleSignal::of(&mut runtime);
    let runtime = runtime
        .enable_all()
        .event_interval(POLLS_BETWEEN_EVENTS)
        .build_local(LocalOptions::default())?;
    runtime.block_on(async { serve(own, place.clone(), shared, delivery, lull).await })
}

async fn serve(
    own: Own,
    place: Place,
    shared: &Shared,
    delivery: Sender<Batch>,
    lull: IdleSignal,
) -> io::Result<usize> {
    let metrics = shared.metrics.worker(own.index);
    let (home, settled) = handover::channel(usize::from(shared.streams) * IN_FLIGHT_BATCHES_MAX);
    let batcher = Batcher::new(
        shared.streams,
        shared.batch,
        shared.ack,
        delivery,
        home,
        metrics,
    );
    let batcher = Rc::new(batcher);
    let batching = spawn_local({
        let batcher = batcher.clone();
        async move { batcher.run(settled, lull).await }
    });
    let acceptor = Rc::new(acceptor(own.index, shared, batcher.clone()));
    let serving = listen(own, place, shared, acceptor)?;
    finish(shared, &batcher, serving, batching).await
}

fn acceptor(index: usize, shared: &Shared, batcher: Rc<Batcher>) -> Acceptor {
    Acceptor {
        service: Rc::new(service(index, shared, batcher)),
        tls: shared.tls.clone(),
        identity: shared.identity.clone(),
        limits: shared.limits.clone(),
        clock: shared.clock,
        capacity: shared.capacity.clone(),
        turns: Turns::default(),
        buffers: Buffers::default(),
        metrics: shared.metrics.worker(index),
        audit: shared.audit.clone(),
        handshake_timeout: shared.handshake_timeout,
        draining: shared.draining.clone(),
    }
}

fn service(index: usize, shared: &Shared, batcher: Rc<Batcher>) -> Service {
    let ingest = Ingest {
        clock: shared.clock,
        limits: shared.limits.clone(),
        admission: shared.admission.clone(),
        batcher,
        routes: shared.routes.clone(),
        body_bytes_max: shared.http.body_bytes_max,
        body_timeout: shared.http.body_timeout,
        body_rate_min: shared.http.body_rate_min,
    };
    Service {
        ingest,
        metrics: shared.metrics.worker(index),
        audit: shared.audit.clone(),
        access: AccessLog::new(shared.access.0.clone(), shared.access.1),
        spans: shared.spans.clone(),
        top: shared.top.clone(),
        alt_svc: shared.alt_svc.clone(),
        header_timeout: shared.http.header_timeout,
        idle_timeout: shared.http.idle_timeout,
        bell: bell(shared),
        date: Date::default(),
        revocation: shared.tls.revocation.clone(),
        h1_accepted: Accepted::default(),
    }
}

/// Rings for as long as the worker runs.
fn bell(shared: &Shared) -> Rc<Bell> {
    let bell = Rc::new(Bell::default());
    spawn_local({
        let (bell, draining, revocation) = (
            bell.clone(),
            shared.draining.clone(),
            shared.tls.revocation.clone(),
        );
        async move { bell.run(draining, revocation).await }
    });
    bell
}

type Serving = tokio::task::JoinSet<()>;

fn listen(own: Own, place: Place, shared: &Shared, acceptor: Rc<Acceptor>) -> io::Result<Serving> {
    let Own {
        index,
        sockets,
        closing,
    } = own;
    let mut serving = Serving::new();
    if let Some(udp) = sockets.udp {
        let ids = WorkerConnectionIds::new(index, shared.workers);
        let tls = shared.tls.configs.load().quic.clone();
        let reset_key = shared.tls.resets.of_worker(index, shared.workers);
        let quic = Quic::new(udp, tls, reset_key, ids, shared.http.idle_timeout)?;
        serving.spawn_local(acceptor.clone().run_quic(quic, place));
    }
    let tcp = tokio::net::TcpListener::from_std(sockets.tcp)?;
    serving.spawn_local(acceptor.run_tcp(tcp, closing));
    Ok(serving)
}

/// Waits for connections and batches to end, or for the gateway to hurry. What panics ends the worker, and with it the
/// gateway.
async fn finish(
    shared: &Shared,
    batcher: &Batcher,
    mut serving: Serving,
    mut batching: JoinHandle<()>,
) -> io::Result<usize> {
    let mut hurrying = shared.hurrying.clone();
    tokio::select! {
        served = served(&mut serving) => served?,
        ended = &mut batching => return Err(ended_early("the batcher", ended)),
        _ = hurrying.wait_for(|hurrying| *hurrying) => {}
    }
    // What waits goes to the sink, or to the spool, where there is one.
    batcher.drain();
    tokio::select! {
        ended = &mut batching => {
            ended.map_err(io::Error::other)?;
            if serving.is_empty() {
                return Ok(0);
            }
        }
        _ = hurrying.wait_for(|hurrying| *hurrying) => {
            let _ = timeout(LAST_BATCHES_TIMEOUT, &mut batching).await;
        }
    }
    batcher.give_up();
    let _ = timeout(LAST_ANSWERS_TIMEOUT, served(&mut serving)).await;
    Ok(batcher.unsafe_records())
}

/// Returns when every listener and every connection has ended.
async fn served(serving: &mut Serving) -> io::Result<()> {
    while let Some(ended) = serving.join_next().await {
        ended.map_err(io::Error::other)?;
    }
    Ok(())
}

fn ended_early(what: &str, ended: Result<(), JoinError>) -> io::Error {
    match ended {
        Ok(()) => io::Error::other(format!("{what} has ended")),
        Err(error) => io::Error::other(error),
    }
}
