//! One wave's way to the sink, and the fate of its records: done with, to go again, or dead
//! letters.
//!
//! It runs beside others, and ends when the sink has answered and the dead letters are on disk.
//! Records that arrive long before the rest of their wave come home before it.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::delivery::backlog::Backlog;
use crate::delivery::flight::{Flight, ask_sink};
use crate::delivery::flow::Fared;
use crate::delivery::overflow::Spooling;
use crate::delivery::window::{Placed, Standing, Wave};
use crate::record::{DeviceId, Outcome, Outcomes, Reason, Record, StreamIndex};

/// A wave that sets out.
pub(super) struct Errand {
    /// Index of its stream among the drain's.
    pub at: usize,
    pub stream: Arc<str>,
    pub index: Option<StreamIndex>,
    pub wave: Wave,
    /// Whether the stream has refused everything for so long that records it refuses again become
    /// dead letters.
    pub gives_way: bool,
}

/// Records of a wave that have come home while others take longer.
pub(super) struct Early {
    pub at: usize,
    /// Standing of the place that the wave gives up with this part; `None` if it had given it up
    /// before.
    pub left: Option<Standing>,
    pub payload_bytes: usize,
    /// Devices that may send again: none of their records is in the wave any more.
    pub devices: Vec<DeviceId>,
}

/// A wave that has come home, without the parts that came before.
pub(super) struct Home {
    pub at: usize,
    pub standing: Standing,
    /// Whether the wave still takes up a place among those of its stream.
    pub has_place: bool,
    pub payload_bytes: usize,
    pub fared: Fared,
    pub answer: Answer,
    /// Devices that may send again.
    pub devices: Vec<DeviceId>,
    pub again: Vec<Placed>,
    /// Records that could not be made dead letters, and those behind them.
    pub postponed: Vec<Placed>,
}

/// The stream's answer, as the outcomes of a wave show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has taken or judged a record.
    Open,
    /// It is gone, or closed to this gateway.
    Barred,
    /// It took nothing.
    Silent,
}

/// The fate of a record.
enum Fate {
    /// It has come home before, delivered.
    Home,
    Done,
    Again,
    SetAside(Reason),
    /// It is refused, and the disk has no room to set it aside.
    Postponed,
}

/// The records of a wave with the fate of each, in their order.
struct Fates(Vec<(Placed, Fate)>);

/// The records of a wave, sorted by their fate.
#[derive(Default)]
struct Parted {
    done: Vec<Placed>,
    again: Vec<Placed>,
    postponed: Vec<Placed>,
    /// The devices of the postponed records.
    waiting: HashSet<DeviceId>,
}

/// A wave in flight, without the records that have come home.
struct Travelling<'a> {
    at: usize,
    stream: &'a str,
    standing: Standing,
    places: &'a [u64],
    records: &'a [Record],
    rest: Rest,
    early: mpsc::Sender<Early>,
}

/// The rest of a wave, of which some records may have come home.
struct Rest {
    has_place: bool,
    payload_bytes: usize,
    devices: Vec<DeviceId>,
    /// Whether each record has come home; empty while none has.
    home: Vec<bool>,
}

impl Errand {
    /// Takes the wave to the sink and settles its records. Records that come home before the rest
    /// are sent to `early`.
    pub(super) async fn run(self, spooling: Rc<Spooling>, early: mpsc::Sender<Early>) -> Home {
        let Self {
            at,
            stream,
            index,
            wave,
            gives_way,
        } = self;
        let (standing, rest) = (wave.standing, Rest::of(&wave));
        let (places, records) = split(wave.records);
        let travelling = Travelling {
            at,
            stream: &stream,
            standing,
            places: &places,
            records: &records,
            rest,
            early,
        };
        let (outcomes, rest) = travelling.travel(&spooling, index).await;
        let answer = Answer::of(&outcomes, records.len());
        let mut fates = Fates::new(places, records, &outcomes, gives_way);
        fates.are_home(&rest.home);
        let fared = fates.fared();
        let parted = fates.settle(spooling.backlog(), &stream).await;
        let devices = rest.devices.into_iter();
        Home {
            at,
            standing,
            has_place: rest.has_place,
            payload_bytes: rest.payload_bytes,
            fared,
            answer,
            devices: devices
                .filter(|device| !parted.waiting.contains(device))
                .collect(),
            again: parted.again,
            postponed: parted.postponed,
        }
    }
}

/// Retires these records of a stream, which have arrived, or were made dead letters.
fn retire<'a>(backlog: &Backlog, stream: &str, done: impl Iterator<Item = (u64, &'a DeviceId)>) {
    backlog.retire(stream, done);
    backlog.release_done();
}

