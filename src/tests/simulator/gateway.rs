//! One process: the rooms, put together as the gateway does it, from ingest to sink and spool.
//!
//! [`start`](Gateway::start) follows `gateway::run` and `worker::serve`: the same rooms in the same
//! order, with tasks in place of threads, and without listeners, TLS and files. Its end is the real
//! one: [`Shutdown`] hears of the signals, takes the process through its phases, and tells with what
//! exit code it ends.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep};

use super::broker::{Given, SimSink};
use super::plan::SinkKind;
use super::reception::{Door, Reception};
use super::rooms::{self, BODY_BYTES_MAX, Spooled};
use super::world::World;
use crate::admission::Admission;
use crate::batcher::idle::IdleSignal;
use crate::batcher::{self, Batcher, Queues};
use crate::delivery::{Delivery, Promised, STRAGGLERS_MAX};
use crate::gateway::delivery::hear_first_answer;
use crate::gateway::shutdown::{CLOSE_TIMEOUT, HURRY_TIMEOUT, Shutdown};
use crate::gateway::threads::{self, DeliveryThread, Running, Threads, WorkerThread};
use crate::handover::{self, Sender};
use crate::health::Health;
use crate::ingest::Gate;
use crate::jitter::seeded::in_any_order;
use crate::lifecycle::{Phase, Phases, Token};
use crate::record::Batch;
use crate::sink::Sink;
use crate::sink::kinesis::KinesisSink;
use crate::sink::kinesis::service::Service;
use crate::sink::kinesis::service::tests::Asker;
use crate::sink::kinesis::threads::CallThreads;
use crate::spool::tests::either;
use crate::spool::{GatewayDisk, Log};
use crate::telemetry::metrics::Metrics;
use crate::worker::{Serving, finish};

/// Time that it takes to close a listener.
const CLOSING_TIME: Duration = Duration::from_millis(5);

/// Bounds the time of the phases before the drain and behind it, with looks at the threads.
const PHASES_TIME_MAX: Duration = CLOSE_TIMEOUT
    .saturating_add(HURRY_TIMEOUT)
    .saturating_add(Duration::from_millis(50));

/// A process as the world sees it.
pub(crate) struct Gateway {
    pub doors: Vec<Door>,
    pub health: Arc<Health>,
    pub gate: Gate,
    pub batchers: Vec<Weak<Batcher>>,
    pub metrics: Arc<Metrics>,
    /// The backlog and the dead letters.
    pub logs: Option<[Log<GatewayDisk>; 2]>,
    phases: Phases,
    /// Outcomes that the sink has given, by their names in metrics.
    pub given: Given,
    /// The clock of the ledger at its start.
    pub since: u64,
    /// The parts that its end needs.
    ending: RefCell<Option<(Shutdown, Threads)>>,
}

/// The report of a process at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub told: threads::Exit,
    pub has_hurried: bool,
    /// Whether a signal asked for it; else something has ended that must not.
    pub was_asked_for: bool,
    /// Time since it was asked for, and the most that it may be.
    pub took: Duration,
    pub took_max: Duration,
}

impl Exit {
    /// Whether all was through in time.
    pub(crate) fn is_clean(self) -> bool {
        self.told.is_clean && !self.has_hurried
    }
}

impl Gateway {
    /// Starts the rooms on the local set that this is called on. An error is a spool that cannot be
    /// opened.
    pub(crate) async fn start(world: &Rc<World>) -> Result<Rc<Self>, String> {
        let shape = &world.plan.shape;
        let streams = rooms::streams(shape);
        let names = streams.iter().map(|stream| stream.name.clone());
        let metrics = Metrics::new(shape.workers, &names.collect::<Vec<_>>(), vec![]);
        let metrics = Arc::new(metrics);
        let spooled = rooms::spool(world, &metrics)?;
        let health = Arc::new(rooms::first_health(shape));
        let shutdown = Shutdown::new();
        let phases = shutdown.phases();
        let admission = Admission::new(
            shape.memory_bytes,
            BODY_BYTES_MAX,
            health.clone(),
            phases.clone(),
        );
        let mut gateway = Self {
            doors: Vec::new(),
            health,
            gate: Gate::new(rooms::limits(shape), admission),
            batchers: Vec::new(),
            metrics,
            logs: spooled.logs.clone(),
            phases,
            given: Given::default(),
            since: world.ledger.clock(),
            ending: RefCell::default(),
        };
        let (batches, received) = handover::channel(rooms::in_flight_batches_max(shape));
        let delivery = gateway.deliver(world, spooled, received, &shutdown).await?;
        let mut workers = Vec::with_capacity(shape.workers);
        for index in 0..shape.workers {
            workers.push(gateway.add_worker(world, index, batches.clone(), &shutdown));
        }
        let threads = Threads { workers, delivery };
        gateway.ending.replace(Some((shutdown, threads)));
        Ok(Rc::new(gateway))
    }

