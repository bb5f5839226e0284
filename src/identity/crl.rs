//! A certificate revocation list (RFC 5280, section 5): who says it, until when, and whom it names.
//!
//! `tls` reads each list once, when it is loaded, and checks its signature against [`Crl::signed`]. Nothing is copied:
//! a list may have a million entries. A list that would be misread is an error: one that only adds to another, one that
//! speaks for some certificates only, one with a critical extension that is not understood, one without an end.

use x509_parser::asn1_rs::{Class, FromDer, Tag};
use x509_parser::time::ASN1Time;

use super::der::{Element, elements, only, take, take_if};
use super::{IdentityError, timestamp};
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
    /// When the next list is due: this one says nothing from then on.
    pub next_update: Timestamp,
    /// What the signature is over.
    pub signed: &'a [u8],
    /// The content of the AlgorithmIdentifier.
    pub signature_algorithm: &'a [u8],
    pub signature: &'a [u8],
    entries: &'a [u8],
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
        "it speaks for some certificates or reasons only (issuingDistributionPoint): give the complete one"
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
        let mut list = only(der, Tag::Sequence)?;
        let signed = take(&mut list)?;
        let signature_algorithm = take(&mut list)?.expect(Tag::Sequence)?;
        let signature = bits(&take(&mut list)?)?;
        let mut fields = signed.expect(Tag::Sequence)?;
        take_if(&mut fields, |field| field.is_universal(Tag::Integer))?; // the version
        let inner_algorithm = take(&mut fields)?.expect(Tag::Sequence)?;
        let issuer = take(&mut fields)?;
        issuer.expect(Tag::Sequence)?;
        take_if(&mut fields, is_time)?.ok_or(CrlError::Malformed)?; // thisUpdate
        let next_update = take_if(&mut fields, is_time)?.ok_or(CrlError::NoNextUpdate)?;
        let (_, next_update) =
            ASN1Time::from_der(next_update.whole).map_err(|_| CrlError::Malformed)?;
        let entries = take_if(&mut fields, |field| field.is_universal(Tag::Sequence))?;
        if let Some(extensions) = take_if(&mut fields, |field| field.is(Class::ContextSpecific))? {
            must_be_complete(extensions.content)?;
        }
        if !(list.is_empty() && fields.is_empty()) || inner_algorithm != signature_algorithm {
            return Err(CrlError::Malformed);
        }
        Ok(Self {
            issuer: issuer.whole,
            next_update: timestamp(next_update),
            signed: signed.whole,
            signature_algorithm,
            signature,
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

/// A serial number without the zeros that stand before it: authorities differ in how many they write.
pub fn significant(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    &serial[zeros..]
}

fn is_time(element: &Element) -> bool {
    element.is_universal(Tag::UtcTime) || element.is_universal(Tag::GeneralizedTime)
}

/// The content of a bit string of whole bytes.
pub fn bits<'a>(element: &Element<'a>) -> Result<&'a [u8], CrlError> {
    match element.expect(Tag::BitString)? {
        [0, bytes @ ..] => Ok(bytes),
        _ => Err(CrlError::Malformed),
    }
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

fn must_be_complete(list: &[u8]) -> Result<(), CrlError> {
    for extension in extensions(only(list, Tag::Sequence)?) {
        let Extension {
            oid,
            critical,
            value,
        } = extension?;
        match oid {
            [0x55, 0x1d, CRL_NUMBER | AUTHORITY_KEY] => {}
            [0x55, 0x1d, DELTA] => return Err(CrlError::Delta),
            [0x55, 0x1d, DISTRIBUTION_POINT] if !names_only_a_place(value)? => {
                return Err(CrlError::Partial);
            }
            [0x55, 0x1d, DISTRIBUTION_POINT] => {}
            _ if critical => return Err(CrlError::Critical),
            _ => {}
        }
    }
    Ok(())
}

/// Whether an issuingDistributionPoint says where the list is found, which is its field 0, and limits nothing.
fn names_only_a_place(value: &[u8]) -> Result<bool, CrlError> {
    for field in elements(only(value, Tag::Sequence)?) {
        if field?.header.tag() != Tag(0) {
            return Ok(false);
        }
    }
    Ok(true)
}
