//! Signed structures of X.509: a certificate or a CRL, the name of the algorithm, and the signature;
//! and the key that made it.
//!
//! Nothing is verified here: `tls` has the algorithms.

use x509_parser::asn1_rs::Tag;

use super::IdentityError;
use super::der::{Element, only, take};

/// Something signed, in parts that lie in its DER.
#[derive(Clone, Copy, Debug)]
pub struct Signed<'a> {
    /// Bytes that the signature is over.
    pub content: &'a [u8],
    /// The content of the AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    pub signature: &'a [u8],
}

/// A key, in parts that lie in its SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug)]
pub struct PublicKey<'a> {
    /// The content of the AlgorithmIdentifier.
    pub algorithm: &'a [u8],
    pub key: &'a [u8],
}

impl<'a> Signed<'a> {
    /// The three parts of a certificate or a CRL in DER.
    pub(crate) fn read(der: &'a [u8]) -> Result<Self, IdentityError> {
        let mut parts = only(der, Tag::Sequence)?;
        let content = take(&mut parts)?;
        content.expect(Tag::Sequence)?;
        let algorithm = take(&mut parts)?.expect(Tag::Sequence)?;
        let signature = bits(&take(&mut parts)?)?;
        if !parts.is_empty() {
            return Err(IdentityError::Malformed);
        }
        Ok(Self {
            content: content.whole,
            algorithm,
            signature,
        })
    }
}

impl<'a> PublicKey<'a> {
    /// The parts of a SubjectPublicKeyInfo in DER.
    pub(crate) fn read(info: &'a [u8]) -> Result<Self, IdentityError> {
        let mut parts = only(info, Tag::Sequence)?;
        Ok(Self {
            algorithm: take(&mut parts)?.expect(Tag::Sequence)?,
            key: bits(&take(&mut parts)?)?,
        })
    }
}

/// The content of a bit string of whole bytes.
fn bits<'a>(element: &Element<'a>) -> Result<&'a [u8], IdentityError> {
    match element.expect(Tag::BitString)? {
        [0, bytes @ ..] => Ok(bytes),
        _ => Err(IdentityError::Malformed),
    }
}
