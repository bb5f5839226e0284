//! The world of one life: time, the disk, the broker and the devices, and the processes that come
//! and go in it.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Lived;
use super::broker::Broker;
use super::devices::Device;
use super::faults::Faults;
use super::gateway::{Exit, Gateway};
use super::judge;
use super::kinesis;
use super::ledger::Ledger;
use super::plan::{End, How, Plan, random};
use super::reception::Door;
use crate::batcher::idle::IdleSignal;
use crate::devices::{DevicesFile, read_text};
use crate::jitter::seeded::{self, Seeded};
use crate::record::Timestamp;
use crate::sink::kinesis::service::tests::Question;
use crate::spool::tests::sim::SimDisk;

/// Wall clock of the beginning.
const EPOCH_MILLIS: u64 = 1_700_000_000_000;

/// A service manager starts a process again after this that could not start.
const START_INTERVAL: Duration = Duration::from_millis(500);

/// Time that the last process has for its drain: nothing keeps it from ending sooner.
const LAST_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub plan: Plan,
    pub ledger: Rc<Ledger>,
    pub faults: Rc<Faults>,
    pub broker: Rc<Broker>,
    /// Asks the simulated service of Kinesis.
    pub kinesis: mpsc::Sender<Question>,
    pub disk: SimDisk,
    /// The devices file, of which every process has the table in force.
    pub devices: DevicesFile,
    pub idle: Vec<IdleSignal>,
    pub began_at: Instant,
    gateway: RefCell<Option<Rc<Gateway>>>,
    /// The end of each process.
    pub ends: RefCell<Vec<Ended>>,
    /// Records that full spools have dropped.
    pub dropped: Cell<u64>,
    /// Frames of the spool that could not be read.
    pub damaged: Cell<u64>,
    /// Records in frames that had a bit flipped.
    pub flipped: Cell<u64>,
    /// Whether records cannot leave at the end, since the log of dead letters is full.
    pub is_stuck: Cell<bool>,
    wrong: RefCell<Vec<String>>,
}

/// The end of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Killed,
    Exited(Exit),
}

