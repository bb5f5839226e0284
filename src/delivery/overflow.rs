//! Batches where there is a spool: what the sink takes in time goes there, the rest to disk.
//!
//! A batch is answered once each of its records is safe in one place or the other, or refused by both. Records of devices
//! that have some on disk follow them there. What the sink has not answered for after [`PATIENCE`] is made safe on disk
//! and answered; that copy is done with when the sink delivers it after all.

use std::ops::Range;
use std::time::Duration;

use futures_util::future::join;
use tokio::time::sleep;

use super::Delivery;
use super::backlog::Backlog;
use crate::config::SpoolMode;
use crate::record::{Batch, Outcome, Outcomes, Record, StreamIndex};
use crate::spool::Refused;

/// The sink gets this long for a batch before it is spooled.
const PATIENCE: Duration = Duration::from_secs(1);

/// The records of a batch by where they go.
#[derive(Default)]
struct Routed {
    live: Vec<Record>,
    held: Vec<Record>,
    /// Of each record, whether it is held; empty where none is.
    is_held: Vec<bool>,
}

impl Delivery {
    pub(super) async fn deliver_or_spool(&self, backlog: &Backlog, batch: Batch) {
        let stream = batch.stream;
        let (records, receipt) = batch.into_parts();
        let Routed {
            live,
            held,
            is_held,
        } = self.route(backlog, stream, records);
        let mut delivering = Box::pin(self.ask_sink(stream, &live));
        let in_time = async {
            tokio::select! {
                biased;
                outcomes = &mut delivering => Some(outcomes),
                () = self.out_of_patience() => None,
            }
        };
        let (answer, of_held) = join(in_time, self.spool(backlog, stream, held.iter())).await;
        let outcomes = match answer {
            Some(outcomes) => outcomes,
            None => match self.spool_in_doubt(backlog, stream, &live).await {
                Ok(places) => {
                    receipt.settle(Vec::new(), merge(&is_held, Outcomes::DELIVERED, &of_held));
                    return backlog.resolve(places, &live, &delivering.await);
                }
                Err(_) => (&mut delivering).await,
            },
        };
        drop(delivering);
        let outcomes = self
            .spool_failed(backlog, stream, &live, outcomes, receipt.is_answered())
            .await;
        receipt.settle(live, merge(&is_held, outcomes, &of_held));
    }

    fn route(&self, backlog: &Backlog, stream: StreamIndex, records: Vec<Record>) -> Routed {
        let all_held = backlog.mode() == SpoolMode::Always || !self.sink_takes_more(stream);
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

    async fn out_of_patience(&self) {
        tokio::select! {
            () = sleep(PATIENCE) => {}
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
        let spooled = backlog.append(self.name(stream), records).await;
        self.watch.update_health(Some(backlog));
        spooled.map_or_else(
            |refused| Outcome::Retryable(refused.to_string().into()),
            |_| Outcome::Delivered,
        )
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
        let failed: Vec<usize> = (0..records.len())
            .filter(|&index| outcomes[index].may_pass())
            .collect();
        let spooled = self
            .spool(backlog, stream, failed.iter().map(|&index| &records[index]))
            .await;
        if spooled == Outcome::Delivered {
            failed
                .into_iter()
                .for_each(|index| outcomes[index] = Outcome::Delivered);
        }
        if is_answered {
            self.bury_refused(backlog, stream, records, &outcomes).await;
        }
        Outcomes::Each(outcomes)
    }

    async fn bury_refused(
        &self,
        backlog: &Backlog,
        stream: StreamIndex,
        records: &[Record],
        outcomes: &[Outcome],
    ) {
        for (record, outcome) in records.iter().zip(outcomes) {
            if let Outcome::Permanent(reason) = outcome {
                // What cannot be set aside has been told of; it was answered when memory had it.
                let _ = backlog
                    .bury(self.name(stream), reason, std::iter::once(record))
                    .await;
            }
        }
    }

    fn name(&self, stream: StreamIndex) -> &str {
        &self.options.streams[stream.get()].name
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