impl Rest {
    fn of(wave: &Wave) -> Self {
        Self {
            has_place: true,
            payload_bytes: wave.payload_bytes(),
            devices: wave.devices.clone(),
            home: Vec::new(),
        }
    }
}

impl Travelling<'_> {
    /// Returns the outcomes of the records, and the rest of the wave that has not come home before.
    async fn travel(
        mut self,
        spooling: &Spooling,
        stream: Option<StreamIndex>,
    ) -> (Outcomes, Rest) {
        let (records, backlog) = (self.records, spooling.backlog());
        let when_late = |flight: &mut Flight<'_>| self.tell_early(flight, backlog);
        let outcomes = ask(spooling, stream, records, when_late).await;
        (outcomes, self.rest)
    }

    /// Sends the drain the records that have arrived, if the channel has room.
    fn tell_early(&mut self, flight: &mut Flight<'_>, backlog: &Backlog) {
        let early = self.early.clone();
        if let Ok(permit) = early.try_reserve()
            && let Some(arrived) = flight.look()
        {
            let done = arrived.iter();
            let done = done.map(|at| (self.places[*at], &self.records[*at].device));
            retire(backlog, self.stream, done);
            permit.send(self.come_home(&arrived, &flight.waiting()));
        }
    }

    /// Takes the records at these positions home. `waiting` are the devices with others in the
    /// wave.
    fn come_home(&mut self, arrived: &[usize], waiting: &HashSet<DeviceId>) -> Early {
        let rest = &mut self.rest;
        rest.home.resize(self.records.len(), false);
        let mut payload_bytes = 0;
        for at in arrived {
            debug_assert!(!rest.home[*at], "a record comes home once");
            rest.home[*at] = true;
            payload_bytes += self.records[*at].payload.len();
        }
        debug_assert!(rest.payload_bytes >= payload_bytes, "it was in the wave");
        rest.payload_bytes -= payload_bytes;
        let devices = mem::take(&mut rest.devices);
        let (waiting, free) = devices
            .into_iter()
            .partition(|device| waiting.contains(device));
        rest.devices = waiting;
        Early {
            at: self.at,
            left: mem::take(&mut rest.has_place).then_some(self.standing),
            payload_bytes,
            devices: free,
        }
    }
}

/// Splits placed records into their places and the records, which the sink takes as one slice.
fn split(placed: Vec<Placed>) -> (Vec<u64>, Vec<Record>) {
    let placed = placed.into_iter();
    placed.map(|placed| (placed.place, placed.record)).unzip()
}

/// Returns the sink's outcomes of the records. Those of a sink that panics are unknown: they go
/// again.
async fn ask(
    spooling: &Spooling,
    stream: Option<StreamIndex>,
    records: &[Record],
    when_late: impl FnMut(&mut Flight<'_>),
) -> Outcomes {
    let Some(stream) = stream else {
        return Outcomes::All(Outcome::Permanent(
            "the stream is not among FOREBAY_STREAMS".into(),
        ));
    };
    let asked = ask_sink(spooling.outlet(), stream, records, when_late);
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

    /// Marks the records that have come home before, if any has.
    fn are_home(&mut self, home: &[bool]) {
        debug_assert!(home.is_empty() || home.len() == self.0.len());
        for ((_, fate), is_home) in self.0.iter_mut().zip(home) {
            if *is_home {
                *fate = Fate::Home;
            }
        }
    }

    fn fared(&self) -> Fared {
        let goes_again = |(_, fate): &(Placed, Fate)| matches!(fate, Fate::Again);
        let again = self.0.iter().any(goes_again);
        Fared::of(!self.0.iter().all(goes_again), again)
    }

    /// Makes dead letters of refused records, and is done with those and with the delivered ones.
    async fn settle(mut self, backlog: &Backlog, stream: &str) -> Parted {
        self.set_aside(backlog, stream).await;
        let parted = self.part();
        let done = parted.done.iter().map(Placed::place_and_device);
        retire(backlog, stream, done);
        parted
    }

    /// Makes dead letters of refused records, those with one reason together.
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

    /// Sorts the records by their fate. All records of a waiting device that are not done with
    /// wait, in their order.
    fn part(self) -> Parted {
        let mut parted = Parted {
            waiting: self.postponed_devices(),
            ..Parted::default()
        };
        for (placed, fate) in self.0 {
            match fate {
                Fate::Home => {}
                Fate::Done => parted.done.push(placed),
                _ if parted.waiting.contains(&placed.record.device) => {
                    parted.postponed.push(placed)
                }
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
