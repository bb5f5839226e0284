//! The settings that all configurations of rustls have in common: a client certificate is required,
//! and a ticket resumes its session.
//!
//! [`reload`](super::reload) makes that of TCP with it whenever the files have changed,
//! [`quic`](super::quic) one for each handshake. Failure: versions that the provider has no cipher
//! suites for, which is the same at every call.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};

use super::pair::Pairs;
use super::verifier::Verifier;

/// TLS 1.3 session tickets that a client is sent; each costs the client memory and the server a
/// round of encryption.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// Settings that the configurations of TCP, or of QUIC, have whatever the files say.
pub(super) struct Settings {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Versions,
}

type Versions = &'static [&'static SupportedProtocolVersion];

pub(super) static FROM_TLS12: Versions = &[&TLS13, &TLS12];
pub(super) static FROM_TLS13: Versions = &[&TLS13];

/// Makes what TCP and QUIC have in common.
pub(super) fn server_config(
    settings: &Settings,
    verifier: Arc<Verifier>,
    resolver: Arc<Pairs>,
) -> Result<ServerConfig, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(settings.provider.clone());
    let builder = builder.with_protocol_versions(settings.versions)?;
    let builder = builder.with_client_cert_verifier(verifier);
    let mut config = builder.with_cert_resolver(resolver);
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    config.max_early_data_size = 0;
    Ok(config)
}
