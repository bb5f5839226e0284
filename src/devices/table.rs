//! A devices file that has been read, as connections ask it.
//!
//! Built line by line and never changed. Exact rules and pins lie packed in vectors, found by a
//! hash; the few things that rules say are kept once.

mod actions;
mod exact;
mod pins;

use std::time::{Duration, Instant};

use wildmatch::WildMatch;

use super::rule::{Action, Fault, Pinned, Rule};
use super::{Fingerprint, GLOBS_MAX, RULES_MAX, Settings, Verdict};
use actions::{ActionIndex, Actions};
use exact::ExactRules;
use pins::Pins;

/// Table of all rules of the file.
#[derive(Debug, Default)]
pub struct Devices {
    edition: u64,
    actions: Actions,
    exact: ExactRules,
    globs: Vec<Glob>,
    pins: Pins,
    default: Option<Default>,
    /// When a pin was last taken out, or got another id.
    unpinned_at: Option<Instant>,
}

/// A rule for all devices that a glob matches.
#[derive(Debug)]
struct Glob {
    devices: WildMatch,
    action: ActionIndex,
    line: u32,
}

/// The rule for whom no other names.
#[derive(Clone, Copy, Debug)]
struct Default {
    action: ActionIndex,
    line: u32,
}

/// A certificate that stands for a device.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pin<'a> {
    pub id: &'a str,
    pub settings: &'a Settings,
    /// The line, from 1.
    pub line: u32,
}

/// Line or default that decides what a device gets; lines count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Exact {
        line: u32,
    },
    Glob {
        line: u32,
    },
    Default {
        line: u32,
    },
    /// Nowhere.
    Silence,
}

/// Number of rules of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub exact: usize,
    pub globs: usize,
    pub pins: usize,
}

impl Devices {
    /// Adds the rule of a line, which counts from 1.
    pub(super) fn add(&mut self, line: u32, rule: Rule<'_>) -> Result<(), Fault> {
        match rule {
            Rule::Exact(id, action) => self.add_exact(line, id, action),
            Rule::Glob(glob, action) => self.add_glob(line, glob, action),
            Rule::Pin(pinned) => self.add_pin(line, &pinned),
            Rule::Default(action) => self.set_default(line, action),
        }
    }

    fn add_exact(&mut self, line: u32, id: &str, action: Action) -> Result<(), Fault> {
        if self.exact.len() == RULES_MAX {
            return Err(too_many(id, "rules for exact ids", RULES_MAX));
        }
        let action = self.actions.index(action);
        let added = self.exact.add(id, action, line);
        added.map_err(|first| second(id, "the device has a rule", first))
    }

    fn add_glob(&mut self, line: u32, glob: &str, action: Action) -> Result<(), Fault> {
        if self.globs.len() == GLOBS_MAX {
            return Err(too_many(glob, "globs", GLOBS_MAX));
        }
        self.globs.push(Glob {
            devices: WildMatch::new(glob),
            action: self.actions.index(action),
            line,
        });
        Ok(())
    }

    fn add_pin(&mut self, line: u32, pinned: &Pinned<'_>) -> Result<(), Fault> {
        let certificate = || format!("sha256:{}", pinned.fingerprint);
        if self.pins.len() == RULES_MAX {
            return Err(too_many(&certificate(), "pins", RULES_MAX));
        }
        let settings = self.actions.index(Action::Allow(pinned.settings.clone()));
        let added = self.pins.add(pinned, settings, line);
        added.map_err(|first| second(&certificate(), "the certificate has a pin", first))
    }

    fn set_default(&mut self, line: u32, action: Action) -> Result<(), Fault> {
        if let Some(Default { line: first, .. }) = self.default {
            return Err(second("default", "there is a default", first));
        }
        let action = self.actions.index(action);
        self.default = Some(Default { action, line });
        Ok(())
    }

    /// Marks the table as the one after `before`, `now` being when it comes into force.
    pub(super) fn succeed(&mut self, before: &Self, now: Instant) {
        debug_assert_eq!(self.edition, 0, "a table has one place among the others");
        self.edition = before.edition + 1;
        let has_unpinned = before.pins.lose_any_in(&self.pins);
        self.unpinned_at = if has_unpinned {
            Some(now)
        } else {
            before.unpinned_at
        };
    }

    /// A number that no table before this one has had in this process.
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// Whether a pin was taken out, or got another id, within so long before `now`.
    pub(crate) fn has_unpinned_within(&self, time: Duration, now: Instant) -> bool {
        self.unpinned_at
            .is_some_and(|at| now.saturating_duration_since(at) < time)
    }

    /// Whether a pin was taken out, or got another id, when this table took the place of the one
    /// before it.
    pub(super) fn unpinned_at(&self) -> Option<Instant> {
        self.unpinned_at
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            exact: self.exact.len(),
            globs: self.globs.len(),
            pins: self.pins.len(),
        }
    }

    pub(crate) fn has_pins(&self) -> bool {
        self.pins.len() > 0
    }

    /// The pin of a certificate.
    pub fn pin(&self, certificate: &Fingerprint) -> Option<Pin<'_>> {
        let (id, settings, line) = self.pins.find(certificate)?;
        let Action::Allow(settings) = self.actions.get(settings) else {
            unreachable!("a pin was added with settings");
        };
        Some(Pin { id, settings, line })
    }

    /// The certificates that are pinned to a device. Walks through all pins.
    pub(crate) fn pins_of(&self, id: &str) -> Vec<Fingerprint> {
        self.pins.of(id)
    }

    /// Returns what the device of an id may do, and the line that says so.
    pub fn verdict(&self, id: &str) -> (Verdict, Source) {
        let (action, source) = self.find(id);
        match self.actions.get(action) {
            Action::Deny => (Verdict::Denied, source),
            Action::Allow(settings) => (Verdict::Allowed(settings.clone()), source),
        }
    }

    /// Returns what the device of an id may do that has shown a certificate.
    pub fn verdict_of(&self, certificate: &Fingerprint, id: &str) -> Verdict {
        match (self.verdict(id).0, self.pin(certificate)) {
            (Verdict::Allowed(of_id), Some(pin)) => Verdict::Allowed(pin.settings.or(&of_id)),
            (verdict, _) => verdict,
        }
    }

    fn find(&self, id: &str) -> (ActionIndex, Source) {
        if let Some((action, line)) = self.exact.find(id) {
            return (action, Source::Exact { line });
        }
        for glob in &self.globs {
            if glob.devices.matches(id) {
                return (glob.action, Source::Glob { line: glob.line });
            }
        }
        match self.default {
            Some(Default { action, line }) => (action, Source::Default { line }),
            None => (ActionIndex::ALLOW, Source::Silence),
        }
    }

    /// The names of streams in the file that are none of `known`.
    pub(crate) fn unknown_streams(&self, known: &[String]) -> Vec<String> {
        let mut unknown = Vec::new();
        for name in self.actions.streams() {
            if !known.iter().any(|known| known == name) && !unknown.iter().any(|it| it == name) {
                unknown.push(name.to_owned());
            }
        }
        unknown
    }
}

fn too_many(word: &str, what: &str, most: usize) -> Fault {
    Fault::new(word, format!("is one too many: {most} {what} at most"))
}

fn second(word: &str, what: &str, first: u32) -> Fault {
    debug_assert!(first > 0, "lines count from 1");
    Fault::new(word, format!("stands here again: {what} in line {first}"))
}
