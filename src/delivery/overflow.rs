//! Records on their way to the sink and to disk: a record that the sink takes in time goes there,
//! any other to disk.
//!
//! A request is answered once each of its records is safe in one place or the other, or refused by
//! both. Records of devices that have some of the same stream on disk follow them there. A record
//! that the sink has not answered for when [patience](Outlet::patience) is over is made safe on disk
//! and answered; that copy is done with if the sink delivers it after all.

use std::ops::Range;
use std::pin::pin;
use std::rc::Rc;

use futures_util::future::join;
use tokio::time::{Instant, sleep_until};

use super::alarm::Alarm;
use super::backlog::{Backlog, Ticket};
use super::flight::{Flight, Word};
use super::outlet::Outlet;
use super::shipment::{HeldRecord, Origin, Settlement, Shipment, Terms};
use super::stragglers::Straggler;
use crate::config::SpoolMode;
use crate::record::{Outcome, Outcomes, Record, StreamIndex};
use crate::sink::Progress;
use crate::spool::Refused;

/// The sink with a spool beside it.
pub(crate) struct Spooling {
    outlet: Rc<Outlet>,
    backlog: Rc<Backlog>,
    alarm: Alarm,
}

/// The records of a shipment by where they go.
#[derive(Default)]
struct Routed {
    live: Vec<Record>,
    held: Vec<HeldRecord>,
}

/// Knowledge of live records at the time at which they may be answered.
enum FirstWord {
    Answered(Outcomes),
    InDoubt(InDoubt),
}

/// Live records that are on disk, and that the sink has as well.
struct InDoubt {
    places: Range<u64>,
    /// Their positions among the live records.
    positions: Vec<usize>,
}

/// Records that wait until their devices have left the spool.
struct Followers {
    records: Vec<HeldRecord>,
    ticket: Ticket,
    _place: Straggler,
}

impl Spooling {
    pub(crate) fn new(outlet: Rc<Outlet>, backlog: Rc<Backlog>, alarm: Alarm) -> Self {
        Self {
            outlet,
            backlog,
            alarm,
        }
    }

    pub(crate) fn outlet(&self) -> &Rc<Outlet> {
        &self.outlet
    }

    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    pub(crate) fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    /// Makes records safe here or there, and settles for all of them.
    pub(crate) async fn ship<O: Origin>(&self, mut shipment: Shipment, mut origin: O) {
        let Some(followers) = self.take_followers(&mut shipment) else {
            return self.ship_now(shipment, origin).await;
        };
        let of_followers = origin.split_off(&followers.records);
        let following = self.ship_followers(shipment.terms, followers, of_followers);
        join(self.ship_now(shipment, origin), following).await;
    }

    /// Takes those out of a shipment whose devices are about to leave the spool. They are
    /// stragglers meanwhile; while there are too many of these, they stay, and go to disk.
    fn take_followers(&self, shipment: &mut Shipment) -> Option<Followers> {
        let name = self.outlet.name(shipment.terms.stream);
        if self.backlog.mode() == SpoolMode::Always || self.backlog.is_empty(name) {
            return None;
        }
        let is_leaving = |record: &Record| self.backlog.is_leaving(name, &record.device);
        if !shipment.records.iter().any(is_leaving) {
            return None;
        }
        let place = self.outlet.stragglers.place()?;
        let mut followers = Vec::new();
        let records = std::mem::take(&mut shipment.records);
        for (position, record) in records.into_iter().enumerate() {
            if is_leaving(&record) {
                followers.push(HeldRecord { position, record });
            } else {
                shipment.records.push(record);
            }
        }
        let devices = followers.iter().map(|held| &held.record.device);
        Some(Followers {
            ticket: self.backlog.follow(name, devices),
            records: followers,
            _place: place,
        })
    }

    /// Ships records when their devices have left the spool, or will not in time.
    async fn ship_followers(&self, terms: Terms, followers: Followers, origin: impl Origin) {
        let name = self.outlet.name(terms.stream);
        let records = followers.records.into_iter().map(|held| held.record);
        let records: Vec<Record> = records.collect();
        let devices = || records.iter().map(|record| &record.device);
        tokio::select! {
            () = self.backlog.left(name, devices, followers.ticket) => {}
            () = self.out_of_patience(terms.opened_at) => {}
        }
        // They are on their way before anything else can be: nothing is waited for in between.
        self.backlog.unfollow(name, devices(), followers.ticket);
        self.ship_now(Shipment { terms, records }, origin).await;
    }

