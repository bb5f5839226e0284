//! Records that travel together, and the requests that wait for them.

use std::sync::Arc;

use tokio::time::Instant;

use super::{AckSlot, Outcome, Outcomes, Record, StreamIndex};
use crate::handover;

/// Records of one stream and one worker, sealed for the sink.
#[derive(Debug)]
pub struct Batch {
    pub stream: StreamIndex,
    /// Arrival of the first of its records.
    pub opened_at: Instant,
    records: Vec<Record>,
    receipt: Receipt,
}

impl Batch {
    /// Seals records with their `acks`, in the same order; `worker` has room for every batch that
    /// its worker may have on the way.
    pub fn new(
        stream: StreamIndex,
        records: Vec<Record>,
        acks: Vec<AckSlot>,
        worker: handover::Sender<Settled>,
    ) -> Self {
        debug_assert_eq!(records.len(), acks.len(), "each record has its ack");
        Self {
            stream,
            opened_at: Instant::now(),
            records,
            receipt: Receipt {
                stream,
                lane_records: Some(acks.len()),
                acks,
                part: None,
                worker,
            },
        }
    }

    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether the records have been answered already.
    pub fn is_answered(&self) -> bool {
        let mut acks = self.receipt.acks.iter();
        acks.all(|ack| *ack == AckSlot::NONE)
    }

    /// Sends the records home with their outcomes. Nothing is sent when the worker is gone.
    pub fn settle(self, outcomes: Outcomes) {
        self.receipt.settle(self.records, outcomes);
    }

    /// Takes the batch apart, for a delivery that answers before the records are safe.
    pub(crate) fn into_parts(self) -> (Vec<Record>, Receipt) {
        (self.records, self.receipt)
    }
}

/// The requests that wait for a batch, or for a part of one.
#[derive(Debug)]
pub(crate) struct Receipt {
    stream: StreamIndex,
    acks: Vec<AckSlot>,
    /// Number of the batch's records in its lane; `None` once the lane knows that it has gone.
    lane_records: Option<usize>,
    /// Shared with the part that was sent home last, until the worker has taken that in.
    part: Option<Arc<()>>,
    worker: handover::Sender<Settled>,
}

impl Receipt {
    /// Parts with the records at these positions, which go home by themselves. The others close up.
    pub(crate) fn split_off(&mut self, positions: impl Iterator<Item = usize>) -> Self {
        let mut positions = positions.peekable();
        let (mut parted, mut kept) = (Vec::new(), Vec::new());
        for (position, ack) in self.acks.drain(..).enumerate() {
            match positions.next_if_eq(&position) {
                Some(_) => parted.push(ack),
                None => kept.push(ack),
            }
        }
        debug_assert!(positions.peek().is_none(), "positions ascend, and are ours");
        self.acks = kept;
        Self {
            stream: self.stream,
            acks: parted,
            lane_records: None,
            part: None,
            worker: self.worker.clone(),
        }
    }

    /// Whether the worker has taken in the part that was sent home last: there is room for one of
    /// each batch.
    pub(crate) fn takes_part(&self) -> bool {
        let part = self.part.as_ref();
        part.is_none_or(|part| Arc::strong_count(part) == 1)
    }

    /// Tells the worker that the records at these positions are delivered, and that the others take
    /// longer: the lane has the batch in flight no more. The others keep their positions.
    pub(crate) fn settle_part(&mut self, positions: &[usize]) {
        debug_assert!(self.takes_part(), "one part is on its way at a time");
        self.part.get_or_insert_default();
        let take = |position: &usize| std::mem::replace(&mut self.acks[*position], AckSlot::NONE);
        let acks = positions.iter().map(take).collect();
        self.send_home(acks, Vec::new(), Outcomes::DELIVERED);
    }

    /// Tells the worker the outcomes of the records, and gives it those that delivery has no need
    /// of.
    pub(crate) fn settle(mut self, records: Vec<Record>, outcomes: Outcomes) {
        let acks = std::mem::take(&mut self.acks);
        self.send_home(acks, records, outcomes);
    }

    fn send_home(&mut self, acks: Vec<AckSlot>, records: Vec<Record>, outcomes: Outcomes) {
        let settled = Settled {
            stream: self.stream,
            acks,
            lane_records: self.lane_records.take(),
            part: self.part.clone(),
            records,
            outcomes,
        };
        let sent = self.worker.push(settled);
        debug_assert!(sent.is_ok(), "a worker has room for all that it is sent");
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        let acks = std::mem::take(&mut self.acks);
        if !acks.is_empty() {
            self.send_home(acks, Vec::new(), Outcomes::All(Outcome::Unknown));
        }
    }
}

/// Records that came back, with their outcomes: a batch, or a part of one.
#[derive(Debug)]
pub struct Settled {
    pub stream: StreamIndex,
    /// The ack slot of each record, in their order.
    pub acks: Vec<AckSlot>,
    pub outcomes: Outcomes,
    /// Number of records that the lane has in flight no more: all of the batch, with its first part
    /// that comes.
    pub lane_records: Option<usize>,
    /// Tells delivery, once it is dropped, that the next part of the batch may come.
    pub(crate) part: Option<Arc<()>>,
    /// The records, to be dropped, and their buffer used again; empty where delivery still needs
    /// them.
    pub records: Vec<Record>,
}
