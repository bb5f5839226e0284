//! Who is revoked: all CRLs as one table, asked by issuer and serial number.
//!
//! Built when the files are loaded and never changed; the verifier asks it for each full handshake, `accept` for each
//! connection, also a resumed one, and `http` for each live connection when a new table comes. Asking is a hash and a
//! binary search in packed serial numbers; memory is their bytes, 16 MB for a million of 16 bytes.
//!
//! What is asked about is a chain, from the leaf up to the first certificate that an authority of the bundle issued.
//! An authority of the bundle that another one revoked vouches for nobody. Lists of one issuer add up, and the one that
//! is out of date first decides how long they hold.

mod serials;

use std::collections::{HashMap, HashSet};

use crate::identity::{self, Authority, Crl, CrlError, IdentityError, Link, significant};
use crate::record::Timestamp;
use serials::Serials;

/// A name in DER.
type Name = Box<[u8]>;

/// What the lists say, all together.
#[derive(Debug, Default)]
pub struct Revocation {
    is_on: bool,
    is_strict: bool,
    lists: HashMap<Name, List>,
    /// The authorities of the bundle.
    anchors: HashSet<Name>,
    /// Those of them that are revoked.
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
    pub fn new(authorities: &[Authority], is_strict: bool) -> Self {
        let anchors = authorities.iter().map(|authority| authority.subject.clone()).collect();
        Self { is_on: true, is_strict, anchors, ..Self::default() }
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
                let list = List { revoked: Serials::new(revoked), next_update: crl.next_update };
                self.lists.insert(crl.issuer.into(), list);
            }
        }
        Ok(())
    }

    /// Looks for revoked authorities; those that only they vouch for fall with them. Of two authorities of one name,
    /// both must be revoked for the name to be.
    pub fn distrust_revoked(&mut self, authorities: &[Authority]) {
        loop {
            let falls = |name: &Name| {
                let mut namesakes = authorities.iter().filter(|authority| authority.subject == *name);
                namesakes.all(|authority| self.lists_link(&authority.link) || self.is_below_distrusted(authority))
            };
            let fallen: HashSet<Name> = self.anchors.iter().filter(|name| falls(name)).cloned().collect();
            if fallen.len() == self.distrusted.len() {
                return;
            }
            self.distrusted = fallen;
        }
    }

    fn is_below_distrusted(&self, authority: &Authority) -> bool {
        authority.link.issuer != authority.subject && self.distrusted.contains(&authority.link.issuer)
    }

    /// What is to be asked about for a chain of certificates in DER, the leaf first; nothing where nobody asks.
    pub fn links<'a>(&self, chain: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Link>, IdentityError> {
        if self.is_on { identity::links(chain) } else { Ok(Vec::new()) }
    }

    /// What is known of a chain.
    pub fn status(&self, chain: &[Link], now: Timestamp) -> Status {
        if self.is_revoked(chain) {
            return Status::Revoked;
        }
        let is_known = |link: &Link| self.lists.get(&link.issuer).is_some_and(|list| now < list.next_update);
        let matters = self.is_on && self.is_strict;
        if matters && !self.below_anchor(chain).all(is_known) { Status::Unknown } else { Status::Good }
    }

    /// Whether a certificate of the chain, or the authority above it, is revoked.
    pub fn is_revoked(&self, chain: &[Link]) -> bool {
        self.below_anchor(chain).any(|link| self.lists_link(link) || self.distrusted.contains(&link.issuer))
    }

    /// How many certificates the lists name.
    pub fn revoked_len(&self) -> usize {
        self.lists.values().map(|list| list.revoked.len()).sum()
    }

    fn lists_link(&self, link: &Link) -> bool {
        self.lists.get(&link.issuer).is_some_and(|list| list.revoked.contains(significant(&link.serial)))
    }

    /// The links up to the one that an authority of the bundle issued: what a device sends beyond that, nobody needs.
    fn below_anchor<'a>(&self, chain: &'a [Link]) -> impl Iterator<Item = &'a Link> {
        let anchored = chain.iter().position(|link| self.anchors.contains(&link.issuer));
        chain[..anchored.map_or(chain.len(), |last| last + 1)].iter()
    }
}

#[cfg(test)]
mod tests;
