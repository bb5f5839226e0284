//! The server's certificate chains and their keys, which change together: a key that does not
//! belong to its certificate is an error, also for the moment in which one of the two files has
//! been replaced. With several pairs a client gets the first one whose signature it can verify.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::TlsError;
use super::files::{self, CERT};
use crate::config::TlsConfig;
use crate::identity::{self, IdentityError, ServerCertificate};

/// Server certificates with their keys, as the files hold them.
pub(crate) struct Pair {
    pub resolver: Arc<Pairs>,
    /// The names of all certificates, and the earliest end.
    pub certificate: ServerCertificate,
}

impl Pair {
    pub(crate) fn load(config: &TlsConfig, provider: &CryptoProvider) -> Result<Self, TlsError> {
        assert_eq!(config.cert.len(), config.key.len(), "config sees to it");
        let mut pairs = Vec::new();
        let mut certificates = Vec::new();
        for (cert, key) in config.cert.iter().zip(&config.key) {
            let (certificate, certified) = load_one(cert, key, provider)?;
            certificates.push(certificate);
            pairs.push(Arc::new(certified));
        }
        let certificate = certificates.into_iter().reduce(together);
        Ok(Self {
            resolver: Arc::new(Pairs(pairs)),
            certificate: certificate.expect("a list of files has one at least"),
        })
    }
}

fn load_one(
    cert: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<(ServerCertificate, CertifiedKey), TlsError> {
    let chain = files::read_chain(cert)?;
    let certificate = read_chain(&chain).map_err(|error| TlsError::Invalid {
        variable: CERT,
        reason: error.to_string(),
    })?;
    let key = files::read_key(key)?;
    let certified = CertifiedKey::from_der(chain, key, provider).map_err(no_pair)?;
    Ok((certificate, certified))
}

/// Reads the names of a chain's first certificate, and when the first of them expires.
fn read_chain(chain: &[CertificateDer]) -> Result<ServerCertificate, IdentityError> {
    let mut certificate = identity::server(&chain[0])?;
    for above in &chain[1..] {
        certificate.not_after = certificate.not_after.min(identity::expiry(above)?);
    }
    Ok(certificate)
}

fn no_pair(error: rustls::Error) -> TlsError {
    let reason = match &error {
        rustls::Error::InconsistentKeys(_) => {
            "the key is another certificate's: it must belong to the first one of the chain".into()
        }
        // webpki tells it by the text of its own error only.
        rustls::Error::InvalidCertificate(other)
            if format!("{other:?}").contains("UnsupportedCertVersion") =>
        {
            "the certificate is of version 1, which has no room for names: issue one of version 3 (openssl x509 -req \
             makes one with -extfile)"
                .into()
        }
        error => format!("it cannot be used: {error}"),
    };
    TlsError::Invalid {
        variable: "FOREBAY_TLS_CERT, FOREBAY_TLS_KEY",
        reason,
    }
}

/// Joins two certificates: all names of both, and the earlier end.
fn together(mut all: ServerCertificate, next: ServerCertificate) -> ServerCertificate {
    all.not_after = all.not_after.min(next.not_after);
    for name in next.names {
        if !all.names.contains(&name) {
            all.names.push(name);
        }
    }
    all
}

/// Certificate chains with their keys, the preferred one first.
#[derive(Debug)]
pub(crate) struct Pairs(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Pairs {
    /// Picks the first chain that the client can verify. One that can verify none of them fails
    /// with the first one, which says why.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let fits = |pair: &&Arc<CertifiedKey>| pair.key.choose_scheme(schemes).is_some();
        let first = self.0.first();
        self.0.iter().find(fits).or(first).cloned()
    }
}
