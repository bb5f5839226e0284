//! Records on their way to the sink and to disk: what the sink takes in time goes there, the rest
//! to disk.
//!
//! Whoever sent records is told once each of them is safe in one place or the other, or refused by
//! both. Records of devices that have some of the same stream on disk follow them there. What the
//! sink has not answered for after [`PATIENCE_MAX`], or half of the ack time-out where that is
//! less, is made safe on disk and answered; that copy is done with when the sink delivers it after
//! all.

use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, sleep_until};

use super::alarm::Alarm;
use super::backlog::Backlog;
use super::outlet::Outlet;
use super::shipment::{HeldRecord, Settlement, Shipment};
use crate::config::SpoolMode;
use crate::record::{Outcome, Outcomes, Record, StreamIndex};
use crate::spool::Refused;

/// The sink gets this long for a record before it is spooled, counted from when the record came in.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

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

/// What is known of live records when they may be answered.
enum FirstWord {
    Answered(Outcomes),
    /// They are on disk at these places, and the sink has them as well.
    InDoubt(Range<u64>),
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

    /// Makes records safe here or there, and settles once for all of them.
    pub(crate) async fn ship(&self, shipment: Shipment, settle: impl FnOnce(Settlement)) {
        let (stream, is_answered) = (shipment.stream, shipment.is_answered);
        let (opened_at, records) = (shipment.opened_at, shipment.records.len());
        let Routed { live, held } = self.route(shipment);
        debug_assert_eq!(live.len() + held.len(), records, "each record has one way");
        let mut delivering = Box::pin(self.outlet.ask_sink(stream, &live));
        let word = self.first_word(stream, &live, opened_at, &mut delivering);
        let follows = self.spool(stream, held.iter().map(|held| &held.record));
        let (word, of_held) = join(word, follows).await;
        let settlement = Settlement::of_disk(records, held, of_held);
        match word {
            FirstWord::InDoubt(places) => {
                settle(settlement);
                let (name, outcomes) = (self.outlet.name(stream), delivering.await);
                self.backlog.resolve(name, places, &live, &outcomes);
            }
            FirstWord::Answered(outcomes) => {
                drop(delivering);
                let of_live = self.save_failed(stream, &live, outcomes, is_answered);
                settle(Settlement {
                    of_live: of_live.await,
                    live,
                    ..settlement
                });
            }
        }
    }

    /// Waits for the sink's answer for as long as there is patience; what has none by then is made
    /// safe on disk.
    async fn first_word(
        &self,
        stream: StreamIndex,
        live: &[Record],
        opened_at: Instant,
        delivering: &mut (impl Future<Output = Outcomes> + Unpin),
    ) -> FirstWord {
        tokio::select! {
            biased;
            outcomes = &mut *delivering => return FirstWord::Answered(outcomes),
            () = self.out_of_patience(opened_at) => {}
        }
        match self.spool_in_doubt(stream, live).await {
            Ok(places) => FirstWord::InDoubt(places),
            Err(_) => FirstWord::Answered(delivering.await),
        }
    }

    fn route(&self, shipment: Shipment) -> Routed {
        let Shipment {
            stream,
            records,
            opened_at,
            ..
        } = shipment;
        let all_held = self.backlog.mode() == SpoolMode::Always
            || opened_at.elapsed() >= self.patience()
            || !self.sink_takes_more(stream);
        let name = self.outlet.name(stream);
        if !all_held && self.backlog.is_empty(name) {
            return Routed {
                live: records,
                held: Vec::new(),
            };
        }
        let mut routed = Routed::default();
        for (position, record) in records.into_iter().enumerate() {
            if all_held || self.backlog.holds(name, &record.device) {
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

    /// How long the sink has for a record. The other half of the ack time-out is the disk's.
    fn patience(&self) -> Duration {
        PATIENCE_MAX.min(self.outlet.options.ack_timeout / 2)
    }

    async fn out_of_patience(&self, opened_at: Instant) {
        tokio::select! {
            biased;
            () = sleep_until(opened_at + self.patience()) => {}
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

    async fn spool_in_doubt(
        &self,
        stream: StreamIndex,
        records: &[Record],
    ) -> Result<Range<u64>, Refused> {
        let name = self.outlet.name(stream);
        let spooled = self.backlog.append_in_doubt(name, records).await;
        self.outlet.watch.update_health();
        spooled
    }

    /// Spools what the sink did not take, and sets aside what it refuses for good where that was
    /// answered before.
    async fn save_failed(
        &self,
        stream: StreamIndex,
        records: &[Record],
        outcomes: Outcomes,
        is_answered: bool,
    ) -> Outcomes {
        if outcomes == Outcomes::DELIVERED {
            return outcomes;
        }
        let each = (0..records.len()).map(|index| outcomes.get(index).clone());
        let mut outcomes: Vec<Outcome> = each.collect();
        if is_answered {
            self.set_aside_refused(stream, records, &mut outcomes).await;
        }
        let mut failed = Vec::new();
        for (record, outcome) in records.iter().zip(&mut outcomes) {
            if outcome.may_pass() {
                failed.push((record, outcome));
            }
        }
        let spooled = self
            .spool(stream, failed.iter().map(|(record, _)| *record))
            .await;
        if spooled == Outcome::Delivered {
            for (_, outcome) in failed {
                *outcome = Outcome::Delivered;
            }
        }
        Outcomes::Each(outcomes)
    }

    /// Makes dead letters of records that are refused for good: such a record is safe. What cannot
    /// be set aside is to be kept as if it might pass.
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
