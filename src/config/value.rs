//! Reading one value: sizes, durations, rates, lists.
//!
//! `resolve` calls these with a value that is not empty. A fault is the rest of a sentence that
//! begins with the variable and its value: "is neither true nor false". Nothing here knows which
//! variable it reads. Units stand at the edge only: bytes and [`Duration`] come out. What bounds
//! something is never 0; only rates know 0.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    DeviceClass, IdSource, Quota, SpoolMode, StreamAccess, StreamConfig, TlsVersion, WhenFull,
};
use crate::record::DeviceId;

/// Streams at most: each has a lane in every worker.
const STREAMS_MAX: usize = 256;

/// A value of a variable, or what is wrong with it.
pub(crate) type Parsed<T> = Result<T, String>;

/// `true` or `false`.
pub(crate) fn switch(text: &str) -> Parsed<bool> {
    text.parse()
        .map_err(|_| "is neither true nor false".to_owned())
}

const NO_BOUND: &str = "is 0, which is no bound";

/// A whole number, 1 to `max`.
pub(crate) fn count(text: &str, max: usize) -> Parsed<usize> {
    match text.parse() {
        Ok(0) => Err(NO_BOUND.into()),
        Ok(count) if count > max => Err(format!("is more than {max}")),
        Ok(count) => Ok(count),
        Err(_) => Err("is not a whole number, or too large".into()),
    }
}

/// Bytes, with a unit: `B`, `KiB`, `MiB`, `GiB`. `0` needs none.
pub(crate) fn bytes(text: &str) -> Parsed<u64> {
    let unit = |unit: &str| match unit {
        "B" => Some(1_u64),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    with_unit(text, unit, "B, KiB, MiB or GiB")
}

/// Bytes that bound something: 1 to `max`.
pub(crate) fn size(text: &str, max: usize) -> Parsed<usize> {
    match bytes(text)? {
        0 => Err(NO_BOUND.into()),
        size => match usize::try_from(size) {
            Ok(size) if size <= max => Ok(size),
            _ => Err(format!("is more than {}MiB", max >> 20)),
        },
    }
}

/// Time, with a unit: `ms`, `s`, `m`, `h`, `d`. `0` needs none.
pub(crate) fn duration(text: &str) -> Parsed<Duration> {
    let unit = |unit: &str| match unit {
        "ms" => Some(1_u64),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    with_unit(text, unit, "ms, s, m, h or d").map(Duration::from_millis)
}

/// A time-out: more than 0 and at most a year.
pub(crate) fn timeout(text: &str) -> Parsed<Duration> {
    const MAX: Duration = Duration::from_secs(366 * 86_400);
    match duration(text)? {
        Duration::ZERO => Err(NO_BOUND.into()),
        timeout if timeout > MAX => Err("is more than a year".into()),
        timeout => Ok(timeout),
    }
}

fn with_unit(text: &str, unit: impl Fn(&str) -> Option<u64>, units: &str) -> Parsed<u64> {
    if text == "0" {
        return Ok(0);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, suffix) = text.split_at(digits);
    if number.is_empty() || suffix.starts_with('.') {
        return Err(format!("is not a whole number with a unit ({units})"));
    }
    let number: u64 = number.parse().map_err(|_| "is too large".to_owned())?;
    match (unit(suffix), suffix) {
        (Some(unit), _) => number
            .checked_mul(unit)
            .ok_or_else(|| "is too large".into()),
        (None, "") => Err(format!("has no unit: {units}")),
        (None, _) => Err(format!("has a unit that is none of {units}")),
    }
}

/// A share of all: above 0 and at most 1.
pub(crate) fn share(text: &str) -> Parsed<f64> {
    let share = text
        .parse()
        .ok()
        .filter(|share: &f64| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "is not a number above 0 and at most 1".into())
}

/// Requests a second, 0 for no limit.
pub(crate) fn rate(text: &str) -> Parsed<f64> {
    const MAX: f64 = 1e9;
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=MAX).contains(&rate) => Ok(rate),
        Ok(_) => Err("is not between 0 and 1000000000".into()),
        Err(_) => Err("is not a number".into()),
    }
}

