//! A certificate revocation list (RFC 5280, section 5): who says it, for whom, until when, and whom
//! it names.
//!
//! `tls` reads each list once, when it is loaded, and checks its signature. Nothing is copied but
//! its scope: a list may have a million entries. A list that would be misread is an error: one that
//! only adds to another, one that speaks for some reasons only, one with a critical extension that
//! is not understood, one without an end.

use std::cmp::Ordering;

use x509_parser::asn1_rs::{Class, FromDer, Tag};
use x509_parser::time::ASN1Time;

use super::der::{Element, elements, only, take, take_if};
use super::scope::Scope;
use super::{IdentityError, Signed, timestamp};
use crate::record::Timestamp;

/// The last arcs of the extensions in 2.5.29 (id-ce) that are understood.
const CRL_NUMBER: u8 = 20;
const DELTA: u8 = 27;
const DISTRIBUTION_POINT: u8 = 28;
const AUTHORITY_KEY: u8 = 35;

/// A list, as its bytes say it; its signature has not been looked at.
#[derive(Debug)]
pub struct Crl<'a> {
    /// The issuer's name in DER.
    pub issuer: &'a [u8],
    pub(crate) edition: Edition,
    /// Instant at which the next list is due: this one says nothing from then on.
    pub next_update: Timestamp,
    pub scope: Scope,
    pub(crate) signed: Signed<'a>,
    entries: &'a [u8],
}

/// Which of the lists of one issuer and one scope it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edition {
    /// The CRL number, without leading zeros; `None` for a list of version 1.
    pub number: Option<Box<[u8]>>,
    /// Instant at which the list was made.
    pub this_update: Timestamp,
}

impl Edition {
    /// Whether another edition came before this one: by their numbers, and where those say nothing
    /// by their dates.
    pub(crate) fn is_after(&self, other: &Self) -> bool {
        let by_number = match (&self.number, &other.number) {
            (Some(own), Some(others)) => (own.len(), own).cmp(&(others.len(), others)),
            _ => Ordering::Equal,
        };
        let by_date = self.this_update.cmp(&other.this_update);
        by_number.then(by_date).is_gt()
    }
}

/// Why a list cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    #[error("it is not a CRL, or is damaged")]
    Malformed,
    #[error("it has no nextUpdate: nobody could tell when it is out of date")]
    NoNextUpdate,
    #[error("it is a delta CRL: give the complete one")]
    Delta,
    #[error(
        "it speaks for some reasons, attribute certificates or other issuers only (issuingDistributionPoint): give the complete one"
    )]
    Partial,
    #[error("it has a critical extension that is not understood")]
    Critical,
}

impl From<IdentityError> for CrlError {
    fn from(_: IdentityError) -> Self {
        Self::Malformed
    }
}

impl<'a> Crl<'a> {
    /// Reads all but the entries.
    pub fn parse(der: &'a [u8]) -> Result<Self, CrlError> {
        let signed = Signed::read(der)?;
        let mut fields = only(signed.content, Tag::Sequence)?;
        take_if(&mut fields, |field| field.is_universal(Tag::Integer))?; // the version
        let inner_algorithm = take(&mut fields)?.expect(Tag::Sequence)?;
        let issuer = take(&mut fields)?;
        issuer.expect(Tag::Sequence)?;
        let this_update = take_time(&mut fields)?.ok_or(CrlError::Malformed)?;
        let next_update = take_time(&mut fields)?.ok_or(CrlError::NoNextUpdate)?;
        let entries = take_if(&mut fields, |field| field.is_universal(Tag::Sequence))?;
        let Extensions { number, scope } = Extensions::take(&mut fields)?;
        if !fields.is_empty() || inner_algorithm != signed.algorithm {
            return Err(CrlError::Malformed);
        }
        Ok(Self {
            issuer: issuer.whole,
            edition: Edition {
                number,
                this_update,
            },
            next_update,
            scope,
            signed,
            entries: entries.map_or(&[], |entries| entries.content),
        })
    }

    /// The serial numbers of all entries, as [`significant`] has them.
    pub fn serials(&self) -> impl Iterator<Item = Result<&'a [u8], CrlError>> {
        elements(self.entries).map(|entry| serial_of(&entry?))
    }
}

/// The serial number of an entry.
fn serial_of<'a>(entry: &Element<'a>) -> Result<&'a [u8], CrlError> {
    let mut fields = entry.expect(Tag::Sequence)?;
    let serial = take(&mut fields)?.expect(Tag::Integer)?;
    take_if(&mut fields, is_time)?.ok_or(CrlError::Malformed)?;
    // A critical extension may name another issuer: an indirect list.
    if !fields.is_empty() && has_critical(only(fields, Tag::Sequence)?) {
        return Err(CrlError::Critical);
    }
    Ok(significant(serial))
}

fn has_critical(list: &[u8]) -> bool {
    let mut extensions = elements(list).map(|extension| Extension::read(&extension?));
    extensions.any(|read| read.is_ok_and(|extension| extension.is_critical))
}

/// A serial number without the zeros that stand before it: authorities differ in how many they
/// write.
pub fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

fn is_time(element: &Element) -> bool {
    element.is_universal(Tag::UtcTime) || element.is_universal(Tag::GeneralizedTime)
}

/// Takes a time off `fields`, if one comes next.
fn take_time(fields: &mut &[u8]) -> Result<Option<Timestamp>, CrlError> {
    let Some(element) = take_if(fields, is_time)? else {
        return Ok(None);
    };
    let time = ASN1Time::from_der(element.whole);
    let (_, time) = time.map_err(|_| CrlError::Malformed)?;
    Ok(Some(timestamp(time)))
}

/// One extension of a list or of an entry.
struct Extension<'a> {
    oid: &'a [u8],
    is_critical: bool,
    value: &'a [u8],
}

impl<'a> Extension<'a> {
    fn read(extension: &Element<'a>) -> Result<Self, CrlError> {
        let mut fields = extension.expect(Tag::Sequence)?;
        let oid = take(&mut fields)?.expect(Tag::Oid)?;
        let critical = take_if(&mut fields, |field| field.is_universal(Tag::Boolean))?;
        let value = take(&mut fields)?.expect(Tag::OctetString)?;
        Ok(Self {
            oid,
            is_critical: critical.is_some_and(|critical| critical.content != [0]),
            value,
        })
    }
}

/// The extensions of a list.
#[derive(Default)]
struct Extensions {
    number: Option<Box<[u8]>>,
    scope: Scope,
}

impl Extensions {
    /// Takes the extensions off `fields`, if they come next.
    fn take(fields: &mut &[u8]) -> Result<Self, CrlError> {
        let mut all = Self::default();
        let list = take_if(fields, |field| field.is(Class::ContextSpecific))?;
        if let Some(list) = list {
            for extension in elements(only(list.content, Tag::Sequence)?) {
                all.add(&Extension::read(&extension?)?)?;
            }
        }
        Ok(all)
    }

    fn add(&mut self, extension: &Extension) -> Result<(), CrlError> {
        match extension.oid {
            [0x55, 0x1d, CRL_NUMBER] => {
                let number = only(extension.value, Tag::Integer)?;
                self.number = Some(significant(number).into());
            }
            [0x55, 0x1d, DISTRIBUTION_POINT] => self.scope = Scope::read(extension.value)?,
            [0x55, 0x1d, AUTHORITY_KEY] => {}
            [0x55, 0x1d, DELTA] => return Err(CrlError::Delta),
            _ if extension.is_critical => return Err(CrlError::Critical),
            _ => {}
        }
        Ok(())
    }
}
