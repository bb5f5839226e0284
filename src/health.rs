//! Can a stream's records be made safe? Written by delivery, read by every request.
//!
//! Each stream has a state of its own, so that one that is missing or closed refuses its own
//! requests only. A stream whose records are refused although it answers can be judged by a record
//! alone: delivery offers a trial, and one request is let in by it. Reading costs one atomic load,
//! and another one for [`partitions`] that are away; the reasons are for `/readyz` and the log.
//!
//! If records are answered before they are safe, memory takes them while nothing can be made safe:
//! then requests are not refused for it, though the gateway is not ready.

mod partitions;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use arc_swap::ArcSwapOption;

use crate::config::StreamConfig;
use crate::record::{DeviceId, StreamIndex};
use partitions::PartitionsAway;
#[cfg_attr(not(feature = "kinesis"), allow(unused_imports))] // Kinesis alone has shards
pub(crate) use partitions::{Shard, Spread};

/// The states of all streams.
#[derive(Debug)]
pub struct Health {
    streams: Box<[StreamHealth]>,
    memory_takes: bool,
    /// Whether records that the sink does not take are safe on disk.
    disk_takes: bool,
    /// The stream that devices do not write.
    events: Option<StreamIndex>,
}

#[derive(Debug)]
struct StreamHealth {
    name: String,
    state: AtomicU8,
    /// The reason why its sink takes nothing, kept even while the spool takes its records.
    reason: ArcSwapOption<String>,
    partitions_away: PartitionsAway,
    /// Number of its partitions; 1 if that is not known, or does not matter.
    partitions: AtomicU32,
}

/// Whether a stream's records are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Up,
    Down,
    /// Down, but the next request may come in.
    Trial,
}

impl Health {
    /// Begins with every stream down, until delivery has asked for it.
    pub fn new(streams: &[StreamConfig]) -> Self {
        let asked = "the sink has not been asked yet";
        Self::of(
            streams.iter().map(|stream| stream.name.clone()),
            State::Down,
            Some(asked),
        )
    }

    /// Begins with so many streams that take records, for tests and benchmarks.
    pub fn up(streams: usize) -> Self {
        let names = (0..streams).map(|stream| format!("stream-{stream}"));
        Self::of(names, State::Up, None)
    }

    fn of(names: impl Iterator<Item = String>, state: State, reason: Option<&str>) -> Self {
        let streams = names.map(|name| StreamHealth {
            name,
            state: AtomicU8::new(state as u8),
            reason: ArcSwapOption::new(reason.map(|reason| Arc::new(reason.into()))),
            partitions_away: PartitionsAway::default(),
            partitions: AtomicU32::new(1),
        });
        Self {
            streams: streams.collect(),
            memory_takes: false,
            disk_takes: false,
            events: None,
        }
    }

    /// Lets memory take records whatever happens.
    pub fn with_memory(self) -> Self {
        Self {
            memory_takes: true,
            ..self
        }
    }

    /// Lets the disk take records that the sink does not: there is a spool.
    pub fn with_disk(self) -> Self {
        Self {
            disk_takes: true,
            ..self
        }
    }

    /// Sets the one stream that is not for devices: the gateway is of no use to them by it alone.
    pub(crate) fn with_events(self, stream: StreamIndex) -> Self {
        Self {
            events: Some(stream),
            ..self
        }
    }

    /// Whether a record of the device may come in, by its partition of the stream.
    pub fn admits_device(&self, stream: StreamIndex, device: &DeviceId) -> bool {
        let is_away = self.streams[stream.get()].partitions_away.has(device);
        !is_away || self.memory_takes || self.disk_takes
    }

    /// Notes that these partitions of the stream are away, and no others.
    pub(crate) fn set_partitions_away(
        &self,
        stream: StreamIndex,
        spread: Option<&Spread>,
        away: &BTreeSet<u32>,
    ) {
        let stream = &self.streams[stream.get()];
        stream.partitions_away.set(spread, away);
    }

    /// Notes that the stream's records are spread over so many partitions, at least one.
    pub(crate) fn set_partitions(&self, stream: StreamIndex, partitions: u32) {
        debug_assert!(partitions > 0, "a stream has a partition");
        let stream = &self.streams[stream.get()];
        stream.partitions.store(partitions, Ordering::Relaxed);
    }

    /// Returns the number of partitions that the stream's records are spread over.
    pub(crate) fn partitions(&self, stream: StreamIndex) -> u32 {
        self.streams[stream.get()]
            .partitions
            .load(Ordering::Relaxed)
    }

    /// Whether the stream's records can be made safe.
    pub fn is_up(&self, stream: StreamIndex) -> bool {
        self.streams[stream.get()].is(State::Up)
    }

    /// Whether a request for the stream may come in; if a trial is on offer, the first caller gets
    /// it.
    pub fn admits(&self, stream: StreamIndex) -> bool {
        let stream = &self.streams[stream.get()];
        self.memory_takes || stream.is(State::Up) || stream.change(State::Trial, State::Down)
    }

    /// Lets one request in if the stream is down.
    pub fn offer_trial(&self, stream: StreamIndex) {
        self.streams[stream.get()].change(State::Down, State::Trial);
    }

