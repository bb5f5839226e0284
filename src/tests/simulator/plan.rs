//! The plan of a life, drawn from its seed: the shape of the gateway, its devices, the faults that
//! it meets and its ends.
//!
//! All of it is data, so that a life can be cut down and lived again.

use std::time::Duration;

use crate::config::{AckMode, SpoolMode, WhenFull};
use crate::spool::tests::sim::Random;

/// One life.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub seed: u64,
    pub shape: Shape,
    pub devices: Vec<DevicePlan>,
    pub faults: Vec<Fault>,
    pub ends: Vec<End>,
    /// Nothing fails after this, and no device begins anything.
    pub length: Duration,
    /// Polls that are put off, of a hundred.
    pub put_off_percent: u64,
}

/// Configuration of the gateway, and the nature of its sink.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub ack: AckMode,
    pub ack_timeout: Duration,
    pub spool: Option<SpoolMode>,
    pub when_full: WhenFull,
    pub spool_segments: u64,
    pub dead_letter_segments: u64,
    pub is_encrypted: bool,
    pub memory_bytes: usize,
    pub workers: usize,
    pub streams: usize,
    pub batch_records: usize,
    pub linger: Duration,
    pub sink: SinkKind,
    pub partitions: u64,
    pub record_bytes_max: usize,
    /// Requests a second of one device; 0 is no limit.
    pub device_rate: u64,
    pub drain_timeout: Duration,
}

/// The service whose rules the sink keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SinkKind {
    /// An idempotent producer: an answer that is lost costs no duplicate, and a partition keeps its
    /// order.
    Kafka,
    /// Each record by itself, and each may fail by itself. After a lost answer the record's outcome
    /// is unknown.
    Kinesis,
    /// As Kinesis, with aggregates of records.
    Aggregated,
}

#[derive(Clone, Debug)]
pub(crate) struct DevicePlan {
    pub number: usize,
    pub seed: u64,
    pub manner: Manner,
    pub readings: u64,
    /// Longest pause between readings that follow each other...
    pub pause_max: Duration,
    /// ...and now and then.
    pub rest_max: Duration,
    pub body_bytes_max: u64,
    /// Whether it sends a reading again that was not taken.
    pub resends: bool,
    /// Whether it comes back on another connection now and then.
    pub reconnects: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// It waits for each answer.
    Sequential,
    /// It sends several at a time.
    Concurrent,
    /// It leaves in the middle of some requests.
    Leaving,
    /// Its bodies come in pieces, and some never to an end.
    Slow,
}

#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub at: Duration,
    pub lasts: Duration,
    pub what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The sink cannot be reached, and says so.
    Away,
    /// The sink takes requests and answers nothing.
    Silent,
    /// Answers take this long.
    Slow(Duration),
    /// It refuses so many of a hundred requests for now.
    Throttled(u64),
    /// So many of a hundred answers are lost after the write.
    LosesAnswers(u64),
    /// A partition has no leader.
    Leaderless(u64),
    /// The stream is gone.
    Gone(usize),
    /// The stream is there, and closed to this gateway.
    Forbidden(usize),
    /// Devices belong to other partitions than before.
    Resharded,
    /// So many of a hundred writes to disk fail, and so many reads.
    DiskFails(u64, u64),
    /// The disk takes its time.
    DiskSlow(Duration),
    /// The wall clock is so many milliseconds ahead.
    ClockStep(u64),
    /// Credentials that were found before its end are no longer good.
    Expired,
    /// So many bits flip on disk when it begins.
    BitFlips(u64),
    /// The devices file holds every device to so many requests a second.
    HeldTo(u64),
    /// The devices file denies this device.
    Denied(usize),
}

/// The end of a process.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub at: Duration,
    pub how: How,
    /// Pause until the next process is started.
    pub pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The machine stops at this poll after the end's time.
    Crash {
        polls: u64,
    },
    /// The process is killed, and the machine goes on.
    Kill {
        polls: u64,
    },
    Terminate,
    /// A second signal comes so long after the first.
    TerminateTwice(Duration),
}

/// Parts of a life up to here are others.
const FIRST_LAYER: u64 = 9;

