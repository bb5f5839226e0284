//! The dispatcher of one stream: takes batches in, keeps calls in flight, settles what comes back.
//!
//! A task of the sink's runtime. It ends when the sink is dropped; nobody waits for an outcome then. It takes a
//! batch only while fewer than [`RECORDS_WAITING_MAX`] records wait, so what it holds is bounded by that, one batch
//! more, and the calls in flight.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::call;
use super::pending::{Entry, Pending};

/// Calls of one stream at a time.
pub(super) const CALLS_IN_FLIGHT_MAX: usize = 8;

/// Records that wait for a call; further batches stay in the hand-over.
const RECORDS_WAITING_MAX: usize = 8192;

/// How exactly rests and deadlines are kept.
const TICK: Duration = Duration::from_millis(25);

pub(super) async fn run(client: Client, stream: Arc<str>, mut batches: mpsc::Receiver<Vec<Entry>>) {
    let mut pending = Pending::default();
    let mut calls = FuturesUnordered::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        take_waiting(&mut batches, &mut pending);
        while calls.len() < CALLS_IN_FLIGHT_MAX {
            match pending.next_call(Instant::now()) {
                call if call.is_empty() => break,
                call => calls.push(call::put(&client, &stream, call)),
            }
        }
        tokio::select! {
            batch = batches.recv(), if pending.waiting() < RECORDS_WAITING_MAX => match batch {
                Some(batch) => batch.into_iter().for_each(|entry| pending.push(entry)),
                None => return,
            },
            Some(settled) = calls.next() => pending.settle(settled, Instant::now()),
            _ = tick.tick(), if !pending.is_empty() => pending.tick(Instant::now()),
        }
    }
}

/// What arrived together goes out together.
fn take_waiting(batches: &mut mpsc::Receiver<Vec<Entry>>, pending: &mut Pending) {
    while pending.waiting() < RECORDS_WAITING_MAX
        && let Ok(batch) = batches.try_recv()
    {
        batch.into_iter().for_each(|entry| pending.push(entry));
    }
}
