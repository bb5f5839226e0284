//! Revocation: the authorities of the bundle and all CRLs as one table, asked by issuer and serial
//! number.
//!
//! Built when the files are loaded and never changed; the verifier asks it for each full handshake,
//! `accept` for each connection, also a resumed one, and `http` for each live connection when a new
//! table comes. Asking is a hash and a binary search in packed serial numbers; memory is their
//! bytes, 16 MB for a million of 16 bytes.
//!
//! The table is asked about every certificate of a chain that might vouch for the leaf, but for
//! authorities of the bundle, and which of those the chain ends with. One that is taken out of the
//! bundle, or that another one revoked, vouches for nobody, from then on and on connections that
//! live. A certificate that any list of its issuer names is revoked. Whether it is known not to be
//! depends on the lists that speak for it: those of one scope add up, and the one that is out of
//! date first decides how long they hold.

mod serials;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::identity::{
    self, Authority, Bundle, Credential, Crl, CrlError, Edition, IdentityError, Link, Pinned,
    Scope, Verify, Vouched, significant,
};
use crate::record::Timestamp;
use serials::Serials;

/// The name of an authority in DER.
type Name = Box<[u8]>;

/// The key of an authority: SubjectPublicKeyInfo in DER.
type KeyInfo = Box<[u8]>;

/// Table of the bundle's authorities and of all lists.
#[derive(Debug, Default)]
pub struct Revocation {
    is_on: bool,
    is_strict: bool,
    issuers: HashMap<Name, Issuer>,
    /// The authorities that stand; `None`: nobody is asked.
    bundle: Option<Bundle>,
    /// The names of authorities that do not stand, and of which no namesake does.
    distrusted: HashSet<Name>,
}

/// The lists of one issuer.
#[derive(Debug, Default)]
struct Issuer {
    /// A set for each list, and one for all of them once they are all there.
    revoked: Vec<Serials>,
    lists: Vec<List>,
}

/// One list, but for its entries.
#[derive(Debug)]
struct List {
    signed_by: KeyInfo,
    scope: Scope,
    edition: Edition,
    next_update: Timestamp,
    file: Box<Path>,
}

/// Revocation status of a certificate, and of the authorities that vouch for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Good,
    Revoked,
    /// No list of its issuer speaks for a certificate, and that matters (`FOREBAY_TLS_CRL_STRICT`).
    Unlisted,
    /// Lists of its issuer speak for a certificate, but are out of date, and that matters likewise.
    Outdated,
}

/// Knowledge that the lists have of one certificate, beside whether they name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    Current,
    Outdated,
    None,
}

impl Issuer {
    /// Merges all lists at once, not one by one: an authority may have cut its list into a
    /// thousand.
    fn merge(&mut self) {
        if self.revoked.len() > 1 {
            let all = self.revoked.iter().flat_map(Serials::iter).collect();
            self.revoked = vec![Serials::new(all)];
        }
        debug_assert!(self.revoked.len() <= 1, "they are one set now");
    }

    /// Current where a list speaks for the certificate, and all of its scope are in date.
    fn knowledge(&self, link: &Link, now: Timestamp) -> Knowledge {
        let mut knowledge = Knowledge::None;
        for list in self.lists.iter().filter(|list| list.scope.covers(link)) {
            if self.is_current(&list.scope, now) {
                return Knowledge::Current;
            }
            knowledge = Knowledge::Outdated;
        }
        knowledge
    }

    fn is_current(&self, scope: &Scope, now: Timestamp) -> bool {
        let mut of_scope = self.lists.iter().filter(|list| list.scope == *scope);
        of_scope.all(|list| now < list.next_update)
    }

    /// The newest list of one key and scope.
    fn newest_like(&self, kind: &List) -> Option<&List> {
        let mut newest: Option<&List> = None;
        for list in &self.lists {
            if list.is_of_kind(kind) && newest.is_none_or(|newest| list.is_after(newest)) {
                newest = Some(list);
            }
        }
        newest
    }

    /// A list that takes the place of a newer one of `before`.
    fn stale_list(&self, before: &Self) -> Option<&List> {
        for list in &self.lists {
            let newest = self.newest_like(list).expect("it is like itself");
            let newest_before = before.newest_like(list);
            if newest_before.is_some_and(|before| before.is_after(newest)) {
                return Some(newest);
            }
        }
        None
    }
}

