//! What the drain knows of one stream with records on disk: what it has read of it, and how it
//! fares.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::delivery::back_off::Refusal;
use crate::delivery::flow::Flow;
use crate::delivery::watch::Watch;
use crate::delivery::window::{Placed, Size};
use crate::record::{DeviceId, StreamIndex};
use crate::spool::Frame;

/// When to try again what could not be set aside.
const SET_ASIDE_INTERVAL: Duration = Duration::from_secs(60);

/// One stream's part of the backlog.
pub(super) struct Backlogged {
    pub stream: Arc<str>,
    /// `None` where the stream is not among those that are configured.
    pub index: Option<StreamIndex>,
    /// Its records before this place were read, and are here, in flight, or done with.
    pub read_to: u64,
    pub flow: Flow,
    pub refusal: Refusal,
    postponed: Postponed,
    /// How often other partitions had been away when devices that wait for one were woken.
    partition_moves: u64,
}

/// Records that were refused and could not be set aside, and those behind them. Their devices wait.
#[derive(Default)]
struct Postponed {
    records: Vec<Placed>,
    try_at: Option<Instant>,
}

impl Backlogged {
    pub(super) fn new(stream: Arc<str>, index: Option<StreamIndex>, read_to: u64) -> Self {
        Self {
            stream,
            index,
            read_to,
            flow: Flow::default(),
            refusal: Refusal::default(),
            postponed: Postponed::default(),
            partition_moves: 0,
        }
    }

    /// Whether other partitions are away than when this was asked last.
    pub(super) fn partitions_moved(&mut self, watch: &Watch) -> bool {
        let moves = self.index.map_or(0, |index| watch.partition_moves(index));
        moves != mem::replace(&mut self.partition_moves, moves)
    }

    /// How many records it has room for where it has this share of what is read ahead.
    pub(super) fn room(&self, share: Size) -> usize {
        let Size { records, bytes } = self.flow.size();
        if bytes >= share.bytes {
            return 0;
        }
        share
            .records
            .saturating_sub(records + self.postponed.records.len())
    }

    /// Whether half of its share is free.
    pub(super) fn is_hungry(&self, share: Size) -> bool {
        let half = Size {
            records: share.records.div_ceil(2),
            bytes: share.bytes.div_ceil(2),
        };
        self.room(half) > 0
    }

    /// Takes in what follows the records that it has. A frame that it has no room for is read again
    /// later.
    pub(super) fn offer(&mut self, frame: Frame, share: Size) -> bool {
        let first = *frame.places.first().expect("a frame has a record");
        let read_to = frame.places.last().expect("a frame has a record") + 1;
        if first < self.read_to {
            debug_assert!(read_to <= self.read_to, "frames are read whole");
            return true;
        }
        if self.room(share) == 0 {
            return false;
        }
        for (place, record) in frame.places.into_iter().zip(frame.records) {
            self.flow.push(Placed { place, record });
        }
        self.read_to = read_to;
        true
    }

    /// Keeps records aside; nothing else of their devices goes meanwhile.
    pub(super) fn postpone(&mut self, records: Vec<Placed>, now: Instant) {
        if !records.is_empty() {
            self.postponed
                .try_at
                .get_or_insert(now + SET_ASIDE_INTERVAL);
            self.postponed.records.extend(records);
        }
    }

    /// Tries again what was postponed, if it is time.
    pub(super) fn try_postponed(&mut self, now: Instant) {
        if self.postponed.try_at.take_if(|at| *at <= now).is_some() {
            let records = mem::take(&mut self.postponed.records);
            let devices: BTreeSet<DeviceId> = records
                .iter()
                .map(|placed| placed.record.device.clone())
                .collect();
            self.flow.put_back(devices.into_iter().collect(), records);
        }
    }

    /// When something that waits for a time may go on.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let due = [self.flow.due(now), self.postponed.try_at];
        due.into_iter().flatten().min()
    }
}
