//! One process: the rooms, put together as the gateway does it, from ingest to sink and spool.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::broker::{Given, SimSink};
use super::devices::Pieces;
use super::plan::Shape;
use super::world::World;
use crate::admission::Admission;
use crate::batcher::idle::IdleSignal;
use crate::batcher::{self, Batcher, OWN_BATCHES_MAX, Queues, SHARED_BATCHES_MAX};
use crate::config::{
    AckConfig, AckMode, BatchConfig, ContentEncodings, HttpConfig, LimitsConfig, Quota,
    StreamConfig,
};
use crate::delivery::{Backlog, Delivery, DeliveryOptions, Promised};
use crate::devices::Fingerprint;
use crate::handover::{self, Sender};
use crate::health::Health;
use crate::http::reply::problem;
use crate::identity::{Credential, Device, Vouched};
use crate::ingest::{
    Authorities, Body, BrokenBody, Caller, Gate, Ingest, KnownDevice, Moment, RequestHead, Routes,
};
use crate::jitter::seeded::{self, in_any_order};
use crate::lifecycle::{Lifecycle, Phase, Phases};
use crate::limits::Limits;
use crate::record::{Batch, DeviceId, Timestamp};
use crate::sink::Sink;
use crate::spool::tests::either;
use crate::spool::{GatewayDisk, Log};
use crate::telemetry::metrics::Metrics;
use crate::worker::{Serving, finish};

/// The largest body.
const BODY_BYTES_MAX: usize = 2_000;

/// Time-out of a body.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Time-outs as [`gateway::shutdown`](crate::gateway) has them.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const HURRY_TIMEOUT: Duration = Duration::from_secs(3);

/// Requests that have come and were not looked at.
const VISITS_MAX: usize = 1024;

/// A request on its way in.
pub(crate) struct Visit {
    pub device: usize,
    pub stream: usize,
    pub key: String,
    pub pieces: Pieces,
    pub is_declared: bool,
    pub answer: oneshot::Sender<u16>,
}

impl Visit {
    /// Makes a request with the least body that names its attempt, and the receiver of its answer.
    pub(crate) fn of_probe(
        device: usize,
        stream: usize,
        attempt: usize,
    ) -> (Self, oneshot::Receiver<u16>) {
        let (answer, answered) = oneshot::channel();
        let payload = Bytes::copy_from_slice(&(attempt as u64).to_le_bytes());
        let visit = Self {
            device,
            stream,
            key: format!("{device}-{stream}"),
            pieces: vec![(Duration::ZERO, payload)],
            is_declared: true,
            answer,
        };
        (visit, answered)
    }
}

pub(crate) type Door = mpsc::Sender<Visit>;

/// A process as the world sees it.
pub(crate) struct Gateway {
    pub doors: Vec<Door>,
    pub health: Arc<Health>,
    pub gate: Gate,
    pub batchers: Vec<Weak<Batcher>>,
    pub promised: Promised,
    pub metrics: Arc<Metrics>,
    /// The backlog and the dead letters.
    pub logs: Option<[Log<GatewayDisk>; 2]>,
    pub lifecycle: Lifecycle,
    pub alarms: Rc<RefCell<Vec<&'static str>>>,
    /// Outcomes that the sink has given, by their names in metrics.
    given: Given,
    workers: RefCell<Vec<JoinHandle<std::io::Result<usize>>>>,
    delivery: RefCell<Option<JoinHandle<()>>>,
}

/// The report of a process at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub is_clean: bool,
    pub has_hurried: bool,
    pub unsafe_records: usize,
}

pub(crate) fn streams(shape: &Shape) -> Vec<StreamConfig> {
    let name = |stream| format!("stream-{stream}");
    let stream = |stream| StreamConfig {
        name: name(stream),
        target: name(stream),
    };
    (0..shape.streams).map(stream).collect()
}

