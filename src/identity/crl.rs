//! A certificate revocation list (RFC 5280, section 5): who says it, for whom, until when, and whom
//! it names.
//!
//! `tls` reads each list once, when it is loaded, and checks its signature. Nothing is copied but
//! its scope: a list may have a million entries. A list that would be misread is an error: one that
//! only adds to another, one that speaks for some reasons only, one with a critical extension that
//! is not understood, one without an end.

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
    /// When the next list is due: this one says nothing from then on.
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
    /// When it was made.
    pub this_update: Timestamp,
}

impl Edition {
    /// Whether another edition came before this one: by their numbers, and where those say nothing
    /// by their dates.
    pub(crate) fn is_after(&self, other: &Self) -> bool {
        let by_number = match (&self.number, &other.number) {
            (Some(own), Some(others)) => (own.len(), own).cmp(&(others.len(), others)),
            _ => std::cmp::Ordering::Equal,
        };
        by_number
            .then(self.this_update.cmp(&other.this_update))
            .is_gt()
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
        let this_update = take_if(&mut fields, is_time)?.ok_or(CrlError::Malformed)?;
        let next_update = take_if(&mut fields, is_time)?.ok_or(CrlError::NoNextUpdate)?;
        let entries = take_if(&mut fields, |field| field.is_universal(Tag::Sequence))?;
        let extensions = take_if(&mut fields, |field| field.is(Class::ContextSpecific))?;
        let Extensions { number, scope } = match extensions {
            Some(extensions) => Extensions::read(extensions.content)?,
            None => Extensions::default(),
        };
        if !fields.is_empty() || inner_algorithm != signed.algorithm {
            return Err(CrlError::Malformed);
        }
        Ok(Self {
            issuer: issuer.whole,
            edition: Edition {
                number,
                this_update: time(&this_update)?,
            },
            next_update: time(&next_update)?,
            scope,
            signed,
            entries: entries.map_or(&[], |entries| entries.content),
        })
    }

    /// The serial numbers of all entries, as [`significant`] has them.
    pub fn serials(&self) -> impl Iterator<Item = Result<&'a [u8], CrlError>> {
        elements(self.entries).map(|entry| {
            let mut fields = entry?.expect(Tag::Sequence)?;
            let serial = take(&mut fields)?.expect(Tag::Integer)?;
            take_if(&mut fields, is_time)?.ok_or(CrlError::Malformed)?;
            if !fields.is_empty() {
                // A critical one may name another issuer: an indirect list.
                let has_critical = extensions(only(fields, Tag::Sequence)?)
                    .any(|found| found.is_ok_and(|e| e.critical));
                if has_critical {
                    return Err(CrlError::Critical);
                }
            }
            Ok(significant(serial))
        })
    }
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

fn time(element: &Element) -> Result<Timestamp, CrlError> {
    let time = ASN1Time::from_der(element.whole);
    let (_, time) = time.map_err(|_| CrlError::Malformed)?;
    Ok(timestamp(time))
}

struct Extension<'a> {
    oid: &'a [u8],
    critical: bool,
    value: &'a [u8],
}

fn extensions(list: &[u8]) -> impl Iterator<Item = Result<Extension<'_>, CrlError>> {
    elements(list).map(|extension| {
        let mut fields = extension?.expect(Tag::Sequence)?;
        let oid = take(&mut fields)?.expect(Tag::Oid)?;
        let critical = take_if(&mut fields, |field| field.is_universal(Tag::Boolean))?;
        let value = take(&mut fields)?.expect(Tag::OctetString)?;
        Ok(Extension {
            oid,
            critical: critical.is_some_and(|critical| critical.content != [0]),
            value,
        })
    })
}

/// What the extensions of a list say.
#[derive(Default)]
struct Extensions {
    number: Option<Box<[u8]>>,
    scope: Scope,
}

impl Extensions {
    fn read(list: &[u8]) -> Result<Self, CrlError> {
        let mut read = Self::default();
        for extension in extensions(only(list, Tag::Sequence)?) {
            let Extension {
                oid,
                critical,
                value,
            } = extension?;
            match oid {
                [0x55, 0x1d, CRL_NUMBER] => {
                    read.number = Some(significant(only(value, Tag::Integer)?).into());
                }
                [0x55, 0x1d, DISTRIBUTION_POINT] => read.scope = Scope::read(value)?,
                [0x55, 0x1d, AUTHORITY_KEY] => {}
                [0x55, 0x1d, DELTA] => return Err(CrlError::Delta),
                _ if critical => return Err(CrlError::Critical),
                _ => {}
            }
        }
        Ok(read)
    }
}