impl World {
    pub(crate) fn live(plan: Plan) -> Lived {
        let _seeded = Seeded::new(plan.seed, plan.put_off_percent);
        let idle: Vec<IdleSignal> = (0..plan.shape.workers)
            .map(|_| IdleSignal::default())
            .collect();
        let signals = idle.clone();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || signals.iter().for_each(IdleSignal::signal))
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async {
            Rc::new(Self::new(plan, idle)).run().await
        })
    }

    fn new(plan: Plan, idle: Vec<IdleSignal>) -> Self {
        let (ledger, faults) = (Rc::new(Ledger::new()), Faults::new(plan.faults.clone()));
        let faults = Rc::new(faults);
        let chance = random(plan.seed, 7);
        let broker = Broker::new(&plan.shape, chance, faults.clone(), ledger.clone());
        let broker = Rc::new(broker);
        Self {
            kinesis: kinesis::start(broker.clone()),
            disk: SimDisk::new(random(plan.seed, 8).next()),
            devices: DevicesFile::start(None).expect("there is no file to read"),
            began_at: Instant::now(),
            gateway: RefCell::default(),
            ends: RefCell::default(),
            dropped: Cell::new(0),
            damaged: Cell::new(0),
            flipped: Cell::new(0),
            is_stuck: Cell::default(),
            wrong: RefCell::default(),
            broker,
            ledger,
            faults,
            idle,
            plan,
        }
    }

    async fn run(self: Rc<Self>) -> Lived {
        let weather = spawn_local(self.clone().weather());
        let devices = self.plan.devices.iter();
        let devices: Vec<JoinHandle<()>> = devices
            .map(|plan| spawn_local(Device::new(self.clone(), plan.clone()).run()))
            .collect();
        for end in self.plan.ends.clone() {
            self.live_until(&end).await;
            sleep(end.pause).await;
        }
        self.live_to_the_end(devices).await;
        weather.abort();
        self.verdict()
    }

    fn verdict(&self) -> Lived {
        let mut faults = self.wrong.take();
        faults.extend(judge::judge(self));
        let facts = &mut *self.ledger.facts.borrow_mut();
        Lived {
            faults,
            story: std::mem::take(&mut facts.story),
            met: std::mem::take(&mut facts.met),
            simulated: self.began_at.elapsed(),
        }
    }

    pub(crate) fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        self.ledger.tell(format_args!("WRONG: {what}"));
        self.wrong.borrow_mut().push(what);
    }

    /// Counts an answer by the faults that are on.
    pub(crate) fn note_answer(&self, status: Option<u16>) {
        let shape = &self.plan.shape;
        let answer = status.map_or("none".into(), |status| status.to_string());
        let spool = shape
            .spool
            .map_or("no spool".into(), |mode| format!("{mode:?}"));
        let setting = format!("{:?}, {spool}, {:?}", shape.ack, shape.sink);
        self.ledger.met(format!("{setting}: {answer}"));
        for fault in self.faults.names() {
            self.ledger.met(format!("{fault}: {answer}"));
        }
    }

    pub(crate) fn wall_clock(&self) -> Timestamp {
        let passed = self.began_at.elapsed().as_millis() as u64;
        Timestamp(EPOCH_MILLIS + passed + self.faults.clock_ahead_millis())
    }

    /// Whether there is a reason to refuse requests for now.
    pub(crate) fn may_shed(&self) -> bool {
        let Plan {
            shape,
            faults,
            ends,
            ..
        } = &self.plan;
        // Records that find no room among the dead letters fill the spool.
        let is_small = shape.memory_bytes < 1 << 20 || self.is_stuck.get();
        !faults.is_empty() || !ends.is_empty() || is_small
    }

    /// Whether no device is to begin anything any more.
    pub(crate) fn is_over(&self) -> bool {
        self.began_at.elapsed() >= self.plan.length
    }

    /// Returns the door of a connection's requests; `None` while no gateway listens.
    pub(crate) fn door(&self, connection: usize) -> Option<Door> {
        let gateway = self.gateway.borrow();
        let doors = &gateway.as_ref()?.doors;
        Some(doors[connection % doors.len()].clone())
    }

    /// Returns the number of the process that runs.
    pub(crate) fn process(&self) -> usize {
        self.ends.borrow().len()
    }

    /// Gives the disk the faults of the hour.
    async fn weather(self: Rc<Self>) {
        let (mut flips, mut devices_file) = (0, String::new());
        loop {
            for _ in flips..self.faults.bits_flipped() {
                self.flip();
            }
            flips = self.faults.bits_flipped();
            let file = self.faults.devices_file();
            if file != devices_file {
                self.change_devices(&file);
                devices_file = file;
            }
            let (writes, reads) = self.faults.disk_percents();
            self.disk.set_faults(writes, reads);
            seeded::set_disk_turn_max(self.faults.disk_turn_max());
            let Some(next) = self.faults.next_change() else {
                return;
            };
            sleep_until(next).await;
        }
    }

    /// Puts another devices file in force, at once.
    fn change_devices(&self, file: &str) {
        let devices = read_text(file.as_bytes(), Path::new("devices"));
        self.devices
            .put_in_force(devices.expect("its lines are good"));
        self.ledger
            .tell(format_args!("the devices file is {file:?}"));
        self.ledger.met("reload: a devices file");
    }

    /// Flips a bit in a frame that is at rest.
    fn flip(&self) {
        let records = self.disk.flip_in_frame();
        self.ledger
            .tell(format_args!("a bit flips in a frame, records: {records:?}"));
        if let Some(records) = records {
            self.ledger.met("disk: a bit flips in a frame");
            self.flipped.set(self.flipped.get() + u64::from(records));
        }
    }

    /// Starts a process, again and again until it is up.
    async fn start(self: &Rc<Self>) -> Rc<Gateway> {
        loop {
            match Gateway::start(self).await {
                Ok(gateway) => {
                    self.ledger.tell("a process is up");
                    self.gateway.replace(Some(gateway.clone()));
                    return gateway;
                }
                Err(error) => {
                    self.ledger.tell(format_args!("no process: {error}"));
                    self.ledger.met("start failed");
                    sleep(START_INTERVAL).await;
                }
            }
        }
    }

    async fn live_until(self: &Rc<Self>, end: &End) {
        seeded::die_after(u64::MAX);
        let tasks = LocalSet::new();
        let ended = tasks.run_until(async {
            let gateway = self.start().await;
            let ended = self.end(&gateway, end).await;
            self.note_dropped(&gateway, ended);
            ended
        });
        let ended = ended.await;
        self.gateway.take();
        drop(tasks);
        if let How::Crash { .. } = end.how {
            self.disk.crash();
        }
        self.has_ended(ended);
    }

    fn has_ended(&self, ended: Ended) {
        self.ledger
            .tell(format_args!("the process has ended: {ended:?}"));
        let is_clean = matches!(ended, Ended::Exited(exit) if exit.is_clean());
        // A disk that fails does not keep retirements either.
        if !is_clean || self.faults.disk_percents() != (0, 0) {
            self.ledger.died();
        }
        self.ledger.met(ended.name());
        self.ends.borrow_mut().push(ended);
    }

    /// Lets a process live until its end.
    async fn end(&self, gateway: &Gateway, end: &End) -> Ended {
        let drain_timeout = self.plan.shape.drain_timeout;
        let signal = async {
            sleep_until(self.began_at + end.at).await;
            self.ledger.tell(format_args!("{:?}", end.how));
        };
        let exit = match end.how {
            How::Crash { polls } | How::Kill { polls } => {
                signal.await;
                seeded::die_after(polls);
                let _ = timeout(Duration::from_secs(1), seeded::died()).await;
                seeded::die();
                return Ended::Killed;
            }
            How::Terminate => gateway.end(signal, pending(), drain_timeout).await,
            How::TerminateTwice(after) => {
                gateway
                    .end(signal, sleep_from_now(after), drain_timeout)
                    .await
            }
        };
        Ended::Exited(exit)
    }

    /// Lives with the last process, which nothing befalls once the plan is over.
    async fn live_to_the_end(self: &Rc<Self>, devices: Vec<JoinHandle<()>>) {
        seeded::die_after(u64::MAX);
        let tasks = LocalSet::new();
        let ended = tasks.run_until(async {
            let gateway = self.start().await;
            let is_through = self.see_through(&gateway, devices);
            let exit = gateway.end(is_through, pending(), LAST_DRAIN_TIMEOUT).await;
            let ended = Ended::Exited(exit);
            self.read_logs(&gateway);
            self.note_dropped(&gateway, ended);
            ended
        });
        let ended = ended.await;
        self.gateway.take();
        drop(tasks);
        self.has_ended(ended);
    }
}

impl Ended {
    fn name(self) -> String {
        match self {
            Self::Killed => "end: killed".into(),
            Self::Exited(Exit {
                told, has_hurried, ..
            }) => {
                let unsafe_records = told.unsafe_records > 0;
                format!(
                    "end: clean {}, hurried {has_hurried}, unsafe records {unsafe_records}",
                    told.is_clean
                )
            }
        }
    }
}

/// Returns so long after it was first asked.
async fn sleep_from_now(duration: Duration) {
    sleep(duration).await;
}
