//! State of one stream with records on disk: its window, its position, its back-off.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::left::LeftBehind;
use crate::delivery::back_off::Refusal;
use crate::delivery::flow::Flow;
use crate::delivery::watch::Watch;
use crate::delivery::window::{Placed, Size};
use crate::record::{DeviceId, StreamIndex};
use crate::spool::Frame;

/// Interval between tries to make dead letters of records for which the disk had no room.
const SET_ASIDE_INTERVAL: Duration = Duration::from_secs(60);

/// One stream's part of the backlog.
pub(super) struct Backlogged {
    pub stream: Arc<str>,
    /// `None` if the stream is not configured.
    pub index: Option<StreamIndex>,
    /// Place up to which the stream was read: its records before it are here, in flight, done with,
    /// or left.
    pub read_to: u64,
    left: LeftBehind,
    /// Whether the next reading is of left records, if there are some.
    has_left_a_turn: bool,
    pub flow: Flow,
    /// Waves that have not come home, those included that take up no place any more.
    pub waves_out: usize,
    pub refusal: Refusal,
    postponed: Postponed,
    /// Count of the partitions' moves when devices that wait for a partition were woken last.
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
            left: LeftBehind::default(),
            has_left_a_turn: false,
            flow: Flow::default(),
            waves_out: 0,
            refusal: Refusal::default(),
            postponed: Postponed::default(),
            partition_moves: 0,
        }
    }

    /// Leaves the waiting records of partitions that have gone, and starts to read again the left
    /// records of partitions that are back.
    pub(super) fn look_at_partitions(&mut self, watch: &Watch) {
        let Some(index) = self.index else {
            return;
        };
        let moves = watch.partition_moves(index);
        if mem::replace(&mut self.partition_moves, moves) == moves {
            return;
        }
        let is_away = |device: &DeviceId| watch.is_partition_away(index, device);
        for (device, place) in self.flow.let_go(is_away) {
            self.left.leave(device, place);
        }
        self.left.review(is_away);
        self.flow.wake(0..u64::MAX);
    }

    /// Returns the number of records that it has room for, given its share of the records read
    /// ahead.
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

    /// Returns the place at which it reads on, if there is more and it has room. New records and
    /// left ones take turns.
    pub(super) fn next_reading(&mut self, end: u64, share: Size) -> Option<u64> {
        if !self.is_hungry(share) {
            return None;
        }
        let (new, left) = (
            (self.read_to < end).then_some(self.read_to),
            self.left.read_to(),
        );
        self.has_left_a_turn = !self.has_left_a_turn;
        match self.has_left_a_turn {
            true => left.or(new),
            false => new.or(left),
        }
    }

    /// Whether it reads on at this place.
    pub(super) fn reads_on_at(&self, place: u64) -> bool {
        self.read_to == place || self.left.read_to() == Some(place)
    }

    /// Takes in the records that it needs of a frame, which is of a stretch that begins at `from`.
    /// Returns `false` if it has no room: the frame is read again later.
    pub(super) fn offer(
        &mut self,
        frame: Frame,
        from: u64,
        share: Size,
        is_away: impl Fn(&DeviceId) -> bool,
    ) -> bool {
        let to = frame.places.last().expect("a frame has a record") + 1;
        debug_assert!(frame.places.is_sorted(), "a device's records are in order");
        if !self.needs(from, to) {
            return true;
        }
        if self.room(share) == 0 {
            return false;
        }
        for (place, record) in frame.places.into_iter().zip(frame.records) {
            let placed = Placed { place, record };
            if self.takes(&placed, from, &is_away) {
                self.flow.push(placed);
            }
        }
        self.read_on_to(from, to);
        true
    }

    /// Whether something that was read from `from` up to `to` is new, or was left.
    fn needs(&self, from: u64, to: u64) -> bool {
        let goes_on = |read_to: u64| (from..to).contains(&read_to);
        goes_on(self.read_to) || self.left.read_to().is_some_and(goes_on)
    }

    /// Whether to take in a record of a stretch that begins at `from`: a new one whose device has
    /// left none, or a left one that may travel.
    fn takes(&mut self, placed: &Placed, from: u64, is_away: impl Fn(&DeviceId) -> bool) -> bool {
        let (place, device) = placed.place_and_device();
        let goes_on = |read_to: u64| (from..=place).contains(&read_to);
        let is_new = goes_on(self.read_to);
        let is_read_again = self.left.read_to().is_some_and(goes_on);
        let needs = match self.left.is_due(device, place) {
            Some(is_due) => is_read_again && is_due,
            None => is_new,
        };
        if !needs {
            return false;
        }
        if is_away(device) {
            self.left.leave(device.clone(), place);
            return false;
        }
        self.left.took(device, place);
        true
    }

    /// Notes that everything from `from` up to `to` was read, and taken in if it was needed.
    pub(super) fn read_on_to(&mut self, from: u64, to: u64) {
        let goes_on = |read_to: u64| (from..to).contains(&read_to);
        if goes_on(self.read_to) {
            self.read_to = to;
        }
        if self.left.read_to().is_some_and(goes_on) {
            self.left.read_again_to(to, self.read_to);
        }
    }

    /// Puts back records of devices that are to go again; leaves those whose partition is away.
    pub(super) fn put_back(
        &mut self,
        devices: Vec<DeviceId>,
        again: Vec<Placed>,
        is_away: impl Fn(&DeviceId) -> bool,
    ) {
        let goes = |placed: &Placed| !is_away(&placed.record.device);
        let (again, left): (Vec<_>, Vec<_>) = again.into_iter().partition(goes);
        for placed in left {
            self.left.leave(placed.record.device, placed.place);
        }
        self.flow.put_back(devices, again);
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

    /// Tries the postponed records again, if it is time.
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

    /// Returns the time at which the next postponed or failed record may go on.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let due = [self.flow.due(now), self.postponed.try_at];
        due.into_iter().flatten().min()
    }
}