/// Returns a random source for a part of a life.
pub(crate) fn random(seed: u64, part: u64) -> Random {
    let mut random = Random(seed ^ part.wrapping_mul(0xA076_1D64_78BD_642F));
    random.next();
    random
}

fn one_of<T: Copy>(random: &mut Random, choices: &[T]) -> T {
    choices[random.below(choices.len() as u64) as usize]
}

fn between(random: &mut Random, least_millis: u64, most_millis: u64) -> Duration {
    Duration::from_millis(least_millis + random.below(most_millis - least_millis))
}

/// What was thought of later, layer by layer: each is drawn by itself, so that a seed which has found
/// a fault can be lived again as it was.
const LAYERS: &[fn(&mut Plan, &mut Random)] = &[
    aggregates_and_credentials,
    bit_flips,
    few_dead_letters,
    devices_files,
];

impl Plan {
    pub(crate) fn draw(seed: u64) -> Self {
        Self::draw_layers(seed, LAYERS.len())
    }

    /// Draws a life as it was when there were so many layers.
    pub(crate) fn draw_layers(seed: u64, layers: usize) -> Self {
        let mut plan = Self::draw_first(seed);
        for (part, layer) in (FIRST_LAYER..).zip(&LAYERS[..layers]) {
            layer(&mut plan, &mut random(seed, part));
        }
        plan
    }

    fn draw_first(seed: u64) -> Self {
        let length = between(&mut random(seed, 1), 20_000, 180_000);
        let shape = Shape::draw(&mut random(seed, 2));
        Self {
            seed,
            devices: devices(&mut random(seed, 3), length),
            faults: faults(&mut random(seed, 4), length, |random| what(random, &shape)),
            ends: ends(&mut random(seed, 5), length),
            shape,
            length,
            put_off_percent: random(seed, 6).below(4) * 15,
        }
    }
}

fn aggregates_and_credentials(plan: &mut Plan, random: &mut Random) {
    if plan.shape.sink == SinkKind::Kafka {
        return;
    }
    if random.chance(50) {
        plan.shape.sink = SinkKind::Aggregated;
    }
    if random.chance(30) {
        let expired = faults(random, plan.length, |_| What::Expired);
        plan.faults.extend(expired.into_iter().take(4));
    }
}

fn bit_flips(plan: &mut Plan, random: &mut Random) {
    if plan.shape.spool.is_none() || !random.chance(40) {
        return;
    }
    let flips = |random: &mut Random| What::BitFlips(1 + random.below(3));
    let flips = faults(random, plan.length, flips);
    plan.faults.extend(flips.into_iter().take(6));
}

/// A log of dead letters that has room for few, of a stream that refuses many.
fn few_dead_letters(plan: &mut Plan, random: &mut Random) {
    if !random.chance(20) {
        return;
    }
    plan.shape.dead_letter_segments = one_of(random, &[2, 3]);
    plan.shape.record_bytes_max = 600;
    for device in &mut plan.devices {
        device.body_bytes_max = 1500;
    }
}

fn devices_files(plan: &mut Plan, random: &mut Random) {
    if !random.chance(25) {
        return;
    }
    let devices = plan.devices.len() as u64;
    let change = |random: &mut Random| match random.below(2) {
        0 => What::HeldTo(1 + random.below(4)),
        _ => What::Denied(random.below(devices) as usize),
    };
    let changes = faults(random, plan.length, change);
    plan.faults.extend(changes.into_iter().take(6));
}

