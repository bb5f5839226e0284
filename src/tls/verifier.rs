//! What rustls asks of a client's certificate: its chain, by webpki, and then revocation.
//!
//! webpki could check CRLs too, but would hash the whole list for each handshake to check its signature: for a million
//! entries that costs more than the handshake. Here signatures are checked once, when the lists are loaded.

use std::cell::RefCell;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::revocation::{Revocation, Status};
use crate::identity;
use crate::record::Timestamp;

thread_local! {
    /// The serial number of the certificate that was refused last on this thread.
    static REFUSED: RefCell<Option<Box<[u8]>>> = const { RefCell::new(None) };
}

/// The names of authorities that a client is told have so many bytes at most, lengths and all: some 40 ordinary ones. A list is
/// a hint; beyond this there is none, which every client takes for "any". Small TLS stacks have room for no more, and in 16 bits
/// (RFC 8446 section 4.2.4) rustls would cut its length.
const AUTHORITY_NAMES_BYTES_MAX: usize = 4096;

/// The serial number of the certificate for which a handshake has just failed on this thread: rustls does not tell.
pub(crate) fn take_refused_serial(error: &Error) -> Option<Box<[u8]>> {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => None,
        Error::InvalidCertificate(_) => REFUSED.take(),
        _ => None,
    }
}

/// webpki for the chain, [`Revocation`] for what its authorities took back.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub chains: Arc<dyn ClientCertVerifier>,
    pub revocation: Arc<Revocation>,
}

impl Verifier {
    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chains
            .verify_client_cert(end_entity, intermediates, now)
            .map_err(without_namesakes)?;
        let chain = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|certificate| certificate.as_ref());
        let links = self
            .revocation
            .links(chain)
            .map_err(|_| CertificateError::BadEncoding)?;
        match self
            .revocation
            .status(&links, Timestamp(now.as_secs() * 1000))
        {
            Status::Good => Ok(verified),
            Status::Revoked => Err(CertificateError::Revoked.into()),
            Status::Unknown => Err(CertificateError::UnknownRevocationStatus.into()),
        }
    }
}

/// A certificate that an authority's key has not signed, or could not have, is one of another authority that has the same name:
/// it is as unknown as any other.
fn without_namesakes(error: Error) -> Error {
    use CertificateError::{BadSignature, UnsupportedSignatureAlgorithmForPublicKeyContext};
    match error {
        Error::InvalidCertificate(
            BadSignature | UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => CertificateError::UnknownIssuer.into(),
        error => error,
    }
}

impl ClientCertVerifier for Verifier {
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.verify(end_entity, intermediates, now);
        verified.inspect_err(|_| REFUSED.set(identity::serial(end_entity)))
    }

    fn offer_client_auth(&self) -> bool {
        true
    }
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        let names = self.chains.root_hint_subjects();
        let bytes: usize = names.iter().map(|name| 2 + name.as_ref().len()).sum();
        if bytes > AUTHORITY_NAMES_BYTES_MAX {
            return &[];
        }
        names
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
