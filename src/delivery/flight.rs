//! A batch that the sink has, and the word that comes of it: of all its records at once, or of
//! those that have arrived while others take longer.
//!
//! The records of a batch belong to many partitions or shards, and one of these may be slow, or
//! away. A batch is a *straggler* when it takes much longer than its stream's batches do, although
//! some of its records have arrived or other batches have since: then its arrived records go home
//! without the others, and the batch takes up none of the places of its stream any more. A stream
//! that stands still as a whole has no stragglers. If a sink answers together all records that do
//! not wait for another try, a batch of which some has arrived is one sooner, and the time that its
//! rest takes says nothing of other batches.
//!
//! Bounds: [`STRAGGLERS_MAX`](super::stragglers::STRAGGLERS_MAX) of the gateway; while there are as
//! many, others stay whole. A straggler has one part on its way home at a time.

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::outlet::Outlet;
use super::shipment::{HeldRecord, Origin, Part};
use super::stragglers::Straggler;
use super::watch::silent_after;
use crate::record::{DeviceId, Outcomes, Record, StreamIndex};
use crate::sink::Progress;

/// Factor by which each look at a straggler is later than the one before, within a second.
const LATER: u32 = 2;
const LATER_MAX: Duration = Duration::from_secs(1);

/// A batch of records that the sink has.
pub(crate) struct Flight<'a> {
    outlet: &'a Outlet,
    stream: StreamIndex,
    records: &'a [Record],
    began_at: Instant,
    /// Time after which it takes much longer than others.
    late_after: Duration,
    progress: &'a Progress,
    answer: Pin<&'a mut dyn Future<Output = Outcomes>>,
    looks: Looks,
    straggler: Option<Straggler>,
    /// Whether some of its records wait for another try, and others do not.
    is_torn: bool,
    /// Whether each record was told to have arrived; empty as long as none was.
    told: Vec<bool>,
}

/// Schedule of the looks at a batch's progress.
struct Looks {
    at: Instant,
    next_in: Duration,
}

/// The next word of a batch in flight.
pub(crate) enum Word {
    /// The outcome of each record, told before or not.
    Landed(Outcomes),
    /// It takes long: the records that have arrived can be [told](Flight::tell_part).
    Late,
}

impl<'a> Flight<'a> {
    /// `answer` is the sink's, `progress` tells which records have arrived meanwhile.
    pub(crate) fn new(
        outlet: &'a Outlet,
        stream: StreamIndex,
        records: &'a [Record],
        progress: &'a Progress,
        answer: Pin<&'a mut dyn Future<Output = Outcomes>>,
    ) -> Self {
        let began_at = outlet.watch.batch_started(stream);
        let usual = outlet.usual(stream);
        let late_after = usual.straggles_after();
        let next_in = match outlet.sink.answers_together() {
            true => usual.part_straggles_after(),
            false => late_after,
        };
        Self {
            outlet,
            stream,
            records,
            began_at,
            late_after,
            progress,
            answer,
            looks: Looks {
                at: began_at + next_in,
                next_in,
            },
            straggler: None,
            is_torn: false,
            told: Vec::new(),
        }
    }

    /// Waits for the answer, or for the time to look at the progress.
    pub(crate) async fn word(&mut self) -> Word {
        let answer = poll_fn(|context| Poll::Ready(self.answer.as_mut().poll(context)));
        if let Poll::Ready(outcomes) = answer.await {
            // An answer that is there needs no timer.
            return self.landed(outcomes);
        }
        tokio::select! {
            biased;
            outcomes = self.answer.as_mut() => self.landed(outcomes),
            () = sleep_until(self.looks.at) => {
                self.looks.next_in = (self.looks.next_in * LATER).min(LATER_MAX);
                self.looks.at = Instant::now() + self.looks.next_in;
                self.tell_of_silence();
                Word::Late
            }
        }
    }

    /// Reports the devices of a straggler, which show which partitions are silent.
    fn tell_of_silence(&self) {
        let ack_timeout = self.outlet.options.ack_timeout;
        let silent_after = silent_after(self.outlet.sink.ack_time(), ack_timeout);
        if self.straggler.is_some() && self.began_at.elapsed() >= silent_after {
            let missing = self.missing();
            let devices = missing
                .iter()
                .map(|position| &self.records[*position].device);
            self.outlet.watch.devices_straggle(self.stream, devices);
        }
    }