impl Shape {
    fn draw(random: &mut Random) -> Self {
        let modes = [
            None,
            Some(SpoolMode::Overflow),
            Some(SpoolMode::Overflow),
            Some(SpoolMode::Always),
        ];
        let acks = [AckMode::Durable, AckMode::Durable, AckMode::Queued];
        Self {
            ack: one_of(random, &acks),
            ack_timeout: Duration::from_secs(one_of(random, &[1, 3, 10])),
            spool: one_of(random, &modes),
            when_full: one_of(
                random,
                &[WhenFull::Reject, WhenFull::Reject, WhenFull::DropOldest],
            ),
            spool_segments: one_of(random, &[4, 8, 1000]),
            dead_letter_segments: 1000,
            is_encrypted: random.chance(30),
            memory_bytes: one_of(random, &[16 << 10, 64 << 10, 8 << 20]),
            workers: one_of(random, &[1, 1, 2]),
            streams: one_of(random, &[1, 2, 3]),
            batch_records: one_of(random, &[1, 4, 50]),
            linger: Duration::from_millis(one_of(random, &[0, 5, 100])),
            sink: one_of(random, &[SinkKind::Kafka, SinkKind::Kinesis]),
            partitions: one_of(random, &[1, 3]),
            record_bytes_max: one_of(random, &[600, 10_000]),
            device_rate: one_of(random, &[0, 0, 2]),
            drain_timeout: Duration::from_secs(one_of(random, &[2, 30])),
        }
    }
}

fn devices(random: &mut Random, length: Duration) -> Vec<DevicePlan> {
    let manners = [
        Manner::Sequential,
        Manner::Sequential,
        Manner::Concurrent,
        Manner::Leaving,
        Manner::Slow,
    ];
    let mut devices = Vec::new();
    for number in 0..1 + random.below(6) as usize {
        let readings = 5 + random.below(100);
        let pace = length.as_millis() as u64 / readings;
        devices.push(DevicePlan {
            number,
            seed: random.next(),
            manner: one_of(random, &manners),
            readings,
            pause_max: Duration::from_millis(one_of(random, &[20, 200, 2 * pace])),
            rest_max: length / 6,
            body_bytes_max: one_of(random, &[100, 1500]),
            resends: random.chance(70),
            reconnects: random.chance(30),
        });
    }
    devices
}

fn faults(random: &mut Random, length: Duration, what: impl Fn(&mut Random) -> What) -> Vec<Fault> {
    let mut faults = Vec::new();
    let count = one_of(random, &[0, 1, 2, 4, 8, 16]);
    for _ in 0..count {
        let what = what(random);
        let at = length.mul_f64(random.below(100) as f64 / 100.0);
        let lasts = match random.below(3) {
            0 => between(random, 100, 2_000),
            1 => between(random, 1_000, 20_000),
            _ => between(random, 10_000, 90_000),
        };
        let lasts = lasts.min(length - at);
        faults.push(Fault { at, lasts, what });
        // It comes and goes.
        if random.chance(20) {
            for again in 1..6 {
                let at = at + again * Duration::from_secs(2);
                let lasts = Duration::from_secs(1);
                if at + lasts < length {
                    faults.push(Fault { at, lasts, what });
                }
            }
        }
    }
    faults
}

fn what(random: &mut Random, shape: &Shape) -> What {
    let stream = random.below(shape.streams as u64) as usize;
    match random.below(14) {
        0 | 1 => What::Away,
        2 => What::Silent,
        3 => What::Slow(between(random, 100, 5_000)),
        4 => What::Throttled(20 + random.below(80)),
        5 | 6 => What::LosesAnswers(10 + random.below(90)),
        7 => What::Leaderless(random.below(shape.partitions)),
        8 => What::Gone(stream),
        9 => What::Forbidden(stream),
        10 => What::Resharded,
        11 => What::DiskFails(one_of(random, &[5, 30, 100]), one_of(random, &[0, 0, 20])),
        12 => What::DiskSlow(between(random, 10, 3_000)),
        _ => What::ClockStep(random.below(3_600_000)),
    }
}

fn ends(random: &mut Random, length: Duration) -> Vec<End> {
    let mut ends = Vec::new();
    for _ in 0..one_of(random, &[0, 0, 1, 2, 4]) {
        let polls = random.below(500);
        let how = match random.below(6) {
            0 | 1 => How::Crash { polls },
            2 => How::Kill { polls },
            3 | 4 => How::Terminate,
            _ => How::TerminateTwice(between(random, 10, 3_000)),
        };
        ends.push(End {
            at: length.mul_f64((5 + random.below(90)) as f64 / 100.0),
            how,
            pause: between(random, 1, 3_000),
        });
    }
    ends.sort_by_key(|end| end.at);
    ends
}
