//! The leaf certificate of a device → who it is, and how long that holds.
//!
//! `tls` has verified the chain before anything here is called, once per connection; requests
//! borrow the [`Device`]. The id stands in the first source, in the configured order, of which the
//! certificate has any entry, even an empty one; there must be exactly one entry, and it must be a
//! [`DeviceId`]. Nothing is trimmed, folded or decoded, so a wildcard, a NUL and a character
//! outside ASCII are refused like any other character that an id cannot have.
//!
//! Bounds: a certificate as large as the TLS handshake allows, read in one pass, nothing copied but
//! the results. Failure: [`IdentityError`], which never carries certificate content. Garbage is an
//! error, never a panic.
//!
//! x509-parser finds the parts. The names inside them are walked here: its own name parsers stop
//! quietly at what they cannot read, and take UTF-8 where IA5 belongs; whoever looks for a second
//! candidate must not overlook one.

mod chain;
mod credential;
mod crl;
mod der;
mod scope;
mod server;
mod shown;
mod signed;

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use x509_parser::asn1_rs::{Class, Tag};
use x509_parser::certificate::TbsCertificate;
use x509_parser::oid_registry::{OID_X509_COMMON_NAME, OID_X509_EXT_SUBJECT_ALT_NAME};
use x509_parser::time::ASN1Time;

use crate::config::IdSource;
use crate::devices::Fingerprint;
use crate::record::{DeviceId, Timestamp};
pub(crate) use chain::Verify;
pub use chain::{Authority, AuthorityId, Bundle, Link, authority, links, serial};
pub use credential::{Credential, Pinned, Vouched};
pub(crate) use crl::Edition;
pub use crl::{Crl, CrlError, significant};
use der::{Element, elements, only, take};
pub use scope::Scope;
pub(crate) use server::{ServerCertificate, expiry, server};
pub(crate) use shown::{ShownCertificate, shown};
pub use signed::{PublicKey, Signed};

/// The choices of GeneralName (RFC 5280, 4.2.1.6) that are read, by their numbers.
const DNS_NAME: Tag = Tag(2);
const URI: Tag = Tag(6);
const IP_ADDRESS: Tag = Tag(7);

/// Finder of the device id: the fields of a certificate to look at, in order.
#[derive(Clone, Debug)]
pub struct Identity {
    sources: Vec<IdSource>,
    expiry_notice: Duration,
}

/// An authenticated device, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: DeviceId,
    /// The first second in which the certificate is valid: its start.
    pub not_before: Timestamp,
    /// The last second in which the certificate is valid: its start.
    pub not_after: Timestamp,
    /// Instant from which the device is told that its certificate expires.
    pub notice_from: Timestamp,
    /// The end of the certificate, as an HTTP-date (RFC 9110 section 5.6.7).
    pub expires: HeaderValue,
}

impl Device {
    /// Whether the certificate's validity covers `now`, to the second, both ends included (RFC
    /// 5280, 4.1.2.5).
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        let second = Timestamp(now.0 - now.0 % 1000);
        self.not_before <= second && second <= self.not_after
    }

    /// The field that tells the device of its certificate's end, once that is near.
    pub fn expiry_notice(&self, now: Timestamp) -> Option<&HeaderValue> {
        (now >= self.notice_from).then_some(&self.expires)
    }

    /// The end of the certificate, once that is near.
    pub(crate) fn near_end(&self, now: Timestamp) -> Option<Timestamp> {
        (now >= self.notice_from).then_some(self.not_after)
    }
}

/// Why a certificate names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate is malformed")]
    Malformed,
    #[error("the certificate has no device id")]
    Missing,
    #[error("the certificate has more than one candidate for the device id")]
    Ambiguous,
    #[error("the certificate's device id is not 1 to 128 characters of A-Za-z0-9._:/@-")]
    NotAnId,
}

impl Identity {
    /// Looks in `sources`, in that order.
    pub fn new(sources: Vec<IdSource>) -> Self {
        Self {
            sources,
            expiry_notice: Duration::ZERO,
        }
    }

    /// Has devices told this long before that their certificate expires.
    pub fn with_expiry_notice(self, expiry_notice: Duration) -> Self {
        Self {
            expiry_notice,
            ..self
        }
    }

    /// The device that the leaf certificate, in DER, was issued to.
    pub fn device(&self, leaf_der: &[u8]) -> Result<Device, IdentityError> {
        let certificate = chain::parse(leaf_der)?;
        let id = self.id(&certificate, leaf_der)?;
        Ok(self.device_of(&certificate, id))
    }

    /// The device that goes by `id` and holds the leaf certificate, in DER, whatever that calls it.
    pub(crate) fn device_named(
        &self,
        id: DeviceId,
        leaf_der: &[u8],
    ) -> Result<Device, IdentityError> {
        let certificate = chain::parse(leaf_der)?;
        Ok(self.device_of(&certificate, id))
    }