impl List {
    /// Whether both are of one key and scope.
    fn is_of_kind(&self, other: &Self) -> bool {
        self.signed_by == other.signed_by && self.scope == other.scope
    }

    fn is_after(&self, other: &Self) -> bool {
        self.edition.is_after(&other.edition)
    }
}

impl Revocation {
    /// Nothing is configured: nobody is asked about.
    pub fn off() -> Self {
        Self::default()
    }

    /// A table without lists, and without a bundle until [`judge`](Self::judge) brings it.
    pub fn new(is_strict: bool) -> Self {
        Self {
            is_on: true,
            is_strict,
            ..Self::default()
        }
    }

    /// Adds a list whose signature has been checked with a key, and which came from a file.
    pub fn add(&mut self, crl: &Crl, signed_by: &[u8], file: &Path) -> Result<(), CrlError> {
        let revoked = crl.serials().collect::<Result<Vec<_>, _>>()?;
        let issuer = self.issuers.entry(crl.issuer.into()).or_default();
        issuer.revoked.push(Serials::new(revoked));
        issuer.lists.push(List {
            signed_by: signed_by.into(),
            scope: crl.scope.clone(),
            edition: crl.edition.clone(),
            next_update: crl.next_update,
            file: file.into(),
        });
        Ok(())
    }

    /// The file of a list that takes the place of a newer one of `before`: of one issuer, key and
    /// scope.
    pub fn stale_file(&self, before: &Self) -> Option<&Path> {
        for (name, issuer) in &self.issuers {
            let issuer_before = before.issuers.get(name);
            let stale = issuer_before.and_then(|before| issuer.stale_list(before));
            if let Some(list) = stale {
                return Some(&list.file);
            }
        }
        None
    }

    /// Takes the bundle, once all lists are there. Revoked authorities do not stand, nor do others
    /// that only they vouch for. Says of each whether chains may end with it: it stands, or it
    /// shall be refused as revoked.
    pub(crate) fn judge(&mut self, authorities: Vec<Authority>, verify: Verify) -> Vec<bool> {
        debug_assert!(self.bundle.is_none(), "a table is judged once");
        self.issuers.values_mut().for_each(Issuer::merge);
        let stands = self.standing(&authorities);
        self.distrusted = distrusted(&authorities, &stands);
        let mut may_end = Vec::new();
        let mut standing = Vec::new();
        for (authority, stands) in authorities.into_iter().zip(stands) {
            may_end.push(stands || self.distrusted.contains(&authority.subject));
            standing.extend(stands.then_some(authority));
        }
        self.bundle = Some(Bundle::new(standing, verify));
        may_end
    }

    /// Tells of each authority whether it stands. Each round takes away others whose issuers have
    /// fallen, so there are no more rounds than authorities.
    fn standing(&self, authorities: &[Authority]) -> Vec<bool> {
        let is_listed = |authority: &Authority| self.lists_link(&authority.link);
        let mut stands: Vec<bool> = authorities.iter().map(|one| !is_listed(one)).collect();
        loop {
            let mut next = stands.clone();
            for (authority, stands_next) in authorities.iter().zip(&mut next) {
                *stands_next &= has_standing_issuer(authority, authorities, &stands);
            }
            if next == stands {
                return stands;
            }
            stands = next;
        }
    }

    /// Gathers the links to ask about of a verified chain in DER, the leaf first; there are none
    /// where revocation is off.
    pub(crate) fn links<'a>(
        &self,
        chain: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Vec<Link>, IdentityError> {
        match &self.bundle {
            Some(bundle) => identity::links(chain, bundle),
            None => Ok(Vec::new()),
        }
    }

    /// Looks up the status of a chain.
    pub fn status(&self, chain: &[Link], now: Timestamp) -> Status {
        if self.is_revoked(chain) {
            return Status::Revoked;
        }
        if !(self.is_on && self.is_strict) {
            return Status::Good;
        }
        for link in chain {
            match self.knowledge(link, now) {
                Knowledge::Current => {}
                Knowledge::Outdated => return Status::Outdated,
                Knowledge::None => return Status::Unlisted,
            }
        }
        Status::Good
    }

