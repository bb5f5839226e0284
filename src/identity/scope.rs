//! For which certificates a CRL speaks: its issuingDistributionPoint (RFC 5280, 5.2.5), and what a
//! certificate says of where its CRL is found, its cRLDistributionPoints (4.2.1.13).
//!
//! An authority may cut its list into partitions. Each names a place, and each certificate names
//! the place of its own partition: the two are compared as 6.3.3 says, byte by byte. Nothing is
//! ever fetched from there.

use x509_parser::asn1_rs::{Class, Tag};

use super::der::{Element, elements, only, take};
use super::{CrlError, IdentityError, Link};

/// A name of a distribution point in DER, with its tag.
pub(crate) type Point = Box<[u8]>;

/// The certificates of its issuer for which a list speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The places for which it speaks; empty for whatever place a certificate names.
    points: Vec<Point>,
    holders: Holders,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Holders {
    #[default]
    All,
    /// onlyContainsUserCerts
    Devices,
    /// onlyContainsCACerts
    Authorities,
}

impl Scope {
    /// Reads an issuingDistributionPoint. One that names reasons, attribute certificates or other
    /// issuers is an error: a list like that would not say of any certificate whether it is
    /// revoked.
    pub fn read(value: &[u8]) -> Result<Self, CrlError> {
        let mut scope = Self::default();
        for field in elements(only(value, Tag::Sequence)?) {
            scope.add(&field?)?;
        }
        Ok(scope)
    }

    fn add(&mut self, field: &Element) -> Result<(), CrlError> {
        if !field.is(Class::ContextSpecific) {
            return Err(CrlError::Malformed);
        }
        match field.header.tag() {
            Tag(0) => self.points = names(field)?,
            Tag(1) if is_true(field) => self.limit(Holders::Devices)?,
            Tag(2) if is_true(field) => self.limit(Holders::Authorities)?,
            Tag(1 | 2) => {}
            Tag(4 | 5) if !is_true(field) => {}
            Tag(3..=5) => return Err(CrlError::Partial),
            _ => return Err(CrlError::Malformed),
        }
        Ok(())
    }

    fn limit(&mut self, holders: Holders) -> Result<(), CrlError> {
        if self.holders != Holders::All {
            return Err(CrlError::Malformed);
        }
        self.holders = holders;
        Ok(())
    }

    /// Whether the list names the place where it is found, and so speaks only for certificates that
    /// name it, too.
    pub fn is_partition(&self) -> bool {
        !self.points.is_empty()
    }

    /// Whether the list speaks for a certificate of its issuer.
    pub fn covers(&self, link: &Link) -> bool {
        let is_holder = match self.holders {
            Holders::All => true,
            Holders::Devices => !link.is_authority,
            Holders::Authorities => link.is_authority,
        };
        let is_place = || link.points.iter().any(|point| self.points.contains(point));
        is_holder && (!self.is_partition() || is_place())
    }
}

/// The places that a certificate names for its CRL. One that is for another issuer's list, or for
/// some reasons only, cannot be that of a list that is read here, and is left out.
pub(crate) fn points(value: &[u8]) -> Result<Vec<Point>, IdentityError> {
    let mut points = Vec::new();
    for point in elements(only(value, Tag::Sequence)?) {
        let fields = elements(point?.expect(Tag::Sequence)?).collect::<Result<Vec<_>, _>>()?;
        if let [name] = &fields[..]
            && name.is_choice(Tag(0))
        {
            points.extend(names(name)?);
        }
    }
    Ok(points)
}

/// The names in a DistributionPointName: its full names, or the one that is relative to the
/// issuer's.
fn names(field: &Element) -> Result<Vec<Point>, IdentityError> {
    let mut content = field.content;
    let name = take(&mut content)?;
    if !content.is_empty() || !name.is(Class::ContextSpecific) {
        return Err(IdentityError::Malformed);
    }
    match name.header.tag() {
        Tag(0) => full_names(name.content),
        Tag(1) => Ok(vec![name.whole.into()]),
        _ => Err(IdentityError::Malformed),
    }
}

/// Reads all full names, at least one: a list that names no place would pass for one without
/// bounds.
fn full_names(content: &[u8]) -> Result<Vec<Point>, IdentityError> {
    let mut names: Vec<Point> = Vec::new();
    for name in elements(content) {
        names.push(name?.whole.into());
    }
    if names.is_empty() {
        return Err(IdentityError::Malformed);
    }
    Ok(names)
}

fn is_true(boolean: &Element) -> bool {
    boolean.content != [0]
}
