//! Whom the gateway trusts to name devices, and whom they have taken back: the authorities and their CRLs, which are
//! good or bad together. A list that no authority of the bundle has signed would leave its devices unchecked, so it is
//! an error; so is one from the future, and one that is older than the list whose place it takes: whoever can put an old
//! list in its place would let in whom the new one names.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::TlsError;
use super::files::{self, CLIENT_CA, CRL, Found};
use super::revocation::Revocation;
use super::verifier::Verifier;
use crate::config::TlsConfig;
use crate::identity::{self, Authority, Crl, PublicKey, Signed};
use crate::record::Timestamp;

/// How far an authority's clock may be ahead of the gateway's.
const CLOCK_SKEW_MILLIS: u64 = 300_000;

/// Authorities and what they revoked.
pub(crate) struct Trust {
    /// Those that chains may end with.
    pub authorities: Vec<CertificateDer<'static>>,
    pub verifier: Arc<dyn ClientCertVerifier>,
    pub revocation: Arc<Revocation>,
}

impl Trust {
    /// Reads the files. `before` is what has been in force, if anything.
    pub(crate) fn load(
        config: &TlsConfig,
        provider: &Arc<CryptoProvider>,
        before: Option<&Revocation>,
    ) -> Result<Self, TlsError> {
        let found = files::read_authorities(&config.client_ca)?;
        let mut authorities = Vec::new();
        for found in &found {
            authorities.push(read_authority(&config.client_ca, found)?);
        }
        let mut revocation = Revocation::off();
        if !config.crl.is_empty() {
            revocation = read_lists(config, &authorities)?;
            must_be_newer(&revocation, before)?;
        }
        let may_end = revocation.judge(authorities, has_signed);
        let ends = found.into_iter().zip(may_end).filter(|(_, ends)| *ends);
        let authorities: Vec<CertificateDer> = ends.map(|(found, _)| found.der.into()).collect();
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
        let added = roots.add(certificate.clone());
        added.map_err(|error| invalid(error.to_string()))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    builder.build().map_err(|error| invalid(error.to_string()))
}

fn read_authority(file: &Path, found: &Found) -> Result<Authority, TlsError> {
    let mut alone = RootCertStore::empty();
    let is_anchor = alone.add(CertificateDer::from(&*found.der)).is_ok();
    let authority = identity::authority(&found.der).ok();
    authority.filter(|_| is_anchor).ok_or_else(|| {
        let reason = found.fault("it is not a certificate that chains can end with, or is damaged");
        files::failed(CLIENT_CA, file, reason)
    })
}

fn read_lists(config: &TlsConfig, authorities: &[Authority]) -> Result<Revocation, TlsError> {
    let mut revocation = Revocation::new(config.crl_strict);
    for file in &config.crl {
        for found in files::read_crls(file)? {
            add(&mut revocation, file, &found, authorities)?;
        }
    }
    let partitions = revocation.partitions();
    if partitions > 0 {
        tracing::info!(
            partitions,
            "CRLs name distribution points: these speak only for certificates that name the same one"
        );
    }
    Ok(revocation)
}

fn add(
    revocation: &mut Revocation,
    file: &Path,
    found: &Found,
    authorities: &[Authority],
) -> Result<(), TlsError> {
    let failed = |reason: &str| files::failed(CRL, file, found.fault(reason));
    let crl = Crl::parse(&found.der).map_err(|error| failed(&error.to_string()))?;
    let is_issuer = |authority: &&Authority| *authority.subject == *crl.issuer;
    let issuers: Vec<&Authority> = authorities.iter().filter(is_issuer).collect();
    if issuers.is_empty() {
        return Err(failed(ISSUER_UNKNOWN));
    }
    let signer = issuers.into_iter().find(|issuer| {
        let key = PublicKey::read(&issuer.key_info);
        issuer.may_sign_crls && key.is_ok_and(|key| has_signed(&key, &crl.signed))
    });
    let signer = signer.ok_or_else(|| failed(NOT_SIGNED))?;
    let until = Timestamp(crl.edition.this_update.0.saturating_sub(CLOCK_SKEW_MILLIS));
    if until > Timestamp::now() {
        return Err(TlsError::Early {
            file: file.to_owned(),
            until,
        });
    }
    let added = revocation.add(&crl, &signer.key_info, file);
    added.map_err(|error| failed(&error.to_string()))
}

const ISSUER_UNKNOWN: &str = "its issuer is not among the authorities of FOREBAY_TLS_CLIENT_CA";

const NOT_SIGNED: &str =
    "its signature is not that of its issuer, or its issuer's certificate forbids to sign CRLs";

fn must_be_newer(revocation: &Revocation, before: Option<&Revocation>) -> Result<(), TlsError> {
    let stale = before.and_then(|before| revocation.stale_file(before));
    let reason = "it is older than the list in force (by CRL number, else by thisUpdate), which stays; if the authority \
                  has begun to count anew, restart the gateway";
    stale.map_or(Ok(()), |file| {
        Err(files::failed(CRL, file, reason.to_owned()))
    })
}

/// Whether the key has made the signature, by an algorithm that TLS would take as well.
pub(crate) fn has_signed(key: &PublicKey, signed: &Signed) -> bool {
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
        LazyLock::new(|| aws_lc_rs::default_provider().signature_verification_algorithms);
    let fits = |algorithm: &&&dyn SignatureVerificationAlgorithm| {
        algorithm.public_key_alg_id().as_ref() == key.algorithm
            && algorithm.signature_alg_id().as_ref() == signed.algorithm
    };
    let mut fitting = ALGORITHMS.all.iter().filter(fits);
    fitting.any(|algorithm| {
        algorithm
            .verify_signature(key.key, signed.content, signed.signature)
            .is_ok()
    })
}
