//! Reading what is said of streams: their names, who may write them, their rules.

use super::{Parsed, STREAMS_MAX, device_glob, file, parts, some};
use crate::config::{StreamAccess, StreamConfig, StreamRules};

/// `name` or `name=target`, comma-separated.
pub(crate) fn streams(text: &str) -> Parsed<Vec<StreamConfig>> {
    let mut streams: Vec<StreamConfig> = Vec::new();
    for part in parts(text, ',') {
        let stream = stream(part)?;
        if streams.iter().any(|other| other.name == stream.name) {
            return Err("names a stream twice".into());
        }
        streams.push(stream);
    }
    match streams.len() {
        0 => Err("names no stream".into()),
        1..=STREAMS_MAX => Ok(streams),
        _ => Err(format!("names more than {STREAMS_MAX} streams")),
    }
}

fn stream(part: &str) -> Parsed<StreamConfig> {
    let (name, target) = part.split_once('=').unwrap_or((part, part));
    if !is_stream_name(name) || !is_stream_name(target) {
        return Err("has a name that is not 1 to 128 characters of A-Za-z0-9._-".into());
    }
    Ok(StreamConfig {
        name: name.into(),
        target: target.into(),
    })
}

/// Whether the text may be the name of a stream.
pub(crate) fn is_stream_name(name: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=128).contains(&name.len()) && name != "." && name != "..";
    fits && name.bytes().all(may_stand)
}

/// `stream:glob,glob;stream:glob`, of the `streams` that there are, where those are known.
pub(crate) fn stream_access(
    text: &str,
    streams: Option<&[StreamConfig]>,
) -> Parsed<Vec<StreamAccess>> {
    let access = |entry: &str| {
        let access = stream_devices(entry)?;
        known_stream(&access.stream, streams)?;
        Ok(access)
    };
    some(parts(text, ';').map(access), "stream")
}

/// `stream=file;stream=file`, of the `streams` that there are, where those are known; each once.
pub(crate) fn stream_rules(
    text: &str,
    streams: Option<&[StreamConfig]>,
) -> Parsed<Vec<StreamRules>> {
    let mut all: Vec<StreamRules> = Vec::new();
    for part in parts(text, ';') {
        let rules = rules_file(part)?;
        known_stream(&rules.stream, streams)?;
        if all.iter().any(|other| other.stream == rules.stream) {
            return Err("names a stream twice".into());
        }
        all.push(rules);
    }
    some(all.into_iter().map(Ok), "stream")
}

/// The name, if it is that of one of the `streams`, where those are known.
pub(super) fn known_stream<'a>(name: &'a str, streams: Option<&[StreamConfig]>) -> Parsed<&'a str> {
    let is_known = |streams: &[StreamConfig]| streams.iter().any(|known| known.name == name);
    if streams.is_some_and(|streams| !is_known(streams)) {
        return Err("names a stream that FOREBAY_STREAMS does not".into());
    }
    Ok(name)
}

fn rules_file(part: &str) -> Parsed<StreamRules> {
    let (stream, path) = part.split_once('=').ok_or("has an entry without =")?;
    let (stream, path) = (stream.trim(), path.trim());
    if path.is_empty() {
        return Err("has a stream without a file".into());
    }
    Ok(StreamRules {
        stream: stream.into(),
        file: file(path)?,
    })
}

fn stream_devices(entry: &str) -> Parsed<StreamAccess> {
    let entry = entry.split_once(':');
    let (stream, globs) = entry.ok_or("has an entry without a colon")?;
    let devices = parts(globs, ',').map(device_glob);
    Ok(StreamAccess {
        stream: stream.trim().into(),
        devices: devices.collect::<Parsed<_>>()?,
    })
}
