//! The lanes of a worker that have something to do, and when: looked at in place of all lanes.
//!
//! The batcher notes a lane's standing whenever it changes, and asks here for the lanes that are
//! due. A lane is in at most one of two queues, each in the order in which its lanes are due. As
//! every lane has the same linger, a lane that opens goes to the end; so a note costs next to
//! nothing however many lanes there are, and a wake costs the lanes that are due. Nothing here is
//! allocated once each lane has been in each queue.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::record::StreamIndex;

/// Standing of a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has gathered nothing, or has as much in flight as it may: a batch that comes home changes
    /// that.
    #[default]
    Resting,
    /// Its records wait for company, until it is due: that is worth it, or batches of it are in
    /// flight.
    Gathering { due_at: Instant },
    /// Nothing of it is in flight, or it is quiet: its records are sent as soon as the worker is
    /// idle, or when it is due.
    Unsent { due_at: Instant, records: usize },
}

impl Standing {
    fn unsent_records(self) -> usize {
        match self {
            Self::Resting | Self::Gathering { .. } => 0,
            Self::Unsent { records, .. } => records,
        }
    }

    /// Whether a lane that stood so has its place in the queue already: it has gathered more,
    /// nothing else.
    fn keeps_place_of(self, before: Self) -> bool {
        match (before, self) {
            (Self::Unsent { due_at, .. }, Self::Unsent { due_at: same, .. }) => due_at == same,
            _ => false,
        }
    }
}

/// The standing of each lane.
#[derive(Debug)]
pub(crate) struct Agenda {
    /// The lanes' standings, each in the place of its stream.
    standings: Vec<Standing>,
    gathering: DueLanes,
    unsent: DueLanes,
    /// Records of all lanes that stand as unsent.
    unsent_records: usize,
}

impl Agenda {
    pub(crate) fn new(lanes: u16) -> Self {
        Self {
            standings: vec![Standing::Resting; usize::from(lanes)],
            gathering: DueLanes::default(),
            unsent: DueLanes::default(),
            unsent_records: 0,
        }
    }

    /// Notes the lane's standing from now on.
    pub(crate) fn note(&mut self, lane: StreamIndex, standing: Standing) {
        let before = std::mem::replace(&mut self.standings[lane.get()], standing);
        if before == standing {
            return;
        }
        debug_assert!(self.unsent_records >= before.unsent_records());
        self.unsent_records -= before.unsent_records();
        self.unsent_records += standing.unsent_records();
        if !standing.keeps_place_of(before) {
            self.queue(before, |queue, due_at| queue.remove(due_at, lane));
            self.queue(standing, |queue, due_at| queue.insert(due_at, lane));
        }
        debug_assert_eq!(self.unsent.is_empty(), self.unsent_records == 0);
    }

    /// Changes the queue in which a lane that stands so has its place, if it has one.
    fn queue(&mut self, standing: Standing, change: impl FnOnce(&mut DueLanes, Instant)) {
        match standing {
            Standing::Resting => {}
            Standing::Gathering { due_at } => change(&mut self.gathering, due_at),
            Standing::Unsent { due_at, .. } => change(&mut self.unsent, due_at),
        }
    }

    /// Returns the time at which the next lane is due.
    pub(crate) fn due_at(&self) -> Option<Instant> {
        Some(self.first()?.0)
    }

    /// Returns the first lane that is due by now.
    pub(crate) fn due(&self, now: Instant) -> Option<StreamIndex> {
        let (due_at, lane) = self.first()?;
        (due_at <= now).then_some(lane)
    }

    /// Returns the first lane that may send its records as soon as the worker is idle.
    pub(crate) fn unsent(&self) -> Option<StreamIndex> {
        Some(self.unsent.first()?.1)
    }

    /// Returns the number of records that may be sent as soon as the worker is idle.
    pub(crate) fn unsent_records(&self) -> usize {
        self.unsent_records
    }

    /// Returns the lane that is due first, whenever that is, and when.
    fn first(&self) -> Option<(Instant, StreamIndex)> {
        let firsts = [self.gathering.first(), self.unsent.first()];
        firsts.into_iter().flatten().min()
    }

    /// Returns a lane that has something to send.
    pub(crate) fn any(&self) -> Option<StreamIndex> {
        Some(self.first()?.1)
    }

    /// Whether no lane has a deadline.
    pub(crate) fn is_empty(&self) -> bool {
        self.gathering.is_empty() && self.unsent.is_empty()
    }
}

/// Lanes in the order in which they are due, each once.
#[derive(Debug, Default)]
struct DueLanes(VecDeque<(Instant, StreamIndex)>);

impl DueLanes {
    fn insert(&mut self, due_at: Instant, lane: StreamIndex) {
        let entry = (due_at, lane);
        match self.0.back() {
            // A lane that could send nothing for a while is due before lanes that opened since.
            Some(last) if *last > entry => {
                let place = self.0.partition_point(|other| *other < entry);
                debug_assert_ne!(self.0[place], entry, "a lane is in the queue once");
                self.0.insert(place, entry);
            }
            _ => self.0.push_back(entry),
        }
    }

    fn remove(&mut self, due_at: Instant, lane: StreamIndex) {
        let place = self.0.binary_search(&(due_at, lane));
        debug_assert!(place.is_ok(), "a lane that was noted is in its queue");
        if let Ok(place) = place {
            self.0.remove(place);
        }
    }

    fn first(&self) -> Option<(Instant, StreamIndex)> {
        self.0.front().copied()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const LANES: u16 = 8;

    fn standing(start: Instant) -> impl Strategy<Value = Standing> {
        let due_at = move |millis: u64| start + Duration::from_millis(millis);
        prop_oneof![
            Just(Standing::Resting),
            (0..50_u64).prop_map(move |millis| Standing::Gathering {
                due_at: due_at(millis)
            }),
            (0..50_u64, 1..5_usize).prop_map(move |(millis, records)| Standing::Unsent {
                due_at: due_at(millis),
                records
            }),
        ]
    }

    fn due_at(standing: &Standing) -> Option<Instant> {
        match standing {
            Standing::Resting => None,
            Standing::Gathering { due_at } | Standing::Unsent { due_at, .. } => Some(*due_at),
        }
    }

    proptest! {
        /// After each note, every answer is the same as a look at all lanes gives.
        #[test]
        fn the_agenda_knows_what_a_look_at_all_lanes_finds(
            notes in Just(Instant::now()).prop_flat_map(|start| {
                prop::collection::vec((0..LANES, standing(start)), 1..200)
            }),
        ) {
            let mut agenda = Agenda::new(LANES);
            let mut lanes = [Standing::Resting; LANES as usize];
            for (lane, standing) in notes {
                agenda.note(StreamIndex(lane), standing);
                lanes[usize::from(lane)] = standing;
                let first_due = lanes.iter().filter_map(due_at).min();
                prop_assert_eq!(agenda.due_at(), first_due);
                prop_assert_eq!(agenda.is_empty(), first_due.is_none());
                if let Some(first_due) = first_due {
                    let due = agenda.due(first_due).expect("a lane is due");
                    prop_assert_eq!(due_at(&lanes[due.get()]), Some(first_due));
                    prop_assert_eq!(agenda.due(first_due - Duration::from_millis(1)), None);
                }
                let mut unsent_records = 0;
                for standing in &lanes {
                    if let Standing::Unsent { records, .. } = standing {
                        unsent_records += records;
                    }
                }
                prop_assert_eq!(agenda.unsent_records(), unsent_records);
                prop_assert_eq!(agenda.unsent().is_some(), unsent_records > 0);
            }
        }
    }
}
