//! Records on their way to the sink or to disk, and the report of their arrival.
//!
//! [`Way::ship`](super::way::Way::ship) makes a shipment as safe as it can, and settles with its
//! [`Origin`]: a worker whose requests wait, or the memory of records that were answered before
//! ([`queued`](super::queued)). Records that are safe early do not wait for slow ones: they are
//! reported as a [`Part`].

use std::collections::HashSet;

use tokio::time::Instant;

use crate::record::{DeviceId, Outcome, Outcomes, Receipt, Record, StreamIndex};

/// Records of one stream that are to be made safe.
pub(crate) struct Shipment {
    pub terms: Terms,
    pub records: Vec<Record>,
}

/// Terms that hold for every record of a shipment.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub stream: StreamIndex,
    /// Arrival of the first of them.
    pub opened_at: Instant,
    /// Whether the records were answered before: those that the stream refuses for good become dead
    /// letters, as no request can be told.
    pub is_answered: bool,
}

/// A record that follows others of its device to disk, and its position in its shipment.
pub(crate) struct HeldRecord {
    pub position: usize,
    pub record: Record,
}

/// The sender of a shipment, which is told the fate of its records.
pub(crate) trait Origin {
    /// Splits off these records, which are reported by themselves. The others close up.
    fn split_off(&mut self, records: &[HeldRecord]) -> Self;

    /// Whether it can be told of a part now.
    fn takes_part(&self) -> bool;

    /// Is told of records that are safe while others take longer.
    fn settle_part(&mut self, part: Part);

    /// Is told the outcomes of all records, those of earlier parts included.
    fn settle(self, settlement: Settlement);
}

/// Records of a shipment that are safe, by their positions.
pub(crate) struct Part {
    pub positions: Vec<usize>,
    /// Devices of which other records are not safe yet.
    pub waiting: HashSet<DeviceId>,
}

/// The outcomes of a shipment's records.
pub(crate) struct Settlement {
    /// Number of its records.
    pub records: usize,
    /// Records that went to the sink. Empty if they are still needed elsewhere; they are safe then.
    pub live: Vec<Record>,
    pub of_live: Outcomes,
    /// Records that went to disk, in their order; `of_held` is the outcome of each.
    pub held: Vec<HeldRecord>,
    pub of_held: Outcome,
}

impl Origin for Receipt {
    fn split_off(&mut self, records: &[HeldRecord]) -> Self {
        Receipt::split_off(self, records.iter().map(|held| held.position))
    }

    fn takes_part(&self) -> bool {
        Receipt::takes_part(self)
    }

    fn settle_part(&mut self, part: Part) {
        Receipt::settle_part(self, &part.positions);
    }

    fn settle(self, settlement: Settlement) {
        let outcomes = settlement.outcomes();
        Receipt::settle(self, settlement.live, outcomes);
    }
}

impl Settlement {
    /// Settles a shipment that went to the sink as a whole.
    pub(crate) fn of_sink(live: Vec<Record>, of_live: Outcomes) -> Self {
        Self {
            records: live.len(),
            live,
            of_live,
            held: Vec::new(),
            of_held: Outcome::Delivered,
        }
    }

    /// Settles a shipment that went to disk as a whole; records that are not held are safe there.
    pub(crate) fn of_disk(records: usize, held: Vec<HeldRecord>, of_held: Outcome) -> Self {
        debug_assert!(held.len() <= records);
        Self {
            records,
            live: Vec::new(),
            of_live: Outcomes::DELIVERED,
            held,
            of_held,
        }
    }

    /// Returns each record's outcome, in the order of the shipment.
    pub(crate) fn outcomes(&self) -> Outcomes {
        debug_assert!(self.held.is_sorted_by_key(|held| held.position));
        if self.held.is_empty() {
            return self.of_live.clone();
        }
        if self.held.len() == self.records {
            return Outcomes::All(self.of_held.clone());
        }
        let (mut held, mut live) = (self.held.iter().peekable(), 0..);
        let mut each = Vec::with_capacity(self.records);
        for position in 0..self.records {
            if held.next_if(|held| held.position == position).is_some() {
                each.push(self.of_held.clone());
            } else if let Some(index) = live.next() {
                each.push(self.of_live.get(index).clone());
            }
        }
        debug_assert!(held.peek().is_none(), "each held record has its position");
        Outcomes::Each(each)
    }

    /// Returns the records that are here, each with its outcome; a device's own in their order.
    pub(crate) fn into_each(self) -> impl Iterator<Item = (Record, Outcome)> {
        let Self {
            live,
            of_live,
            held,
            of_held,
            ..
        } = self;
        let live = live.into_iter().enumerate();
        let live = live.map(move |(index, record)| (record, of_live.get(index).clone()));
        let held = held
            .into_iter()
            .map(move |held| (held.record, of_held.clone()));
        live.chain(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::tests::record;

    #[test]
    fn outcomes_are_told_in_the_order_of_the_shipment() {
        let late = || Outcome::Retryable("late".into());
        let held = |position| HeldRecord {
            position,
            record: record(9_u16, position as u64),
        };
        let settlement = |held: Vec<HeldRecord>| Settlement {
            records: 4,
            live: Vec::new(),
            of_live: Outcomes::Each(vec![late(), Outcome::Delivered]),
            held,
            of_held: Outcome::Unknown,
        };
        let mixed = [
            Outcome::Unknown,
            late(),
            Outcome::Delivered,
            Outcome::Unknown,
        ];
        assert_eq!(
            settlement(vec![held(0), held(3)]).outcomes(),
            Outcomes::Each(mixed.to_vec())
        );
        assert_eq!(
            settlement((0..4).map(held).collect()).outcomes(),
            Outcomes::All(Outcome::Unknown)
        );
        let sent = Settlement::of_sink(Vec::new(), Outcomes::DELIVERED);
        assert_eq!(sent.outcomes(), Outcomes::DELIVERED);
    }
}