    fn knowledge(&self, link: &Link, now: Timestamp) -> Knowledge {
        match self.issuers.get(&link.issuer) {
            Some(issuer) => issuer.knowledge(link, now),
            None => Knowledge::None,
        }
    }

    /// When the first of all lists is due; `None` without one.
    pub fn next_update(&self) -> Option<Timestamp> {
        let lists = self.issuers.values().flat_map(|issuer| &issuer.lists);
        lists.map(|list| list.next_update).min()
    }

    /// Whether a certificate of the chain is revoked, or no authority of the bundle vouches for it
    /// any more.
    pub fn is_revoked(&self, chain: &[Link]) -> bool {
        let is_taken_back =
            |link: &Link| self.lists_link(link) || self.distrusted.contains(&link.issuer);
        chain.iter().any(is_taken_back) || !self.is_anchored(chain)
    }

    /// Whether the certificate of a connection is revoked, or nobody vouches for it any more.
    pub(crate) fn takes_back(&self, credential: &Credential) -> bool {
        match &credential.vouched {
            Vouched::Chain(links) => self.is_revoked(links),
            Vouched::Pin(pinned) => self.is_pinned_revoked(pinned),
        }
    }

    /// Whether the authority that has signed a pinned certificate names it in a list. That of a
    /// namesake, which has not, says nothing about it.
    pub(crate) fn is_pinned_revoked(&self, pinned: &Pinned) -> bool {
        self.lists_link(&pinned.link) && self.comes_from_lists(pinned)
    }

    /// Whether a key that has signed a list of the certificate's issuer has signed it too.
    fn comes_from_lists(&self, pinned: &Pinned) -> bool {
        let (Some(bundle), Some(issuer)) = (&self.bundle, self.issuers.get(&pinned.link.issuer))
        else {
            return false;
        };
        let Ok(signed) = pinned.signed() else {
            return false;
        };
        let mut keys = issuer.lists.iter().map(|list| &list.signed_by);
        keys.any(|key| bundle.has_signed(key, &signed))
    }

    fn is_anchored(&self, chain: &[Link]) -> bool {
        let Some(bundle) = &self.bundle else {
            return true;
        };
        let mut anchors = chain.iter().flat_map(|link| &link.anchors);
        anchors.any(|id| bundle.contains(id))
    }

    /// Number of certificates that the lists name.
    pub fn revoked_len(&self) -> usize {
        let sets = self.issuers.values().flat_map(|issuer| &issuer.revoked);
        sets.map(Serials::len).sum()
    }

    /// Number of lists that speak only for certificates that name the same distribution point.
    pub fn partitions(&self) -> usize {
        let lists = self.issuers.values().flat_map(|issuer| &issuer.lists);
        lists.filter(|list| list.scope.is_partition()).count()
    }

    fn lists_link(&self, link: &Link) -> bool {
        let issuer = self.issuers.get(&link.issuer);
        let serial = significant(&link.serial);
        issuer.is_some_and(|issuer| issuer.revoked.iter().any(|set| set.contains(serial)))
    }
}

/// Whether an issuer of the authority stands; it need not be in the bundle.
fn has_standing_issuer(authority: &Authority, bundle: &[Authority], stands: &[bool]) -> bool {
    debug_assert_eq!(bundle.len(), stands.len(), "each authority is judged");
    let mut is_in_bundle = false;
    for (other, stands) in bundle.iter().zip(stands) {
        if other.subject == authority.link.issuer {
            if *stands {
                return true;
            }
            is_in_bundle = true;
        }
    }
    !is_in_bundle
}

/// The names of authorities that do not stand, and of which no namesake does.
fn distrusted(authorities: &[Authority], stands: &[bool]) -> HashSet<Name> {
    let names = authorities
        .iter()
        .map(|authority| authority.subject.clone());
    let mut distrusted: HashSet<Name> = names.collect();
    for (authority, stands) in authorities.iter().zip(stands) {
        if *stands {
            distrusted.remove(&authority.subject);
        }
    }
    distrusted
}

#[cfg(test)]
mod tests;
