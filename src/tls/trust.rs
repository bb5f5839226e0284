//! Whom the gateway trusts to name devices, and whom they have taken back: the authorities and their CRLs, which are
//! good or bad together. A list that no authority of the bundle has signed would leave its devices unchecked, so it is
//! an error.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::TlsError;
use super::files::{self, CLIENT_CA, CRL};
use super::revocation::Revocation;
use super::verifier::Verifier;
use crate::config::TlsConfig;
use crate::identity::{self, Authority, Crl, IdentityError};

/// Authorities and what they revoked.
pub struct Trust {
    /// Those that chains may end with.
    pub authorities: Vec<CertificateDer<'static>>,
    pub verifier: Arc<dyn ClientCertVerifier>,
    pub revocation: Arc<Revocation>,
}

impl Trust {
    pub fn load(config: &TlsConfig, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut authorities = files::read_certificates(CLIENT_CA, &config.client_ca)?;
        let mut revocation = Revocation::off();
        if !config.crl.is_empty() {
            let bundle = read_bundle(&authorities)?;
            revocation = read_lists(config, &bundle, provider)?;
            let mut may_end = revocation.judge(&bundle).into_iter();
            authorities.retain(|_| may_end.next() == Some(true));
        }
        let revocation = Arc::new(revocation);
        let chains = chain_verifier(&authorities, provider)?;
        let verifier = Arc::new(Verifier {
            chains,
            revocation: revocation.clone(),
        });
        Ok(Self {
            authorities,
            verifier,
            revocation,
        })
    }
}

/// Verifies all but revocation.
fn chain_verifier(
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let invalid = |reason| TlsError::Invalid {
        variable: CLIENT_CA,
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots
            .add(certificate.clone())
            .map_err(|error| invalid(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    builder.build().map_err(|error| invalid(error.to_string()))
}

fn read_bundle(authorities: &[CertificateDer<'static>]) -> Result<Vec<Authority>, TlsError> {
    let invalid = |error: IdentityError| TlsError::Invalid {
        variable: CLIENT_CA,
        reason: error.to_string(),
    };
    authorities
        .iter()
        .map(|der| identity::authority(der))
        .collect::<Result<_, _>>()
        .map_err(invalid)
}

fn read_lists(
    config: &TlsConfig,
    bundle: &[Authority],
    provider: &CryptoProvider,
) -> Result<Revocation, TlsError> {
    let mut revocation = Revocation::new(config.crl_strict);
    for file in &config.crl {
        for der in files::read_crls(file)? {
            add(&mut revocation, &der, bundle, provider)
                .map_err(|reason| files::failed(CRL, file, reason))?;
        }
    }
    Ok(revocation)
}

fn add(
    revocation: &mut Revocation,
    der: &[u8],
    authorities: &[Authority],
    provider: &CryptoProvider,
) -> Result<(), String> {
    let crl = Crl::parse(der).map_err(|error| error.to_string())?;
    let mut issuers = authorities
        .iter()
        .filter(|authority| *authority.subject == *crl.issuer)
        .peekable();
    if issuers.peek().is_none() {
        return Err(format!(
            "its issuer is not among the authorities of {CLIENT_CA}"
        ));
    }
    let algorithms = provider.signature_verification_algorithms.all;
    if !issuers.any(|issuer| issuer.may_sign_crls && has_signed(issuer, &crl, algorithms)) {
        return Err("its signature is not that of its issuer, or its issuer's certificate forbids to sign CRLs".into());
    }
    revocation.add(&crl).map_err(|error| error.to_string())
}

fn has_signed(
    authority: &Authority,
    crl: &Crl,
    algorithms: &[&dyn SignatureVerificationAlgorithm],
) -> bool {
    let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
        algorithm.public_key_alg_id().as_ref() == &*authority.key_algorithm
            && algorithm.signature_alg_id().as_ref() == crl.signature_algorithm
    };
    algorithms.iter().filter(fits).any(|algorithm| {
        algorithm
            .verify_signature(&authority.key, crl.signed, crl.signature)
            .is_ok()
    })
}
