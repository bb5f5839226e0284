//! The worth of waiting to the records of a lane, learnt from the company that others had.
//!
//! A request to a broker carries the records of one partition, and costs as much as several records
//! do. A lane that holds its records for a while makes fewer requests of them; it does so only if
//! that saves a share of a core worth speaking of: a quiet lane's records leave at once.
//!
//! Clients that wait for their acks before they send again bring no company, however fast they are:
//! all of them wait. So records are counted that come late in a hold, in its second half: such
//! clients have answered the last acks by then. A lane that holds nothing looks now and then, for
//! the shortest hold, and more and more seldom while it sees too little.
//!
//! The batcher reports each record and each batch that opens, with the time. Nothing here grows,
//! and a record costs no more than a comparison and a sum.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest hold that says whether others come: timers go by milliseconds.
const LOOK: Duration = Duration::from_millis(2);

/// Time for which a rate is remembered, as time in which records were counted.
const MEMORY: Duration = Duration::from_millis(50);
const MEMORY_OF_ALL: Duration = Duration::from_millis(200);

/// Batches between two looks: the more, the longer there was too little to be seen.
const LOOKS_EVERY_MIN: u32 = 16;
const LOOKS_EVERY_MAX: u32 = 1024;

const _: () = assert!(LOOKS_EVERY_MIN > 0 && LOOKS_EVERY_MIN < LOOKS_EVERY_MAX);

/// Records of a partition that are company enough.
const COMPANY: f64 = 4.0;

/// Requests a second that are worth waiting for: at some 25 µs each, a hundredth of a core.
const SAVED_PER_SECOND_MIN: f64 = 400.0;

/// The company that a lane's records had.
#[derive(Debug)]
pub(super) struct Company {
    linger: Duration,
    /// All records that came, until the last batch opened.
    all: Rate,
    /// Records that came since.
    came: u32,
    opened_at: Option<Instant>,
    /// Records that came late in a hold.
    late: Rate,
    came_late: u32,
    /// The second half of the last hold.
    counted: Option<(Instant, Instant)>,
    /// Batches that opened since one was held.
    unheld_batches: u32,
    looks_every: u32,
}

/// Records that came, and in how much time. Both fade together.
#[derive(Debug)]
struct Rate {
    records: f64,
    time: Duration,
    memory: Duration,
}

impl Rate {
    fn new(memory: Duration) -> Self {
        Self {
            records: 0.0,
            time: Duration::ZERO,
            memory,
        }
    }

    fn add(&mut self, records: u32, time: Duration) {
        self.records += f64::from(records);
        self.time += time;
        if self.time > self.memory {
            self.records *= self.memory.as_secs_f64() / self.time.as_secs_f64();
            self.time = self.memory;
        }
    }

    fn is_known(&self) -> bool {
        self.time >= self.memory
    }

    fn per_second(&self) -> f64 {
        self.records / self.time.max(LOOK / 2).as_secs_f64()
    }
}

impl Company {
    pub(super) fn new(linger: Duration) -> Self {
        Self {
            linger,
            all: Rate::new(MEMORY_OF_ALL),
            came: 0,
            opened_at: None,
            late: Rate::new(MEMORY),
            came_late: 0,
            counted: None,
            unheld_batches: 0,
            looks_every: LOOKS_EVERY_MIN,
        }
    }

    /// Counts a record that comes in.
    pub(super) fn record_came(&mut self, now: Instant) {
        self.came = self.came.saturating_add(1);
        if let Some((begins, ends)) = self.counted
            && begins <= now
            && now < ends
        {
            self.came_late = self.came_late.saturating_add(1);
        }
    }

