//! The server's certificate chain and its key, which change together: a key that does not belong to the certificate is
//! an error, also for the moment in which one of the two files has been replaced.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::TlsError;
use super::files::{self, CERT};
use crate::config::TlsConfig;
use crate::identity::{self, ServerCertificate};

/// A certificate chain with its key.
pub struct Pair {
    pub resolver: Arc<SingleCertAndKey>,
    pub certificate: ServerCertificate,
}

impl Pair {
    pub fn load(config: &TlsConfig, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let chain = files::read_chain(&config.cert)?;
        let invalid = |reason| TlsError::Invalid {
            variable: CERT,
            reason,
        };
        let certificate =
            identity::server(&chain[0]).map_err(|error| invalid(error.to_string()))?;
        let key = files::read_key(&config.key)?;
        let certified =
            CertifiedKey::from_der(chain, key, provider).map_err(|error| TlsError::Invalid {
                variable: "FOREBAY_TLS_CERT, FOREBAY_TLS_KEY",
                reason: format!(
                    "{error}; the key must belong to the first certificate of the chain"
                ),
            })?;
        Ok(Self {
            resolver: Arc::new(certified.into()),
            certificate,
        })
    }
}
