//! The streams, and a simulated sink that keeps Kafka's rules.
//!
//! What it keeps of them (<https://kafka.apache.org/documentation/#producerconfigs>, of a producer
//! with `enable.idempotence`): a partition takes one request after the other; an answer that is
//! lost is asked for again without a second write; a request has `delivery.timeout.ms`, and those
//! behind one that was given up are given up too; a record over `max.message.bytes` is refused for
//! good. The streams live on when the gateway dies: requests in flight then may be written.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{LocalBoxFuture, join_all};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::faults::Faults;
use super::ledger::Ledger;
use super::plan::{Shape, What};
use crate::health::Spread;
use crate::record::{Outcome, Outcomes, Record, StreamIndex};
use crate::sink::{Arrived, Partitions, Progress, Scripted, SinkError};
use crate::spool::tests::sim::Random;

/// Interval between the client's tries of a request that did not get through.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The broker of all streams.
pub(crate) struct Broker {
    pub partitions: u64,
    pub record_bytes_max: usize,
    timeout: Duration,
    random: RefCell<Random>,
    pub faults: Rc<Faults>,
    pub ledger: Rc<Ledger>,
}

/// The lock that a request of a partition holds while it is made.
type Turn = Rc<Mutex<()>>;

/// A client of the broker: the sink of one process.
pub(crate) struct SimSink {
    broker: Rc<Broker>,
    /// The lock of each partition, which makes one request at a time, by stream and partition.
    turns: RefCell<BTreeMap<(u16, u64), Turn>>,
    given: Given,
}

/// Number of outcomes that a client has given, by their names.
pub(crate) type Given = Rc<RefCell<BTreeMap<&'static str, u64>>>;

/// Records of one request, on their way.
struct Request<'a> {
    broker: &'a Broker,
    attempts: Vec<usize>,
    /// Whether it has set out, and its write was not seen.
    is_under_way: bool,
}

impl Broker {
    pub(crate) fn new(
        shape: &Shape,
        random: Random,
        faults: Rc<Faults>,
        ledger: Rc<Ledger>,
    ) -> Self {
        Self {
            partitions: shape.partitions,
            record_bytes_max: shape.record_bytes_max,
            timeout: shape.ack_timeout,
            random: RefCell::new(random),
            faults,
            ledger,
        }
    }

    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.random.borrow_mut().chance(percent)
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.borrow_mut().below(bound)
    }

    fn partition(&self, record: &Record) -> u64 {
        let partition = partition(record.device.as_str().as_bytes(), self.partitions as u32);
        let shift = u64::from(self.faults.has(What::Resharded));
        (u64::from(partition) + shift) % self.partitions
    }

    /// Returns the time that the next request takes.
    pub(crate) fn latency(&self) -> Duration {
        let percent = 50 + self.below(100);
        self.faults.latency().mul_f64(percent as f64 / 100.0)
    }

    pub(crate) fn write(&self, attempts: &[usize]) {
        for attempt in attempts {
            self.ledger.arrived(*attempt);
        }
    }

    /// Returns the outcome of a stream that is closed now.
    fn barred(&self, stream: StreamIndex) -> Option<Outcome> {
        let is_gone = self.faults.has(What::Gone(stream.get()));
        let is_closed = self.faults.has(What::Forbidden(stream.get()));
        (is_gone || is_closed).then(|| Outcome::Barred("closed".into()))
    }
}

/// Returns the partition of a device's records, while nothing is resharded.
fn partition(device: &[u8], partitions: u32) -> u32 {
    let sum: u32 = device.iter().map(|byte| u32::from(*byte)).sum();
    sum % partitions
}

impl SimSink {
    pub(crate) fn new(broker: Rc<Broker>, given: Given) -> Self {
        let turns = RefCell::default();
        Self {
            broker,
            turns,
            given,
        }
    }

    /// Splits the records of a call by their partitions, each of which takes them one after the
    /// other.
    fn parts(&self, records: &[Record]) -> BTreeMap<u64, Vec<usize>> {
        let mut parts: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (index, record) in records.iter().enumerate() {
            let partition = self.broker.partition(record);
            parts.entry(partition).or_default().push(index);
        }
        parts
    }

    fn turn(&self, stream: StreamIndex, partition: u64) -> Turn {
        let mut turns = self.turns.borrow_mut();
        turns.entry((stream.0, partition)).or_default().clone()
    }

    /// Takes records of one part to the broker; returns the outcome of each.
    async fn deliver_part(
        &self,
        stream: StreamIndex,
        partition: u64,
        part: Vec<usize>,
        records: &[Record],
    ) -> Vec<(usize, Outcome)> {
        let deadline = Instant::now() + self.broker.timeout;
        let turn = self.turn(stream, partition);
        let _turn = timeout_at(deadline, turn.lock()).await;
        let chunk_max = 1 + self.broker.below(8);
        let mut outcomes = Vec::with_capacity(part.len());
        let mut given_up = match _turn {
            Err(_) => Some(Outcome::Retryable("timed out in the queue".into())),
            Ok(_) => None,
        };
        for chunk in part.chunks(chunk_max as usize) {
            let (fit, unfit): (Vec<usize>, Vec<usize>) = chunk
                .iter()
                .partition(|index| records[**index].payload.len() <= self.broker.record_bytes_max);
            let too_large = |index: usize| {
                let attempt = attempt_of(&records[index].payload);
                self.broker.ledger.refused(attempt);
                (index, Outcome::Permanent("too large".into()))
            };
            outcomes.extend(unfit.into_iter().map(too_large));
            let outcome = match &given_up {
                Some(outcome) => outcome.clone(),
                None => {
                    self.request(stream, partition, &fit, records, deadline)
                        .await
                }
            };
            if outcome != Outcome::Delivered {
                // Later chunks were not sent.
                given_up = Some(match &outcome {
                    Outcome::Barred(reason) => Outcome::Barred(reason.clone()),
                    _ => Outcome::Retryable("what was before it failed".into()),
                });
            }
            outcomes.extend(fit.into_iter().map(|index| (index, outcome.clone())));
        }
        outcomes
    }

