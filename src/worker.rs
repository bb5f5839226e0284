//! A worker: one thread, one single-threaded runtime, with its own listeners, connections and
//! lanes.
//!
//! The gateway starts one a core, each of the same [`Blueprint`]. A connection lives and dies on
//! the worker that accepted it, so that nothing on the way of a request is shared but buckets, the
//! memory budget and the two hand-over queues. A worker ends when the gateway has drained: its
//! connections first, then its batches.

use std::cell::Cell;
use std::io;
use std::net::{TcpListener, UdpSocket};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{JoinError, JoinHandle, JoinSet, spawn_local, yield_now};
use tokio::time::timeout;

use crate::accept::{Acceptor, Capacity, Place, Quic, Trust, WorkerConnectionIds};
use crate::batcher::idle::IdleSignal;
use crate::batcher::{Batcher, Queues, in_flight_batches_max};
use crate::config::{AckConfig, BatchConfig, HttpConfig, ListenConfig};
use crate::delivery::STRAGGLERS_MAX;
use crate::events::{Events, Reporter};
use crate::handover::{self, Receiver, Sender};
use crate::health::Health;
use crate::http::Service;
use crate::http::bell::Bell;
use crate::ingest::{Gate, Ingest, Routes};
use crate::lifecycle::{Phase, Phases, Token};
use crate::record::{Batch, Settled};
use crate::rules::Rulebook;
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::observers::WorkerObservers;

/// Batches that are out when the gateway hurries get this long to come home.
const LAST_BATCHES_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that waiting requests have to take their answer when the gateway hurries.
const LAST_ANSWERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Time from the hurry to the end of a worker, in all.
pub(crate) const HURRY_TIMEOUT: Duration =
    LAST_BATCHES_TIMEOUT.saturating_add(LAST_ANSWERS_TIMEOUT);

/// Levels of tasks that own others: a listener's task has those of its connections.
const TASK_LEVELS: usize = 2;

/// Tasks polled before the sockets are asked for news, while there are tasks to poll. tokio's 61
/// would let handshakes that are refused, or a flooded connection that gives way, hold up a request
/// for as many of their turns.
const POLLS_BETWEEN_EVENTS: u32 = 8;

/// The parts that every worker builds its rooms of: their sections of the configuration, and the
/// state that all workers share.
pub(crate) struct Blueprint {
    pub listen: ListenConfig,
    pub http: HttpConfig,
    pub batch: BatchConfig,
    pub ack: AckConfig,
    pub streams: u16,
    /// Tells TCP clients of h3, when it is served.
    pub alt_svc: Option<HeaderValue>,
    pub trust: Trust,
    pub gate: Gate,
    pub health: Arc<Health>,
    pub capacity: Arc<Capacity>,
    pub routes: Arc<Routes>,
    pub rulebook: Rulebook,
    /// The reporter of events of the fleet, if they are on.
    pub events: Option<Events>,
    pub phases: Phases,
}

/// The sockets on which one worker listens.
pub(crate) struct Sockets {
    pub tcp: TcpListener,
    pub udp: Option<UdpSocket>,
}

/// The parts that one worker has to itself.
pub(crate) struct Own {
    pub index: usize,
    pub sockets: Sockets,
    pub observers: WorkerObservers,
    pub delivery: Sender<Batch>,
    /// It is dropped when the TCP listener is closed.
    pub listening: Token,
}

/// Runs a worker until it has drained. Gives the number of records that it has answered and leaves
/// behind; an error is a worker that could not go on. `place` is dropped when the worker's UDP
/// socket is closed.
pub(crate) fn run(own: Own, place: Token, blueprint: &Blueprint) -> io::Result<usize> {
    // Declared before the runtime, so that it goes after it, and with it the socket.
    let place = Place::new(Cell::new(Some(place)));
    let mut runtime = Builder::new_current_thread();
    let idle = IdleSignal::of(&mut runtime);
    let runtime = runtime
        .enable_all()
        .event_interval(POLLS_BETWEEN_EVENTS)
        .build_local(LocalOptions::default())?;
    runtime.block_on(async { serve(own, place.clone(), blueprint, idle).await })
}

async fn serve(
    own: Own,
    place: Place,
    blueprint: &Blueprint,
    idle: IdleSignal,
) -> io::Result<usize> {
    let (batcher, settled) = blueprint.batcher(own.delivery, own.observers.metrics.clone());
    let batching = spawn_local({
        let batcher = batcher.clone();
        async move { batcher.run(settled, idle).await }
    });
    let reporter = blueprint.reporter(&batcher);
    let service = blueprint.service(own.observers, batcher.clone(), reporter.clone());
    let acceptor = blueprint.acceptor(service);
    let mut serving = Serving::new();
    if let Some(udp) = own.sockets.udp {
        let quic = blueprint.quic(own.index, udp)?;
        serving.spawn_local(acceptor.clone().run_quic(quic, place));
    }
    let tcp = tokio::net::TcpListener::from_std(own.sockets.tcp)?;
    serving.spawn_local(acceptor.run_tcp(tcp, own.listening));
    let finished = finish(&blueprint.phases, &batcher, serving, batching).await;
    if let Some(reporter) = reporter {
        report_rest(&reporter, &batcher).await;
    }
    finished
}

