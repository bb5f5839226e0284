//! Devices as the contract has them: some wait for each answer, some send several at a time, some
//! leave in the middle, and the bodies of some take their time.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::ledger::Sent;
use super::plan::{DevicePlan, Manner, random};
use super::reception::Visit;
use super::world::World;
use crate::spool::tests::sim::Random;

/// A reading is sent so often at most.
const SENDS_MAX: usize = 12;

/// A body of which each piece comes after a wait.
pub(crate) type Pieces = Vec<(Duration, Bytes)>;

/// One device, for as long as it has readings.
pub(crate) struct Device {
    world: Rc<World>,
    plan: DevicePlan,
    random: Random,
    connection: usize,
}

impl Device {
    pub(crate) fn new(world: Rc<World>, plan: DevicePlan) -> Self {
        let random = random(plan.seed, 0);
        let connection = plan.number;
        Self {
            world,
            plan,
            random,
            connection,
        }
    }

    pub(crate) async fn run(mut self) {
        let mut reading = 0;
        while reading < self.plan.readings {
            let rests = reading == 0 || self.random.chance(6);
            let longest = if rests {
                self.plan.rest_max
            } else {
                self.plan.pause_max
            };
            let pause = self.random.below(longest.as_millis() as u64);
            sleep(Duration::from_millis(pause)).await;
            if self.world.is_over() {
                break;
            }
            let together = match self.plan.manner {
                Manner::Concurrent => 1 + self.random.below(5),
                _ => 1,
            };
            let mut sends = Vec::new();
            for reading in reading..reading + together {
                sends.push(self.send(reading));
            }
            join_all(sends).await;
            reading += together;
        }
    }

    /// Sends one reading until it is taken, or no more.
    fn send(&mut self, reading: u64) -> impl Future<Output = ()> + 'static {
        if self.plan.reconnects && self.random.chance(20) {
            self.connection += 1;
        }
        let (world, plan, connection) = (self.world.clone(), self.plan.clone(), self.connection);
        let mut random = random(self.random.next(), reading);
        let stream = random.below(world.plan.shape.streams as u64) as usize;
        async move {
            for send in 0..SENDS_MAX {
                let attempt = Try {
                    world: &world,
                    plan: &plan,
                    reading,
                    stream,
                    connection,
                };
                let status = attempt.send(&mut random).await;
                let is_done = matches!(status, Some(204 | 400 | 408 | 413 | 502));
                if is_done || !plan.resends || world.is_over() {
                    break;
                }
                sleep(Duration::from_millis(
                    50 + random.below(1000 << send.min(3)),
                ))
                .await;
            }
        }
    }
}

/// One request of a reading.
struct Try<'a> {
    world: &'a World,
    plan: &'a DevicePlan,
    reading: u64,
    stream: usize,
    connection: usize,
}

impl Try<'_> {
    /// Sends the request. Returns the status; `None` if there is no answer.
    async fn send(&self, random: &mut Random) -> Option<u16> {
        let Some(door) = self.world.door(self.connection) else {
            return None; // nobody listens
        };
        let (device, stream) = (self.plan.number, self.stream);
        let ledger = &self.world.ledger;
        let attempt = ledger.sent(Sent {
            device,
            reading: self.reading,
            stream,
            worker: self.connection % self.world.plan.shape.workers,
            process: self.world.process(),
        });
        let (answer, answered) = oneshot::channel();
        let (pieces, is_declared) = self.body(attempt, random);
        let visit = Visit {
            device,
            stream,
            key: format!("{device}-{}", self.reading),
            pieces,
            is_declared,
            answer,
        };
        let status = match door.try_send(visit) {
            Ok(()) => self.wait(answered, random).await,
            Err(_) => None,
        };
        ledger.told(attempt, status);
        self.world.note_answer(status);
        status
    }

    async fn wait(&self, answered: oneshot::Receiver<u16>, random: &mut Random) -> Option<u16> {
        let leaves = self.plan.manner == Manner::Leaving && random.chance(50);
        if !leaves {
            return answered.await.ok();
        }
        let patience = Duration::from_millis(random.below(200));
        let answered = timeout(patience, answered).await;
        answered.ok()?.ok()
    }

    fn body(&self, attempt: usize, random: &mut Random) -> (Pieces, bool) {
        let mut payload = (attempt as u64).to_le_bytes().to_vec();
        payload.resize(8 + random.below(self.plan.body_bytes_max) as usize, b'x');
        let payload = Bytes::from(payload);
        let is_declared = random.chance(70);
        if self.plan.manner != Manner::Slow {
            return (vec![(Duration::ZERO, payload)], is_declared);
        }
        let cut = 1 + random.below(payload.len() as u64 - 1) as usize;
        let longest = if random.chance(10) { 60_000 } else { 500 };
        let pause = Duration::from_millis(random.below(longest));
        let pieces = vec![
            (Duration::ZERO, payload.slice(..cut)),
            (pause, payload.slice(cut..)),
        ];
        (pieces, is_declared)
    }
}
