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
use crate::identity::{self, Authority, Crl};

/// Authorities and what they revoked.
pub struct Trust {
    pub authorities: Vec<CertificateDer<'static>>,
    pub verifier: Arc<dyn ClientCertVerifier>,
    pub revocation: Arc<Revocation>,
}

impl Trust {
    pub fn load(config: &TlsConfig, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let authorities = files::read_certificates(CLIENT_CA, &config.client_ca)?;
        let revocation = Arc::new(revocation(config, &authorities, provider)?);
        let chains = chain_verifier(&authorities, provider)?;
        let verifier = Arc::new(Verifier { chains, revocation: revocation.clone() });
        Ok(Self { authorities, verifier, revocation })
    }
}

/// Verifies all but revocation.
fn chain_verifier(
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let invalid = |reason| TlsError::Invalid { variable: CLIENT_CA, reason };
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone()).map_err(|error| invalid(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    builder.build().map_err(|error| invalid(error.to_string()))
}

fn revocation(
    config: &TlsConfig,
    authorities: &[CertificateDer<'static>],
    provider: &CryptoProvider,
) -> Result<Revocation, TlsError> {
    if config.crl.is_empty() {
        return Ok(Revocation::off());
    }
    let invalid = |error: identity::IdentityError| TlsError::Invalid { variable: CLIENT_CA, reason: error.to_string() };
    let authorities: Vec<Authority> =
        authorities.iter().map(|der| identity::authority(der)).collect::<Result<_, _>>().map_err(invalid)?;
    let mut revocation = Revocation::new(&authorities, config.crl_strict);
    for file in &config.crl {
        for der in files::read_crls(file)? {
            add(&mut revocation, &der, &authorities, provider).map_err(|reason| files::failed(CRL, file, reason))?;
        }
    }
    revocation.distrust_revoked(&authorities);
    Ok(revocation)
}

fn add(
    revocation: &mut Revocation,
    der: &[u8],
    authorities: &[Authority],
    provider: &CryptoProvider,
) -> Result<(), String> {
    let crl = Crl::parse(der).map_err(|error| error.to_string())?;
    let mut issuers = authorities.iter().filter(|authority| *authority.subject == *crl.issuer).peekable();
    if issuers.peek().is_none() {
        return Err(format!("its issuer is not among the authorities of {CLIENT_CA}"));
    }
    let algorithms = provider.signature_verification_algorithms.all;
    if !issuers.any(|issuer| issuer.may_sign_crls && has_signed(issuer, &crl, algorithms)) {
        return Err("its signature is not that of its issuer, or its issuer's certificate forbids to sign CRLs".into());
    }
    revocation.add(&crl).map_err(|error| error.to_string())
}

fn has_signed(authority: &Authority, crl: &Crl, algorithms: &[&dyn SignatureVerificationAlgorithm]) -> bool {
    let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
        algorithm.public_key_alg_id().as_ref() == &*authority.key_algorithm
            && algorithm.signature_alg_id().as_ref() == crl.signature_algorithm
    };
    algorithms
        .iter()
        .filter(fits)
        .any(|algorithm| algorithm.verify_signature(&authority.key, crl.signed, crl.signature).is_ok())
}
