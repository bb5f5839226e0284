//! TLS: rustls configurations for TCP and QUIC that require a client certificate, always.
//!
//! Built once at start from PEM files, given to every worker. The verifier checks chain, validity, the clientAuth
//! extended key usage and, where CRLs are set, revocation; ALPN offers h2 and http/1.1 on TCP and h3 on QUIC. A
//! resumed session skips the verifier in rustls: `identity` looks at the certificate's dates again on every request.
//! Bad files are an error that names the file and its variable.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::config::{TlsConfig, TlsVersion};
use crate::telemetry::metrics::Handshake;

/// TLS 1.3 session tickets that a client is sent; each costs it a resumption and the server a round of encryption.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// What is wrong with the files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{variable}: cannot read {}: {reason}", file.display())]
    File { variable: &'static str, file: PathBuf, reason: String },
    #[error("{variable}: {reason}")]
    Invalid { variable: &'static str, reason: String },
}

/// Server configurations, and the certificate they present.
pub struct Tls {
    pub tcp: Arc<ServerConfig>,
    pub quic: Arc<ServerConfig>,
    pub leaf: CertificateDer<'static>,
}

impl Tls {
    /// Reads the files.
    pub fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let chain = read_pem::<CertificateDer>("FOREBAY_TLS_CERT", &config.cert, "a certificate")?;
        let leaf = chain[0].clone();
        let key = PrivateKeyDer::from_pem_file(&config.key).map_err(|error| TlsError::File {
            variable: "FOREBAY_TLS_KEY",
            file: config.key.clone(),
            reason: explain(error, "a private key"),
        })?;
        let verifier = client_verifier(config)?;
        let versions: &[&SupportedProtocolVersion] = match config.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let tcp = server_config(versions, &verifier, &chain, &key, &[b"h2", b"http/1.1"])?;
        let quic = server_config(&[&rustls::version::TLS13], &verifier, &chain, &key, &[b"h3"])?;
        Ok(Self { tcp, quic, leaf })
    }
}

fn server_config(
    versions: &[&'static SupportedProtocolVersion],
    verifier: &Arc<dyn ClientCertVerifier>,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let invalid = |error: rustls::Error| TlsError::Invalid {
        variable: "FOREBAY_TLS_CERT, FOREBAY_TLS_KEY",
        reason: format!("{error}; the key must belong to the first certificate of the chain"),
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions).map_err(invalid)?;
    let builder = builder.with_client_cert_verifier(verifier.clone());
    let mut config = builder.with_single_cert(chain.to_vec(), key.clone_key()).map_err(invalid)?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    // Tickets carry the session: nothing to store, nothing to bound.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(invalid)?;
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn client_verifier(config: &TlsConfig) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    const VARIABLE: &str = "FOREBAY_TLS_CLIENT_CA";
    let mut roots = RootCertStore::empty();
    for certificate in read_pem::<CertificateDer>(VARIABLE, &config.client_ca, "a certificate")? {
        roots.add(certificate).map_err(|error| TlsError::Invalid { variable: VARIABLE, reason: error.to_string() })?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    for file in &config.crl {
        builder = builder.with_crls(read_crls(file)?);
    }
    builder = if config.crl_strict {
        builder.enforce_revocation_expiration()
    } else {
        builder.allow_unknown_revocation_status()
    };
    builder.build().map_err(|error| TlsError::Invalid { variable: "FOREBAY_TLS_CRL", reason: error.to_string() })
}

/// PEM or DER, by what the file looks like.
fn read_crls(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    const VARIABLE: &str = "FOREBAY_TLS_CRL";
    let failed = |reason| TlsError::File { variable: VARIABLE, file: file.to_owned(), reason };
    let bytes = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    if bytes.first() == Some(&0x30) {
        return Ok(vec![bytes.into()]);
    }
    read_pem::<CertificateRevocationListDer>(VARIABLE, file, "a CRL")
}

/// All sections of the kind, at least one.
fn read_pem<T: PemObject>(variable: &'static str, file: &Path, what: &str) -> Result<Vec<T>, TlsError> {
    let failed = |reason| TlsError::File { variable, file: file.to_owned(), reason };
    let sections = T::pem_file_iter(file).map_err(|error| failed(explain(error, what)))?;
    let objects: Vec<T> = sections.collect::<Result<_, _>>().map_err(|error| failed(explain(error, what)))?;
    if objects.is_empty() { Err(failed(format!("it does not hold {what} in PEM"))) } else { Ok(objects) }
}

fn explain(error: pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("it does not hold {what} in PEM"),
        error => format!("it is not PEM: {error}"),
    }
}

/// Why a handshake failed, for its metric.
pub fn failure(error: &rustls::Error) -> Handshake {
    use rustls::CertificateError::*;
    match error {
        rustls::Error::NoCertificatesPresented => Handshake::NoCertificate,
        rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        ) => Handshake::Expired,
        rustls::Error::InvalidCertificate(UnknownIssuer) => Handshake::UnknownIssuer,
        rustls::Error::InvalidCertificate(Revoked) => Handshake::Revoked,
        rustls::Error::InvalidCertificate(_) => Handshake::BadCertificate,
        _ => Handshake::Protocol,
    }
}
