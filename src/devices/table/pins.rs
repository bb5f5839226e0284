//! Pinned certificates, by their fingerprints.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::super::rule::Pinned;
use super::super::{Fingerprint, RULES_MAX};
use super::actions::ActionIndex;
use crate::record::{self, DEVICE_ID_CHARS_MAX};

const _: () = assert!(
    RULES_MAX * DEVICE_ID_CHARS_MAX <= u32::MAX as usize,
    "32 bits tell where an id begins"
);
const _: () = assert!(DEVICE_ID_CHARS_MAX <= u8::MAX as usize);

#[derive(Clone, Copy, Debug)]
struct PinRule {
    certificate: Fingerprint,
    /// Offset of its id in the text of all ids.
    id_at: u32,
    settings: ActionIndex,
    line: u32,
    id_bytes: u8,
}

const _: () = assert!(size_of::<PinRule>() <= 48);

/// The pins, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Pins {
    pins: Vec<PinRule>,
    index: HashTable<u32>,
    /// Seed of the hash: makers of certificates may choose how their fingerprints begin.
    secret: RandomState,
    /// The ids, one after the other.
    ids: String,
}

impl Pins {
    pub(super) fn len(&self) -> usize {
        debug_assert_eq!(self.pins.len(), self.index.len(), "each is in the index");
        self.pins.len()
    }

    /// Adds a pin; the error is the line of the one that the certificate has already.
    pub(super) fn add(
        &mut self,
        pinned: &Pinned<'_>,
        settings: ActionIndex,
        line: u32,
    ) -> Result<(), u32> {
        if let Some(first) = self.pin(&pinned.fingerprint) {
            return Err(first.line);
        }
        let (id_at, id_bytes) = self.keep_id(pinned.id);
        self.push(PinRule {
            certificate: pinned.fingerprint,
            id_at,
            settings,
            line,
            id_bytes,
        });
        Ok(())
    }

    /// Keeps an id, and gives its place and its length.
    fn keep_id(&mut self, id: &str) -> (u32, u8) {
        debug_assert!(record::is_device_id(id), "the line was read");
        let id_at = u32::try_from(self.ids.len()).expect("asserted above");
        self.ids.push_str(id);
        (id_at, u8::try_from(id.len()).expect("an id is no longer"))
    }

    fn push(&mut self, pin: PinRule) {
        let (pins, secret) = (&mut self.pins, &self.secret);
        let hash = secret.hash_one(pin.certificate);
        let place = u32::try_from(pins.len()).expect("there are no more than RULES_MAX");
        pins.push(pin);
        let rehash = |&place: &u32| secret.hash_one(pins[place as usize].certificate);
        self.index.insert_unique(hash, place, rehash);
    }

    /// The id of a pinned certificate, its settings, and its line.
    pub(super) fn find(&self, certificate: &Fingerprint) -> Option<(&str, ActionIndex, u32)> {
        let pin = self.pin(certificate)?;
        Some((self.id(pin), pin.settings, pin.line))
    }

    /// The certificates of a device.
    pub(super) fn of(&self, id: &str) -> Vec<Fingerprint> {
        let of_device = self.pins.iter().filter(|pin| self.id(pin) == id);
        of_device.map(|pin| pin.certificate).collect()
    }

    /// Whether a pin is not in `others`, or stands for another device there.
    pub(super) fn lose_any_in(&self, others: &Self) -> bool {
        let is_lost = |pin: &PinRule| {
            let other = others.find(&pin.certificate);
            other.is_none_or(|(id, ..)| id != self.id(pin))
        };
        self.pins.iter().any(is_lost)
    }

    fn pin(&self, certificate: &Fingerprint) -> Option<&PinRule> {
        let is_same = |&place: &u32| self.pins[place as usize].certificate == *certificate;
        let place = self
            .index
            .find(self.secret.hash_one(certificate), is_same)?;
        Some(&self.pins[*place as usize])
    }

    fn id(&self, pin: &PinRule) -> &str {
        let start = pin.id_at as usize;
        &self.ids[start..start + usize::from(pin.id_bytes)]
    }
}