impl Gateway {
    /// Starts the rooms on the local set that this is called on. An error is a spool that cannot be
    /// opened.
    pub(crate) async fn start(world: &Rc<World>) -> Result<Rc<Self>, String> {
        let shape = &world.plan.shape;
        let names: Vec<String> = streams(shape)
            .into_iter()
            .map(|stream| stream.name)
            .collect();
        let metrics = Arc::new(Metrics::new(shape.workers, &names, vec![]));
        let (backlog, logs, committing) = spool(world, &metrics)?;
        let health = match shape.ack {
            AckMode::Durable => Health::new(&streams(shape)),
            AckMode::Queued => Health::new(&streams(shape)).with_memory(),
        };
        let (health, lifecycle) = (Arc::new(health), Lifecycle::new());
        let phases = lifecycle.phases();
        let admission = Admission::new(
            shape.memory_bytes,
            BODY_BYTES_MAX,
            health.clone(),
            phases.clone(),
        );
        let gate = Gate::new(limits(shape), admission);
        let (promised, alarms) = (Promised::default(), Rc::<RefCell<Vec<_>>>::default());
        let told = alarms.clone();
        let given = Given::default();
        let sink = SimSink::new(world.broker.clone(), given.clone());
        let sink = Sink::Scripted(Box::new(sink));
        let delivery = Delivery::new(
            sink,
            backlog,
            health.clone(),
            metrics.clone(),
            delivery_options(shape),
        )
        .counting(promised.clone())
        .alarming(move |what| told.borrow_mut().push(what));
        delivery.verify().await.map_err(|error| error.to_string())?;
        let (batches, received) = handover::channel(in_flight_batches_max(shape));
        let running = delivery.run(received, phases.clone());
        let committing = committing.map(|committing| spawn_local(in_any_order(committing)));
        let delivery = spawn_local(async move {
            alone(running).await;
            // The thread of delivery waits for that of the spool, too.
            if let Some(committing) = committing {
                let _ = committing.await;
            }
        });
        let mut gateway = Self {
            doors: Vec::new(),
            health,
            gate,
            batchers: Vec::new(),
            promised,
            metrics,
            logs,
            lifecycle,
            alarms,
            given,
            workers: RefCell::default(),
            delivery: RefCell::new(Some(delivery)),
        };
        for index in 0..shape.workers {
            gateway.add_worker(world, index, batches.clone(), &phases);
        }
        Ok(Rc::new(gateway))
    }

    fn add_worker(
        &mut self,
        world: &Rc<World>,
        index: usize,
        delivery: Sender<Batch>,
        phases: &Phases,
    ) {
        let shape = &world.plan.shape;
        let idle: IdleSignal = world.idle[index].clone();
        let (home, settled) = handover::channel(batcher::in_flight_batches_max(shape.streams));
        let batcher = Rc::new(Batcher::new(
            shape.streams as u16,
            batch(shape),
            ack(shape),
            Queues { delivery, home },
            self.metrics.worker(index),
        ));
        let routes = Routes::new(Authorities::new(["gateway"]), &streams(shape), &[]);
        let ingest = Ingest::new(
            &http_config(),
            self.gate.clone(),
            Arc::new(routes),
            batcher.clone(),
        );
        let (door, visits) = mpsc::channel(VISITS_MAX);
        let reception = Reception {
            world: world.clone(),
            ingest: Rc::new(ingest),
            callers: BTreeMap::new(),
            phases: phases.clone(),
        };
        self.batchers.push(Rc::downgrade(&batcher));
        let phases = phases.clone();
        let worker = spawn_local(alone(async move {
            let running = batcher.clone();
            let batching = spawn_local(in_any_order(async move {
                running.run(settled, idle).await;
            }));
            let mut serving = Serving::new();
            serving.spawn_local(in_any_order(reception.run(visits)));
            finish(&phases, &batcher, serving, batching).await
        }));
        self.doors.push(door);
        self.workers.borrow_mut().push(worker);
    }

    /// Takes the process through its phases, as a signal does; another one hurries it.
    pub(crate) async fn drain(
        &self,
        drain_timeout: Duration,
        second_signal: impl Future<Output = ()>,
    ) -> Exit {
        self.lifecycle.advance(Phase::Closing);
        sleep(CLOSE_TIMEOUT.min(Duration::from_millis(5))).await;
        self.lifecycle.advance(Phase::Draining);
        let has_ended = tokio::select! {
            biased;
            () = self.ended() => true,
            () = second_signal => false,
            () = sleep(drain_timeout) => false,
        };
        if !has_ended {
            self.lifecycle.advance(Phase::Hurrying);
            let _ = timeout(HURRY_TIMEOUT, self.ended()).await;
        }
        self.exit(!has_ended).await
    }

