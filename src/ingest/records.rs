//! Many records in one request: cut where they lie, taken in together, answered one by one.
//!
//! The body is one buffer, and each record is a part of it. The buffer's bytes of the memory budget
//! go back when the last of its records is dropped; the bytes that a record costs beside go with
//! the record. Records enter their lane in their order and at once, and one wake answers them all.

pub(crate) mod cut;
mod verdicts;

use std::iter::Peekable;

use bytes::Bytes;
use tokio::task::yield_now;

use super::form::Form;
use super::head::{Head, encoded_bytes_max};
use super::{Body, Costs, Ingest, Refusal, Sender, body, safe};
use crate::admission::RECORD_OVERHEAD_BYTES;
use crate::limits::DeviceLimits;
use crate::record::{Outcome, Permit, Record};
use cut::{Place, cut};
pub use verdicts::Verdicts;

/// A body and its share of the memory budget, for as long as one of its records is there.
struct Kept {
    body: Bytes,
    _permit: Permit,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

/// Bytes of records that are judged between two turns of the worker's other tasks: rules take some
/// hundred times as long for a byte as it takes to copy it.
const BYTES_A_TURN: usize = 32 * 1024;

/// Bytes that judging a record is reckoned at beside its own.
const RECKONED_BYTES: usize = 256;

/// Turn of judging: the bytes judged since the worker's other tasks had theirs.
struct Turn {
    spent_bytes: usize,
}

impl Turn {
    async fn spend(&mut self, bytes: usize) {
        if self.spent_bytes >= BYTES_A_TURN {
            self.spent_bytes = 0;
            yield_now().await;
        }
        self.spent_bytes += bytes;
    }
}

/// The records of a request that go on, and those that are refused, by their indices.
struct Judged {
    records: Vec<Record>,
    refused: Vec<(usize, Refusal)>,
}

impl Ingest {
    /// Takes in a body that is encoded, or of many records. Returns the number of its decoded
    /// bytes, of which every record is safe.
    pub(super) async fn take_apart(
        &self,
        sender: &mut Sender<'_>,
        body: impl Body,
        costs: &mut Costs<'_>,
    ) -> Result<usize, Refusal> {
        let body = self.read_apart(sender, body, costs).await?;
        let bytes = body.len();
        if sender.head.form == Form::One {
            let stream = sender.stream;
            let record = self.one_record(sender, body, costs.permit.take())?;
            safe(self.batcher.push(stream, record).await)?;
        } else {
            self.take_many(sender, body, costs).await?;
        }
        Ok(bytes)
    }

    /// Takes in the records of a body that has come to its end.
    async fn take_many(
        &self,
        sender: &Sender<'_>,
        body: Bytes,
        costs: &mut Costs<'_>,
    ) -> Result<(), Refusal> {
        let places = cut(sender.head.form, &body, self.records_max(costs.limits))?;
        let (now, count) = (self.gate.clock.now(), places.len());
        costs.limits.take_further(now, (count - 1) as u64)?;
        costs.hold_beside(count * RECORD_OVERHEAD_BYTES)?;
        let judging = self.judge_all(sender, body, places, costs.permit.take());
        let Judged { records, refused } = judging.await;
        let outcomes = self.batcher.push_all(sender.stream, records).await;
        debug_assert_eq!(outcomes.len() + refused.len(), count);
        verdicts(count, outcomes, refused).conclude()
    }

    /// Reads a body to its end, decoded where it is encoded.
    async fn read_apart(
        &self,
        sender: &Sender<'_>,
        body: impl Body,
        costs: &mut Costs<'_>,
    ) -> Result<Bytes, Refusal> {
        let head = &sender.head;
        let bytes_max = bytes_max(head, costs.limits);
        let bounds = self.bounds(head, encoded_bytes_max(head.coding, bytes_max));
        let Some(mut decoder) = self.decoders.lend(head.coding) else {
            return body::read(body, bounds, costs).await;
        };
        let decoded = body::read_decoded(body, bounds, bytes_max, &mut decoder, costs).await?;
        self.decoders.give_back(decoder);
        costs.shrink_to(decoded.capacity());
        Ok(decoded.into())
    }

    /// Records of the largest request that can pass the device's bucket.
    fn records_max(&self, limits: &DeviceLimits) -> usize {
        let burst = limits.requests_burst().unwrap_or(u64::MAX);
        usize::try_from(burst).map_or(self.records_max, |burst| self.records_max.min(burst))
    }

    /// Judges each record, all of them by the rules that are in force now. The permit holds the
    /// body, and the bytes that the records cost beside.
    async fn judge_all(
        &self,
        sender: &Sender<'_>,
        body: Bytes,
        places: Vec<Place>,
        mut permit: Permit,
    ) -> Judged {
        let rules = self.rulebook.in_force(sender.stream);
        // The body has been cut in this turn.
        let mut turn = Turn {
            spent_bytes: body.len(),
        };
        let mut beside = permit.split_off(places.len() * RECORD_OVERHEAD_BYTES);
        let _permit = permit;
        let body = Bytes::from_owner(Kept { body, _permit });
        let mut judged = Judged {
            records: Vec::with_capacity(places.len()),
            refused: Vec::new(),
        };
        for (index, place) in places.into_iter().enumerate() {
            turn.spend(place.len() + RECKONED_BYTES).await;
            let mut permit = beside.split_off(RECORD_OVERHEAD_BYTES);
            match self.judge(rules.as_ref(), sender, body.slice(place), &mut permit) {
                Ok(content) => judged.records.push(sender.record(index, content, permit)),
                Err(refusal) => judged.refused.push((index, refusal)),
            }
        }
        judged
    }
}

/// Bytes of the largest body that can pass the device's bucket.
fn bytes_max(head: &Head, limits: &DeviceLimits) -> usize {
    let burst = limits.bytes_burst().unwrap_or(u64::MAX);
    usize::try_from(burst).map_or(head.bytes_max, |burst| head.bytes_max.min(burst))
}

/// Returns the verdicts on `count` records.
fn verdicts(count: usize, outcomes: Vec<Outcome>, refused: Vec<(usize, Refusal)>) -> Verdicts {
    let mut outcomes = outcomes.into_iter();
    let mut refused = refused.into_iter().peekable();
    let mut verdicts = Verdicts::default();
    for index in 0..count {
        let refusal = refusal_of(index, &mut refused);
        verdicts.note(match refusal {
            Some(refusal) => Err(refusal),
            None => safe(outcomes.next().unwrap_or(Outcome::Unknown)),
        });
    }
    verdicts
}

/// Returns the refusal of the record at `index`, if it did not go on.
fn refusal_of(
    index: usize,
    refused: &mut Peekable<impl Iterator<Item = (usize, Refusal)>>,
) -> Option<Refusal> {
    let next = refused.next_if(|(refused, _)| *refused == index);
    next.map(|(_, refusal)| refusal)
}
