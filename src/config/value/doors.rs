//! Reading what is said of front doors: which are open, and where they lead to.

use super::streams::known_stream;
use super::{Parsed, parts, some};
use crate::config::{OpenDoors, OtlpStreams, StreamConfig, TopicRoute};
use crate::topic::Filter;

/// Filters of topics at most: each topic is held against them in turn.
const TOPICS_MAX: usize = 1000;

/// `iot-core`, `iot-hub` and `otlp`, comma-separated, each once.
pub(crate) fn front_doors(text: &str) -> Parsed<OpenDoors> {
    let mut doors = OpenDoors::default();
    let mut names = 0;
    for name in parts(text, ',') {
        let door = match name {
            "iot-core" => &mut doors.iot_core,
            "iot-hub" => &mut doors.iot_hub,
            "otlp" => &mut doors.otlp,
            _ => return Err("names a door that is none of iot-core, iot-hub, otlp".into()),
        };
        if std::mem::replace(door, true) {
            return Err("names a door twice".into());
        }
        names += 1;
    }
    if names == 0 {
        return Err("names no door".into());
    }
    Ok(doors)
}

/// `filter=stream;filter=stream`, of the `streams` that there are, where those are known. A filter
/// may have a `=` in it, a stream may not.
pub(crate) fn topics(text: &str, streams: Option<&[StreamConfig]>) -> Parsed<Vec<TopicRoute>> {
    let mut all: Vec<TopicRoute> = Vec::new();
    for part in parts(text, ';') {
        let (filter, stream) = part.rsplit_once('=').ok_or("has an entry without =")?;
        let filter = Filter::parse(filter.trim()).map_err(|error| error.to_string())?;
        if all.iter().any(|other| other.filter == filter) {
            return Err("names a topic filter twice, of which the first would win".into());
        }
        let stream = known_stream(stream.trim(), streams)?.into();
        all.push(TopicRoute { filter, stream });
    }
    if all.len() > TOPICS_MAX {
        return Err(format!("names more than {TOPICS_MAX} topic filters"));
    }
    some(all.into_iter().map(Ok), "topic filter")
}

/// `logs=stream,metrics=stream,traces=stream`, each signal once at most, of the `streams` that there
/// are, where those are known.
pub(crate) fn otlp_streams(text: &str, streams: Option<&[StreamConfig]>) -> Parsed<OtlpStreams> {
    let mut all = OtlpStreams::default();
    for part in parts(text, ',') {
        let (signal, stream) = part.split_once('=').ok_or("has an entry without =")?;
        let place = match signal.trim() {
            "logs" => &mut all.logs,
            "metrics" => &mut all.metrics,
            "traces" => &mut all.traces,
            _ => return Err("names a signal that is none of logs, metrics, traces".into()),
        };
        if place.is_some() {
            return Err("names a signal twice".into());
        }
        *place = Some(known_stream(stream.trim(), streams)?.into());
    }
    if all == OtlpStreams::default() {
        return Err("names no signal".into());
    }
    Ok(all)
}