    async fn ended(&self) {
        let is_running = || {
            let workers = self.workers.borrow();
            let delivery = self.delivery.borrow();
            !workers.iter().all(JoinHandle::is_finished)
                || !delivery.as_ref().is_some_and(JoinHandle::is_finished)
        };
        while is_running() {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn exit(&self, has_hurried: bool) -> Exit {
        let mut is_clean = self.alarms.borrow().is_empty();
        let mut unsafe_records = self.promised.unsafe_records();
        for worker in self.workers.take() {
            let left = match worker.is_finished() {
                true => worker.await.ok().and_then(Result::ok),
                false => None,
            };
            is_clean &= left.is_some();
            unsafe_records += left.unwrap_or(0);
        }
        Exit {
            is_clean: is_clean && unsafe_records == 0,
            has_hurried,
            unsafe_records,
        }
    }

    /// Returns the metrics that differ from the events, of a gateway at rest.
    pub(crate) fn miscounted(&self) -> Vec<String> {
        let metrics = self.metrics.render();
        let mut wrong = Vec::new();
        for (outcome, given) in &*self.given.borrow() {
            let label = format!("outcome=\"{outcome}\"}} ");
            let lines = metrics
                .lines()
                .filter(|line| line.starts_with("forebay_sink_records_total"));
            let counts = lines.filter_map(|line| line.split_once(&label));
            let counted: u64 = counts
                .filter_map(|(_, count)| count.parse::<u64>().ok())
                .sum();
            if counted != *given {
                wrong.push(format!("metrics: {counted} {outcome}, of {given}"));
            }
        }
        for gauge in ["forebay_spool_records", "forebay_sink_in_flight_batches"] {
            let line = metrics
                .lines()
                .find(|line| line.starts_with(&format!("{gauge} ")));
            if line.is_some_and(|line| !line.ends_with(" 0")) {
                wrong.push(format!("metrics: {line:?} at rest"));
            }
        }
        wrong
    }

    /// Returns the reason why the gateway is not at rest; `None` when it is.
    pub(crate) fn unrest(&self) -> Option<String> {
        let reserved_bytes = self.gate.admission.reserved_bytes();
        let spooled = self
            .logs
            .as_ref()
            .map_or(0, |[backlog, _]| backlog.records());
        let batchers = self.batchers.iter().filter_map(Weak::upgrade);
        let busy = batchers.filter(|batcher| !batcher.is_at_rest()).count();
        let is_at_rest = reserved_bytes == 0 && spooled == 0 && busy == 0;
        let health = self.health.report();
        if is_at_rest && health == Ok(String::new()) {
            return None;
        }
        Some(format!(
            "{reserved_bytes} bytes reserved, {spooled} records on disk, {busy} batchers busy, health {health:?}"
        ))
    }
}

/// Runs a part that has a thread and a runtime of its own in the gateway: when it is done, so are
/// all of its tasks.
async fn alone<T>(main: impl Future<Output = T>) -> T {
    let tasks = LocalSet::new();
    tasks.run_until(in_any_order(main)).await
}

type Committing = futures_util::future::LocalBoxFuture<'static, ()>;
type Spooled = (
    Option<Backlog>,
    Option<[Log<GatewayDisk>; 2]>,
    Option<Committing>,
);

fn spool(world: &World, metrics: &Metrics) -> Result<Spooled, String> {
    let shape = &world.plan.shape;
    let Some(mode) = shape.spool else {
        return Ok((None, None, None));
    };
    let spool = either::Shape {
        disk: world.disk.clone(),
        bytes_max: shape.spool_segments * either::SEGMENT_BYTES,
        when_full: shape.when_full,
        is_encrypted: shape.is_encrypted,
        metrics: metrics.spool(),
    };
    let (spool, committing) = spool
        .open(seeded::disk_turn)
        .map_err(|error| error.to_string())?;
    let logs = [spool.backlog.clone(), either::dead_letters(&spool)];
    Ok((
        Some(Backlog::new(spool, mode)),
        Some(logs),
        Some(committing),
    ))
}

fn in_flight_batches_max(shape: &Shape) -> usize {
    shape.workers * batcher::in_flight_batches_max(shape.streams)
}

fn batch(shape: &Shape) -> BatchConfig {
    BatchConfig {
        bytes_max: 20_000,
        records_max: shape.batch_records,
        linger: shape.linger,
    }
}

fn ack(shape: &Shape) -> AckConfig {
    AckConfig {
        mode: shape.ack,
        timeout: shape.ack_timeout,
    }
}

fn delivery_options(shape: &Shape) -> DeliveryOptions {
    DeliveryOptions {
        streams: streams(shape),
        batch: batch(shape),
        stream_batches_max: shape.workers * OWN_BATCHES_MAX,
        shared_batches_max: shape.workers * SHARED_BATCHES_MAX,
        ack_timeout: shape.ack_timeout,
    }
}

fn limits(shape: &Shape) -> Limits {
    const UNLIMITED: Quota = Quota {
        rate: 0.0,
        burst: 0,
    };
    Limits::new(&LimitsConfig {
        device_requests: Quota {
            rate: shape.device_rate as f64,
            burst: 2 * shape.device_rate,
        },
        device_bytes: UNLIMITED,
        device_classes: Vec::new(),
        address_requests: UNLIMITED,
        address_handshakes: UNLIMITED,
        gateway_requests: UNLIMITED,
        devices_max: 1000,
    })
}

fn http_config() -> HttpConfig {
    HttpConfig {
        body_bytes_max: BODY_BYTES_MAX,
        records_bytes_max: BODY_BYTES_MAX,
        records_max: 100,
        content_encodings: ContentEncodings {
            gzip: true,
            zstd: true,
        },
        authorities: Vec::new(),
        header_timeout: Duration::from_secs(10),
        body_timeout: BODY_TIMEOUT,
        body_rate_min: 0,
        idle_timeout: Duration::from_secs(300),
    }
}

/// The reception of one worker's requests, in place of listeners, TLS and the protocols.
struct Reception {
    world: Rc<World>,
    ingest: Rc<Ingest>,
    callers: BTreeMap<usize, Rc<Caller>>,
    phases: Phases,
}

impl Reception {
    async fn run(mut self, mut visits: mpsc::Receiver<Visit>) {
        let mut requests = JoinSet::new();
        loop {
            let visit = tokio::select! {
                biased;
                () = self.phases.reached(Phase::Draining) => None,
                visit = visits.recv() => visit,
            };
            let Some(visit) = visit else {
                break;
            };
            let caller = self.caller(visit.device);
            let serving = serve(self.world.clone(), self.ingest.clone(), caller, visit);
            requests.spawn_local(in_any_order(serving));
            while requests.try_join_next().is_some() {}
        }
        drop(visits);
        while requests.join_next().await.is_some() {}
    }

    fn caller(&mut self, number: usize) -> Rc<Caller> {
        let gate = &self.ingest.gate;
        let caller = self.callers.entry(number);
        caller
            .or_insert_with(|| Rc::new(caller_of(gate, number)))
            .clone()
    }
}

fn caller_of(gate: &Gate, number: usize) -> Caller {
    let id = DeviceId::parse(&format!("device-{number}")).unwrap();
    let now = gate.clock.now();
    let device = Device {
        id: id.clone(),
        not_before: Timestamp(0),
        not_after: Timestamp(u64::MAX),
        notice_from: Timestamp(u64::MAX),
        expires: HeaderValue::from_static(""),
    };
    let address = [127, 0, 0, 1].into();
    Caller {
        device: Ok(KnownDevice {
            device,
            limits: gate.limits.device(&id, now),
            streams: Default::default(),
            memory: gate.admission.device(&id),
        }),
        credential: Credential {
            certificate: Fingerprint([0; 32]),
            vouched: Vouched::Chain(Vec::new()),
        },
        standing: Default::default(),
        edition: Default::default(),
        content_types: Default::default(),
        address,
        address_limits: gate.limits.address(address, now).unwrap(),
        accepted_bytes: Default::default(),
    }
}

/// Serves one request for as long as its device waits for the answer.
async fn serve(world: Rc<World>, ingest: Rc<Ingest>, caller: Rc<Caller>, visit: Visit) {
    let Visit {
        stream,
        key,
        pieces,
        is_declared,
        mut answer,
        ..
    } = visit;
    let path = format!("/v1/streams/stream-{stream}");
    let length = pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>();
    let length = length.to_string();
    let mut head = RequestHead::new("POST", &path, Some("gateway"));
    head.note("idempotency-key", key.as_bytes());
    if is_declared {
        head.note("content-length", length.as_bytes());
    }
    let at = Moment {
        instant: Instant::now(),
        wall: world.wall_clock(),
    };
    let taking = async {
        let mut request = ingest.admit(&caller, &head, at)?;
        ingest.take(&mut request, SimBody::new(pieces)).await
    };
    let taken = tokio::select! {
        biased;
        taken = taking => taken,
        () = answer.closed() => return,
    };
    let status = match &taken {
        Ok(()) => 204,
        Err(refusal) => problem(refusal).status.as_u16(),
    };
    if let Err(refusal) = &taken {
        world
            .ledger
            .met(format!("refused {:?}", problem(refusal).code));
    }
    // The device may be gone.
    let _ = answer.send(status);
}

/// A body whose pieces come after their waits.
struct SimBody {
    pieces: VecDeque<(Duration, Bytes)>,
    wait: Option<std::pin::Pin<Box<Sleep>>>,
}

impl SimBody {
    fn new(pieces: Pieces) -> Self {
        let pieces = pieces.into();
        Self { pieces, wait: None }
    }
}

impl Body for SimBody {
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenBody>>> {
        let Some((wait, _)) = self.pieces.front() else {
            return Poll::Ready(None);
        };
        if !wait.is_zero() {
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(*wait)));
            if wait.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
        self.wait = None;
        let piece = self.pieces.pop_front();
        Poll::Ready(piece.map(|(_, piece)| Ok(piece)))
    }
}
