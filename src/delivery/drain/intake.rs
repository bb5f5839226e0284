//! Reading ahead for the drain: how much, and for which stream.

use std::collections::HashSet;

use tokio::time::Instant;

use super::read_ahead::{Ended, Position, Stretch, WINDOW, read_on};
use super::{Drain, Event, READ_BACK_OFF, Reading, is_away};
use crate::delivery::window::Size;
use crate::record::DeviceId;
use crate::spool::Frame;

impl Drain {
    /// Reads on for one stream that has room, if nothing is being read.
    pub(super) fn read_on(&mut self) {
        if matches!(self.reading, Reading::Paused(until) if until <= Instant::now()) {
            self.reading = Reading::Idle;
        }
        let (end, share) = (self.spooling.backlog().places().end, self.share());
        if !matches!(self.reading, Reading::Idle) {
            return;
        }
        let Some((at, place)) = self.next_hungry(end, share) else {
            return;
        };
        let stream = &self.streams[at];
        let (name, room) = (stream.stream.clone(), stream.room(share));
        let position = self.readers.take(place);
        let position = position.unwrap_or_else(|| Position {
            place,
            reader: self.spooling.backlog().reader_from(place),
        });
        self.reading = Reading::Busy;
        self.tasks.spawn_local(async move {
            Event::Read(read_on(position, name, room, end).await.map(Box::new))
        });
    }

    /// Returns the next stream that has room and has not been read to the end, and the place at
    /// which it is read on. They take turns.
    fn next_hungry(&mut self, end: u64, share: Size) -> Option<(usize, u64)> {
        let streams = self.streams.len();
        for _ in 0..streams {
            self.turn = (self.turn + 1) % streams;
            if let Some(place) = self.streams[self.turn].next_reading(end, share) {
                return Some((self.turn, place));
            }
        }
        None
    }

    /// Returns the share of one stream in the records read ahead. Streams that have records share,
    /// and so does one more that may find some.
    fn share(&self) -> Size {
        let streams = self.streams.iter();
        let with_records = streams.filter(|stream| !stream.flow.is_empty()).count();
        let sharing = with_records.clamp(1, WINDOW.records);
        Size {
            records: WINDOW.records / sharing,
            bytes: WINDOW.bytes / sharing,
        }
    }

    /// Gives each stream its records of a stretch.
    pub(super) fn take_in(&mut self, stretch: Stretch) {
        let Stretch {
            from,
            position,
            frames,
            ended,
        } = stretch;
        let to = position.place;
        debug_assert!(from <= to);
        let (seen_to, share) = (self.read_by_some_to(), self.share());
        let mut left_out = HashSet::new();
        for frame in frames {
            if frame.places.first() >= Some(&seen_to) {
                self.found(&frame);
            }
            self.offer(frame, from, share, &mut left_out);
        }
        for (at, stream) in self.streams.iter_mut().enumerate() {
            if !left_out.contains(&at) {
                stream.read_on_to(from, to);
            }
        }
        self.reading = self.read_ended(ended);
        let streams = &self.streams;
        let is_wanted = |place| streams.iter().any(|stream| stream.reads_on_at(place));
        self.readers.keep(position, is_wanted);
    }

    /// Returns the place up to which the log was read, for one stream or another.
    fn read_by_some_to(&self) -> u64 {
        let read_to = self.streams.iter().map(|stream| stream.read_to);
        read_to.max().unwrap_or_default()
    }

    /// Offers a frame to its stream. One that has no room for it is left out: it gets nothing of
    /// the rest of the stretch either.
    fn offer(&mut self, frame: Frame, from: u64, share: Size, left_out: &mut HashSet<usize>) {
        let at = self.index_of(&frame);
        let (spooling, stream) = (&self.spooling, &mut self.streams[at]);
        let index = stream.index;
        let is_away = |device: &DeviceId| is_away(spooling, index, device);
        if left_out.contains(&at) || !stream.offer(frame, from, share, is_away) {
            left_out.insert(at);
        }
    }

    /// Notes that these records are on disk, be they of this process or one before.
    fn found(&self, frame: &Frame) {
        let devices = frame.records.iter().map(|record| &record.device);
        let places = frame.places.iter().copied();
        let backlog = self.spooling.backlog();
        backlog.found(&frame.stream, places.zip(devices));
    }

    fn read_ended(&self, ended: Ended) -> Reading {
        match ended {
            Ended::Enough => Reading::Idle,
            Ended::All => {
                self.spooling.backlog().found_all();
                Reading::Idle
            }
            Ended::Failed(error) => {
                tracing::warn!(%error, "the spool cannot be read: trying again");
                Reading::Paused(Instant::now() + READ_BACK_OFF)
            }
        }
    }
}