    /// Makes one request until it is through, or has to be given up.
    async fn request(
        &self,
        stream: StreamIndex,
        partition: u64,
        fit: &[usize],
        records: &[Record],
        deadline: Instant,
    ) -> Outcome {
        if fit.is_empty() {
            return Outcome::Delivered;
        }
        let (broker, faults) = (&*self.broker, &*self.broker.faults);
        let attempts = fit.iter().map(|index| attempt_of(&records[*index].payload));
        let mut request = Request {
            broker,
            attempts: attempts.collect(),
            is_under_way: false,
        };
        let mut is_written = false;
        loop {
            if let Some(barred) = broker.barred(stream) {
                return if is_written {
                    request.unknown()
                } else {
                    barred
                };
            }
            if Instant::now() >= deadline {
                return match is_written {
                    true => request.unknown(),
                    false => Outcome::Retryable("timed out".into()),
                };
            }
            if !faults.reaches(partition) {
                sleep_until(deadline.min(Instant::now() + RETRY_INTERVAL)).await;
                continue;
            }
            request.is_under_way = !is_written;
            sleep_until(deadline.min(Instant::now() + broker.latency())).await;
            if faults.has(What::Silent) || Instant::now() >= deadline {
                // It may be written, but no answer says so.
                sleep_until(deadline).await;
                if !is_written {
                    request.may_arrive();
                }
                return request.unknown();
            }
            request.is_under_way = false;
            if broker.chance(faults.throttled_percent()) {
                sleep(RETRY_INTERVAL).await;
                continue;
            }
            if !is_written {
                broker.write(&request.attempts);
                is_written = true;
            }
            if !broker.chance(faults.lost_percent()) {
                return Outcome::Delivered;
            }
            sleep(RETRY_INTERVAL).await;
        }
    }
}

impl Request<'_> {
    /// Decides whether it is written, or never was.
    fn may_arrive(&mut self) -> bool {
        let arrives = std::mem::take(&mut self.is_under_way) && self.broker.chance(50);
        if arrives {
            self.broker.write(&self.attempts);
        }
        arrives
    }

    fn unknown(&self) -> Outcome {
        for attempt in &self.attempts {
            self.broker.ledger.unknown(*attempt);
        }
        Outcome::Unknown
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        // The sender has gone.
        self.may_arrive();
    }
}

/// Returns the number of the request that a record came with, with which its payload begins.
pub(crate) fn attempt_of(payload: &[u8]) -> usize {
    let (number, rest) = payload
        .split_first_chunk()
        .expect("it begins with a number");
    assert!(
        rest.iter().all(|byte| *byte == b'x'),
        "a record is as it was sent"
    );
    u64::from_le_bytes(*number) as usize
}

impl Scripted for SimSink {
    fn verify(&self, stream: StreamIndex) -> Result<(), SinkError> {
        let faults = &self.broker.faults;
        if faults.has(What::Away) || faults.has(What::Silent) {
            return Err(SinkError::Away("no answer".into()));
        }
        if faults.has(What::Gone(stream.get())) {
            return Err(SinkError::Closed("gone".into()));
        }
        Ok(())
    }

    fn partitions(&self, _: StreamIndex) -> Option<Partitions> {
        let broker = &self.broker;
        if broker.faults.has(What::Resharded) {
            return None;
        }
        let is_leaderless = |partition: &u64| !broker.faults.reaches(*partition);
        let leaderless = (0..broker.partitions).filter(is_leaderless);
        Some(Partitions {
            spread: Spread::Hashed {
                find: partition,
                partitions: broker.partitions as u32,
            },
            away: leaderless.map(|partition| partition as u32).collect(),
            may_be_silent: true,
        })
    }

    fn deliver<'a>(
        &'a self,
        stream: StreamIndex,
        records: &'a [Record],
        progress: &'a Progress,
    ) -> LocalBoxFuture<'a, Outcomes> {
        Box::pin(async move {
            let arrived = Arrived::none_of(records.len());
            progress.follow(arrived.clone());
            let deliver = async |partition, part| {
                let outcomes = self.deliver_part(stream, partition, part, records).await;
                for (index, outcome) in &outcomes {
                    if *outcome == Outcome::Delivered {
                        arrived.note(*index);
                    }
                }
                outcomes
            };
            let parts = self.parts(records).into_iter();
            let parts = parts.map(|(partition, part)| deliver(partition, part));
            let mut each = vec![Outcome::Unknown; records.len()];
            for (index, outcome) in join_all(parts).await.into_iter().flatten() {
                self.broker.ledger.met(format!("sink: {}", name(&outcome)));
                *self.given.borrow_mut().entry(name(&outcome)).or_default() += 1;
                each[index] = outcome;
            }
            Outcomes::Each(each)
        })
    }
}

fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Retryable(_) => "retryable",
        Outcome::Barred(_) => "barred",
        Outcome::Permanent(_) => "permanent",
        Outcome::Unknown => "unknown",
    }
}