    async fn ship_now(&self, shipment: Shipment, origin: impl Origin) {
        let (terms, records) = (shipment.terms, shipment.records.len());
        let routed = self.route(shipment);
        debug_assert_eq!(routed.live.len() + routed.held.len(), records);
        if routed.live.is_empty() {
            self.ship_to_disk(terms, routed.held, origin).await;
        } else {
            self.ship_to_both(terms, routed, origin).await;
        }
    }

    async fn ship_to_disk(&self, terms: Terms, held: Vec<HeldRecord>, origin: impl Origin) {
        let spooled = self.spool(terms.stream, held.iter().map(|held| &held.record));
        let of_held = spooled.await;
        origin.settle(Settlement::of_disk(held.len(), held, of_held));
    }

    /// Takes records to the sink, and others to disk beside it, if there are any.
    async fn ship_to_both(&self, terms: Terms, routed: Routed, mut origin: impl Origin) {
        let Routed { live, held } = routed;
        let progress = Progress::default();
        let mut answer = Box::pin(self.outlet.sink.deliver(terms.stream, &live, &progress));
        let answering = answer.as_mut();
        let mut flight = Flight::new(&self.outlet, terms.stream, &live, &progress, answering);
        let mut tell = |flight: &mut Flight<'_>| flight.tell_part(&held, &mut origin);
        let word = self.first_word(terms, &live, &mut flight, &mut tell);
        let follows = self.spool(terms.stream, held.iter().map(|held| &held.record));
        let (word, of_held) = join(word, follows).await;
        let records = live.len() + held.len();
        let settlement = Settlement::of_disk(records, held, of_held);
        match word {
            FirstWord::InDoubt(in_doubt) => {
                origin.settle(settlement);
                let outcomes = flight.answer(|_| {}).await;
                self.resolve(terms.stream, &live, &in_doubt, &outcomes);
            }
            FirstWord::Answered(outcomes) => {
                drop(flight);
                drop(answer);
                let of_live = self.save_failed(terms, &live, outcomes).await;
                origin.settle(Settlement {
                    of_live,
                    live,
                    ..settlement
                });
            }
        }
    }

    /// Waits for the sink's answer until patience ends; records that have not arrived by then are
    /// made safe on disk.
    async fn first_word(
        &self,
        terms: Terms,
        live: &[Record],
        flight: &mut Flight<'_>,
        tell: &mut impl FnMut(&mut Flight<'_>),
    ) -> FirstWord {
        let mut out_of_patience = pin!(self.out_of_patience(terms.opened_at));
        loop {
            tokio::select! {
                biased;
                word = flight.word() => match word {
                    Word::Landed(outcomes) => return FirstWord::Answered(outcomes),
                    Word::Late => tell(flight),
                },
                () = &mut out_of_patience => break,
            }
        }
        let positions = flight.missing();
        match self.spool_in_doubt(terms.stream, live, &positions).await {
            Ok(places) => FirstWord::InDoubt(InDoubt { places, positions }),
            Err(_) => FirstWord::Answered(flight.answer(|_| {}).await),
        }
    }

    fn resolve(
        &self,
        stream: StreamIndex,
        live: &[Record],
        in_doubt: &InDoubt,
        outcomes: &Outcomes,
    ) {
        let InDoubt { places, positions } = in_doubt;
        let mut delivered = Vec::new();
        for (place, position) in places.clone().zip(positions) {
            if *outcomes.get(*position) == Outcome::Delivered {
                delivered.push((place, &live[*position].device));
            }
        }
        let name = self.outlet.name(stream);
        self.backlog.resolve(name, places, delivered.into_iter());
    }

    fn route(&self, shipment: Shipment) -> Routed {
        let Shipment { terms, records } = shipment;
        let all_held = self.backlog.mode() == SpoolMode::Always
            || terms.opened_at.elapsed() >= self.outlet.patience()
            || !self.sink_takes_more(terms.stream);
        let (name, watch) = (self.outlet.name(terms.stream), &self.outlet.watch);
        let any_away = watch.any_partition_away(terms.stream);
        let mut routed = Routed::default();
        if !all_held && !any_away && self.backlog.is_empty(name) {
            routed.live = records;
            return routed;
        }
        let is_held = |record: &Record| {
            all_held
                || self.backlog.holds(name, &record.device)
                || watch.is_partition_away(terms.stream, &record.device)
        };
        for (position, record) in records.into_iter().enumerate() {
            if is_held(&record) {
                routed.held.push(HeldRecord { position, record });
            } else {
                routed.live.push(record);
            }
        }
        routed
    }

    /// Whether the stream is there and the sink has not all the batches that it may have at once.
    fn sink_takes_more(&self, stream: StreamIndex) -> bool {
        let outlet = &self.outlet;
        !outlet.ending.is_hurrying() && outlet.has_room(stream) && outlet.watch.takes_batch(stream)
    }

    async fn out_of_patience(&self, opened_at: Instant) {
        tokio::select! {
            biased;
            () = sleep_until(opened_at + self.outlet.patience()) => {}
            () = self.outlet.ending.hurried() => {}
        }
    }

    /// Makes records safe on disk, all or none of them.
    async fn spool<'a>(
        &self,
        stream: StreamIndex,
        records: impl ExactSizeIterator<Item = &'a Record> + Clone,
    ) -> Outcome {
        if records.len() == 0 {
            return Outcome::Delivered;
        }
        let appended = self.backlog.append(self.outlet.name(stream), records).await;
        self.outlet.watch.update_health();
        match appended {
            Ok(_) => Outcome::Delivered,
            Err(refused) => self.spool_refused(&refused),
        }
    }