    /// Whether so little comes that no wait would save anything, be there batches in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.all.is_known() && self.all.per_second() < SAVED_PER_SECOND_MIN
    }

    /// Returns the time for which the batch that opens now is held for company, given the number of
    /// the stream's partitions; `None` if that is not worth it.
    pub(super) fn hold(&mut self, now: Instant, partitions: u32) -> Option<Duration> {
        self.count(now);
        if self.is_quiet() {
            return None;
        }
        let hold = self.worthwhile_hold(partitions);
        let hold = hold.or_else(|| self.look())?;
        self.unheld_batches = 0;
        self.counted = Some((now + hold / 2, now + hold));
        Some(hold)
    }

    fn count(&mut self, now: Instant) {
        let came = std::mem::take(&mut self.came);
        if let Some(opened_at) = self.opened_at.replace(now) {
            self.all.add(came, now.saturating_duration_since(opened_at));
        }
        let came_late = std::mem::take(&mut self.came_late);
        if let Some((begins, ends)) = self.counted.take() {
            // A batch that was full before leaves less time.
            let time = ends.min(now).saturating_duration_since(begins);
            self.late.add(came_late, time);
        }
    }

    /// Returns the shortest hold of all, if it is time to look whether others come.
    fn look(&mut self) -> Option<Duration> {
        self.unheld_batches += 1;
        debug_assert!(
            self.unheld_batches <= LOOKS_EVERY_MAX,
            "they count one by one"
        );
        if self.unheld_batches < self.looks_every {
            return None;
        }
        self.looks_every = (self.looks_every * 2).min(LOOKS_EVERY_MAX);
        Some(LOOK.min(self.linger))
    }

    /// Returns the shortest hold, of powers of two, that brings enough company; the linger if none
    /// does. `None` if too little would be saved.
    fn worthwhile_hold(&mut self, partitions: u32) -> Option<Duration> {
        let mut hold = LOOK.min(self.linger);
        while hold < self.linger && self.company(hold, partitions) < COMPANY {
            hold = (hold * 2).min(self.linger);
        }
        let company = self.company(hold, partitions);
        // If so many come, one by one as they like, about half as many, and one, go together.
        let saved = self.late.per_second() * company / (2.0 + company);
        if saved < SAVED_PER_SECOND_MIN {
            return None;
        }
        self.looks_every = (self.looks_every / 2).max(LOOKS_EVERY_MIN);
        Some(hold)
    }

    /// Records of one partition that come in the hold.
    fn company(&self, hold: Duration, partitions: u32) -> f64 {
        debug_assert!(partitions > 0, "a stream has a partition");
        self.late.per_second() * hold.as_secs_f64() / f64::from(partitions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINGER: Duration = Duration::from_millis(25);
    const ACK: Duration = Duration::from_millis(1);
    const MS: Duration = Duration::from_millis(1);

    /// A lane of one worker, in simulated time.
    struct Lane {
        company: Company,
        now: Instant,
        ack: Duration,
        partitions: u32,
        holds: Vec<Option<Duration>>,
    }

    impl Lane {
        fn new(partitions: u32, ack: Duration) -> Self {
            Self {
                company: Company::new(LINGER),
                now: Instant::now(),
                ack,
                partitions,
                holds: Vec::new(),
            }
        }

        /// Records come by themselves, one every so often, for so long.
        fn open_loop(&mut self, every: Duration, time: Duration) {
            let end = self.now + time;
            let mut sent_at = self.now;
            while self.now < end {
                self.now += every;
                self.company.record_came(self.now);
                if sent_at <= self.now {
                    let hold = self.company.hold(self.now, self.partitions);
                    self.holds.push(hold);
                    // A batch that is not held waits for the acks of the one before.
                    sent_at = self.now + hold.unwrap_or(self.ack);
                }
            }
        }

        /// Lets so many clients send that send again when they have their ack, the last of them so
        /// much later than the first.
        fn closed_loop(&mut self, clients: u32, spread: Duration, rounds: u32) {
            for _ in 0..rounds {
                let mut hold = None;
                for client in 0..clients {
                    self.now += spread / clients;
                    self.company.record_came(self.now);
                    if client == 0 {
                        hold = self.company.hold(self.now, self.partitions);
                        self.holds.push(hold);
                    }
                }
                self.now += hold.unwrap_or_default() + self.ack;
            }
        }

        fn held_since(&self, batches: usize) -> Vec<Option<Duration>> {
            self.holds[batches..].to_vec()
        }
    }

    #[test]
    fn a_quiet_lane_holds_nothing_but_to_look() {
        let mut lane = Lane::new(48, ACK);
        lane.open_loop(Duration::from_millis(100), Duration::from_secs(60));
        assert_eq!(lane.holds.len(), 600);
        assert!(lane.holds.iter().all(Option::is_none) && lane.company.is_quiet());
    }

    #[test]
    fn a_busy_fleet_is_gathered_for_as_long_as_its_partitions_need() {
        for (micros, partitions, wait) in [(333, 48, LINGER), (83, 48, 16 * MS), (83, 1, LOOK)] {
            let mut lane = Lane::new(partitions, ACK);
            let every = Duration::from_micros(micros);
            lane.open_loop(every, Duration::from_secs(1));
            let learnt = lane.holds.len();
            lane.open_loop(every, Duration::from_secs(1));
            let held = lane.held_since(learnt);
            let well = held.iter().filter(|hold| **hold == Some(wait)).count();
            assert!(well * 10 >= held.len() * 9, "{micros} µs: {held:?}");
        }
    }

    /// A client that waits for its ack is no company: only looks are held, and they become rare.
    #[test]
    fn clients_that_wait_for_their_acks_are_not_waited_for() {
        for (partitions, spread_micros) in [(48, 600), (1, 600), (48, 5000)] {
            let mut lane = Lane::new(partitions, ACK);
            let spread = Duration::from_micros(spread_micros);
            lane.closed_loop(64, spread, 2000);
            let learnt = lane.holds.len();
            lane.closed_loop(64, spread, 10_000);
            assert!(!lane.company.is_quiet());
            let held = lane.held_since(learnt);
            let looks = held.iter().flatten().count();
            assert!((5..=500).contains(&looks), "{spread:?}: {looks} looks");
        }
    }

    #[test]
    fn a_fleet_that_falls_silent_is_not_waited_for() {
        let mut lane = Lane::new(48, ACK);
        lane.open_loop(Duration::from_micros(83), Duration::from_secs(1));
        assert!(lane.holds.last().unwrap().is_some());
        lane.open_loop(Duration::from_millis(100), Duration::from_secs(2));
        let learnt = lane.holds.len();
        lane.open_loop(Duration::from_millis(100), Duration::from_secs(2));
        assert!(lane.held_since(learnt).iter().all(Option::is_none));
    }

    proptest! {
        /// Whatever comes when: a hold is within the linger, and a lane to which next to nothing
        /// comes holds nothing.
        #[test]
        fn no_hold_is_longer_than_the_linger(
            steps in prop::collection::vec((any::<bool>(), 0..5_000_u64), 1..400),
            partitions in 1..1000_u32,
            linger_millis in 0..50_u64,
        ) {
            let linger = Duration::from_millis(linger_millis);
            let mut company = Company::new(linger);
            let mut now = Instant::now();
            for (opens, micros) in steps {
                now += Duration::from_micros(micros);
                company.record_came(now);
                if opens {
                    let hold = company.hold(now, partitions);
                    prop_assert!(hold.unwrap_or_default() <= linger);
                }
            }
            company.hold(now, partitions);
            now += Duration::from_secs(60);
            prop_assert_eq!(company.hold(now, partitions), None);
        }
    }
}
