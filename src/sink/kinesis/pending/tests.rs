//! Random histories of arrivals, calls, answers and time, against what the module promises.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

const ACK_TIMEOUT: Duration = Duration::from_secs(12);

#[derive(Clone, Debug)]
enum Step {
    Arrive {
        device: u8,
        bytes: usize,
    },
    Call,
    /// Answers a call in flight; each record gets the verdict at its index, cycled.
    Answer {
        call: usize,
        verdicts: Vec<u8>,
    },
    Pass {
        millis: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6u8, prop_oneof![Just(10usize), Just(CALL_BYTES_MAX / 3), Just(CALL_BYTES_MAX + 1)])
            .prop_map(|(device, bytes)| Step::Arrive { device, bytes }),
        2 => Just(Step::Call),
        2 => (0..4usize, prop::collection::vec(0..8u8, 1..6)).prop_map(|(call, verdicts)| Step::Answer { call, verdicts }),
        1 => (1..4000u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

struct World {
    pending: Pending,
    calls: Vec<Vec<Entry>>,
    now: Instant,
    arrived: u32,
    /// Records in the order in which the stream got them.
    written: Vec<u32>,
    /// The device of each record.
    devices: Vec<u8>,
    outcomes: mpsc::Receiver<(u32, Outcome)>,
    reply: mpsc::Sender<(u32, Outcome)>,
    payload: Bytes,
}

impl World {
    fn new() -> Self {
        let (reply, outcomes) = mpsc::channel(4096);
        Self {
            pending: Pending::default(),
            calls: Vec::new(),
            now: Instant::now(),
            arrived: 0,
            written: Vec::new(),
            devices: Vec::new(),
            outcomes,
            reply,
            payload: Bytes::from(vec![0; CALL_BYTES_MAX + 1]),
        }
    }

    fn arrive(&mut self, device: u8, bytes: usize) {
        let name = DeviceId::parse(&format!("device-{device}")).unwrap();
        let reply = Reply::new(self.arrived, self.reply.clone());
        self.pending.push(Entry::new(name, self.payload.slice(..bytes), Deadlines::from(self.now, ACK_TIMEOUT), reply));
        self.devices.push(device);
        self.arrived += 1;
    }

    fn call(&mut self) {
        let call = self.pending.next_call(self.now);
        let bytes: usize = call.iter().map(Entry::bytes).sum();
        assert!(call.len() <= CALL_RECORDS_MAX);
        assert!(bytes <= CALL_BYTES_MAX || call.len() == 1, "{bytes} bytes in {} records", call.len());
        if !call.is_empty() {
            self.calls.push(call);
        }
        let on_the_wire: Vec<_> = self.calls.iter().flatten().map(|entry| &entry.device).collect();
        assert_eq!(on_the_wire.iter().collect::<HashSet<_>>().len(), on_the_wire.len(), "a device twice on the wire");
    }

    fn answer(&mut self, call: usize, verdicts: &[u8]) {
        if self.calls.is_empty() {
            return;
        }
        let call = self.calls.swap_remove(call % self.calls.len());
        let settled = call.into_iter().zip(verdicts.iter().cycle()).map(|(entry, verdict)| {
            let verdict = self.verdict(*verdict, entry.reply.index);
            (entry, verdict)
        });
        let settled = settled.collect();
        self.pending.settle(settled, self.now);
    }

    fn verdict(&mut self, choice: u8, index: u32) -> Verdict {
        match choice {
            0 => Verdict::Refused("refused".into()),
            1 => Verdict::Hopeless("away".into()),
            2 => Verdict::Failed { reason: "lost".into(), maybe_written: true },
            3 | 4 => Verdict::Failed { reason: "throttled".into(), maybe_written: false },
            _ => {
                self.written.push(index);
                Verdict::Written
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.pending.tick(self.now);
        assert!(
            self.pending
                .devices
                .values()
                .all(|device| { device.entries.front().is_none_or(|entry| entry.deadlines.last_call > self.now) })
        );
    }

    /// Answers what is in flight, lets the time pass, and looks at the outcomes.
    fn end(mut self) {
        while !self.calls.is_empty() {
            self.answer(0, &[5]);
        }
        self.pass(ACK_TIMEOUT);
        assert!(self.pending.is_empty() && self.pending.waiting() == 0);
        assert!(self.pending.ready.is_empty() && self.pending.resting.is_empty());
        let mut outcomes: Vec<_> = std::iter::from_fn(|| self.outcomes.try_recv().ok()).collect();
        outcomes.sort_by_key(|(index, _)| *index);
        let indexes: Vec<_> = outcomes.iter().map(|(index, _)| *index).collect();
        assert_eq!(indexes, (0..self.arrived).collect::<Vec<_>>(), "each record is reported once");
        let delivered = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Delivered).count();
        assert_eq!(delivered, self.written.len(), "delivered means written");
        for device in 0..6 {
            let of_device = self.written.iter().filter(|index| self.devices[**index as usize] == device);
            assert!(of_device.is_sorted(), "the records of a device are written in their order");
        }
    }
}

proptest! {
    #[test]
    fn any_history_keeps_the_limits_the_order_and_every_record(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Arrive { device, bytes } => world.arrive(device, bytes),
                Step::Call => world.call(),
                Step::Answer { call, verdicts } => world.answer(call, &verdicts),
                Step::Pass { millis } => world.pass(Duration::from_millis(millis)),
            }
            let entries = world.pending.devices.values().map(|device| device.entries.len()).sum::<usize>();
            prop_assert_eq!(world.pending.waiting(), entries);
        }
        world.end();
    }
}

#[test]
fn a_batch_of_many_devices_is_cut_at_the_record_limit() {
    let mut world = World::new();
    let (reply, _outcomes) = mpsc::channel(600);
    for index in 0..600 {
        let device = DeviceId::parse(&format!("device-{index}")).unwrap();
        let entry =
            Entry::new(device, Bytes::new(), Deadlines::from(world.now, ACK_TIMEOUT), Reply::new(index, reply.clone()));
        world.pending.push(entry);
    }
    let calls: Vec<_> = (0..3).map(|_| world.pending.next_call(world.now).len()).collect();
    assert_eq!(calls, [500, 100, 0]);
}

#[test]
fn a_record_that_may_be_written_is_unknown_in_the_end() {
    let mut world = World::new();
    world.arrive(1, 10);
    world.arrive(1, 10);
    world.call();
    world.answer(0, &[2]);
    world.pass(BACKOFF_MAX);
    world.call();
    world.answer(0, &[3]);
    world.pass(ACK_TIMEOUT);
    assert_eq!(world.outcomes.try_recv().unwrap(), (0, Outcome::Unknown));
    assert_eq!(world.outcomes.try_recv().unwrap(), (1, Outcome::Retryable("throttled".into())));
}

#[test]
fn what_nobody_waits_for_any_more_is_not_sent() {
    let mut world = World::new();
    let (reply, outcomes) = mpsc::channel(1);
    let device = DeviceId::parse("device").unwrap();
    world.pending.push(Entry::new(device, Bytes::new(), Deadlines::from(world.now, ACK_TIMEOUT), Reply::new(0, reply)));
    drop(outcomes);
    world.call();
    assert!(world.calls.is_empty() && world.pending.is_empty());
}
