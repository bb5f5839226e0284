//! Reading one value: sizes, durations, rates, lists.

use std::time::Duration;

use super::{DeviceClass, IdSource, Quota, StreamAccess, StreamConfig, TlsVersion};
use crate::record::DeviceId;

/// A value of a variable, or what is wrong with it.
pub type Parsed<T> = Result<T, String>;

/// `true` or `false`.
pub fn switch(text: &str) -> Parsed<bool> {
    text.parse().map_err(|_| "is neither true nor false".to_owned())
}

/// A whole number, 1 or more.
pub fn count(text: &str) -> Parsed<usize> {
    match text.parse() {
        Ok(0) => Err("is 0, which is no bound".into()),
        Ok(count) => Ok(count),
        Err(_) => Err("is not a whole number".into()),
    }
}

/// Bytes, with a unit: `B`, `KiB`, `MiB`, `GiB`. `0` needs none.
pub fn bytes(text: &str) -> Parsed<u64> {
    let unit = |unit: &str| match unit {
        "B" => Some(1_u64),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        "GiB" => Some(1 << 30),
        _ => None,
    };
    with_unit(text, unit, "KiB, MiB or GiB")
}

/// Bytes that bound something: more than 0.
pub fn size(text: &str) -> Parsed<usize> {
    match bytes(text)? {
        0 => Err("is 0, which is no bound".into()),
        size => usize::try_from(size).map_err(|_| "is too large".into()),
    }
}

/// Time, with a unit: `ms`, `s`, `m`, `h`, `d`. `0` needs none.
pub fn duration(text: &str) -> Parsed<Duration> {
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
pub fn timeout(text: &str) -> Parsed<Duration> {
    const MAX: Duration = Duration::from_secs(366 * 86_400);
    match duration(text)? {
        Duration::ZERO => Err("is 0, which is no bound".into()),
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
    let number: u64 = number.parse().map_err(|_| "does not begin with a whole number".to_owned())?;
    match (unit(suffix), suffix) {
        (Some(unit), _) => number.checked_mul(unit).ok_or_else(|| "is too large".into()),
        (None, "") => Err(format!("has no unit: {units}")),
        (None, _) => Err(format!("has a unit that is none of {units}")),
    }
}

/// Requests a second, 0 for no limit.
pub fn rate(text: &str) -> Parsed<f64> {
    const MAX: f64 = 1e9;
    match text.parse::<f64>() {
        Ok(rate) if (0.0..=MAX).contains(&rate) => Ok(rate),
        Ok(_) => Err("is not between 0 and 1000000000".into()),
        Err(_) => Err("is not a number".into()),
    }
}

/// A burst, which may be 0 only where the rate is.
pub fn burst(text: &str) -> Parsed<u64> {
    text.parse().map_err(|_| "is not a whole number".into())
}

/// `1.2` or `1.3`.
pub fn tls_version(text: &str) -> Parsed<TlsVersion> {
    match text {
        "1.2" => Ok(TlsVersion::Tls12),
        "1.3" => Ok(TlsVersion::Tls13),
        _ => Err("is neither 1.2 nor 1.3".into()),
    }
}

/// Comma-separated parts, without the empty ones.
pub fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Sources of the device id, each once.
pub fn id_sources(text: &str) -> Parsed<Vec<IdSource>> {
    let mut sources = Vec::new();
    for name in list(text) {
        let source = match name {
            "san-uri" => IdSource::SanUri,
            "san-dns" => IdSource::SanDns,
            "cn" => IdSource::Cn,
            "fingerprint" => IdSource::Fingerprint,
            _ => return Err("names a source that is none of san-uri, san-dns, cn, fingerprint".into()),
        };
        if sources.contains(&source) {
            return Err("names a source twice".into());
        }
        sources.push(source);
    }
    if sources.is_empty() { Err("names no source".into()) } else { Ok(sources) }
}

/// `name` or `name=target`, comma-separated.
pub fn streams(text: &str) -> Parsed<Vec<StreamConfig>> {
    let mut streams: Vec<StreamConfig> = Vec::new();
    for part in list(text) {
        let (name, target) = part.split_once('=').unwrap_or((part, part));
        if !is_stream_name(name) || !is_stream_name(target) {
            return Err("has a name that is not 1 to 128 characters of A-Za-z0-9._-".into());
        }
        if streams.iter().any(|stream| stream.name == name) {
            return Err("names a stream twice".into());
        }
        streams.push(StreamConfig { name: name.into(), target: target.into() });
    }
    if streams.is_empty() { Err("names no stream".into()) } else { Ok(streams) }
}

fn is_stream_name(name: &str) -> bool {
    let fits = (1..=128).contains(&name.len()) && name != "." && name != "..";
    fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// `stream:glob,glob;stream:glob`.
pub fn stream_access(text: &str, streams: &[StreamConfig]) -> Parsed<Vec<StreamAccess>> {
    let entry = |entry: &str| {
        let (stream, globs) = entry.split_once(':').ok_or("has an entry without a colon")?;
        if !streams.iter().any(|known| known.name == stream.trim()) {
            return Err("names a stream that FOREBAY_STREAMS does not".to_owned());
        }
        Ok(StreamAccess { stream: stream.trim().into(), devices: list(globs).map(Into::into).collect() })
    };
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(entry).collect()
}

/// `glob=rate/burst;glob=rate/burst`.
pub fn device_classes(text: &str) -> Parsed<Vec<DeviceClass>> {
    let class = |class: &str| {
        let (devices, shape) = class.split_once('=').ok_or("has a class without =")?;
        let (class_rate, class_burst) = shape.split_once('/').ok_or("has a class without rate/burst")?;
        let requests = quota(rate(class_rate)?, burst(class_burst)?)?;
        Ok(DeviceClass { devices: devices.trim().into(), requests })
    };
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(class).collect()
}

/// A limit that is on needs a burst of 1 at least.
pub fn quota(rate: f64, burst: u64) -> Parsed<Quota> {
    if rate > 0.0 && burst == 0 {
        Err("is a burst of 0, which lets nothing pass".into())
    } else {
        Ok(Quota { rate, burst })
    }
}

/// A DNS name, a wildcard, an IP address, or `*`.
pub fn authorities(text: &str) -> Parsed<Vec<String>> {
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:*[]".contains(&byte));
    let names: Vec<String> = list(text).map(Into::into).collect();
    if names.iter().all(|name| is_name(name)) { Ok(names) } else { Err("has a name that is no host name".into()) }
}

/// Globs match device ids, so they have no other characters but `*` and `?`.
pub fn is_device_glob(glob: &str) -> bool {
    let plain = glob.replace(['*', '?'], "x");
    DeviceId::parse(&plain).is_some()
}
