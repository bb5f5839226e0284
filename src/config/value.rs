//! Reading one value: sizes, durations, rates, lists.
//!
//! `resolve` calls these with a value that is not empty. A fault is the rest of a sentence that
//! begins with the variable and its value: "is neither true nor false". Nothing here knows which
//! variable it reads. Units stand at the edge only: bytes and [`Duration`] come out. What bounds
//! something is never 0; only rates know 0.

mod doors;
mod streams;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{ContentEncodings, DeviceClass, IdSource, Quota, SpoolMode, TlsVersion, WhenFull};
use crate::record::DeviceId;
pub(crate) use doors::{front_doors, otlp_streams, topics};
pub(crate) use streams::{is_stream_name, stream_access, stream_rules, streams};

/// Streams at most: each has a lane in every worker.
const STREAMS_MAX: usize = 256;

/// A value of a variable, or what is wrong with it.
pub(crate) type Parsed<T> = Result<T, String>;

/// `true` or `false`.
pub(crate) fn switch(text: &str) -> Parsed<bool> {
    text.parse()
        .map_err(|_| "is neither true nor false".to_owned())
}

/// `gzip` and `zstd`, comma-separated, or `none`.
pub(crate) fn content_encodings(text: &str) -> Parsed<ContentEncodings> {
    let mut encodings = ContentEncodings::default();
    if text == "none" {
        return Ok(encodings);
    }
    for name in text.split(',') {
        let encoding = match name.trim() {
            "gzip" => &mut encodings.gzip,
            "zstd" => &mut encodings.zstd,
            _ => return Err("is neither none nor a list of gzip and zstd".into()),
        };
        if std::mem::replace(encoding, true) {
            return Err("names a coding twice".into());
        }
    }
    Ok(encodings)
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

/// A time with a unit: `ms`, `s`, `m`, `h`, `d`. `0` needs none.
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
    let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = &text[..text.len() - suffix.len()];
    if number.is_empty() || suffix.starts_with('.') {
        return Err(format!("is not a whole number with a unit ({units})"));
    }
    let Ok(number) = number.parse::<u64>() else {
        return Err("is too large".into());
    };
    let Some(unit) = unit(suffix) else {
        return Err(match suffix {
            "" => format!("has no unit: {units}"),
            _ if suffix.contains(|c: char| c.is_ascii_digit()) => {
                format!(
                    "is more than one number with its unit: write one, as 90s for 1m30s ({units})"
                )
            }
            _ => format!("has a unit that is none of {units}"),
        });
    };
    number
        .checked_mul(unit)
        .ok_or_else(|| "is too large".into())
}

/// A share of all: above 0 and at most 1.
pub(crate) fn share(text: &str) -> Parsed<f64> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("is not a number above 0 and at most 1".into()),
    }
}

/// A rate of requests a second, 0 for no limit.
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
    let parts = text.split(separator).map(str::trim);
    parts.filter(|part| !part.is_empty())
}

/// Gathers all of the parts, at least one.
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
        let source = id_source(name)?;
        if sources.contains(&source) {
            return Err("names a source twice".into());
        }
        sources.push(source);
    }
    match sources.is_empty() {
        true => Err("names no source".into()),
        false => Ok(sources),
    }
}

fn id_source(name: &str) -> Parsed<IdSource> {
    match name {
        "san-uri" => Ok(IdSource::SanUri),
        "san-dns" => Ok(IdSource::SanDns),
        "cn" => Ok(IdSource::Cn),
        "fingerprint" => Ok(IdSource::Fingerprint),
        _ => Err("names a source that is none of san-uri, san-dns, cn, fingerprint".into()),
    }
}

/// `glob=rate/burst;glob=rate/burst`.
pub(crate) fn device_classes(text: &str) -> Parsed<Vec<DeviceClass>> {
    some(parts(text, ';').map(device_class), "class")
}

fn device_class(class: &str) -> Parsed<DeviceClass> {
    let (devices, shape) = class.split_once('=').ok_or("has a class without =")?;
    let shape = shape.split_once('/');
    let (rate, burst) = shape.ok_or("has a class without rate/burst")?;
    let requests = class_quota(rate.trim(), burst.trim());
    let in_class = |fault| format!("has a class whose rate or burst {fault}");
    Ok(DeviceClass {
        requests: requests.map_err(in_class)?,
        devices: device_glob(devices.trim())?,
    })
}

fn class_quota(class_rate: &str, class_burst: &str) -> Parsed<Quota> {
    quota(rate(class_rate)?, burst(class_burst)?)
}

/// A rate with its burst, which is 1 at least where the limit is on.
pub(crate) fn quota(rate: f64, burst: u64) -> Parsed<Quota> {
    if rate > 0.0 && burst == 0 {
        return Err("is a burst of 0, which lets nothing pass".into());
    }
    Ok(Quota { rate, burst })
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
    let in_brackets = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    if let Ok(address) = in_brackets.unwrap_or(name).parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let host = name.trim_end_matches('.').to_ascii_lowercase();
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let mut labels = labels.trim_end_matches('.').split('.');
    (name == "*" || labels.all(is_label)).then_some(host)
}

fn is_label(label: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    !label.is_empty() && label.bytes().all(may_stand)
}

/// Reads a glob, which matches device ids, so it has no other characters but `*` and `?`.
pub(crate) fn device_glob(glob: &str) -> Parsed<String> {
    let plain = glob.replace(['*', '?'], "x");
    let fault = "has a glob that can match no device id (A-Za-z0-9._:/@- with * and ?)";
    match DeviceId::parse(&plain) {
        Some(_) => Ok(glob.to_owned()),
        None => Err(fault.into()),
    }
}

#[cfg(test)]
mod tests;
