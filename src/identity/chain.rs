//! Who vouches for a certificate: what a CRL is asked about, and what may sign one.

use x509_parser::asn1_rs::{FromDer, Tag};
use x509_parser::certificate::X509Certificate;

use super::IdentityError;
use super::crl::bits;
use super::der::{only, take};

/// The most certificates that a device may send. A chain that verifies needs no more than eight.
const CHAIN_MAX: usize = 16;

/// One certificate, as the CRL of its issuer names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The issuer's name in DER, as its CRL repeats it.
    pub issuer: Box<[u8]>,
    /// The serial number's content octets in DER.
    pub serial: Box<[u8]>,
}

/// A certificate authority, as its certificate describes it.
#[derive(Debug)]
pub struct Authority {
    /// Its name in DER.
    pub subject: Box<[u8]>,
    pub link: Link,
    /// `false` where the certificate says for what its key may be used, and CRLs are not among that.
    pub may_sign_crls: bool,
    /// Its key, SubjectPublicKeyInfo in DER.
    pub key_info: Box<[u8]>,
    /// The content of the AlgorithmIdentifier in it.
    pub key_algorithm: Box<[u8]>,
    pub key: Box<[u8]>,
}

/// The leaf of a chain in DER, and those of the others that may vouch for it, from the leaf up; not those that are
/// trusted themselves, which `is_trusted` tells by name and key, nor what is above them. Which of two of one name has
/// signed is not asked: both are in it, so that none hides behind another.
pub fn links<'a>(
    chain: impl IntoIterator<Item = &'a [u8]>,
    is_trusted: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<Vec<Link>, IdentityError> {
    let mut others: Vec<X509Certificate> =
        chain.into_iter().map(parse).collect::<Result<_, _>>()?;
    if others.is_empty() || others.len() > CHAIN_MAX {
        return Err(IdentityError::Malformed);
    }
    let mut links = vec![link(&others.remove(0))];
    let mut followed = 0;
    while let Some(below) = links.get(followed) {
        let issuers = others.extract_if(.., |other| other.subject().as_raw() == &*below.issuer);
        let issuers = issuers
            .filter(|issuer| !is_trusted(issuer.subject().as_raw(), issuer.public_key().raw));
        let issuers: Vec<Link> = issuers.map(|issuer| link(&issuer)).collect();
        links.extend(issuers);
        followed += 1;
    }
    Ok(links)
}

/// Reads the certificate of an authority in DER.
pub fn authority(der: &[u8]) -> Result<Authority, IdentityError> {
    let certificate = parse(der)?;
    let key_usage = certificate
        .key_usage()
        .map_err(|_| IdentityError::Malformed)?;
    let key_info = certificate.public_key().raw;
    let mut parts = only(key_info, Tag::Sequence)?;
    let key_algorithm = take(&mut parts)?.expect(Tag::Sequence)?.into();
    let key = bits(&take(&mut parts)?)
        .map_err(|_| IdentityError::Malformed)?
        .into();
    Ok(Authority {
        subject: certificate.subject().as_raw().into(),
        link: link(&certificate),
        may_sign_crls: key_usage.is_none_or(|usage| usage.value.crl_sign()),
        key_info: key_info.into(),
        key_algorithm,
        key,
    })
}

/// The serial number of a certificate in DER, as its content octets.
pub fn serial(der: &[u8]) -> Option<Box<[u8]>> {
    Some(parse(der).ok()?.raw_serial().into())
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::Malformed),
    }
}

fn link(certificate: &X509Certificate) -> Link {
    Link {
        issuer: certificate.issuer().as_raw().into(),
        serial: certificate.raw_serial().into(),
    }
}
