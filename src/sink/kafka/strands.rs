//! The strands of a stream: records that go one round after the other.
//!
//! A strand is the devices of one partition, or a part of them where there are more producers than
//! partitions. Its records wait here while others of it are in flight, and then go together, in one
//! request: librdkafka would not send more of the partition meanwhile, and would look without a
//! pause whether it may. Nobody waits for another strand.
//!
//! A strand may change its producer between two rounds, as nothing of it is in flight then. But
//! what a producer gave up may still be written, until a later record of the partition is
//! acknowledged to the same producer: brokers take a producer's records of a partition in their
//! order. Until then the strand stays where it is.
//!
//! Called by the sink, on delivery's thread, and by librdkafka's reports. Bounds: what waits is
//! within the memory budget, and an idle strand is in their list once.

use std::collections::{BTreeSet, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;

use super::native::{self, Message};
use crate::record::{Outcome, Record, StreamIndex};

/// The first producer, which always is there.
pub(super) const FIRST: usize = 0;

/// A strand without records in flight: its stream, and its place there.
pub(super) type Idle = (StreamIndex, usize);

/// The strands of one stream.
pub(super) struct Strands {
    stream: StreamIndex,
    strands: Box<[Strand<Waiting>]>,
    partitions: u32,
    /// Strands of each partition.
    parts: u32,
    idle: Arc<IdleStrands>,
}

/// The strands whose last round is over, or that have had none, and in which records wait.
#[derive(Default)]
pub(super) struct IdleStrands {
    strands: Mutex<BTreeSet<Idle>>,
    is_added: Notify,
}

/// A record that waits for its round.
pub(super) struct Waiting {
    pub message: Message<String, Bytes>,
    /// Bytes of a request that it takes.
    pub bytes: usize,
    pub since: Instant,
}

/// The strands of the records of one batch; a record without a key has none.
pub(super) struct Places {
    strands: Arc<Strands>,
    of_records: Box<[Option<usize>]>,
}

/// Records of some devices that go one round after the other.
pub(super) struct Strand<T> {
    in_flight: AtomicUsize,
    /// Whether any record of the round was delivered, or is in doubt.
    is_delivered: AtomicBool,
    is_doubtful: AtomicBool,
    queue: Mutex<Queue<T>>,
}

struct Queue<T> {
    waiting: VecDeque<T>,
    producer: usize,
    /// Whether nothing of the strand can still be written that is not in flight.
    is_settled: bool,
}

/// Records that go together, and the producer that they go by.
pub(super) struct Round<T> {
    pub producer: usize,
    pub records: Vec<T>,
}

impl Strands {
    /// Makes the strands of a stream with so many partitions, for so many producers. `is_settled`
    /// is whether nothing was sent before.
    pub(super) fn new(
        stream: StreamIndex,
        partitions: u32,
        producers: usize,
        is_settled: bool,
        idle: Arc<IdleStrands>,
    ) -> Arc<Self> {
        debug_assert!(partitions > 0 && producers > 0, "there are some of both");
        let parts = (producers as u32).div_ceil(partitions);
        let strands = (0..partitions * parts).map(|_| Strand::new(is_settled));
        Arc::new(Self {
            stream,
            strands: strands.collect(),
            partitions,
            parts,
            idle,
        })
    }

    /// Finds the strands of these records.
    pub(super) fn places(self: &Arc<Self>, records: &[Record]) -> Places {
        let of_record = |record: &Record| Some(self.find(record.key()?));
        Places {
            strands: self.clone(),
            of_records: records.iter().map(of_record).collect(),
        }
    }

    fn find(&self, key: &str) -> usize {
        let hash = native::murmur2_partition(key.as_bytes(), i32::MAX as u32);
        let partition = hash % self.partitions;
        let part = hash / self.partitions % self.parts;
        let place = (partition * self.parts + part) as usize;
        debug_assert!(place < self.strands.len(), "each part has a strand");
        place
    }

    /// Returns the strand at this place.
    pub(super) fn at(&self, place: usize) -> &Strand<Waiting> {
        &self.strands[place]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Strand<Waiting>> {
        self.strands.iter()
    }

    fn becomes_idle(&self, place: usize) {
        self.idle.add((self.stream, place));
    }
}

impl IdleStrands {
    fn add(&self, strand: Idle) {
        self.lock().insert(strand);
        self.is_added.notify_one();
    }

    /// Waits for some, and takes them all.
    pub(super) async fn take(&self) -> BTreeSet<Idle> {
        self.is_added.notified().await;
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<Idle>> {
        self.strands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    /// Returns the place of a record's strand.
    pub(super) fn of(&self, index: usize) -> Option<usize> {
        self.of_records[index]
    }

    /// Has a record wait for the next round of the strand at this place.
    pub(super) fn wait(&self, place: usize, record: Waiting) {
        if self.strands.at(place).wait(record) {
            self.strands.becomes_idle(place);
        }
    }

    /// Counts the report of a record: delivered (`None`), or why not.
    pub(super) fn report(&self, index: usize, failure: Option<&Outcome>) {
        if let Some(place) = self.of(index)
            && self.strands.at(place).report(failure)
        {
            self.strands.becomes_idle(place);
        }
    }
}

impl<T> Strand<T> {
    fn new(is_settled: bool) -> Self {
        Self {
            in_flight: AtomicUsize::new(0),
            is_delivered: AtomicBool::new(false),
            is_doubtful: AtomicBool::new(false),
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                producer: FIRST,
                is_settled,
            }),
        }
    }

    /// Adds a record to the next round, and says whether that one has to be begun.
    fn wait(&self, record: T) -> bool {
        let mut queue = self.lock();
        queue.waiting.push_back(record);
        queue.waiting.len() == 1 && !self.is_in_flight()
    }

    /// Begins the next round, if records wait and the last one is over: by the producer `home`,
    /// unless the strand has to stay where it is. The round has the records that `fits` lets in one
    /// by one, and one in any case.
    pub(super) fn begin_round(
        &self,
        home: usize,
        mut fits: impl FnMut(&T) -> bool,
    ) -> Option<Round<T>> {
        let mut queue = self.lock();
        if self.is_in_flight() || queue.waiting.is_empty() {
            return None;
        }
        if self.settle(&mut queue) {
            queue.producer = home;
        }
        let mut records = Vec::new();
        while let Some(next) = queue.waiting.front()
            && (fits(next) || records.is_empty())
        {
            records.extend(queue.waiting.pop_front());
        }
        debug_assert!(!records.is_empty(), "some waited");
        self.in_flight.store(records.len(), Ordering::Release);
        Some(Round {
            producer: queue.producer,
            records,
        })
    }

    /// Judges by the last round, which is over, whether the strand may go elsewhere.
    fn settle(&self, queue: &mut Queue<T>) -> bool {
        debug_assert!(!self.is_in_flight(), "all of it is reported");
        let is_delivered = self.is_delivered.swap(false, Ordering::Relaxed);
        let is_doubtful = self.is_doubtful.swap(false, Ordering::Relaxed);
        queue.is_settled = !is_doubtful && (is_delivered || queue.is_settled);
        queue.is_settled
    }

    /// Takes out the records that have waited for too long. A report is awaited of each.
    pub(super) fn give_up(&self, is_overdue: impl Fn(&T) -> bool) -> Vec<T> {
        let mut queue = self.lock();
        let mut overdue = Vec::new();
        while queue.waiting.front().is_some_and(&is_overdue) {
            overdue.extend(queue.waiting.pop_front());
        }
        self.in_flight.fetch_add(overdue.len(), Ordering::Release);
        overdue
    }

    /// Counts a report, and says whether it was the last one of the round.
    fn report(&self, failure: Option<&Outcome>) -> bool {
        match failure {
            None => self.is_delivered.store(true, Ordering::Relaxed),
            Some(Outcome::Unknown) => self.is_doubtful.store(true, Ordering::Relaxed),
            Some(_) => {}
        }
        let in_flight = self.in_flight.fetch_sub(1, Ordering::AcqRel);
        debug_assert!(in_flight > 0, "each record in flight is reported once");
        in_flight == 1
    }

    fn is_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn strands(partitions: u32, producers: usize) -> Arc<Strands> {
        Strands::new(StreamIndex(0), partitions, producers, true, Arc::default())
    }

    /// A partition's requests are not split where there are as many partitions as producers, and
    /// all producers have a share where there are not.
    #[test]
    fn a_strand_is_of_one_partition_and_producers_have_equal_shares() {
        for (partitions, producers) in [(48, 16), (16, 16), (1000, 7), (1, 16), (3, 8)] {
            let strands = strands(partitions, producers);
            let mut partition_of = HashMap::new();
            let mut of_producer: HashMap<usize, BTreeSet<usize>> = HashMap::new();
            for device in 0..20_000 {
                let key = format!("meter-{device}");
                let place = strands.find(&key);
                let partition = native::murmur2_partition(key.as_bytes(), partitions);
                let known = *partition_of.entry(place).or_insert(partition);
                assert_eq!(known, partition);
                let of_producer = of_producer.entry(place % producers);
                of_producer.or_default().insert(place);
            }
            assert_eq!(partition_of.len(), strands.strands.len());
            let shares = of_producer.values().map(BTreeSet::len);
            assert!(of_producer.len() == producers && shares.clone().min() >= Some(1));
            assert!(shares.clone().max().unwrap() - shares.min().unwrap() <= 1);
        }
    }

    #[test]
    fn what_comes_while_a_round_is_in_flight_goes_together_as_far_as_it_fits() {
        let strand = Strand::new(true);
        assert!(strand.wait(0), "it is idle");
        let round = strand.begin_round(3, |_| false).unwrap();
        assert_eq!((round.producer, round.records), (3, vec![0]));
        assert!((1..5).all(|record| !strand.wait(record)), "it is not");
        assert!(strand.begin_round(3, |_| true).is_none());
        assert!(strand.report(None));
        let round = strand.begin_round(3, |record| *record < 3).unwrap();
        assert_eq!(round.records, [1, 2]);
        assert_eq!(strand.give_up(|record| *record < 4), [3]);
        assert!(
            [false, false, true]
                .iter()
                .all(|last| strand.report(None) == *last)
        );
        assert_eq!(strand.begin_round(3, |_| true).unwrap().records, [4]);
    }

    const PRODUCERS: usize = 3;

    /// Brokers that get one strand's records, which are numbered.
    #[derive(Default)]
    struct Brokers {
        log: Vec<u32>,
        /// Records that each producer has given up, and that may still be written.
        late: [Vec<u32>; PRODUCERS],
    }

    impl Brokers {
        /// Takes a record of the producer: what that one gave up before is not written any more.
        fn write(&mut self, producer: usize, record: u32) {
            self.late[producer].clear();
            self.log.push(record);
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Comes,
        Begins { home: usize },
        Reports(Outcome),
        IsWrittenLate { producer: usize },
    }

    fn steps() -> impl Strategy<Value = Step> {
        let outcome = prop_oneof![
            3 => Just(Outcome::Delivered),
            2 => Just(Outcome::Unknown),
            1 => Just(Outcome::Retryable("not now".into())),
        ];
        prop_oneof![
            Just(Step::Comes),
            (0..PRODUCERS).prop_map(|home| Step::Begins { home }),
            outcome.prop_map(Step::Reports),
            (0..PRODUCERS).prop_map(|producer| Step::IsWrittenLate { producer }),
        ]
    }

    proptest! {
        /// Whatever the producers are that it should go by, what fails, and what is written after
        /// it was given up: the brokers have a strand's records in their order.
        #[test]
        fn no_change_of_producers_inverts_a_strand(steps in prop::collection::vec(steps(), 1..200)) {
            let strand = Strand::new(false);
            let mut brokers = Brokers::default();
            // It was sent before there were strands.
            brokers.late[FIRST].push(0);
            let (mut came, mut producer, mut in_flight) = (0, FIRST, VecDeque::new());
            for step in steps {
                match step {
                    Step::Comes => {
                        came += 1;
                        strand.wait(came);
                    }
                    Step::Begins { home } => {
                        if let Some(round) = strand.begin_round(home, |_| true) {
                            prop_assert!(in_flight.is_empty(), "one round at a time");
                            (producer, in_flight) = (round.producer, round.records.into());
                        }
                    }
                    Step::Reports(outcome) => {
                        let Some(record) = in_flight.pop_front() else { continue };
                        match outcome {
                            Outcome::Delivered => brokers.write(producer, record),
                            Outcome::Unknown => brokers.late[producer].push(record),
                            _ => {}
                        }
                        let failure = (outcome != Outcome::Delivered).then_some(&outcome);
                        prop_assert_eq!(strand.report(failure), in_flight.is_empty());
                    }
                    Step::IsWrittenLate { producer } => {
                        let late = mem::take(&mut brokers.late[producer]);
                        brokers.log.extend(late);
                    }
                }
                prop_assert!(brokers.log.is_sorted(), "{:?}", brokers.log);
            }
        }
    }
}
