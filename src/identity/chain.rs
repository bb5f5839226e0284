//! Who vouches for a certificate: what a CRL is asked about, and what may sign one.

use x509_parser::asn1_rs::{FromDer, Tag};
use x509_parser::certificate::X509Certificate;

use super::IdentityError;
use super::crl::bits;
use super::der::{only, take};

/// The most certificates of a chain that are followed. A verified chain is shorter.
const LINKS_MAX: usize = 8;

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
    /// The content of the AlgorithmIdentifier of its key.
    pub key_algorithm: Box<[u8]>,
    pub key: Box<[u8]>,
}

/// The leaf of a chain in DER, and those of the others that vouch for it, from the leaf up. Which of two authorities of
/// one name was the one is not asked: both are in it.
pub fn links<'a>(chain: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Link>, IdentityError> {
    let mut certificates: Vec<X509Certificate> = chain.into_iter().map(parse).collect::<Result<_, _>>()?;
    if certificates.is_empty() {
        return Err(IdentityError::Malformed);
    }
    let mut links = vec![link(&certificates.remove(0))];
    let mut followed = 0;
    while followed < links.len() && links.len() < LINKS_MAX {
        let issuer = links[followed].issuer.clone();
        let (issuers, others) =
            certificates.into_iter().partition(|certificate| certificate.subject().as_raw() == &*issuer);
        certificates = others;
        let issuers: Vec<X509Certificate> = issuers;
        links.extend(issuers.iter().map(link));
        followed += 1;
    }
    Ok(links)
}

/// Reads the certificate of an authority in DER.
pub fn authority(der: &[u8]) -> Result<Authority, IdentityError> {
    let certificate = parse(der)?;
    let key_usage = certificate.key_usage().map_err(|_| IdentityError::Malformed)?;
    let mut key_info = only(certificate.public_key().raw, Tag::Sequence)?;
    let key_algorithm = take(&mut key_info)?.expect(Tag::Sequence)?.into();
    let key = bits(&take(&mut key_info)?).map_err(|_| IdentityError::Malformed)?.into();
    Ok(Authority {
        subject: certificate.subject().as_raw().into(),
        link: link(&certificate),
        may_sign_crls: key_usage.is_none_or(|usage| usage.value.crl_sign()),
        key_algorithm,
        key,
    })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::Malformed),
    }
}

fn link(certificate: &X509Certificate) -> Link {
    Link { issuer: certificate.issuer().as_raw().into(), serial: certificate.raw_serial().into() }
}
