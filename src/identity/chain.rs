//! Chains of certificates: the authorities that vouch for one, the links that a CRL is asked about,
//! and the certificates that may sign a CRL.

use std::collections::{HashMap, HashSet};

use aws_lc_rs::digest::{Context, SHA256};
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::oid_registry::{
    OID_X509_EXT_CRL_DISTRIBUTION_POINTS, OID_X509_EXT_NAME_CONSTRAINTS,
};

use super::scope::{self, Point};
use super::{IdentityError, PublicKey, Signed, timestamp};
use crate::record::Timestamp;

/// The most certificates that a device may send. A chain that verifies needs no more than eight.
const CHAIN_MAX: usize = 16;

/// The most signatures of one chain that are verified here. A chain without two authorities of one
/// name needs none.
const SIGNATURES_MAX: usize = 64;

/// One certificate, as the CRL of its issuer names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The issuer's name in DER, as its CRL repeats it.
    pub issuer: Box<[u8]>,
    /// The serial number's content octets in DER.
    pub serial: Box<[u8]>,
    /// The places where it says that its CRL is found.
    pub points: Box<[Point]>,
    /// Whether it may itself sign certificates.
    pub is_authority: bool,
    /// The authorities of the bundle that have signed it; none where it does not vouch for the leaf.
    pub anchors: Box<[AuthorityId]>,
}

/// Identity of an authority that a chain ends with: its name, its key and its name constraints. A
/// certificate that is renewed with the same three is the same authority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AuthorityId([u8; 32]);

/// A certificate authority, as its certificate describes it.
#[derive(Debug)]
pub struct Authority {
    pub(crate) id: AuthorityId,
    /// The authority's name in DER.
    pub subject: Box<[u8]>,
    pub link: Link,
    /// Whether the key may sign CRLs: `false` where the certificate says what it may be used for,
    /// and CRLs are not among that.
    pub may_sign_crls: bool,
    pub not_after: Timestamp,
    /// The authority's key, SubjectPublicKeyInfo in DER, which has been read as one.
    pub key_info: Box<[u8]>,
}

/// Whether a key has signed something: `tls` knows how to verify.
pub(crate) type Verify = fn(&PublicKey, &Signed) -> bool;

/// The authorities that chains may end with.
#[derive(Debug)]
pub struct Bundle {
    by_name: HashMap<Box<[u8]>, Vec<Authority>>,
    ids: HashSet<AuthorityId>,
    verify: Verify,
}

impl Bundle {
    pub fn new(authorities: impl IntoIterator<Item = Authority>, verify: Verify) -> Self {
        let mut bundle = Self {
            by_name: HashMap::new(),
            ids: HashSet::new(),
            verify,
        };
        for authority in authorities {
            bundle.ids.insert(authority.id);
            let namesakes = bundle.by_name.entry(authority.subject.clone());
            namesakes.or_default().push(authority);
        }
        bundle
    }

    pub fn contains(&self, id: &AuthorityId) -> bool {
        self.ids.contains(id)
    }

    /// Whether the key, a SubjectPublicKeyInfo in DER, has signed something.
    pub(crate) fn has_signed(&self, key_info: &[u8], signed: &Signed) -> bool {
        let key = PublicKey::read(key_info);
        key.is_ok_and(|key| (self.verify)(&key, signed))
    }

    fn named(&self, name: &[u8]) -> &[Authority] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    fn has(&self, certificate: &Certificate) -> bool {
        let mut namesakes = self.named(certificate.subject()).iter();
        namesakes.any(|authority| *authority.key_info == *certificate.key_info())
    }
}

/// The leaf of a chain in DER, which has been verified, and those of the others that may vouch for
/// it, from the leaf up; not those of the bundle, nor what is above them. Which of two of one name
/// has signed is not asked for revocation: both are in it, so that none hides behind another. For
/// [`Link::anchors`] it is asked.
pub fn links<'a>(
    chain: impl IntoIterator<Item = &'a [u8]>,
    bundle: &Bundle,
) -> Result<Vec<Link>, IdentityError> {
    let chain = chain.into_iter().map(Certificate::read);
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() || chain.len() > CHAIN_MAX {
        return Err(IdentityError::Malformed);
    }
    let followed = follow(chain, bundle);
    let anchors = Vouching::new(&followed, bundle).anchors();
    debug_assert_eq!(followed.len(), anchors.len(), "one list a certificate");
    let mut links = Vec::with_capacity(followed.len());
    for (certificate, anchors) in followed.iter().zip(anchors) {
        let mut link = link(&certificate.x509);
        link.anchors = anchors.into();
        links.push(link);
    }
    Ok(links)
}

/// A certificate of a chain.
struct Certificate<'a> {
    x509: X509Certificate<'a>,
    signed: Signed<'a>,
}

impl<'a> Certificate<'a> {
    fn read(der: &'a [u8]) -> Result<Self, IdentityError> {
        Ok(Self {
            x509: parse(der)?,
            signed: Signed::read(der)?,
        })
    }

    fn subject(&self) -> &[u8] {
        self.x509.subject().as_raw()
    }

    fn issuer(&self) -> &[u8] {
        self.x509.issuer().as_raw()
    }

    /// SubjectPublicKeyInfo in DER.
    fn key_info(&self) -> &[u8] {
        self.x509.public_key().raw
    }
}