    fn device_of(&self, certificate: &TbsCertificate<'_>, id: DeviceId) -> Device {
        let validity = certificate.validity();
        let not_after = timestamp(validity.not_after);
        Device {
            id,
            not_before: timestamp(validity.not_before),
            not_after,
            notice_from: self.notice_from(not_after),
            expires: not_after.http_date(),
        }
    }

    fn notice_from(&self, not_after: Timestamp) -> Timestamp {
        let notice_millis = u64::try_from(self.expiry_notice.as_millis()).unwrap_or(u64::MAX);
        Timestamp(not_after.0.saturating_sub(notice_millis))
    }

    fn id(
        &self,
        certificate: &TbsCertificate<'_>,
        leaf_der: &[u8],
    ) -> Result<DeviceId, IdentityError> {
        for source in &self.sources {
            let candidates = match source {
                IdSource::SanUri => alternative_names(certificate, URI)?,
                IdSource::SanDns => alternative_names(certificate, DNS_NAME)?,
                IdSource::Cn => common_names(certificate)?,
                IdSource::Fingerprint => return Ok(fingerprint_id(leaf_der)),
            };
            if let Some(id) = only_candidate(&candidates)? {
                return Ok(id);
            }
        }
        Err(IdentityError::Missing)
    }
}

/// The id that a source names; `None` for a source without an entry.
fn only_candidate(candidates: &[&[u8]]) -> Result<Option<DeviceId>, IdentityError> {
    match candidates {
        [] => Ok(None),
        [candidate] => {
            let id = std::str::from_utf8(candidate)
                .ok()
                .and_then(DeviceId::parse);
            id.map(Some).ok_or(IdentityError::NotAnId)
        }
        _ => Err(IdentityError::Ambiguous),
    }
}

/// The fingerprint of a certificate in DER.
pub(crate) fn fingerprint(der: &[u8]) -> Fingerprint {
    let digest = digest(&SHA256, der);
    let bytes = digest.as_ref().try_into();
    Fingerprint(bytes.expect("SHA-256 has 32 bytes"))
}

/// The fingerprint of a certificate, in lower-case hex.
fn fingerprint_id(der: &[u8]) -> DeviceId {
    let hex = fingerprint(der).to_string();
    DeviceId::parse(&hex).expect("64 digits and letters are an id")
}

/// The instant of a certificate's date. Dates before 1970 are taken for 1970.
fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp(u64::try_from(time.timestamp()).unwrap_or(0) * 1000)
}

/// Reads all entries of one kind in the subject alternative name; `kind` is the number of the
/// choice in GeneralName (RFC 5280, 4.2.1.6).
fn alternative_names<'a>(
    certificate: &TbsCertificate<'a>,
    kind: Tag,
) -> Result<Vec<&'a [u8]>, IdentityError> {
    let extension = certificate.get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME);
    let Some(extension) = extension.map_err(|_| IdentityError::Malformed)? else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for name in elements(only(extension.value, Tag::Sequence)?) {
        let name = name?;
        if !name.is(Class::ContextSpecific) {
            return Err(IdentityError::Malformed);
        }
        if name.header.tag() == kind {
            names.push(name.content);
        }
    }
    Ok(names)
}

/// Reads all common names of the subject, whatever the depth of its relative names (RFC 5280,
/// 4.1.2.4).
fn common_names<'a>(certificate: &'a TbsCertificate<'_>) -> Result<Vec<&'a [u8]>, IdentityError> {
    let mut names = Vec::new();
    for relative_name in elements(only(certificate.subject().as_raw(), Tag::Sequence)?) {
        for attribute in elements(relative_name?.expect(Tag::Set)?) {
            names.extend(common_name(&attribute?)?);
        }
    }
    Ok(names)
}

/// The value of an attribute that is a common name.
fn common_name<'a>(attribute: &Element<'a>) -> Result<Option<&'a [u8]>, IdentityError> {
    let mut parts = attribute.expect(Tag::Sequence)?;
    let kind = take(&mut parts)?.expect(Tag::Oid)?;
    let value = take(&mut parts)?;
    let is_common_name = kind == OID_X509_COMMON_NAME.as_bytes();
    Ok(is_common_name.then(|| text(&value)))
}

/// The value of a common name; empty, which is no id, where it has a type whose bytes are not ASCII
/// text.
fn text<'a>(value: &Element<'a>) -> &'a [u8] {
    const TEXTS: [Tag; 3] = [Tag::Utf8String, Tag::PrintableString, Tag::Ia5String];
    match TEXTS.iter().any(|text| value.is_universal(*text)) {
        true => value.content,
        false => &[],
    }
}

#[cfg(test)]
mod tests;
