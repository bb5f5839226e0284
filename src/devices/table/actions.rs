//! The effects of rules, each kept once: a fleet has many devices, and few ways to treat them.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use hashbrown::HashTable;

use super::super::Settings;
use super::super::rule::Action;
use crate::config::Quota;

/// The place of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ActionIndex(u32);

impl ActionIndex {
    const DENY: Self = Self(0);
    /// Allows a device, with all settings from the environment.
    pub(super) const ALLOW: Self = Self(1);

    fn get(self) -> usize {
        self.0 as usize
    }
}

/// The actions of a file.
#[derive(Debug)]
pub(super) struct Actions {
    all: Vec<Action>,
    index: HashTable<u32>,
    secret: RandomState,
}

impl Default for Actions {
    fn default() -> Self {
        Self {
            all: vec![Action::Deny, Action::Allow(Settings::default())],
            index: HashTable::new(),
            secret: RandomState::new(),
        }
    }
}

impl Actions {
    pub(super) fn get(&self, action: ActionIndex) -> &Action {
        &self.all[action.get()]
    }

    /// The place of an action, which is kept if it is new.
    pub(super) fn index(&mut self, action: Action) -> ActionIndex {
        match &action {
            Action::Deny => ActionIndex::DENY,
            Action::Allow(settings) if settings.are_silent() => ActionIndex::ALLOW,
            Action::Allow(_) => self.index_of_settings(action),
        }
    }

    fn index_of_settings(&mut self, action: Action) -> ActionIndex {
        let (all, secret) = (&mut self.all, &self.secret);
        let hash = hash(secret, &action);
        let is_same = |&place: &u32| all[place as usize] == action;
        if let Some(&place) = self.index.find(hash, is_same) {
            return ActionIndex(place);
        }
        let place = u32::try_from(all.len()).expect("there are no more than rules and pins");
        debug_assert!(
            place > ActionIndex::ALLOW.0,
            "deny and allow have their places"
        );
        all.push(action);
        let rehash = |&place: &u32| self::hash(secret, &all[place as usize]);
        self.index.insert_unique(hash, place, rehash);
        ActionIndex(place)
    }

    /// Lists all names of streams, some of them more than once.
    pub(super) fn streams(&self) -> impl Iterator<Item = &str> {
        let named = self.all.iter().filter_map(|action| match action {
            Action::Allow(settings) => settings.streams.as_ref(),
            Action::Deny => None,
        });
        named.flat_map(|streams| streams.iter().map(|name| &**name))
    }
}

fn hash(secret: &RandomState, action: &Action) -> u64 {
    let mut hasher = secret.build_hasher();
    if let Action::Allow(settings) = action {
        let bits = |quota: Quota| (quota.rate.to_bits(), quota.burst);
        settings.requests.map(bits).hash(&mut hasher);
        settings.bytes.map(bits).hash(&mut hasher);
        settings.streams.hash(&mut hasher);
    }
    hasher.finish()
}
