//! One line of the devices file.
//!
//! `#` begins a comment wherever it stands, for no word has one. Words are parted by blanks. A
//! [`Fault`] names the word that is at fault; the line's number is known to whoever reads the file.

use std::fmt;
use std::str::SplitAsciiWhitespace;
use std::sync::Arc;

use memchr::memchr;

use super::{Fingerprint, Settings};
use crate::config::{Quota, value};
use crate::record;

/// The rule that a line states.
#[derive(Debug, PartialEq)]
pub(super) enum Rule<'a> {
    Exact(&'a str, Action),
    Glob(&'a str, Action),
    Pin(Pinned<'a>),
    Default(Action),
}

/// Effect of a rule on the devices that it names.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Deny,
    Allow(Settings),
}

/// A certificate that stands for a device.
#[derive(Debug, PartialEq)]
pub(super) struct Pinned<'a> {
    pub fingerprint: Fingerprint,
    pub id: &'a str,
    pub settings: Settings,
}

/// Fault of a line, with the word at fault.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub word: String,
    pub reason: String,
}

impl Fault {
    pub(super) fn new(word: &str, reason: impl Into<String>) -> Self {
        Self {
            word: word.to_owned(),
            reason: reason.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// More of a word than this is not shown.
        const WORD_CHARS_MAX: usize = 160;
        let shown: String = self.word.chars().take(WORD_CHARS_MAX).collect();
        write!(f, "\"{}\" {}", shown.escape_debug(), self.reason)
    }
}

/// The part of a line that says something, and its comment, `#` included, or nothing.
pub(super) fn split_comment(line: &[u8]) -> (&[u8], &[u8]) {
    line.split_at(memchr(b'#', line).unwrap_or(line.len()))
}

/// Reads a line, with or without its end; `None` for one that says nothing.
pub(super) fn parse(line: &[u8]) -> Result<Option<Rule<'_>>, Fault> {
    let mut words = words(line)?;
    match words.next() {
        None => Ok(None),
        Some("allow") => allow(words).map(Some),
        Some("deny") => deny(words).map(Some),
        Some("pin") => pin(words).map(Some),
        Some("default") => default(words).map(Some),
        Some(other) => Err(Fault::new(other, "is none of allow, deny, pin, default")),
    }
}

/// The words of a line that have not been read.
type Words<'a> = SplitAsciiWhitespace<'a>;

fn words(line: &[u8]) -> Result<Words<'_>, Fault> {
    let (said, _) = split_comment(line);
    match str::from_utf8(said) {
        Ok(said) => Ok(said.split_ascii_whitespace()),
        Err(_) => {
            let said = String::from_utf8_lossy(said);
            Err(Fault::new(&said, "is no UTF-8 text"))
        }
    }
}