    /// Notes that the stream's records can be made safe; `reason` says why its sink does not take
    /// them.
    pub fn set_up(&self, stream: StreamIndex, reason: Option<String>) {
        let stream = &self.streams[stream.get()];
        stream.set_reason(reason);
        stream.state.store(State::Up as u8, Ordering::Relaxed);
    }

    /// Notes that the stream's records cannot be made safe. A trial that is on offer stays so.
    pub fn set_down(&self, stream: StreamIndex, reason: String) {
        let stream = &self.streams[stream.get()];
        stream.set_reason(Some(reason));
        stream.change(State::Up, State::Down);
    }

    /// Returns each stream by its name, whether its records can be made safe, and why its sink
    /// takes none of them, if it does not.
    pub(crate) fn streams(&self) -> impl Iterator<Item = (&str, bool, Option<Arc<String>>)> {
        self.streams.iter().map(|stream| {
            let is_up = stream.is(State::Up);
            (stream.name.as_str(), is_up, stream.reason.load_full())
        })
    }

    /// Whether records of devices can be made safe in any stream.
    fn any_up(&self) -> bool {
        let mut streams = self.streams.iter().enumerate();
        streams.any(|(index, stream)| {
            let is_of_events = self.events.is_some_and(|events| events.get() == index);
            !is_of_events && stream.is(State::Up)
        })
    }

    /// Returns `Err` while no stream's records can be made safe. The text names each stream that
    /// its sink does not take, with the reason; it is empty if there is none.
    pub fn report(&self) -> Result<String, String> {
        let mut reasons: Vec<(Arc<String>, Vec<&str>)> = Vec::new();
        for stream in &self.streams {
            let Some(reason) = stream.reason.load_full() else {
                continue;
            };
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, names)) => names.push(&stream.name),
                None => reasons.push((reason, vec![&stream.name])),
            }
        }
        let mut text = spell(&reasons);
        for stream in &self.streams {
            stream.partitions_away.spell(&stream.name, &mut text);
        }
        if self.any_up() { Ok(text) } else { Err(text) }
    }
}

/// Spells the reasons: `stream a: why; streams b, c: why`.
fn spell(reasons: &[(Arc<String>, Vec<&str>)]) -> String {
    let mut text = String::new();
    for (reason, names) in reasons {
        let separator = if text.is_empty() { "" } else { "; " };
        let noun = if names.len() == 1 {
            "stream"
        } else {
            "streams"
        };
        // Writing to a string does not fail.
        let _ = write!(text, "{separator}{noun} {}: {reason}", names.join(", "));
    }
    text
}

impl StreamHealth {
    fn is(&self, state: State) -> bool {
        self.state.load(Ordering::Relaxed) == state as u8
    }

    /// Whether it was in the first state; it is in the second one then.
    fn change(&self, from: State, to: State) -> bool {
        let changed =
            self.state
                .compare_exchange(from as u8, to as u8, Ordering::Relaxed, Ordering::Relaxed);
        changed.is_ok()
    }

    fn set_reason(&self, reason: Option<String>) {
        self.reason.store(reason.map(Arc::new));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: StreamIndex = StreamIndex(0);
    const SECOND: StreamIndex = StreamIndex(1);

    #[test]
    fn a_stream_that_is_down_refuses_its_own_requests_only() {
        let health = Health::up(2);
        health.set_down(SECOND, "gone".into());
        assert!(health.admits(FIRST) && !health.admits(SECOND));
        assert_eq!(health.report(), Ok("stream stream-1: gone".into()));
        health.set_down(FIRST, "gone".into());
        let both = "streams stream-0, stream-1: gone".to_owned();
        assert_eq!(health.report(), Err(both));
        health.set_up(FIRST, Some("spooled".into()));
        health.set_up(SECOND, None);
        assert_eq!(health.report(), Ok("stream stream-0: spooled".into()));
    }

    #[test]
    fn a_stream_that_no_device_writes_makes_nobody_ready() {
        let health = Health::up(2).with_events(SECOND);
        health.set_down(FIRST, "gone".into());
        assert!(health.report().is_err());
        health.set_up(FIRST, None);
        health.set_down(SECOND, "gone".into());
        assert_eq!(health.report(), Ok("stream stream-1: gone".into()));
    }

    #[test]
    fn memory_takes_records_while_the_gateway_is_not_ready() {
        let health = Health::up(1).with_memory();
        health.set_down(FIRST, "gone".into());
        assert!(health.admits(FIRST) && !health.is_up(FIRST));
        assert!(health.report().is_err());
    }

    #[test]
    fn a_trial_lets_one_request_in() {
        let health = Health::up(1);
        health.offer_trial(FIRST);
        assert!(health.is_up(FIRST), "one that is up needs none");
        health.set_down(FIRST, "refused".into());
        health.offer_trial(FIRST);
        health.set_down(FIRST, "still refused".into());
        assert!(!health.is_up(FIRST));
        assert_eq!([(); 3].map(|()| health.admits(FIRST)), [true, false, false]);
    }
}
