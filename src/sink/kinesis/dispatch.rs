//! The dispatcher of one stream: takes batches in, keeps calls in flight, settles their answers.
//!
//! A task of delivery's runtime; its calls run on the sink's threads. It ends when the sink is
//! dropped, when no caller waits for an outcome any more. It takes a batch only while `pending` has
//! room, so it holds no more than that, one batch more, and the calls in flight.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::call::{self, Answer};
use super::entry::Entry;
use super::pending::Pending;
use super::stream::Stream;
use super::threads::CallThreads;

/// Calls of one stream at a time.
pub(super) const CALLS_IN_FLIGHT_MAX: usize = 8;

/// Resolution of rests, paces and deadlines.
const TICK: Duration = Duration::from_millis(25);

/// Runs until the sink is dropped. With `packed` the records go as aggregates.
pub(super) async fn run(
    stream: Arc<Stream>,
    threads: Arc<CallThreads>,
    packed: bool,
    mut batches: mpsc::Receiver<Vec<Entry>>,
) {
    let mut pending = Pending::new(stream.shards(), packed, Instant::now());
    let mut calls = JoinSet::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        pending.reshard(stream.shards(), Instant::now());
        take_waiting(&mut batches, &mut pending);
        begin_calls(&stream, &threads, &mut pending, &mut calls);
        // In this order, so that a seed of the simulator is one life. None starves another: waiting
        // batches were taken before, and calls take their time.
        tokio::select! {
            biased;
            batch = batches.recv(), if pending.has_room() => match batch {
                Some(batch) => pending.take_in(batch, Instant::now()),
                None => return,
            },
            Some(answer) = calls.join_next() => {
                let answer = answer.expect("a call neither panics nor ends before the sink");
                pending.settle(answer, Instant::now());
            }
            _ = tick.tick(), if pending.needs_ticks() => {
                pending.tick(Instant::now());
                stream.set_overloaded(pending.shards(), pending.overloaded());
            }
        }
    }
}

/// Begins as many calls as may be in flight, and as there are puts for.
fn begin_calls(
    stream: &Arc<Stream>,
    threads: &CallThreads,
    pending: &mut Pending,
    calls: &mut JoinSet<Answer>,
) {
    while calls.len() < CALLS_IN_FLIGHT_MAX {
        let puts = pending.next_call(Instant::now());
        if puts.is_empty() {
            return;
        }
        calls.spawn_on(call::put(stream.clone(), puts), threads.next());
    }
}

/// Takes the batches that wait: those that arrived together go out together.
fn take_waiting(batches: &mut mpsc::Receiver<Vec<Entry>>, pending: &mut Pending) {
    while pending.has_room()
        && let Ok(batch) = batches.try_recv()
    {
        pending.take_in(batch, Instant::now());
    }
}