    /// Starts delivery, and returns once the sink has answered, or not in time.
    async fn deliver(
        &self,
        world: &Rc<World>,
        spooled: Spooled,
        batches: handover::Receiver<Batch>,
        shutdown: &Shutdown,
    ) -> Result<DeliveryThread, String> {
        let (promised, alarm) = (Promised::default(), shutdown.alarm());
        let delivery = Delivery::new(
            self.sink(world),
            spooled.backlog,
            self.health.clone(),
            self.metrics.clone(),
            rooms::delivery_options(&world.plan.shape),
        )
        .counting(promised.clone())
        .alarming(move |what| alarm.raise(what));
        let heard = hear_first_answer(&delivery, shutdown.alarm()).await;
        heard.map_err(|error| error.to_string())?;
        let running = delivery.run(batches, self.phases.clone());
        let committing = spooled.committing;
        let committing = committing.map(|committing| spawn_local(in_any_order(committing)));
        let ending = shutdown.ending("delivery");
        let handle = Running::Task(spawn_local(async move {
            let _told_at_the_end = ending;
            alone(running).await;
            // The thread of delivery waits for that of the spool, too.
            if let Some(committing) = committing {
                let _ = committing.await;
            }
        }));
        Ok(DeliveryThread { handle, promised })
    }

    /// Makes the sink of the shape: the real one of Kinesis before a simulated service, or a
    /// simulated one that is Kafka's.
    fn sink(&self, world: &World) -> Sink {
        let shape = &world.plan.shape;
        if shape.sink == SinkKind::Kafka {
            let sink = SimSink::new(world.broker.clone(), self.given.clone());
            return Sink::Scripted(Box::new(sink));
        }
        let asker = Asker::new(world.kinesis.clone());
        let service = Service::Simulated(Arc::new(asker));
        let (config, options) = (rooms::kinesis(shape), rooms::sink_options(shape));
        let threads = CallThreads::start(options.threads).expect("one is this one");
        Sink::Kinesis(KinesisSink::of(service, &config, options, threads))
    }

    fn add_worker(
        &mut self,
        world: &Rc<World>,
        index: usize,
        delivery: Sender<Batch>,
        shutdown: &Shutdown,
    ) -> WorkerThread {
        let shape = &world.plan.shape;
        let phases = self.phases.clone();
        let idle: IdleSignal = world.idle[index].clone();
        let batches_max = batcher::in_flight_batches_max(shape.streams);
        let (home, settled) = handover::channel(batches_max + 2 * STRAGGLERS_MAX);
        let batcher = Batcher::new(
            shape.streams as u16,
            rooms::batch(shape),
            rooms::ack(shape),
            Queues { delivery, home },
            self.metrics.worker(index),
        );
        let batcher = Rc::new(batcher.for_partitions_of(self.health.clone()));
        let ingest = rooms::ingest(shape, self.gate.clone(), batcher.clone());
        let (reception, door, visits) = Reception::new(world.clone(), ingest, phases.clone());
        self.batchers.push(Rc::downgrade(&batcher));
        self.doors.push(door);
        let (listening, ending) = (shutdown.listener(), shutdown.ending("a worker"));
        Running::Task(spawn_local(alone(async move {
            let _told_at_the_end = ending;
            spawn_local(in_any_order(listen(phases.clone(), listening)));
            let running = batcher.clone();
            let batching = spawn_local(in_any_order(async move {
                running.run(settled, idle).await;
            }));
            let mut serving = Serving::new();
            serving.spawn_local(in_any_order(reception.run(visits)));
            finish(&phases, &batcher, serving, batching).await
        })))
    }

    /// Serves until a signal comes, or the alarm is raised, and takes the process to its end;
    /// another signal hurries it.
    pub(crate) async fn end(
        &self,
        signal: impl Future<Output = ()>,
        second_signal: impl Future<Output = ()>,
        drain_timeout: Duration,
    ) -> Exit {
        let (mut shutdown, threads) = self.ending.take().expect("a process ends once");
        let (was_asked_for, hurried_at) = (Cell::new(false), Cell::new(None));
        let signal = async {
            signal.await;
            was_asked_for.set(true);
        };
        let second_signal = async {
            second_signal.await;
            hurried_at.set(Some(Instant::now()));
        };
        shutdown.asked_for(signal).await;
        let asked_at = Instant::now();
        let told = shutdown.drain(second_signal, drain_timeout, threads).await;
        let drain_max = hurried_at.get().map_or(drain_timeout, |at| at - asked_at);
        Exit {
            told,
            has_hurried: self.phases.has_reached(Phase::Hurrying),
            was_asked_for: was_asked_for.get(),
            took: asked_at.elapsed(),
            took_max: drain_max + PHASES_TIME_MAX,
        }
    }

    /// Whether records stay where they are, since the log of dead letters is full.
    pub(crate) fn is_stuck(&self) -> bool {
        let logs = self.logs.as_ref();
        logs.is_some_and(|[_, dead_letters]| either::is_full(dead_letters))
    }

    /// Whether records that stay where they are leave room for others, in memory and on disk.
    pub(crate) fn has_room(&self) -> bool {
        self.gate.admission.reserved_bytes() == 0 && self.health.report() == Ok(String::new())
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

/// Holds a listener open for as long as the gateway accepts connections.
async fn listen(phases: Phases, listening: Token) {
    phases.reached(Phase::Closing).await;
    sleep(CLOSING_TIME).await;
    drop(listening);
}

/// Runs a part that has a thread and a runtime of its own in the gateway: when it is done, so are
/// all of its tasks.
async fn alone<T>(main: impl Future<Output = T>) -> T {
    let tasks = LocalSet::new();
    tasks.run_until(in_any_order(main)).await
}
