//! TLS: rustls configurations for TCP and QUIC that require a client certificate, always, and who
//! may still speak.
//!
//! [`Reloader`] reads the files at start, and again when they have changed; every worker takes the
//! current [`Configs`] for each new handshake, and the current [`Revocation`] for each of its
//! connections. Chain, validity and the clientAuth extended key usage are the verifier's; ALPN
//! offers h2 and http/1.1 on TCP and h3 on QUIC.
//!
//! A resumed session skips the verifier in rustls: `accept` asks for revocation again, and `ingest`
//! looks at the certificate's dates on every request. Tickets do not outlive a change of
//! authorities, nor does a connection outlive its own authority. Bad files are an error that names
//! the file and its variable, and shows nothing of the file.

mod files;
mod pair;
mod quic;
mod reload;
mod reset;
mod revocation;
mod sessions;
mod settings;
mod stream;
mod tickets;
mod trust;
mod verifier;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;

pub(crate) use quic::QuicConfigs;
pub(crate) use reload::{Change, Reloader};
pub(crate) use reset::Resets;
pub use revocation::{Revocation, Status};
pub(crate) use stream::{Buffers, PlainHttp, TlsStream};
pub(crate) use tickets::SharedCertificates;
pub(crate) use verifier::{Note, Refused, take_refused};

use crate::devices::Devices;
use crate::record::Timestamp;
use crate::words::{Handshake, Reload};

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("{variable}: cannot read {}: {reason}", file.display())]
    File {
        variable: &'static str,
        file: PathBuf,
        reason: String,
    },
    #[error("{variable}: {reason}")]
    Invalid {
        variable: &'static str,
        reason: String,
    },
    /// A list from the future may be used later.
    #[error(
        "{}: cannot use {}: it is from the future (thisUpdate): look at the clocks of this machine and of the authority",
        files::CRL, file.display()
    )]
    Early { file: PathBuf, until: Timestamp },
}

impl TlsError {
    /// Which of the files it is, for the metric.
    pub(crate) fn what(&self) -> Reload {
        match self {
            Self::Early { .. } => Reload::Crl,
            Self::File { variable, .. } | Self::Invalid { variable, .. } => match *variable {
                files::CLIENT_CA => Reload::ClientCa,
                files::CRL => Reload::Crl,
                _ => Reload::Certificate,
            },
        }
    }

    /// Instant from which the same files may be good, although nobody changes them.
    fn due(&self) -> Option<Timestamp> {
        match self {
            Self::Early { until, .. } => Some(*until),
            Self::File { .. } | Self::Invalid { .. } => None,
        }
    }
}

/// The configurations that new handshakes are made with.
pub(crate) struct Configs {
    pub tcp: Arc<ServerConfig>,
    pub quic: QuicConfigs,
    /// Verifier of client certificates that TCP and QUIC share.
    verifier: Arc<dyn ClientCertVerifier>,
}

/// A worker's handles of the files, as they are now.
#[derive(Clone)]
pub(crate) struct Tls {
    pub configs: Arc<ArcSwap<Configs>>,
    /// The secret of stateless resets, as the files were at start.
    pub resets: Resets,
    pub revocation: watch::Receiver<Arc<Revocation>>,
    pub devices: watch::Receiver<Arc<Devices>>,
    /// The certificates that tickets need not hold.
    pub certificates: Arc<SharedCertificates>,
}

impl Tls {
    /// Verifies a client's chain as a full handshake would now.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), Handshake> {
        let (leaf, others) = chain.split_first().ok_or(Handshake::NoCertificate)?;
        let configs = self.configs.load();
        let verified = configs
            .verifier
            .verify_client_cert(leaf, others, UnixTime::now());
        verified.map(drop).map_err(|error| failure(&error))
    }
}

/// Why a handshake failed, for its metric.
pub(crate) fn failure(error: &rustls::Error) -> Handshake {
    use rustls::CertificateError::*;
    match error {
        rustls::Error::NoCertificatesPresented => Handshake::NoCertificate,
        rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => Handshake::Expired,
        rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            Handshake::NotYetValid
        }
        rustls::Error::InvalidCertificate(UnknownIssuer) => Handshake::UnknownIssuer,
        rustls::Error::InvalidCertificate(UnknownRevocationStatus) => Handshake::CrlMissing,
        rustls::Error::InvalidCertificate(ExpiredRevocationList) => Handshake::CrlExpired,
        rustls::Error::InvalidCertificate(Revoked) => Handshake::Revoked,
        rustls::Error::InvalidCertificate(_) => Handshake::BadCertificate,
        rustls::Error::AlertReceived(alert) => alert_received(u8::from(*alert)),
        _ => Handshake::Protocol,
    }
}

/// Why a client has ended a handshake by this alert (RFC 8446 section 6.2).
pub(crate) fn alert_received(alert: u8) -> Handshake {
    const OF_THE_CERTIFICATE: std::ops::RangeInclusive<u8> = 42..=46;
    const UNKNOWN_CA: u8 = 48;
    if OF_THE_CERTIFICATE.contains(&alert) || alert == UNKNOWN_CA {
        Handshake::ServerUntrusted
    } else {
        Handshake::Protocol
    }
}
