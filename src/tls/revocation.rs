//! Who is revoked: all CRLs as one table, asked by issuer and serial number.
//!
//! Built when the files are loaded and never changed; the verifier asks it for each full handshake, `accept` for each
//! connection, also a resumed one, and `http` for each live connection when a new table comes. Asking is a hash and a
//! binary search in packed serial numbers; memory is their bytes, 16 MB for a million of 16 bytes.
//!
//! What is asked about is every certificate of a chain that might vouch for the leaf, but for authorities of the bundle.
//! One of those that another one revoked vouches for nobody. While a second one of its name stands, it is only left out
//! of the bundle: connections that live, without having sent it, cannot be told from the other's, and stay. Lists of one
//! issuer add up, and the one that is out of date first decides how long they hold.

mod serials;

use std::collections::{HashMap, HashSet};

use crate::identity::{self, Authority, Crl, CrlError, IdentityError, Link, significant};
use crate::record::Timestamp;
use serials::Serials;

/// A name in DER.
type Name = Box<[u8]>;

/// SubjectPublicKeyInfo in DER.
type Key = Box<[u8]>;

/// What the lists say, all together.
#[derive(Debug, Default)]
pub struct Revocation {
    is_on: bool,
    is_strict: bool,
    lists: HashMap<Name, List>,
    /// Names and keys of the authorities of the bundle that stand.
    anchors: Vec<(Name, Key)>,
    /// Names of those that do not, and of which no namesake stands.
    distrusted: HashSet<Name>,
}

#[derive(Debug)]
struct List {
    revoked: Serials,
    next_update: Timestamp,
}

/// What is known of a certificate and those that vouch for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Good,
    Revoked,
    /// An issuer has no list, or one that is out of date, and that matters (`FOREBAY_TLS_CRL_STRICT`).
    Unknown,
}

impl Revocation {
    /// No lists are configured: nobody is asked about.
    pub fn off() -> Self {
        Self::default()
    }

    /// A table without lists.
    pub fn new(is_strict: bool) -> Self {
        Self {
            is_on: true,
            is_strict,
            ..Self::default()
        }
    }

    /// Adds a list whose signature has been checked.
    pub fn add(&mut self, crl: &Crl) -> Result<(), CrlError> {
        let revoked = crl.serials().collect::<Result<Vec<_>, _>>()?;
        match self.lists.get_mut(crl.issuer) {
            Some(list) => {
                list.revoked = Serials::new(list.revoked.iter().chain(revoked).collect());
                list.next_update = list.next_update.min(crl.next_update);
            }
            None => {
                let list = List {
                    revoked: Serials::new(revoked),
                    next_update: crl.next_update,
                };
                self.lists.insert(crl.issuer.into(), list);
            }
        }
        Ok(())
    }

    /// Looks for revoked authorities in the bundle, once all lists are there; those that only they vouch for fall with
    /// them. Says of each whether chains may end with it: it stands, or it shall be refused as revoked.
    pub fn judge(&mut self, authorities: &[Authority]) -> Vec<bool> {
        let stands = self.standing(authorities);
        let has_standing = |name: &Name| {
            authorities
                .iter()
                .zip(&stands)
                .any(|(other, s)| *s && other.subject == *name)
        };
        let distrusted = authorities
            .iter()
            .map(|authority| &authority.subject)
            .filter(|name| !has_standing(name));
        self.distrusted = distrusted.cloned().collect();
        let standing = authorities
            .iter()
            .zip(&stands)
            .filter(|(_, stands)| **stands);
        self.anchors = standing
            .map(|(authority, _)| (authority.subject.clone(), authority.key_info.clone()))
            .collect();
        let ends = |(authority, stands): (&Authority, &bool)| {
            *stands || self.distrusted.contains(&authority.subject)
        };
        authorities.iter().zip(&stands).map(ends).collect()
    }

    fn standing(&self, authorities: &[Authority]) -> Vec<bool> {
        let mut stands: Vec<bool> = authorities
            .iter()
            .map(|authority| !self.lists_link(&authority.link))
            .collect();
        loop {
            let has_standing_issuer = |authority: &Authority| {
                let is_issuer = |other: &Authority| other.subject == authority.link.issuer;
                let mut issuers = authorities
                    .iter()
                    .zip(&stands)
                    .filter(|(other, _)| is_issuer(other))
                    .peekable();
                issuers.peek().is_none() || issuers.any(|(_, stands)| *stands)
            };
            let next: Vec<bool> = authorities
                .iter()
                .zip(&stands)
                .map(|(authority, s)| *s && has_standing_issuer(authority))
                .collect();
            if next == stands {
                return stands;
            }
            stands = next;
        }
    }

    /// What is to be asked about for a chain of certificates in DER, the leaf first; nothing where nobody asks.
    pub fn links<'a>(
        &self,
        chain: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Link>, IdentityError> {
        if !self.is_on {
            return Ok(Vec::new());
        }
        let is_anchor = |(name, key): &(Name, Key), subject: &[u8], info: &[u8]| {
            **name == *subject && **key == *info
        };
        identity::links(chain, |subject, info| {
            self.anchors
                .iter()
                .any(|anchor| is_anchor(anchor, subject, info))
        })
    }

    /// What is known of a chain.
    pub fn status(&self, chain: &[Link], now: Timestamp) -> Status {
        if self.is_revoked(chain) {
            return Status::Revoked;
        }
        let is_known = |link: &Link| {
            self.lists
                .get(&link.issuer)
                .is_some_and(|list| now < list.next_update)
        };
        let matters = self.is_on && self.is_strict;
        if matters && !chain.iter().all(is_known) {
            Status::Unknown
        } else {
            Status::Good
        }
    }

    /// Whether a certificate of the chain, or the authority above it, is revoked.
    pub fn is_revoked(&self, chain: &[Link]) -> bool {
        chain
            .iter()
            .any(|link| self.lists_link(link) || self.distrusted.contains(&link.issuer))
    }

    /// How many certificates the lists name.
    pub fn revoked_len(&self) -> usize {
        self.lists.values().map(|list| list.revoked.len()).sum()
    }

    fn lists_link(&self, link: &Link) -> bool {
        self.lists
            .get(&link.issuer)
            .is_some_and(|list| list.revoked.contains(significant(&link.serial)))
    }
}

#[cfg(test)]
mod tests;
