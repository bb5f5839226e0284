//! What was written, and where: variables and flags before they are understood.

use std::collections::BTreeMap;

use super::variables::{Default, KAFKA_PREFIX, VARIABLES, nearest};

/// Where a value came from. A flag wins over the environment, and that over what a command presets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    Default,
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
        let ours = environment.into_iter().filter(|(name, _)| name.starts_with("FOREBAY_"));
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
            self.values.entry(name.to_owned()).or_insert((value, Source::Dev));
        }
    }

    fn set(&mut self, name: String, value: String, source: Source, errors: &mut Vec<String>) {
        let is_property = name.strip_prefix(KAFKA_PREFIX).is_some_and(|property| !property.is_empty());
        if is_property || VARIABLES.iter().any(|variable| variable.name == name) {
            self.values.insert(name, (value, source));
        } else {
            errors.push(format!("{}: unknown variable; did you mean {}?", name.escape_debug(), nearest(&name)));
        }
    }

    /// The value and its source; the default where nothing was set.
    pub fn get(&self, name: &str) -> Option<(&str, Source)> {
        if let Some((value, source)) = self.values.get(name) {
            return Some((value, *source));
        }
        let variable = VARIABLES.iter().find(|variable| variable.name == name)?;
        match variable.default {
            Default::Value(value) => Some((value, Source::Default)),
            Default::Unset(_) | Default::Required => None,
        }
    }

    /// librdkafka's properties, in its own spelling, in the order of their names.
    pub fn kafka_properties(&self) -> impl Iterator<Item = (String, &str)> {
        self.values.iter().filter_map(|(name, (value, _))| Some((kafka_property(name)?, value.as_str())))
    }

    /// Every variable and property that has a value, a line each; what is secret is not shown.
    pub fn describe(&self) -> String {
        let known = VARIABLES.iter().map(|variable| variable.name);
        let properties = self.values.keys().map(String::as_str).filter(|name| name.starts_with(KAFKA_PREFIX));
        known.chain(properties).map(|name| self.describe_one(name)).collect()
    }

    fn describe_one(&self, name: &str) -> String {
        match self.get(name) {
            Some((_, source)) if is_secret(name) => format!("{name}=(redacted) # {}\n", source.as_str()),
            Some((value, source)) => format!("{name}={} # {}\n", value.escape_debug(), source.as_str()),
            None => format!("{name}= # unset: {}\n", unset_meaning(name)),
        }
    }
}

impl Source {
    fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Dev => "forebay dev",
            Self::Environment => "environment",
            Self::Flag => "flag",
        }
    }
}

fn unset_meaning(name: &str) -> &'static str {
    match VARIABLES.iter().find(|variable| variable.name == name).map(|variable| variable.default) {
        Some(Default::Unset(meaning)) => meaning,
        _ => "required",
    }
}

fn kafka_property(name: &str) -> Option<String> {
    Some(name.strip_prefix(KAFKA_PREFIX)?.to_ascii_lowercase().replace('_', "."))
}

/// Kafka's passwords, keys and tokens; the files that hold them are not.
fn is_secret(name: &str) -> bool {
    const SECRETS: [&str; 6] =
        ["PASSWORD", "SECRET", "_PEM", "SASL_JAAS", "OAUTHBEARER_CONFIG", "SASL_OAUTHBEARER_TOKEN"];
    name.starts_with(KAFKA_PREFIX) && SECRETS.iter().any(|secret| name.contains(secret)) && !name.ends_with("LOCATION")
}
