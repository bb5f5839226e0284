//! Rules for exact ids, by a hash of the id.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::actions::ActionIndex;
use crate::record;

/// 128 bits of a keyed hash stand for the id itself, so that a rule is as small for a long id as for
/// a short one. Among 10^7 ids two collide with a chance of 10^-25, and as the hash's secret is
/// drawn for each table nobody can search for a collision from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdHash([u64; 2]);

#[derive(Clone, Copy, Debug)]
struct ExactRule {
    id: IdHash,
    action: ActionIndex,
    line: u32,
}

const _: () = assert!(size_of::<ExactRule>() == 24, "a million are 24 MB");

/// The rules, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct ExactRules {
    secrets: [RandomState; 2],
    rules: Vec<ExactRule>,
    index: HashTable<u32>,
}

impl ExactRules {
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.rules.len(), self.index.len(), "each is in the index");
        self.rules.len()
    }

    /// Adds a rule; the error is the line of the one that the id has already.
    pub(super) fn add(&mut self, id: &str, action: ActionIndex, line: u32) -> Result<(), u32> {
        debug_assert!(record::is_device_id(id), "the line was read");
        let id = self.hash(id);
        if let Some(first) = self.rule(id) {
            return Err(first.line);
        }
        let rules = &mut self.rules;
        let place = u32::try_from(rules.len()).expect("there are no more than RULES_MAX");
        rules.push(ExactRule { id, action, line });
        let rehash = |&place: &u32| rules[place as usize].id.0[0];
        self.index.insert_unique(id.0[0], place, rehash);
        Ok(())
    }

    /// Finds the effect of an id's rule, and its line.
    pub(super) fn find(&self, id: &str) -> Option<(ActionIndex, u32)> {
        if self.rules.is_empty() {
            return None;
        }
        let rule = self.rule(self.hash(id))?;
        Some((rule.action, rule.line))
    }

    fn rule(&self, id: IdHash) -> Option<&ExactRule> {
        let is_same = |&place: &u32| self.rules[place as usize].id == id;
        let place = self.index.find(id.0[0], is_same)?;
        Some(&self.rules[*place as usize])
    }

    fn hash(&self, id: &str) -> IdHash {
        IdHash(self.secrets.each_ref().map(|secret| secret.hash_one(id)))
    }
}