fn allow(mut words: Words<'_>) -> Result<Rule<'_>, Fault> {
    let devices = next(&mut words, "allow", "needs a device id or a glob")?;
    let settings = settings(words)?;
    of_devices(devices, Action::Allow(settings))
}

fn deny(mut words: Words<'_>) -> Result<Rule<'_>, Fault> {
    let devices = next(&mut words, "deny", "needs a device id or a glob")?;
    let rule = of_devices(devices, Action::Deny)?;
    no_more(words, "says more than deny can: it has no settings")?;
    Ok(rule)
}

fn default(mut words: Words<'_>) -> Result<Rule<'_>, Fault> {
    let rule = match next(&mut words, "default", "needs allow or deny")? {
        "allow" => Rule::Default(Action::Allow(Settings::default())),
        "deny" => Rule::Default(Action::Deny),
        other => return Err(Fault::new(other, "is neither allow nor deny")),
    };
    no_more(words, "says more than default can: it has no settings")?;
    Ok(rule)
}

fn pin(mut words: Words<'_>) -> Result<Rule<'_>, Fault> {
    let certificate = next(&mut words, "pin", "needs sha256: and a fingerprint")?;
    let digits = certificate.strip_prefix("sha256:");
    let Some(fingerprint) = digits.and_then(Fingerprint::parse) else {
        let reason = "is no fingerprint of a certificate: sha256: and 64 hex digits";
        return Err(Fault::new(certificate, reason));
    };
    let named = next(&mut words, certificate, "needs as= and a device id")?;
    let Some(id) = named.strip_prefix("as=").filter(|id| is_id(id)) else {
        return Err(Fault::new(named, "is not as= and a device id"));
    };
    let settings = settings(words)?;
    Ok(Rule::Pin(Pinned {
        fingerprint,
        id,
        settings,
    }))
}

fn next<'a>(words: &mut Words<'a>, before: &str, needs: &str) -> Result<&'a str, Fault> {
    words.next().ok_or_else(|| Fault::new(before, needs))
}

fn no_more(mut words: Words<'_>, reason: &str) -> Result<(), Fault> {
    match words.next() {
        None => Ok(()),
        Some(word) => Err(Fault::new(word, reason)),
    }
}

fn of_devices(devices: &str, action: Action) -> Result<Rule<'_>, Fault> {
    if is_id(devices) {
        return Ok(Rule::Exact(devices, action));
    }
    match value::device_glob(devices) {
        Ok(_) => Ok(Rule::Glob(devices, action)),
        Err(_) => {
            let reason = "is no device id and no glob: 1 to 128 of A-Za-z0-9._:/@- with * and ?";
            Err(Fault::new(devices, reason))
        }
    }
}

/// Whether the text is a device id.
pub(super) fn is_id(text: &str) -> bool {
    record::is_device_id(text)
}

/// The settings that end a line.
pub(super) fn settings<'a>(words: impl Iterator<Item = &'a str>) -> Result<Settings, Fault> {
    let mut settings = Settings::default();
    for word in words {
        set(&mut settings, word)?;
    }
    Ok(settings)
}

fn set(settings: &mut Settings, word: &str) -> Result<(), Fault> {
    let (name, text) = word.split_once('=').unwrap_or((word, ""));
    let is_new = match name {
        "rate" => settings.requests.replace(requests(word, text)?).is_none(),
        "bytes" => settings.bytes.replace(bytes(word, text)?).is_none(),
        "streams" => settings.streams.replace(streams(word, text)?).is_none(),
        _ => return Err(Fault::new(word, NO_SETTING)),
    };
    if !is_new {
        return Err(Fault::new(word, format!("says {name} a second time")));
    }
    debug_assert!(!settings.are_silent(), "it has said something");
    Ok(())
}

const NO_SETTING: &str = "is no setting: rate=5/20, bytes=64KiB/256KiB or streams=alarms,telemetry";

fn requests(word: &str, text: &str) -> Result<Quota, Fault> {
    let (rate, burst) = halves(word, text, "rate=5/20")?;
    let quota = value::rate(rate).and_then(|rate| value::quota(rate, value::burst(burst)?));
    quota.map_err(|fault| in_setting(word, &fault))
}

fn bytes(word: &str, text: &str) -> Result<Quota, Fault> {
    let (rate, burst) = halves(word, text, "bytes=64KiB/256KiB")?;
    let quota = value::bytes(rate).and_then(|rate| value::quota(rate as f64, value::bytes(burst)?));
    quota.map_err(|fault| in_setting(word, &fault))
}

fn halves<'a>(word: &str, text: &'a str, example: &str) -> Result<(&'a str, &'a str), Fault> {
    let halves = text.split_once('/');
    halves.ok_or_else(|| Fault::new(word, format!("is not rate/burst, like {example}")))
}

fn in_setting(word: &str, fault: &str) -> Fault {
    Fault::new(word, format!("has a rate or burst that {fault}"))
}

fn streams(word: &str, text: &str) -> Result<Arc<[Box<str>]>, Fault> {
    let mut streams: Vec<Box<str>> = Vec::new();
    for name in text.split(',') {
        if !value::is_stream_name(name) {
            let reason = "has a stream name that is not 1 to 128 characters of A-Za-z0-9._-";
            return Err(Fault::new(word, reason));
        }
        if streams.iter().any(|other| **other == *name) {
            return Err(Fault::new(word, "names a stream twice"));
        }
        streams.push(name.into());
    }
    debug_assert!(!streams.is_empty(), "an empty name is a fault");
    Ok(streams.into())
}