/// A burst, which may be 0 only where the rate is.
pub(crate) fn burst(text: &str) -> Parsed<u64> {
    text.parse().map_err(|_| "is not a whole number".into())
}

/// `1.2` or `1.3`.
pub(crate) fn tls_version(text: &str) -> Parsed<TlsVersion> {
    match text {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        _ => Err("is neither 1.2 nor 1.3".into()),
    }
}

pub(crate) fn spool_mode(text: &str) -> Parsed<SpoolMode> {
    match text {
        "overflow" => Ok(SpoolMode::Overflow),
        "always" => Ok(SpoolMode::Always),
        _ => Err("is neither overflow nor always".into()),
    }
}

pub(crate) fn when_full(text: &str) -> Parsed<WhenFull> {
    match text {
        "reject" => Ok(WhenFull::Reject),
        "drop-oldest" => Ok(WhenFull::DropOldest),
        _ => Err("is neither reject nor drop-oldest".into()),
    }
}

/// Parts between separators, without the empty ones.
fn parts(text: &str, separator: char) -> impl Iterator<Item = &str> {
    text.split(separator)
        .map(str::trim)
        .filter(|part| !part.is_empty())
}

/// All of the parts, at least one.
fn some<T>(parts: impl Iterator<Item = Parsed<T>>, what: &str) -> Parsed<Vec<T>> {
    let parts: Vec<T> = parts.collect::<Parsed<_>>()?;
    if parts.is_empty() {
        Err(format!("names no {what}"))
    } else {
        Ok(parts)
    }
}

/// A path.
pub(crate) fn file(text: &str) -> Parsed<PathBuf> {
    if is_content(text) {
        Err("is what stands in a file, or a key: give the file's name".into())
    } else {
        Ok(text.into())
    }
}

/// Comma-separated paths.
pub(crate) fn files(text: &str) -> Parsed<Vec<PathBuf>> {
    some(parts(text, ',').map(file), "file")
}

/// Whether a text is a file's content rather than its name: PEM, its base64, digits of a key, or
/// longer than any path.
pub(crate) fn is_content(text: &str) -> bool {
    const PATH_BYTES_MAX: usize = 4096;
    const KEY_DIGITS: usize = 64;
    /// `-----BEGIN` in base64, as Kubernetes has it in its secrets.
    const BEGIN_IN_BASE64: &str = "LS0tLS1CRUdJTi";
    let is_key = text.len() >= KEY_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.contains("-----BEGIN")
        || text.contains(BEGIN_IN_BASE64)
        || text.len() > PATH_BYTES_MAX
        || is_key
}

/// Sources of the device id, each once.
pub(crate) fn id_sources(text: &str) -> Parsed<Vec<IdSource>> {
    let mut sources = Vec::new();
    for name in parts(text, ',') {
        let source = match name {
            "san-uri" => IdSource::SanUri,
            "san-dns" => IdSource::SanDns,
            "cn" => IdSource::Cn,
            "fingerprint" => IdSource::Fingerprint,
            _ => {
                return Err(
                    "names a source that is none of san-uri, san-dns, cn, fingerprint".into(),
                );
            }
        };
        if sources.contains(&source) {
            return Err("names a source twice".into());
        }
        sources.push(source);
    }
    if sources.is_empty() {
        Err("names no source".into())
    } else {
        Ok(sources)
    }
}