/// Reports the last events of connections, those included that were cut off in a hurry.
async fn report_rest(reporter: &Reporter, batcher: &Batcher) {
    // Tasks that were given up are dropped when their turns come, and theirs after them.
    for _ in 0..TASK_LEVELS {
        yield_now().await;
    }
    reporter.tell_rest();
    batcher.send_posted();
}

/// Builds the rooms of one worker, from the last that a record passes to the first.
impl Blueprint {
    fn batcher(
        &self,
        delivery: Sender<Batch>,
        metrics: Arc<WorkerMetrics>,
    ) -> (Rc<Batcher>, Receiver<Settled>) {
        let batches_max = in_flight_batches_max(usize::from(self.streams));
        // A straggler has left its lane: a part of it may be on its way, and then the rest.
        let (home, settled) = handover::channel(batches_max + 2 * STRAGGLERS_MAX);
        let batcher = Batcher::new(
            self.streams,
            self.batch,
            self.ack,
            Queues { delivery, home },
            metrics,
        );
        let batcher = batcher.with_own_stream(self.events.as_ref().map(Events::stream));
        let batcher = batcher.for_partitions_of(self.health.clone());
        (Rc::new(batcher), settled)
    }

    /// Tells of connections, by the worker's own batcher.
    fn reporter(&self, batcher: &Rc<Batcher>) -> Option<Rc<Reporter>> {
        let reporter = Rc::new(Reporter::new(self.events.as_ref()?, batcher.clone()));
        spawn_local(reporter.clone().run());
        Some(reporter)
    }

    fn service(
        &self,
        observers: WorkerObservers,
        batcher: Rc<Batcher>,
        reporter: Option<Rc<Reporter>>,
    ) -> Service {
        let (gate, routes) = (self.gate.clone(), self.routes.clone());
        let ingest = Ingest::new(&self.http, gate, routes, batcher);
        let ingest = ingest.with_rules(self.rulebook.clone());
        let tls = &self.trust.tls;
        let (revocation, devices) = (tls.revocation.clone(), tls.devices.clone());
        let bell = Bell::hang(self.phases.clone(), revocation, devices);
        Service::new(&self.http, ingest, observers, bell, self.alt_svc.clone()).telling(reporter)
    }

    fn acceptor(&self, service: Service) -> Rc<Acceptor> {
        let (trust, capacity) = (self.trust.clone(), self.capacity.clone());
        let phases = self.phases.clone();
        Rc::new(Acceptor::new(
            &self.listen,
            service,
            trust,
            capacity,
            phases,
        ))
    }

    fn quic(&self, index: usize, socket: UdpSocket) -> io::Result<Quic> {
        let (tls, workers) = (&self.trust.tls, self.listen.workers.get());
        let (config, _) = tls.configs.load().quic.config().map_err(io::Error::other)?;
        Quic::new(
            socket,
            config,
            tls.resets.of_worker(index, workers),
            WorkerConnectionIds::new(index, workers),
            self.http.idle_timeout,
        )
    }
}

/// The listeners of a worker, each with its connections.
pub(crate) type Serving = JoinSet<()>;

/// Waits for connections and batches to end, or for the gateway to hurry. A panic ends the worker,
/// and with it the gateway.
pub(crate) async fn finish(
    phases: &Phases,
    batcher: &Batcher,
    mut serving: Serving,
    mut batching: JoinHandle<()>,
) -> io::Result<usize> {
    tokio::select! {
        biased;
        served = served(&mut serving) => served?,
        ended = &mut batching => return Err(ended_early("the batcher", ended)),
        () = phases.reached(Phase::Hurrying) => {}
    }
    // Waiting records go to the sink, or to the spool, if there is one.
    batcher.drain();
    tokio::select! {
        biased;
        ended = &mut batching => {
            ended.map_err(io::Error::other)?;
            if serving.is_empty() {
                debug_assert_eq!(batcher.unsafe_records(), 0, "every batch has come home");
                return Ok(0);
            }
        }
        () = phases.reached(Phase::Hurrying) => {
            let _ = timeout(LAST_BATCHES_TIMEOUT, &mut batching).await;
        }
    }
    debug_assert!(phases.has_reached(Phase::Hurrying), "connections go first");
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
