//! The verifier of client certificates that rustls asks: the chain, by webpki, and then revocation.
//!
//! A certificate that the devices file pins needs no chain. Its dates hold, a list of its own
//! authority may revoke it, and its holder proves possession of its key as anybody does.
//!
//! webpki could check CRLs too, but would hash the whole list for each handshake to check its
//! signature: for a million entries that costs more than the handshake. Here signatures are checked
//! once, when the lists are loaded.

use std::cell::RefCell;
use std::iter;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use tokio::sync::watch;

use super::revocation::{Revocation, Status};
use crate::devices::Devices;
use crate::identity::{self, Pinned, ShownCertificate};
use crate::record::Timestamp;
use crate::words::Handshake;

thread_local! {
    /// The certificate that was refused last on this thread.
    static REFUSED: RefCell<Option<Refused>> = const { RefCell::new(None) };
}

/// Findings of one handshake's verifier.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    refused: OnceLock<Refused>,
    has_verified: AtomicBool,
}

/// The findings of a handshake, shared by its verifier and its acceptor.
pub(crate) type Note = Arc<Findings>;

impl Findings {
    /// The certificate that was refused, once one has been.
    pub(crate) fn refused(&self) -> Option<&Refused> {
        self.refused.get()
    }

    /// Whether a certificate was asked about: that of a resumed session is not.
    pub(crate) fn has_verified(&self) -> bool {
        self.has_verified.load(Ordering::Relaxed)
    }
}

/// Why a certificate was refused, and what it says of itself, where it can be read.
#[derive(Debug)]
pub(crate) struct Refused {
    pub reason: Handshake,
    pub certificate: Option<ShownCertificate>,
}

/// The most that the names of authorities have which a client is told, lengths and all: some 40
/// ordinary ones. The list is a hint; beyond this there is none, which every client takes for
/// "any". Small TLS stacks have room for no more, and its length must fit 16 bits.
const AUTHORITY_NAMES_BYTES_MAX: usize = 4096;

const _: () = assert!(
    AUTHORITY_NAMES_BYTES_MAX <= u16::MAX as usize,
    "rustls would cut its length (RFC 8446 section 4.2.4)"
);

/// The certificate for which a handshake has just failed on this thread: rustls does not tell.
pub(crate) fn take_refused(error: &Error) -> Option<Refused> {
    match error {
        Error::InvalidCertificate(CertificateError::BadSignature) => None,
        Error::InvalidCertificate(_) => REFUSED.take(),
        _ => None,
    }
}

/// Asks webpki for the chain, and [`Revocation`] for what its authorities took back.
#[derive(Debug)]
pub(crate) struct Verifier {
    pub chains: Arc<dyn ClientCertVerifier>,
    pub revocation: Arc<Revocation>,
    /// Note that a refused certificate is written to; `None` stands for the thread's own.
    pub note: Option<Note>,
    /// The pins in force.
    pub devices: watch::Receiver<Arc<Devices>>,
}

impl Verifier {
    /// The same for one handshake, which notes what it refuses.
    pub(super) fn noting(&self, note: Note) -> Self {
        Self {
            chains: self.chains.clone(),
            revocation: self.revocation.clone(),
            note: Some(note),
            devices: self.devices.clone(),
        }
    }

    fn note(&self, refused: Refused) {
        match &self.note {
            // A client shows one certificate.
            Some(note) => drop(note.refused.set(refused)),
            None => REFUSED.set(Some(refused)),
        }
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.is_pinned(end_entity) {
            self.verify_pinned(end_entity, now)?;
            return Ok(ClientCertVerified::assertion());
        }
        let chains = &self.chains;
        let verified = chains.verify_client_cert(end_entity, intermediates, now);
        let verified = verified.map_err(without_namesakes)?;
        match self.status(end_entity, intermediates, now)? {
            Status::Good => Ok(verified),
            Status::Revoked => Err(CertificateError::Revoked.into()),
            Status::Outdated => Err(CertificateError::ExpiredRevocationList.into()),
            Status::Unlisted => Err(CertificateError::UnknownRevocationStatus.into()),
        }
    }

    fn is_pinned(&self, end_entity: &CertificateDer<'_>) -> bool {
        let devices = self.devices.borrow();
        devices.has_pins() && devices.pin(&identity::fingerprint(end_entity)).is_some()
    }

    fn verify_pinned(
        &self,
        end_entity: &CertificateDer<'_>,
        now: UnixTime,
    ) -> Result<(), CertificateError> {
        let pinned = Pinned::read(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        let now = Timestamp(now.as_secs() * 1000);
        if !pinned.has_begun(now) {
            return Err(CertificateError::NotValidYet);
        }
        if pinned.has_ended(now) {
            return Err(CertificateError::Expired);
        }
        if self.revocation.is_pinned_revoked(&pinned) {
            return Err(CertificateError::Revoked);
        }
        Ok(())
    }

    /// Looks up the revocation status of a chain that has been verified.
    fn status(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<Status, CertificateError> {
        let chain = iter::once(end_entity).chain(intermediates);
        let links = self.revocation.links(chain.map(AsRef::as_ref));
        let links = links.map_err(|_| CertificateError::BadEncoding)?;
        let now = Timestamp(now.as_secs() * 1000);
        Ok(self.revocation.status(&links, now))
    }
}

/// Takes a certificate that an authority's key has not signed, or could not have, for one of
/// another authority that has the same name: it is as unknown as any other.
fn without_namesakes(error: Error) -> Error {
    use CertificateError::{BadSignature, UnsupportedSignatureAlgorithmForPublicKeyContext};
    match error {
        Error::InvalidCertificate(
            BadSignature | UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => CertificateError::UnknownIssuer.into(),
        error => error,
    }
}

/// The error of which the client is told by the alert. That the operator's lists are out of date, or
/// missing, is not the certificate's fault: `access_denied` says that it was good, and refused all
/// the same (RFC 8446 section 6.2). rustls would say `unknown_ca`, after which a device gives up.
fn told(error: Error) -> Error {
    use CertificateError::{ExpiredRevocationList, UnknownRevocationStatus};
    match error {
        Error::InvalidCertificate(ExpiredRevocationList | UnknownRevocationStatus) => {
            CertificateError::ApplicationVerificationFailure.into()
        }
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
        if let Some(note) = &self.note {
            note.has_verified.store(true, Ordering::Relaxed);
        }
        let verified = self.verify(end_entity, intermediates, now);
        verified.map_err(|error| {
            self.note(Refused {
                reason: super::failure(&error),
                certificate: identity::shown(end_entity),
            });
            told(error)
        })
    }

    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    /// None where certificates are pinned: the file does not say who has signed them, and some
    /// clients send no certificate of an authority that is not in the list.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        if self.devices.borrow().has_pins() {
            return &[];
        }
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
