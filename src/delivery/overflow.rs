//! Records on their way to the sink, and, where there is a spool, to disk: what the sink takes in time goes there, the rest
//! to disk.
//!
//! Whoever sent records is told once each of them is safe in one place or the other, or refused by both. Records of devices
//! that have some on disk follow them there. What the sink has not answered for after [`PATIENCE_MAX`], or half of the ack
//! time-out where that is less, is made safe on disk and answered; that copy is done with when the sink delivers it after
//! all.

use std::ops::Range;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::{Instant, sleep_until};

use super::Delivery;
use super::backlog::Backlog;
use super::shipment::{Home, Settlement, Shipment};
use crate::config::SpoolMode;
use crate::record::{Outcome, Outcomes, Record, StreamIndex};
use crate::spool::Refused;

/// The sink gets this long for a record before it is spooled, counted from when the record came in.
const PATIENCE_MAX: Duration = Duration::from_secs(1);

/// The records of a shipment by where they go.
#[derive(Default)]
struct Routed {
    live: Vec<Record>,
    held: Vec<Record>,
    /// Of each record, whether it is held; empty where none is.
    is_held: Vec<bool>,
}

impl Delivery {
    /// Makes records safe, as far as that is possible now.
    pub(super) async fn ship(&self, shipment: Shipment) {
        if let Some(backlog) = &self.backlog {
            return self.deliver_or_spool(backlog, shipment).await;
        }
        let of_live = self.ask_sink(shipment.stream, &shipment.records).await;
        let settlement = Settlement {
            live: shipment.records,
            of_live,
            held: Vec::new(),
            of_held: Outcome::Delivered,
            is_held: Vec::new(),
        };
        self.settle(shipment.home, settlement);
    }

    fn settle(&self, home: Home, settlement: Settlement) {
        match home {
            Home::Memory(sent) => self.keep(sent, settlement),
            Home::Worker(receipt) => {
                let Settlement {
                    live,
                    of_live,
                    of_held,
                    is_held,
                    ..
                } = settlement;
                receipt.settle(live, merge(&is_held, of_live, &of_held));
            }
        }
    }

    async fn deliver_or_spool(&self, backlog: &Backlog, shipment: Shipment) {
        let Shipment {
            stream,
            records,
            opened_at,
            home,
        } = shipment;
        let Routed {
            live,
            held,
            is_held,
        } = self.route(backlog, stream, records, opened_at);
        let mut delivering = Box::pin(self.ask_sink(stream, &live));
        let in_time = async {
            tokio::select! {
                biased;
                outcomes = &mut delivering => Some(outcomes),
                () = self.out_of_patience(opened_at) => None,
            }
        };
        let (answer, of_held) = join(in_time, self.spool(backlog, stream, held.iter())).await;
        let outcomes = match answer {
            Some(outcomes) => outcomes,
            None => match self.spool_in_doubt(backlog, stream, &live).await {
                Ok(places) => {
                    let settlement = Settlement {
                        live: Vec::new(),
                        of_live: Outcomes::DELIVERED,
                        held,
                        of_held,
                        is_held,
                    };
                    self.settle(home, settlement);
                    return backlog.resolve(places, &live, &delivering.await);
                }
                Err(_) => (&mut delivering).await,
            },
        };
        drop(delivering);
        let of_live = self
            .spool_failed(backlog, stream, &live, outcomes, home.is_answered())
            .await;
        let settlement = Settlement {
            live,
            of_live,
            held,
            of_held,
            is_held,
        };
        self.settle(home, settlement);
    }

    fn route(
        &self,
        backlog: &Backlog,
        stream: StreamIndex,
        records: Vec<Record>,
        opened_at: Instant,
    ) -> Routed {
        let all_held = backlog.mode() == SpoolMode::Always
            || opened_at.elapsed() >= self.patience()
            || !self.sink_takes_more(stream);
        if !all_held && backlog.is_empty() {
            return Routed {
                live: records,
                ..Routed::default()
            };
        }
        let is_held: Vec<bool> = records
            .iter()
            .map(|record| all_held || backlog.holds(&record.device))
            .collect();
        let mut routed = Routed::default();
        for (record, is_held) in records.into_iter().zip(&is_held) {
            if *is_held {
                routed.held.push(record)
            } else {
                routed.live.push(record)
            }
        }
        Routed { is_held, ..routed }
    }

