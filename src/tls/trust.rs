//! Whom the gateway trusts to name devices, and whom they have taken back: the authorities and
//! their CRLs, which are good or bad together. A list that no authority of the bundle has signed
//! would leave its devices unchecked, so it is an error; so is one from the future, and one that is
//! older than the list whose place it takes: whoever can put an old list in its place would let in
//! whom the new one names.

use std::fmt::Display;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

use super::TlsError;
use super::files::{self, CLIENT_CA, CRL, Found};
use super::revocation::Revocation;
use super::verifier::Verifier;
use crate::config::TlsConfig;
use crate::devices::Devices;
use crate::identity::{self, Authority, Crl, PublicKey, Signed};
use crate::record::Timestamp;

/// Time by which an authority's clock may be ahead of the gateway's.
const CLOCK_SKEW_MILLIS: u64 = 300_000;

/// The authorities that name devices, and what they revoked.
pub(crate) struct Trust {
    /// The certificates that chains may end with.
    pub authorities: Vec<CertificateDer<'static>>,
    pub verifier: Arc<Verifier>,
    pub revocation: Arc<Revocation>,
    pub ends: Ends,
}

/// When what the files of authorities and lists hold ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    /// When the first authority of the bundle expires.
    pub authority: Timestamp,
    /// When the first list is due; `None` without a list.
    pub list: Option<Timestamp>,
}

impl Trust {
    /// Reads the files. `before` is what has been in force, if anything.
    pub(crate) fn load(
        config: &TlsConfig,
        provider: &Arc<CryptoProvider>,
        devices: &watch::Receiver<Arc<Devices>>,
        before: Option<&Revocation>,
    ) -> Result<Self, TlsError> {
        let found = files::read_authorities(&config.client_ca)?;
        let read = |found| read_authority(&config.client_ca, found);
        let authorities = found.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let mut revocation = Revocation::off();
        if !config.crl.is_empty() {
            revocation = read_lists(config, &authorities)?;
            must_be_newer(&revocation, before)?;
        }
        let ends = Ends {
            authority: first_end(&authorities),
            list: revocation.next_update(),
        };
        let may_end = revocation.judge(authorities, has_signed);
        let authorities = where_chains_end(found, &may_end);
        let revocation = Arc::new(revocation);
        let verifier = Arc::new(Verifier {
            chains: chain_verifier(&authorities, provider)?,
            revocation: revocation.clone(),
            note: None,
            devices: devices.clone(),
        });
        Ok(Self {
            authorities,
            verifier,
            revocation,
            ends,
        })
    }
}

fn first_end(authorities: &[Authority]) -> Timestamp {
    let ends = authorities.iter().map(|authority| authority.not_after);
    ends.min().expect("a bundle has one at least")
}

/// The authorities of the bundle that chains may end with.
fn where_chains_end(found: Vec<Found>, may_end: &[bool]) -> Vec<CertificateDer<'static>> {
    assert_eq!(found.len(), may_end.len(), "each authority is judged");
    let mut authorities = Vec::new();
    for (found, may_end) in found.into_iter().zip(may_end) {
        if *may_end {
            authorities.push(found.der.into());
        }
    }
    authorities
}

/// Makes the verifier of everything but revocation.
fn chain_verifier(
    authorities: &[CertificateDer<'static>],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in authorities {
        roots.add(certificate.clone()).map_err(unusable)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    builder.build().map_err(unusable)
}

fn unusable(error: impl Display) -> TlsError {
    TlsError::Invalid {
        variable: CLIENT_CA,
        reason: error.to_string(),
    }
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
            let list = ListFile {
                file,
                found: &found,
            };
            list.add_to(&mut revocation, authorities)?;
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

/// A list, and the file in which it was found.
struct ListFile<'a> {
    file: &'a Path,
    found: &'a Found,
}

impl ListFile<'_> {
    fn add_to(
        &self,
        revocation: &mut Revocation,
        authorities: &[Authority],
    ) -> Result<(), TlsError> {
        let crl = Crl::parse(&self.found.der).map_err(|error| self.failed(error))?;
        let signer = self.signer(&crl, authorities)?;
        let until = Timestamp(crl.edition.this_update.0.saturating_sub(CLOCK_SKEW_MILLIS));
        if until > Timestamp::now() {
            return Err(TlsError::Early {
                file: self.file.to_owned(),
                until,
            });
        }
        let added = revocation.add(&crl, &signer.key_info, self.file);
        added.map_err(|error| self.failed(error))
    }

    /// The authority of the bundle that has signed the list.
    fn signer<'b>(
        &self,
        crl: &Crl,
        authorities: &'b [Authority],
    ) -> Result<&'b Authority, TlsError> {
        let mut fault = ISSUER_UNKNOWN;
        for authority in authorities {
            if *authority.subject != *crl.issuer {
                continue;
            }
            if has_signed_list(authority, crl) {
                return Ok(authority);
            }
            fault = NOT_SIGNED;
        }
        Err(self.failed(fault))
    }

    fn failed(&self, reason: impl Display) -> TlsError {
        files::failed(CRL, self.file, self.found.fault(&reason.to_string()))
    }
}

fn has_signed_list(authority: &Authority, crl: &Crl) -> bool {
    let key = PublicKey::read(&authority.key_info).expect("read when the authority was");
    authority.may_sign_crls && has_signed(&key, &crl.signed)
}

const ISSUER_UNKNOWN: &str = "its issuer is not among the authorities of FOREBAY_TLS_CLIENT_CA";

const NOT_SIGNED: &str =
    "its signature is not that of its issuer, or its issuer's certificate forbids to sign CRLs";

const STALE: &str = "it is older than the list in force (by CRL number, else by thisUpdate), which stays; if the authority \
     has begun to count anew, restart the gateway";

fn must_be_newer(revocation: &Revocation, before: Option<&Revocation>) -> Result<(), TlsError> {
    let stale = before.and_then(|before| revocation.stale_file(before));
    match stale {
        None => Ok(()),
        Some(file) => Err(files::failed(CRL, file, STALE.to_owned())),
    }
}

/// Whether the key has made the signature, by an algorithm that TLS would take as well.
pub(crate) fn has_signed(key: &PublicKey, signed: &Signed) -> bool {
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> =
        LazyLock::new(|| aws_lc_rs::default_provider().signature_verification_algorithms);
    for algorithm in ALGORITHMS.all {
        if !fits(*algorithm, key, signed) {
            continue;
        }
        let verified = algorithm.verify_signature(key.key, signed.content, signed.signature);
        if verified.is_ok() {
            return true;
        }
    }
    false
}

fn fits(algorithm: &dyn SignatureVerificationAlgorithm, key: &PublicKey, signed: &Signed) -> bool {
    algorithm.public_key_alg_id().as_ref() == key.algorithm
        && algorithm.signature_alg_id().as_ref() == signed.algorithm
}
