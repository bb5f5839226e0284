//! Random histories of arrivals, calls, answers, reshards and time, against the module's promises.

use std::collections::HashSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::super::entry::Deadlines;
use super::super::shards::tests::even;
use super::super::told::{Reply, Told, Waiting};
use super::*;
use crate::record::{Record, RecordId, Timestamp};

const ACK_TIMEOUT: Duration = Duration::from_secs(12);
const DEVICES: u8 = 6;

#[derive(Clone, Debug)]
enum Step {
    Arrive {
        device: u8,
        bytes: usize,
    },
    Call,
    /// Answers a call in flight; each put gets the verdict at its index, cycled.
    Answer {
        call: usize,
        verdicts: Vec<u8>,
    },
    Reshard {
        shards: usize,
    },
    Pass {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![4 => Just(10usize), 1 => Just(30_000usize), 1 => Just(CALL_BYTES_MAX / 3), 1 => Just(CALL_BYTES_MAX + 1)];
    prop_oneof![
        8 => (0..DEVICES, bytes).prop_map(|(device, bytes)| Step::Arrive { device, bytes }),
        4 => Just(Step::Call),
        4 => (0..4usize, prop::collection::vec(0..8u8, 1..6)).prop_map(|(call, verdicts)| Step::Answer { call, verdicts }),
        1 => (1..5usize).prop_map(|shards| Step::Reshard { shards }),
        2 => (1..4000u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

struct World {
    pending: Pending,
    calls: Vec<Vec<Put>>,
    now: Instant,
    arrived: u32,
    /// Records in the order in which the stream got them.
    written: Vec<u32>,
    /// The device of each record.
    devices: Vec<u8>,
    told: Told,
    _waiting: Waiting,
    payload: Bytes,
}

impl World {
    fn new(shards: Shards, packed: bool) -> Self {
        let told = Told::nothing_of(4096);
        let now = Instant::now();
        Self {
            pending: Pending::new(Arc::new(shards), packed, now),
            calls: Vec::new(),
            now,
            arrived: 0,
            written: Vec::new(),
            devices: Vec::new(),
            _waiting: told.wait(),
            told,
            payload: Bytes::from(vec![0; CALL_BYTES_MAX + 1]),
        }
    }

    fn arrive(&mut self, device: u8, bytes: usize) {
        let payload = self.payload.slice(..bytes);
        let record = Record::bare(&format!("device-{device}"), payload, Timestamp(0));
        let reply = self.told.reply(self.arrived);
        let entry = Entry::new(&record, Deadlines::from(self.now, ACK_TIMEOUT), reply);
        self.pending.take_in(vec![entry], self.now);
        self.devices.push(device);
        self.arrived += 1;
    }

    fn call(&mut self) -> usize {
        let call = self.pending.next_call(self.now);
        let (sent, bytes) = (
            call.len(),
            call.iter().map(|put| put.load().bytes).sum::<usize>(),
        );
        assert!(sent <= CALL_RECORDS_MAX);
        assert!(
            bytes <= CALL_BYTES_MAX || sent == 1,
            "{bytes} bytes in {sent} puts"
        );
        for put in &call {
            let shards: HashSet<_> = put
                .entries
                .iter()
                .map(|entry| self.pending.shards.find(entry.hash_key))
                .collect();
            assert_eq!(shards.len(), 1, "an aggregate for several shards");
            assert!(
                put.data().len() + put.key().len() <= put.load().bytes,
                "larger than was said"
            );
        }
        if !call.is_empty() {
            self.calls.push(call);
        }
        let puts = self.calls.iter().flatten();
        let on_the_wire = puts.flat_map(|put| {
            put.entries
                .iter()
                .map(|entry| &entry.device)
                .collect::<HashSet<_>>()
        });
        let on_the_wire: Vec<_> = on_the_wire.collect();
        assert_eq!(
            on_the_wire.iter().collect::<HashSet<_>>().len(),
            on_the_wire.len(),
            "a device in two puts"
        );
        sent
    }

    fn answer(&mut self, call: usize, verdicts: &[u8]) {
        if self.calls.is_empty() {
            return;
        }
        let call = self.calls.swap_remove(call % self.calls.len());
        let mut answer = Answer::default();
        for (put, verdict) in call.into_iter().zip(verdicts.iter().cycle()) {
            if *verdict == 3 {
                answer.full_shards.insert(put.shard.clone());
            }
            for entry in put.entries {
                let verdict = self.verdict(*verdict, entry.index());
                answer.settled.push((entry, verdict));
            }
        }
        self.pending.settle(answer, self.now);
    }

    fn verdict(&mut self, choice: u8, index: u32) -> Verdict {
        match choice {
            0 => Verdict::Refused("refused".into()),
            1 => Verdict::Hopeless(Outcome::Barred("gone".into())),
            2 => Verdict::Failed {
                reason: "lost".into(),
                maybe_written: true,
            },
            3 | 4 => Verdict::Failed {
                reason: "throttled".into(),
                maybe_written: false,
            },
            _ => {
                self.written.push(index);
                Verdict::Written
            }
        }
    }

    fn reshard(&mut self, shards: usize) {
        self.pending.reshard(Arc::new(even(shards)), self.now);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pending.tick(self.now);
        let fronts = self
            .pending
            .devices
            .values()
            .filter_map(|device| device.entries.front());
        assert!(
            { fronts }.all(|entry| entry.deadlines.last_call > self.now),
            "what is overdue is given up"
        );
    }

    fn outcomes(&self) -> Vec<(u32, Outcome)> {
        self.told.take()
    }

    /// Answers the calls in flight, lets the time pass, and looks at the outcomes.
    fn end(mut self) {
        while !self.calls.is_empty() {
            self.answer(0, &[5]);
        }
        self.pass(ACK_TIMEOUT);
        assert!(self.pending.is_empty() && self.pending.due.is_empty());
        assert_eq!(self.pending.waiting, 0);
        assert!(
            self.pending
                .queues
                .iter()
                .all(|queue| queue.ready.is_empty() && queue.load == Load::default())
        );
        let outcomes = self.outcomes();
        let indexes: Vec<_> = outcomes.iter().map(|(index, _)| *index).collect();
        assert_eq!(
            indexes,
            (0..self.arrived).collect::<Vec<_>>(),
            "each record is reported once"
        );
        let delivered = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == Outcome::Delivered)
            .count();
        assert_eq!(delivered, self.written.len(), "delivered means written");
        for device in 0..DEVICES {
            let of_device = self
                .written
                .iter()
                .filter(|index| self.devices[**index as usize] == device);
            assert!(
                of_device.is_sorted(),
                "the records of a device are written in their order"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_history_keeps_the_limits_the_order_and_every_record(
        packed in any::<bool>(),
        shards in 0..4usize,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(if shards == 0 { Shards::unknown() } else { even(shards) }, packed);
        for step in steps {
            match step {
                Step::Arrive { device, bytes } => world.arrive(device, bytes),
                Step::Call => drop(world.call()),
                Step::Answer { call, verdicts } => world.answer(call, &verdicts),
                Step::Reshard { shards } => world.reshard(shards),
                Step::Pass { millis } => world.pass(Duration::from_millis(millis)),
            }
            let waiting: Load = world.pending.devices.values().map(Device::load).sum();
            let queued: Vec<_> = world.pending.queues.iter().map(|queue| queue.load).collect();
            prop_assert_eq!(waiting.records, world.pending.waiting);
            prop_assert_eq!(waiting.records, queued.iter().map(|load| load.records).sum::<usize>());
            prop_assert_eq!(waiting.bytes, queued.iter().map(|load| load.bytes).sum::<usize>());
        }
        world.end();
    }
}

#[test]
fn a_batch_of_many_devices_is_cut_at_the_record_limit_and_fits_one_put_when_packed() {
    for (packed, puts) in [(false, [500, 100, 0]), (true, [1, 0, 0])] {
        let mut world = World::new(even(1), packed);
        let entries = (0..600)
            .map(|index| entry(world.now, world.told.reply(index), index))
            .collect();
        world.pending.take_in(entries, world.now);
        assert_eq!(
            [(); 3].map(|()| world.pending.next_call(world.now).len()),
            puts
        );
    }
}

/// However many devices wait, a tick looks at those that have something due, and at each new one
/// once.
#[test]
fn a_tick_looks_at_what_is_due_only() {
    const WAITING: u32 = 4000;
    let mut world = World::new(even(1), true);
    let entries = (0..WAITING).map(|index| entry(world.now, world.told.reply(index), index));
    let (batch, start) = (entries.collect(), world.now);
    world.pending.take_in(batch, start);
    let tick =
        |world: &mut World, millis| world.pending.tick(start + Duration::from_millis(millis));
    assert_eq!(tick(&mut world, 25), WAITING as usize);
    assert!((2..100).all(|ticks| tick(&mut world, 25 * ticks) == 0));
    let overdue = ACK_TIMEOUT.as_millis() as u64 * 3 / 4;
    assert_eq!(tick(&mut world, overdue), WAITING as usize);
    assert_eq!(tick(&mut world, overdue + 25), 0);
    assert_eq!(world.outcomes().len(), WAITING as usize);
    assert!(world.pending.is_empty());
}

/// However many shards there are, those without a ready device cost a call nothing, and a shard
/// that its pace holds waits for the next tick.
#[test]
fn only_shards_with_ready_devices_have_turns() {
    let mut world = World::new(even(1000), false);
    assert_eq!(world.call(), 0);
    (0..DEVICES).for_each(|device| world.arrive(device, 10));
    let turns = world.pending.turns.len();
    assert!((1..=usize::from(DEVICES)).contains(&turns), "{turns}");
    assert_eq!(world.call(), usize::from(DEVICES));
    assert!(world.pending.turns.is_empty() && world.pending.paced.is_empty());
    world.answer(0, &[3]);
    world.pass(BACKOFF_MAX);
    assert_eq!(world.pending.turns.len(), turns);
}

fn entry(now: Instant, reply: Reply, device: u32) -> Entry {
    let record = Record {
        id: RecordId::from_key(b"k").unwrap(),
        ..Record::bare(&format!("d{device}"), "", Timestamp(0))
    };
    Entry::new(&record, Deadlines::from(now, ACK_TIMEOUT), reply)
}

#[test]
fn a_device_s_records_travel_one_by_one_or_in_one_aggregate() {
    for (packed, in_first_call) in [(false, 1), (true, 3)] {
        let mut world = World::new(even(1), packed);
        (0..3).for_each(|_| world.arrive(1, 10));
        assert_eq!(world.call(), 1);
        assert_eq!(world.calls[0][0].entries.len(), in_first_call);
        assert_eq!(
            world.call(),
            0,
            "nothing more of it, before that is answered"
        );
        world.answer(0, &[4]);
        world.pass(BACKOFF_MAX);
        world.call();
        let again: Vec<_> = world.calls[0][0].entries.iter().map(Entry::index).collect();
        assert_eq!(
            again,
            (0..in_first_call as u32).collect::<Vec<_>>(),
            "what failed goes first, in its order"
        );
    }
}

/// One shard is full; the devices of the others do not notice.
#[test]
fn a_full_shard_holds_up_its_own_devices_only() {
    let mut world = World::new(even(2), false);
    (0..DEVICES).for_each(|device| world.arrive(device, 10));
    let puts = world.call();
    let full = world.calls[0][0].shard.clone();
    let elsewhere = world.calls[0]
        .iter()
        .filter(|put| put.shard != full)
        .count();
    assert!(elsewhere > 0 && elsewhere < puts, "devices in both shards");
    let answers: Vec<u8> = world.calls[0]
        .iter()
        .map(|put| if put.shard == full { 3 } else { 5 })
        .collect();
    world.answer(0, &answers);
    (0..DEVICES).for_each(|device| world.arrive(device, 10));
    assert_eq!(world.call(), elsewhere);
    assert!(world.calls[0].iter().all(|put| put.shard != full));
}

/// More than the shard can take by a quarter of the time-out is turned away at once, for the spool
/// or another try.
#[test]
fn a_record_that_would_wait_too_long_is_not_taken_in() {
    let mut world = World::new(even(1), true);
    (0..8).for_each(|_| world.arrive(1, CALL_BYTES_MAX / 5));
    let refused = world.outcomes();
    assert_eq!(
        refused,
        (4..8)
            .map(|index| (
                index,
                Outcome::Retryable("the shard is over its limit".into())
            ))
            .collect::<Vec<_>>()
    );
}

#[test]
fn a_record_that_may_be_written_is_unknown_in_the_end() {
    let mut world = World::new(even(1), false);
    world.arrive(1, 10);
    world.arrive(1, 10);
    world.call();
    world.answer(0, &[2]);
    world.pass(BACKOFF_MAX);
    world.call();
    world.answer(0, &[3]);
    world.pass(ACK_TIMEOUT);
    assert_eq!(
        world.outcomes(),
        [
            (0, Outcome::Unknown),
            (1, Outcome::Retryable("throttled".into()))
        ]
    );
}

#[test]
fn a_stream_that_is_gone_bars_all_that_its_devices_have() {
    let mut world = World::new(even(1), false);
    world.arrive(1, 10);
    world.arrive(1, 10);
    world.call();
    world.answer(0, &[1]);
    let barred = Outcome::Barred("gone".into());
    assert_eq!(world.outcomes(), [(0, barred.clone()), (1, barred)]);
    assert!(world.pending.is_empty());
}

#[test]
fn what_nobody_waits_for_any_more_is_not_sent() {
    let mut world = World::new(even(1), true);
    let told = Told::nothing_of(1);
    let waiting = told.wait();
    let entry = entry(world.now, told.reply(0), 0);
    world.pending.take_in(vec![entry], world.now);
    drop(waiting);
    assert_eq!(world.call(), 0);
    assert!(world.pending.is_empty());
}