    fn spool_refused(&self, refused: &Refused) -> Outcome {
        if *refused == Refused::Closed {
            // It is closed when delivery has ended, not before.
            self.alarm.raise("the thread of the spool");
        }
        Outcome::Retryable(refused.to_string().into())
    }

    /// Makes those live records safe that stand at these positions.
    async fn spool_in_doubt(
        &self,
        stream: StreamIndex,
        live: &[Record],
        positions: &[usize],
    ) -> Result<Range<u64>, Refused> {
        let name = self.outlet.name(stream);
        let records = positions.iter().map(|position| &live[*position]);
        let spooled = self.backlog.append_in_doubt(name, records).await;
        self.outlet.watch.update_health();
        spooled
    }

    /// Spools the records that the sink did not take, and makes dead letters of those that it
    /// refuses for good, if they were answered before.
    async fn save_failed(&self, terms: Terms, records: &[Record], outcomes: Outcomes) -> Outcomes {
        if outcomes == Outcomes::DELIVERED {
            return outcomes;
        }
        let each = (0..records.len()).map(|index| outcomes.get(index).clone());
        let mut outcomes: Vec<Outcome> = each.collect();
        if terms.is_answered {
            self.set_aside_refused(terms.stream, records, &mut outcomes)
                .await;
        }
        let mut failed = Vec::new();
        for (record, outcome) in records.iter().zip(&mut outcomes) {
            if outcome.may_pass() {
                failed.push((record, outcome));
            }
        }
        let spooled = self
            .spool(terms.stream, failed.iter().map(|(record, _)| *record))
            .await;
        if spooled == Outcome::Delivered {
            for (_, outcome) in failed {
                *outcome = Outcome::Delivered;
            }
        }
        Outcomes::Each(outcomes)
    }

    /// Makes dead letters of records that are refused for good: such a record is safe. One for
    /// which the disk has no room is kept as if it might pass.
    async fn set_aside_refused(
        &self,
        stream: StreamIndex,
        records: &[Record],
        outcomes: &mut [Outcome],
    ) {
        debug_assert_eq!(records.len(), outcomes.len());
        let name = self.outlet.name(stream);
        for (record, outcome) in records.iter().zip(outcomes) {
            if let Outcome::Permanent(reason) = outcome {
                let one = std::iter::once(record);
                *outcome = match self.backlog.dead_letter(name, reason, one).await {
                    Ok(()) => Outcome::Delivered,
                    Err(refused) => Outcome::Retryable(refused.to_string().into()),
                };
            }
        }
    }
}