    fn landed(&mut self, outcomes: Outcomes) -> Word {
        let took = self.began_at.elapsed();
        if outcomes == Outcomes::DELIVERED && !self.is_torn {
            self.outlet.usual(self.stream).note(took);
        }
        if self.straggler.take().is_none() {
            self.outlet.watch.batch_left(self.stream);
        }
        self.outlet
            .answered(self.stream, &outcomes, self.records.len(), took);
        Word::Landed(outcomes)
    }

    /// Waits for the answer, however long it takes. `when_late` is called now and then meanwhile.
    pub(crate) async fn answer(&mut self, mut when_late: impl FnMut(&mut Self)) -> Outcomes {
        loop {
            match self.word().await {
                Word::Landed(outcomes) => return outcomes,
                Word::Late => when_late(self),
            }
        }
    }

    /// Tells the origin of a straggler which of its records have arrived, if it can be told now.
    /// `held` are the shipment's records that are not of this batch: they wait as well.
    pub(crate) fn tell_part(&mut self, held: &[HeldRecord], origin: &mut impl Origin) {
        if origin.takes_part()
            && let Some(arrived) = self.look()
        {
            let in_shipment = |index| position_in_shipment(index, held);
            let mut waiting = self.waiting();
            waiting.extend(held.iter().map(|held| held.record.device.clone()));
            origin.settle_part(Part {
                positions: arrived.into_iter().map(in_shipment).collect(),
                waiting,
            });
        }
    }

    /// Returns the positions that have arrived and were not told before. `None` if the batch is no
    /// straggler, or has nothing to tell. The first time, the batch gives up its place in its
    /// stream, even if nothing has arrived.
    pub(crate) fn look(&mut self) -> Option<Vec<usize>> {
        let arrived = self.arrived();
        if self.straggler.is_none() {
            self.straggler = Some(self.straggle(!arrived.is_empty())?);
            self.is_torn = !arrived.is_empty() && self.outlet.sink.answers_together();
        } else if arrived.is_empty() {
            return None;
        }
        self.told.resize(self.records.len(), false);
        for position in &arrived {
            self.told[*position] = true;
        }
        if !arrived.is_empty() {
            self.outlet.watch.batch_progressed(self.stream);
        }
        Some(arrived)
    }

    /// Makes a straggler of the batch, where others overtake it and there are not too many.
    fn straggle(&self, has_arrivals: bool) -> Option<Straggler> {
        let watch = &self.outlet.watch;
        let is_late = self.began_at.elapsed() >= self.late_after;
        let is_overtaken = is_late && watch.has_taken_since(self.stream, self.began_at);
        if !has_arrivals && !is_overtaken {
            return None;
        }
        let straggler = self.outlet.stragglers.place()?;
        watch.batch_straggles(self.stream);
        Some(straggler)
    }

    fn arrived(&self) -> Vec<usize> {
        let has_arrived = |position: &usize| self.progress.has_arrived(*position);
        self.untold().filter(has_arrived).collect()
    }

    /// Returns the positions of the records that are not known to have arrived.
    pub(crate) fn missing(&self) -> Vec<usize> {
        let has_not = |position: &usize| !self.progress.has_arrived(*position);
        self.untold().filter(has_not).collect()
    }

    /// Returns the devices of records that are not known to have arrived.
    pub(crate) fn waiting(&self) -> HashSet<DeviceId> {
        let device = |position: usize| self.records[position].device.clone();
        self.untold().map(device).collect()
    }

    /// Returns the positions of records that were not told to have arrived.
    fn untold(&self) -> impl Iterator<Item = usize> {
        (0..self.records.len()).filter(|position| !self.was_told(*position))
    }

    /// Whether the record at this position was told to have arrived.
    fn was_told(&self, position: usize) -> bool {
        self.told.get(position).is_some_and(|was_told| *was_told)
    }
}

/// Takes records to the sink and keeps count of it. `when_late` is called now and then while they
/// take long.
pub(crate) async fn ask_sink(
    outlet: &Outlet,
    stream: StreamIndex,
    records: &[Record],
    when_late: impl FnMut(&mut Flight<'_>),
) -> Outcomes {
    if records.is_empty() {
        // No word of the sink: it is not to count as one.
        return Outcomes::DELIVERED;
    }
    let progress = Progress::default();
    let answer = pin!(outlet.sink.deliver(stream, records, &progress));
    let mut flight = Flight::new(outlet, stream, records, &progress, answer);
    flight.answer(when_late).await
}

/// Returns the position of a live record in its shipment, of which these are held.
fn position_in_shipment(index: usize, held: &[HeldRecord]) -> usize {
    let mut position = index;
    for held in held {
        if held.position > position {
            break;
        }
        position += 1;
    }
    position
}
