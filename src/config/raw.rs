//! Variables and flags as they were written, with their sources, before they are understood.
//!
//! Flags win over the environment, that over what `forebay dev` presets, that over defaults.
//! `resolve` asks for values by name, `forebay check` prints all of them. A `FOREBAY_*` name that
//! nobody knows is a fault; its value, which may be a secret, is never shown.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::BODY_BYTES_LIMIT;
use super::host;
use super::value;
use super::variables::{Default, KAFKA_PREFIX, VARIABLES, Variable, nearest};

/// Source of a value. A flag wins over the environment, and that over a command's preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    Default,
    /// A default that follows from the machine.
    Machine,
    /// `forebay dev`.
    Dev,
    Environment,
    Flag,
}

/// Values as text, by variable name.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    values: BTreeMap<String, (String, Source)>,
}

impl Raw {
    /// Takes every `FOREBAY_*` variable, then the flags. Names that nobody knows are the errors.
    pub fn new(
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> (Self, Vec<String>) {
        let (mut raw, mut errors) = (Self::default(), Vec::new());
        let ours = environment
            .into_iter()
            .filter(|(name, _)| name.starts_with("FOREBAY_"));
        for (name, value) in ours {
            raw.set(name, value, Source::Environment, &mut errors);
        }
        for (name, value) in flags {
            raw.set(name, value, Source::Flag, &mut errors);
        }
        (raw, errors)
    }

    /// Takes what `forebay dev` presets, where nothing else was set.
    pub fn preset(&mut self, values: impl IntoIterator<Item = (&'static str, String)>) {
        for (name, value) in values {
            self.values
                .entry(name.to_owned())
                .or_insert((value, Source::Dev));
        }
    }

    fn set(&mut self, name: String, value: String, source: Source, errors: &mut Vec<String>) {
        if is_kafka_property(&name) || Variable::find(&name).is_some() {
            self.values.insert(name, (value, source));
        } else {
            errors.push(unknown(&name, &value));
        }
    }

    /// The value and its source; the default where nothing was set.
    pub(crate) fn get(&self, name: &str) -> Option<(Cow<'_, str>, Source)> {
        if let Some((value, source)) = self.values.get(name) {
            return Some((value.into(), *source));
        }
        match Variable::find(name)?.default {
            Default::Value(value) => Some((value.into(), Source::Default)),
            Default::Unset(_) => Some((host::default_of(name)?.into(), Source::Machine)),
            Default::Required => None,
        }
    }

    /// The largest body, for a command that needs no more; the default where it is not said
    /// soundly.
    pub(crate) fn body_bytes_max(&self) -> usize {
        let said = self.sound_body_bytes_max();
        said.unwrap_or_else(|| {
            let default = Self::default().sound_body_bytes_max();
            default.expect("the default is sound")
        })
    }

    fn sound_body_bytes_max(&self) -> Option<usize> {
        let (text, _) = self.get("FOREBAY_BODY_BYTES_MAX")?;
        value::size(&text, BODY_BYTES_LIMIT).ok()
    }

    /// librdkafka's properties, in its own spelling, in the order of their names.
    pub fn kafka_properties(&self) -> impl Iterator<Item = (String, &str)> {
        self.values
            .iter()
            .filter_map(|(name, (value, _))| Some((kafka_property(name)?, value.as_str())))
    }

    /// Describes every variable and property, a line each, with its value and source; secrets are
    /// not shown.
    pub fn describe(&self) -> String {
        let known = VARIABLES.iter().map(|variable| variable.name);
        let properties = self
            .values
            .keys()
            .map(String::as_str)
            .filter(|name| Variable::find(name).is_none());
        known
            .chain(properties)
            .map(|name| self.describe_one(name))
            .collect()
    }

    fn describe_one(&self, name: &str) -> String {
        match self.get(name) {
            Some((value, source)) if is_hidden(name, &value) => {
                format!("{name}=(redacted) # {}\n", source.as_str())
            }
            Some((value, Source::Machine)) => {
                format!("{name}={value} # default: {}\n", unset_meaning(name))
            }
            Some((value, source)) => {
                format!("{name}={} # {}\n", value.escape_debug(), source.as_str())
            }
            None => format!("{name}= # unset: {}\n", unset_meaning(name)),
        }
    }
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Default | Self::Machine => "default",
            Self::Dev => "forebay dev",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
}

fn unset_meaning(name: &str) -> &'static str {
    match Variable::find(name).map(|variable| variable.default) {
        Some(Default::Unset(meaning)) => meaning,
        _ => "required",
    }
}

fn unknown(name: &str, value: &str) -> String {
    let shown = name.escape_debug();
    if is_service_link(name, value) {
        return format!(
            "{shown}: unknown variable; Kubernetes sets it for a Service of that name: \
             set enableServiceLinks: false in the pod's spec"
        );
    }
    format!("{shown}: unknown variable; did you mean {}?", nearest(name))
}

/// Whether Kubernetes made the variable, to tell where a Service is:
/// <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>.
fn is_service_link(name: &str, value: &str) -> bool {
    const PARTS: [&str; 4] = ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_UDP"];
    PARTS.iter().any(|part| name.contains(part))
        || value.starts_with("tcp://")
        || value.starts_with("udp://")
}

fn is_kafka_property(name: &str) -> bool {
    let is_written_so =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.strip_prefix(KAFKA_PREFIX)
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(is_written_so))
}

fn kafka_property(name: &str) -> Option<String> {
    let property = name.strip_prefix(KAFKA_PREFIX)?;
    Some(property.to_ascii_lowercase().replace('_', "."))
}

/// Whether a value must not be shown: a secret, or what may be a file's content where its name
/// belongs.
pub(crate) fn is_hidden(name: &str, value: &str) -> bool {
    is_secret(name) || value::is_content(value)
}

/// Kafka's passwords, keys and tokens; the files that hold them are not.
fn is_secret(name: &str) -> bool {
    const SECRETS: [&str; 6] = [
        "PASSWORD",
        "PASSPHRASE",
        "SECRET",
        "_PEM",
        "SASL_JAAS",
        "OAUTHBEARER_CONFIG",
    ];
    name.starts_with(KAFKA_PREFIX)
        && SECRETS.iter().any(|secret| name.contains(secret))
        && !["_LOCATION", "_FILE"]
            .iter()
            .any(|file| name.ends_with(file))
}
