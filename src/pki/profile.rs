//! The profile of each kind of certificate: names, usages, validity.
//!
//! The profiles follow RFC 5280, and `certs/README.md` describes them to those who bring their own.

use std::fmt::{self, Display};
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType, SerialNumber,
};
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::time::ASN1Time;

use super::PkiError;
use crate::record::DeviceId;

/// Certificates and CRLs are valid from this long before they were made: devices' clocks go wrong.
pub(crate) const BACKDATED: Duration = Duration::from_secs(3600);

/// The longest common name (RFC 5280, appendix A.1).
const COMMON_NAME_CHARS_MAX: usize = 64;

/// A validity in days: 1 to 36500, a hundred years.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(u32);

impl Days {
    pub const MAX: u32 = 36_500;
    pub const AUTHORITY: Self = Self(3650);
    pub const CERTIFICATE: Self = Self(365);
    pub const CRL: Self = Self(30);

    /// `None` for 0, and for more than [`Days::MAX`].
    pub fn new(days: u32) -> Option<Self> {
        (1..=Self::MAX).contains(&days).then_some(Self(days))
    }

    pub fn get(self) -> u32 {
        self.0
    }

    pub(super) fn duration(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 86_400)
    }
}

/// Name by which clients may call a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ServerName {
    /// DNS name; its first label may be `*`.
    Dns(String),
    Ip(IpAddr),
}

impl ServerName {
    fn alternative_name(&self) -> Result<SanType, rcgen::Error> {
        match self {
            Self::Dns(name) => Ok(SanType::DnsName(name.as_str().try_into()?)),
            Self::Ip(address) => Ok(SanType::IpAddress(*address)),
        }
    }
}

/// The names that a certificate has, of the kinds that a server may have here.
pub(super) fn server_names(certificate: &X509Certificate<'_>) -> Vec<ServerName> {
    let mut names = Vec::new();
    for extension in certificate.iter_extensions() {
        if let ParsedExtension::SubjectAlternativeName(list) = extension.parsed_extension() {
            names.extend(list.general_names.iter().filter_map(server_name));
        }
    }
    names
}

fn server_name(name: &GeneralName<'_>) -> Option<ServerName> {
    match name {
        GeneralName::DNSName(name) => name.parse().ok(),
        GeneralName::IPAddress(bytes) => ip_address(bytes).map(ServerName::Ip),
        _ => None,
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(v4));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

impl Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl FromStr for ServerName {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        match is_dns_name(text.strip_prefix("*.").unwrap_or(text)) {
            true => Ok(Self::Dns(text.to_ascii_lowercase())),
            false => Err(PkiError::NotAName(text.to_owned())),
        }
    }
}

/// A root that signs certificates and CRLs, but no further authorities.
pub(crate) fn authority(name: Option<&str>, days: Days) -> CertificateParams {
    let random = || format!("Forebay CA {}", &Uuid::new_v4().simple().to_string()[..8]);
    let mut params = params(Some(&name.map_or_else(random, str::to_owned)), days);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = false;
    params
}

/// A server that answers to `names`.
pub(crate) fn server(names: &[ServerName], days: Days) -> Result<CertificateParams, PkiError> {
    assert!(
        !names.is_empty(),
        "a name is required, or read from the certificate before"
    );
    let name = names.first().map(ServerName::to_string);
    let mut params = params(name.as_deref(), days);
    for name in names {
        params.subject_alt_names.push(name.alternative_name()?);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

/// A device. Its id stands where an id of its form belongs, and as the common name, where it fits.
pub(crate) fn device(id: &DeviceId, days: Days) -> Result<CertificateParams, PkiError> {
    let mut params = params(Some(id.as_str()), days);
    params.subject_alt_names = alternative_name(id.as_str())?.into_iter().collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

/// A URI as a URI, a DNS name as a DNS name; anything else is a common name alone. What is too long
/// for one becomes a URI without a scheme: RFC 5280 has no place for it, verifiers do not mind.
fn alternative_name(id: &str) -> Result<Option<SanType>, rcgen::Error> {
    if is_absolute_uri(id) {
        return Ok(Some(SanType::URI(id.try_into()?)));
    }
    if is_dns_name(id) {
        return Ok(Some(SanType::DnsName(id.try_into()?)));
    }
    if id.len() <= COMMON_NAME_CHARS_MAX {
        return Ok(None);
    }
    Ok(Some(SanType::URI(id.try_into()?)))
}

fn is_absolute_uri(id: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    let Some((scheme, rest)) = id.split_once(':') else {
        return false;
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(may_stand)
        && !rest.is_empty()
}

/// Labels of letters, digits, `-` and `_`, the last one not a number: that would be an address.
fn is_dns_name(name: &str) -> bool {
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253
        && name.split('.').all(is_label)
        && !name.rsplit('.').next().is_some_and(is_number)
}

fn is_label(label: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=63).contains(&label.len())
        && label.bytes().all(may_stand)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Makes the parameters that all profiles share: a leaf that may sign for itself.
fn params(common_name: Option<&str>, days: Days) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = ASN1Time::now().to_datetime();
    params.not_before = now - BACKDATED;
    params.not_after = now + days.duration();
    params.serial_number = Some(serial());
    params.distinguished_name = DistinguishedName::new();
    if let Some(name) = common_name.filter(|name| name.chars().count() <= COMMON_NAME_CHARS_MAX) {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}

/// 16 bytes, positive, 120 bits of them random.
fn serial() -> SerialNumber {
    let mut bytes = Uuid::new_v4().into_bytes();
    bytes[0] = bytes[0] & 0x3f | 0x40;
    debug_assert!(bytes[0] < 0x80, "it is positive, without a zero before it");
    SerialNumber::from_slice(&bytes)
}
