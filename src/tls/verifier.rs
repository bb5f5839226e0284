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

/// The serial number of the certificate for which a handshake has just failed on this thread: rustls does not tell.
pub fn take_refused_serial(error: &Error) -> Option<Box<[u8]>> {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => None,
        Error::InvalidCertificate(_) => REFUSED.take(),
        _ => None,
    }
}

/// webpki for the chain, [`Revocation`] for what its authorities took back.
#[derive(Debug)]
pub struct Verifier {
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
            .verify_client_cert(end_entity, intermediates, now)?;
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
        self.chains.root_hint_subjects()
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