/// `name` or `name=target`, comma-separated.
pub(crate) fn streams(text: &str) -> Parsed<Vec<StreamConfig>> {
    let mut streams: Vec<StreamConfig> = Vec::new();
    for part in parts(text, ',') {
        let (name, target) = part.split_once('=').unwrap_or((part, part));
        if !is_stream_name(name) || !is_stream_name(target) {
            return Err("has a name that is not 1 to 128 characters of A-Za-z0-9._-".into());
        }
        if streams.iter().any(|stream| stream.name == name) {
            return Err("names a stream twice".into());
        }
        streams.push(StreamConfig {
            name: name.into(),
            target: target.into(),
        });
    }
    match streams.len() {
        0 => Err("names no stream".into()),
        1..=STREAMS_MAX => Ok(streams),
        _ => Err(format!("names more than {STREAMS_MAX} streams")),
    }
}

fn is_stream_name(name: &str) -> bool {
    let fits = (1..=128).contains(&name.len()) && name != "." && name != "..";
    fits && name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// `stream:glob,glob;stream:glob`, of the `streams` that there are, where those are known.
pub(crate) fn stream_access(
    text: &str,
    streams: Option<&[StreamConfig]>,
) -> Parsed<Vec<StreamAccess>> {
    let is_known =
        |name: &str| streams.is_none_or(|streams| streams.iter().any(|known| known.name == name));
    let entry = |entry: &str| {
        let (stream, globs) = entry
            .split_once(':')
            .ok_or("has an entry without a colon")?;
        if !is_known(stream.trim()) {
            return Err("names a stream that FOREBAY_STREAMS does not".to_owned());
        }
        let devices = parts(globs, ',').map(device_glob).collect::<Parsed<_>>()?;
        Ok(StreamAccess {
            stream: stream.trim().into(),
            devices,
        })
    };
    some(parts(text, ';').map(entry), "stream")
}

/// `glob=rate/burst;glob=rate/burst`.
pub(crate) fn device_classes(text: &str) -> Parsed<Vec<DeviceClass>> {
    let class = |class: &str| {
        let (devices, shape) = class.split_once('=').ok_or("has a class without =")?;
        let (class_rate, class_burst) = shape
            .split_once('/')
            .ok_or("has a class without rate/burst")?;
        let in_class = |fault| format!("has a class whose rate or burst {fault}");
        let requests = quota(
            rate(class_rate.trim()).map_err(in_class)?,
            burst(class_burst.trim()).map_err(in_class)?,
        )
        .map_err(in_class)?;
        Ok(DeviceClass {
            devices: device_glob(devices.trim())?,
            requests,
        })
    };
    some(parts(text, ';').map(class), "class")
}

/// A limit that is on needs a burst of 1 at least.
pub(crate) fn quota(rate: f64, burst: u64) -> Parsed<Quota> {
    if rate > 0.0 && burst == 0 {
        Err("is a burst of 0, which lets nothing pass".into())
    } else {
        Ok(Quota { rate, burst })
    }
}

/// Comma-separated DNS names, `*.` wildcards and IP addresses, as a request's authority is compared
/// with them; `*` is any.
pub(crate) fn authorities(text: &str) -> Parsed<Vec<String>> {
    let authority = |name: &str| {
        authority(name).ok_or_else(|| "has a name that is no host name without a port".into())
    };
    some(parts(text, ',').map(authority), "host")
}

fn authority(name: &str) -> Option<String> {
    let address = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(name);
    if let Ok(address) = address.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let host = name
        .strip_prefix("*.")
        .unwrap_or(name)
        .trim_end_matches('.');
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    (name == "*" || host.split('.').all(is_label))
        .then(|| name.trim_end_matches('.').to_ascii_lowercase())
}

/// Globs match device ids, so they have no other characters but `*` and `?`.
fn device_glob(glob: &str) -> Parsed<String> {
    let plain = glob.replace(['*', '?'], "x");
    let fault = "has a glob that can match no device id (A-Za-z0-9._:/@- with * and ?)";
    DeviceId::parse(&plain)
        .map(|_| glob.to_owned())
        .ok_or_else(|| fault.into())
}

#[cfg(test)]
mod tests;
