//! The settings of the fleet's events.

use super::*;

const STREAM: &str = "FOREBAY_EVENTS_STREAM";
const REPLICA: &str = "FOREBAY_REPLICA";
const USAGE_INTERVAL: &str = "FOREBAY_USAGE_INTERVAL";

/// Characters of a replica's name at most: a host's name has no more (POSIX, HOST_NAME_MAX).
const REPLICA_CHARS_MAX: usize = 255;

impl Reader<'_> {
    /// Events, of one of the `streams`, where those are known; `None` without a stream for them.
    pub(super) fn events(&mut self, streams: Option<&[StreamConfig]>) -> Option<EventsConfig> {
        let place = |text: &str| place(text, streams);
        let stream = self.optional(STREAM, place);
        let replica = self.value(REPLICA, replica, String::new());
        let usage_interval = self.value(USAGE_INTERVAL, value::duration, Duration::ZERO);
        if !usage_interval.is_zero() && self.raw.get(STREAM).is_none() {
            self.fault(USAGE_INTERVAL, "does nothing without FOREBAY_EVENTS_STREAM");
        }
        Some(EventsConfig {
            stream: stream?,
            replica,
            usage_interval: (!usage_interval.is_zero()).then_some(usage_interval),
        })
    }
}

/// The place of a stream among the others; any place while those are not known.
fn place(name: &str, streams: Option<&[StreamConfig]>) -> Parsed<StreamIndex> {
    let Some(streams) = streams else {
        return Ok(StreamIndex(0));
    };
    let place = streams.iter().position(|stream| stream.name == name);
    let place = place.ok_or("is not one of FOREBAY_STREAMS: name it there too")?;
    let place = u16::try_from(place);
    Ok(StreamIndex(place.expect("there are fewer streams")))
}

fn replica(text: &str) -> Parsed<String> {
    let fits = text.len() <= REPLICA_CHARS_MAX && text.bytes().all(host::is_replica_byte);
    match fits {
        true => Ok(text.to_owned()),
        false => Err("is not 1 to 255 characters of A-Za-z0-9._~-".into()),
    }
}