    /// Whether the stream is there and the sink has not all the batches that it may have at once.
    fn sink_takes_more(&self, stream: StreamIndex) -> bool {
        !self.watch.is_hurrying()
            && self.watch.in_flight() < self.options.in_flight_batches_max
            && self.watch.takes_batch(stream)
    }

    /// The other half of the ack time-out is the disk's.
    fn patience(&self) -> Duration {
        PATIENCE_MAX.min(self.options.ack_timeout / 2)
    }

    async fn out_of_patience(&self, opened_at: Instant) {
        tokio::select! {
            () = sleep_until(opened_at + self.patience()) => {}
            () = self.watch.hurried() => {}
        }
    }

    /// One outcome for all of them.
    async fn spool<'a>(
        &self,
        backlog: &Backlog,
        stream: StreamIndex,
        records: impl ExactSizeIterator<Item = &'a Record> + Clone,
    ) -> Outcome {
        if records.len() == 0 {
            return Outcome::Delivered;
        }
        match backlog.append(self.name(stream), records).await {
            Ok(_) => {
                self.watch.update_health(Some(backlog));
                Outcome::Delivered
            }
            Err(refused) => self.spool_refused(backlog, &refused),
        }
    }

    fn spool_refused(&self, backlog: &Backlog, refused: &Refused) -> Outcome {
        self.watch.update_health(Some(backlog));
        if *refused == Refused::Closed {
            // It is closed when delivery has ended, not before.
            (self.alarm)("the thread of the spool");
        }
        Outcome::Retryable(refused.to_string().into())
    }

    async fn spool_in_doubt(
        &self,
        backlog: &Backlog,
        stream: StreamIndex,
        records: &[Record],
    ) -> Result<Range<u64>, Refused> {
        let spooled = backlog.append_in_doubt(self.name(stream), records).await;
        self.watch.update_health(Some(backlog));
        spooled
    }

    /// Spools what the sink did not take, and sets aside what it refuses for good where that was answered before.
    async fn spool_failed(
        &self,
        backlog: &Backlog,
        stream: StreamIndex,
        records: &[Record],
        outcomes: Outcomes,
        is_answered: bool,
    ) -> Outcomes {
        if outcomes == Outcomes::DELIVERED {
            return outcomes;
        }
        let mut outcomes: Vec<Outcome> = (0..records.len())
            .map(|index| outcomes.get(index).clone())
            .collect();
        if is_answered {
            self.bury_refused(backlog, stream, records, &mut outcomes)
                .await;
        }
        let failed: Vec<usize> = (0..records.len())
            .filter(|&index| outcomes[index].may_pass())
            .collect();
        let spooled = self
            .spool(backlog, stream, failed.iter().map(|&index| &records[index]))
            .await;
        if spooled == Outcome::Delivered {
            for index in failed {
                outcomes[index] = Outcome::Delivered;
            }
        }
        Outcomes::Each(outcomes)
    }

    /// A dead letter is safe. What cannot be set aside is to be kept as if it might pass.
    async fn bury_refused(
        &self,
        backlog: &Backlog,
        stream: StreamIndex,
        records: &[Record],
        outcomes: &mut [Outcome],
    ) {
        for (record, outcome) in records.iter().zip(outcomes) {
            if let Outcome::Permanent(reason) = outcome {
                let one = std::iter::once(record);
                let buried = backlog.bury(self.name(stream), reason, one).await;
                *outcome = match buried {
                    Ok(()) => Outcome::Delivered,
                    Err(refused) => Outcome::Retryable(refused.to_string().into()),
                };
            }
        }
    }

    fn name(&self, stream: StreamIndex) -> &str {
        &self.names[stream.get()]
    }
}

/// Each record's outcome, in the order of the batch; those held have one in common.
fn merge(is_held: &[bool], live: Outcomes, held: &Outcome) -> Outcomes {
    if is_held.is_empty() {
        return live;
    }
    let mut live = (0..).map(|index| live.get(index).clone());
    let of = |is_held: &bool| {
        if *is_held {
            Some(held.clone())
        } else {
            live.next()
        }
    };
    Outcomes::Each(is_held.iter().filter_map(of).collect())
}