/// The leaf, and the certificates above it by their names, up to the bundle.
fn follow<'a>(mut others: Vec<Certificate<'a>>, bundle: &Bundle) -> Vec<Certificate<'a>> {
    let mut followed = vec![others.remove(0)];
    let mut at = 0;
    while let Some(below) = followed.get(at) {
        let named = others.extract_if(.., |other| other.subject() == below.issuer());
        let mut issuers: Vec<Certificate> = named.collect();
        issuers.retain(|issuer| !bundle.has(issuer));
        followed.extend(issuers);
        at += 1;
    }
    debug_assert!(followed.len() <= CHAIN_MAX, "each is followed once");
    followed
}

/// Finds out which authorities of the bundle vouch for the leaf of a chain that has been verified.
/// Search for the certificates that vouch for the leaf: by names, where each can mean one issuer
/// only; by signatures, where a name is ambiguous.
struct Vouching<'a> {
    chain: &'a [Certificate<'a>],
    bundle: &'a Bundle,
    is_ambiguous: bool,
    signatures: usize,
}

impl<'a> Vouching<'a> {
    fn new(chain: &'a [Certificate<'a>], bundle: &'a Bundle) -> Self {
        let has_many_issuers = |certificate: &Certificate| {
            let name = certificate.issuer();
            let in_chain = chain.iter().filter(|other| other.subject() == name);
            in_chain.count() + bundle.named(name).len() > 1
        };
        Self {
            chain,
            bundle,
            is_ambiguous: chain.iter().any(has_many_issuers),
            signatures: 0,
        }
    }

    /// Finds for each certificate the authorities that have signed it, if it vouches for the leaf.
    fn anchors(mut self) -> Vec<Vec<AuthorityId>> {
        let mut anchors = vec![Vec::new(); self.chain.len()];
        let mut vouching = vec![0];
        let mut at = 0;
        while let Some(&below) = vouching.get(at) {
            anchors[below] = self.anchors_of(&self.chain[below]);
            self.add_issuers(&self.chain[below], &mut vouching);
            at += 1;
        }
        anchors
    }

    /// The authorities of the bundle that have signed a certificate.
    fn anchors_of(&mut self, certificate: &Certificate) -> Vec<AuthorityId> {
        let mut anchors = Vec::new();
        for authority in self.bundle.named(certificate.issuer()) {
            if self.has_signed(&authority.key_info, certificate) {
                anchors.push(authority.id);
            }
        }
        anchors
    }

    /// Adds the places of those in the chain that have signed a certificate.
    fn add_issuers(&mut self, certificate: &Certificate, vouching: &mut Vec<usize>) {
        for (place, issuer) in self.chain.iter().enumerate() {
            let may_have_signed =
                issuer.subject() == certificate.issuer() && !vouching.contains(&place);
            if may_have_signed && self.has_signed(issuer.key_info(), certificate) {
                vouching.push(place);
            }
        }
        debug_assert!(vouching.len() <= self.chain.len(), "each vouches once");
    }

    /// Whether the key has signed the certificate. Past the bound no key has.
    fn has_signed(&mut self, key_info: &[u8], certificate: &Certificate) -> bool {
        if !self.is_ambiguous {
            return true;
        }
        self.signatures += 1;
        self.signatures <= SIGNATURES_MAX && self.bundle.has_signed(key_info, &certificate.signed)
    }
}

/// Reads the certificate of an authority in DER.
pub fn authority(der: &[u8]) -> Result<Authority, IdentityError> {
    let certificate = parse(der)?;
    let key_usage = certificate.key_usage();
    let key_usage = key_usage.map_err(|_| IdentityError::Malformed)?;
    let key_info = certificate.public_key().raw;
    PublicKey::read(key_info)?;
    Ok(Authority {
        id: id(&certificate)?,
        subject: certificate.subject().as_raw().into(),
        link: link(&certificate),
        may_sign_crls: key_usage.is_none_or(|usage| usage.value.crl_sign()),
        not_after: timestamp(certificate.validity().not_after),
        key_info: key_info.into(),
    })
}

fn id(certificate: &X509Certificate) -> Result<AuthorityId, IdentityError> {
    let constraints = certificate.get_extension_unique(&OID_X509_EXT_NAME_CONSTRAINTS);
    let constraints = constraints.map_err(|_| IdentityError::Malformed)?;
    let mut digest = Context::new(&SHA256);
    // Name and key are DER, and tell their own ends.
    digest.update(certificate.subject().as_raw());
    digest.update(certificate.public_key().raw);
    digest.update(constraints.map_or(&[], |extension| extension.value));
    let mut id = [0; 32];
    id.copy_from_slice(digest.finish().as_ref());
    Ok(AuthorityId(id))
}

/// The serial number of a certificate in DER, as its content octets.
pub fn serial(der: &[u8]) -> Option<Box<[u8]>> {
    Some(parse(der).ok()?.raw_serial().into())
}

pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(IdentityError::Malformed),
    }
}

/// Makes the link by which a CRL names the certificate. Distribution points that cannot be read
/// count as none: no list of a partition speaks for such a certificate.
pub(super) fn link(certificate: &X509Certificate) -> Link {
    let extension = certificate.get_extension_unique(&OID_X509_EXT_CRL_DISTRIBUTION_POINTS);
    let points = match extension {
        Ok(Some(extension)) => scope::points(extension.value).unwrap_or_default(),
        _ => Vec::new(),
    };
    Link {
        issuer: certificate.issuer().as_raw().into(),
        serial: certificate.raw_serial().into(),
        points: points.into(),
        is_authority: certificate.is_ca(),
        anchors: Box::default(),
    }
}
