//! One wave's way to the sink, and what becomes of its records: done with, to go again, or set
//! aside.
//!
//! It runs beside others, and ends when the sink has answered and the disk has what is set aside.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use crate::delivery::backlog::Backlog;
use crate::delivery::flight::ask_sink;
use crate::delivery::flow::Fared;
use crate::delivery::overflow::Spooling;
use crate::delivery::window::{Placed, Standing, Wave};
use crate::record::{DeviceId, Outcome, Outcomes, Reason, Record, StreamIndex};

/// A wave that sets out.
pub(super) struct Errand {
    /// Which of the drain's streams it is of.
    pub at: usize,
    pub stream: Arc<str>,
    pub index: Option<StreamIndex>,
    pub wave: Wave,
    /// The stream has refused everything for so long that what it refuses again is set aside.
    pub gives_way: bool,
}

/// A wave that has come home.
pub(super) struct Home {
    pub at: usize,
    pub standing: Standing,
    pub payload_bytes: usize,
    pub fared: Fared,
    pub answer: Answer,
    /// Devices that may send again.
    pub devices: Vec<DeviceId>,
    pub again: Vec<Placed>,
    /// What could not be set aside, and what is behind it.
    pub postponed: Vec<Placed>,
}

/// What the stream has said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has taken or judged a record.
    Open,
    /// It is gone, or closed to this gateway.
    Barred,
    /// It took nothing.
    Silent,
}

/// What is to become of a record.
enum Fate {
    Done,
    Again,
    SetAside(Reason),
    /// It is refused, and the disk has no room to set it aside.
    Postponed,
}

/// The records of a wave with what is to become of each, in their order.
struct Fates(Vec<(Placed, Fate)>);

/// The records of a wave by what has become of them.
#[derive(Default)]
struct Parted {
    done: Vec<Placed>,
    again: Vec<Placed>,
    postponed: Vec<Placed>,
}

impl Errand {
    /// Takes the wave to the sink and sees to what comes of it.
    pub(super) async fn run(self, spooling: Rc<Spooling>) -> Home {
        let payload_bytes = self.wave.payload_bytes();
        let Wave {
            standing,
            records,
            mut devices,
            ..
        } = self.wave;
        let (places, records) = split(records);
        let outcomes = ask(&spooling, self.index, &records).await;
        let answer = Answer::of(&outcomes, records.len());
        let mut fates = Fates::new(places, records, &outcomes, self.gives_way);
        let fared = fates.fared();
        fates.set_aside(spooling.backlog(), &self.stream).await;
        let waiting = fates.postponed_devices();
        devices.retain(|device| !waiting.contains(device));
        let Parted {
            done,
            again,
            postponed,
        } = fates.part(&waiting);
        let retired = done.iter().map(Placed::place_and_device);
        spooling.backlog().retire(&self.stream, retired);
        spooling.backlog().release_done();
        Home {
            at: self.at,
            standing,
            payload_bytes,
            fared,
            answer,
            devices,
            again,
            postponed,
        }
    }
}

/// The sink takes records one after the other in memory, and knows nothing of places.
fn split(placed: Vec<Placed>) -> (Vec<u64>, Vec<Record>) {
    let placed = placed.into_iter();
    placed.map(|placed| (placed.place, placed.record)).unzip()
}

/// What the sink makes of records. A sink that panics has not said what: they go again.
async fn ask(spooling: &Spooling, stream: Option<StreamIndex>, records: &[Record]) -> Outcomes {
    let Some(stream) = stream else {
        return Outcomes::All(Outcome::Permanent(
            "the stream is not among FOREBAY_STREAMS".into(),
        ));
    };
    let asked = ask_sink(spooling.outlet(), stream, records, |_| {});
    let answered = spooling.alarm().guard("a delivery from the spool", asked);
    let unknown = Outcomes::All(Outcome::Unknown);
    answered.await.unwrap_or(unknown)
}

impl Answer {
    fn of(outcomes: &Outcomes, records: usize) -> Self {
        let mut answer = Self::Silent;
        for index in 0..records {
            match outcomes.get(index) {
                Outcome::Delivered | Outcome::Permanent(_) => return Self::Open,
                Outcome::Barred(_) => answer = Self::Barred,
                Outcome::Retryable(_) | Outcome::Unknown => {}
            }
        }
        answer
    }
}

impl Fates {
    fn new(places: Vec<u64>, records: Vec<Record>, outcomes: &Outcomes, gives_way: bool) -> Self {
        debug_assert_eq!(places.len(), records.len(), "each record has its place");
        let mut fates = Vec::with_capacity(records.len());
        for (index, (place, record)) in places.into_iter().zip(records).enumerate() {
            let fate = Fate::of(outcomes.get(index), gives_way);
            fates.push((Placed { place, record }, fate));
        }
        Self(fates)
    }

    fn fared(&self) -> Fared {
        let goes_again = |(_, fate): &(Placed, Fate)| matches!(fate, Fate::Again);
        let again = self.0.iter().any(goes_again);
        Fared::of(!self.0.iter().all(goes_again), again)
    }

    /// Makes dead letters of what is refused, those with one reason together.
    async fn set_aside(&mut self, backlog: &Backlog, stream: &str) {
        let mut refused: BTreeMap<Reason, Vec<usize>> = BTreeMap::new();
        for (index, (_, fate)) in self.0.iter().enumerate() {
            if let Fate::SetAside(reason) = fate {
                refused.entry(reason.clone()).or_default().push(index);
            }
        }
        for (reason, indexes) in refused {
            let records = indexes.iter().map(|&index| &self.0[index].0.record);
            let is_safe = backlog.dead_letter(stream, &reason, records).await.is_ok();
            for index in indexes {
                self.0[index].1 = if is_safe { Fate::Done } else { Fate::Postponed };
            }
        }
    }

    fn postponed_devices(&self) -> HashSet<DeviceId> {
        let mut devices = HashSet::new();
        for (placed, fate) in &self.0 {
            if matches!(fate, Fate::Postponed) {
                devices.insert(placed.record.device.clone());
            }
        }
        devices
    }

    /// Of a device that waits everything does that is not done with, in its order.
    fn part(self, waiting: &HashSet<DeviceId>) -> Parted {
        let mut parted = Parted::default();
        for (placed, fate) in self.0 {
            match fate {
                Fate::Done => parted.done.push(placed),
                _ if waiting.contains(&placed.record.device) => parted.postponed.push(placed),
                Fate::Again => parted.again.push(placed),
                Fate::SetAside(_) | Fate::Postponed => {
                    unreachable!("a device with a record that is postponed waits")
                }
            }
        }
        parted
    }
}

impl Fate {
    fn of(outcome: &Outcome, gives_way: bool) -> Self {
        match outcome {
            Outcome::Delivered => Self::Done,
            Outcome::Permanent(reason) => Self::SetAside(reason.clone()),
            Outcome::Barred(reason) if gives_way => Self::SetAside(reason.clone()),
            Outcome::Barred(_) | Outcome::Retryable(_) | Outcome::Unknown => Self::Again,
        }
    }
}
