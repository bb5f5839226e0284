//! The files as they are: read at start, looked at every few seconds, read again when they have changed.
//!
//! The gateway calls [`Reloader::look`] on a thread that may block. Two parts are good or bad by themselves, the server's
//! certificate with its key, and the authorities with their CRLs: a part that cannot be used leaves the last good one in
//! force, and is an error once, until its files change again. Connections notice nothing: handshakes under way end with
//! what they began with, new ones take what is current. Tickets are kept as long as the authorities are the same ones,
//! so that no session is resumed that they would not let in; rustls changes their keys every six hours.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ProducesTickets;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::sync::watch;

use super::files::{self, CLIENT_CA, Stamp};
use super::pair::Pair;
use super::reset::Resets;
use super::sessions::Sessions;
use super::tickets::{SharedCertificates, ShortTickets};
use super::trust::Trust;
use super::{Configs, Revocation, Tls, TlsError};
use crate::config::{TlsConfig, TlsVersion};
use crate::identity::ServerCertificate;
use crate::record::Timestamp;

/// TLS 1.3 session tickets that a client is sent; each costs it a resumption and the server a round of encryption.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// Keeps what the files say current.
pub(crate) struct Reloader {
    config: TlsConfig,
    provider: Arc<CryptoProvider>,
    pair: Watched<Pair>,
    trust: Watched<Trust>,
    tickets: Tickets,
    certificates: Arc<SharedCertificates>,
    resets: Resets,
    configs: Arc<ArcSwap<Configs>>,
    revocation: watch::Sender<Arc<Revocation>>,
}

/// What a look at the files has found.
#[derive(Debug)]
pub(crate) enum Change {
    /// The server presents another certificate.
    Certificate(ServerCertificate),
    /// Authorities or CRLs are other ones.
    Trust { authorities: usize, revoked: usize },
    /// Something has changed that cannot be used: what was there before stays in force.
    Failed(TlsError),
}

impl Reloader {
    /// Reads all files.
    pub(crate) fn start(config: TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pair_files = [config.cert.clone(), config.key.clone()].concat();
        let trust_files = [vec![config.client_ca.clone()], config.crl.clone()].concat();
        let pair = Watched::start(pair_files, || Pair::load(&config, &provider))?;
        let trust = Watched::start(trust_files, || Trust::load(&config, &provider, None))?;
        let certificates = Arc::<SharedCertificates>::default();
        let tickets = Tickets::new(&certificates)?;
        let resets = Resets::load(&config.key)?;
        let configs = Configs::new(&config, &provider, &pair.value, &trust.value, &tickets)?;
        let configs = Arc::new(ArcSwap::from_pointee(configs));
        let revocation = watch::Sender::new(trust.value.revocation.clone());
        Ok(Self {
            config,
            provider,
            pair,
            trust,
            tickets,
            certificates,
            resets,
            configs,
            revocation,
        })
    }

    /// What workers take.
    pub(crate) fn tls(&self) -> Tls {
        Tls {
            configs: self.configs.clone(),
            resets: self.resets.clone(),
            revocation: self.revocation.subscribe(),
            certificates: self.certificates.clone(),
        }
    }

    pub(crate) fn certificate(&self) -> &ServerCertificate {
        &self.pair.value.certificate
    }

    /// Looks at the files, and reads those parts that have changed, or all of them. May take a second, and blocks.
    pub(crate) fn look(&mut self, reads_all: bool) -> Vec<Change> {
        let pair = self
            .pair
            .look(reads_all, || Pair::load(&self.config, &self.provider));
        let authorities = self.trust.value.authorities.clone();
        let before = self.trust.value.revocation.clone();
        let trust = self.trust.look(reads_all, || {
            Trust::load(&self.config, &self.provider, Some(&before))
        });
        let mut changes: Vec<Change> = Vec::new();
        if let Some(looked) = pair {
            changes.push(looked.map_or_else(Change::Failed, |()| {
                Change::Certificate(self.certificate().clone())
            }));
        }
        if let Some(looked) = trust {
            let Trust {
                authorities,
                revocation,
                ..
            } = &self.trust.value;
            let trust = || Change::Trust {
                authorities: authorities.len(),
                revoked: revocation.revoked_len(),
            };
            changes.push(looked.map_or_else(Change::Failed, |()| trust()));
        }
        if changes
            .iter()
            .any(|change| !matches!(change, Change::Failed(_)))
        {
            let has_new_authorities = self.trust.value.authorities != authorities;
            changes.extend(self.publish(has_new_authorities).err().map(Change::Failed));
        }
        changes
    }

    fn publish(&mut self, has_new_authorities: bool) -> Result<(), TlsError> {
        if has_new_authorities {
            self.tickets = Tickets::new(&self.certificates)?;
        }
        let configs = Configs::new(
            &self.config,
            &self.provider,
            &self.pair.value,
            &self.trust.value,
            &self.tickets,
        )?;
        self.configs.store(Arc::new(configs));
        self.revocation
            .send_replace(self.trust.value.revocation.clone());
        Ok(())
    }
}

/// Some files, and what they held when they were last good.
struct Watched<T> {
    files: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
    /// When files that could not be used are read again, although they have not changed.
    due: Option<Timestamp>,
    value: T,
}

impl<T> Watched<T> {
    fn start(
        files: Vec<PathBuf>,
        load: impl FnOnce() -> Result<T, TlsError>,
    ) -> Result<Self, TlsError> {
        // Before reading: what is written meanwhile is seen by the next look.
        let seen = files.iter().map(files::stamp).collect();
        Ok(Self {
            value: load()?,
            files,
            seen,
            due: None,
        })
    }

    /// `None` when nothing has changed since the last look.
    fn look(
        &mut self,
        reads_all: bool,
        load: impl FnOnce() -> Result<T, TlsError>,
    ) -> Option<Result<(), TlsError>> {
        let stamps: Vec<_> = self.files.iter().map(files::stamp).collect();
        let is_due = self.due.is_some_and(|due| due <= Timestamp::now());
        if stamps == self.seen && !reads_all && !is_due {
            return None;
        }
        self.seen = stamps;
        let loaded = load();
        self.due = loaded.as_ref().err().and_then(TlsError::due);
        Some(loaded.map(|value| self.value = value))
    }
}

/// What encrypts session tickets, and the sessions of clients of TLS 1.2 that know no tickets. A session of TCP is not resumed
/// on QUIC.
struct Tickets {
    tcp: Arc<dyn ProducesTickets>,
    quic: Arc<dyn ProducesTickets>,
    sessions: Arc<Sessions>,
}

impl Tickets {
    fn new(certificates: &Arc<SharedCertificates>) -> Result<Self, TlsError> {
        Ok(Self {
            tcp: ticketer(certificates)?,
            quic: ticketer(certificates)?,
            sessions: Arc::default(),
        })
    }
}

fn ticketer(certificates: &Arc<SharedCertificates>) -> Result<Arc<dyn ProducesTickets>, TlsError> {
    Ok(Arc::new(ShortTickets {
        ticketer: aws_lc_rs::Ticketer::new().map_err(no_config)?,
        certificates: certificates.clone(),
    }))
}

/// Only the system's randomness could fail.
fn no_config(error: rustls::Error) -> TlsError {
    TlsError::Invalid {
        variable: CLIENT_CA,
        reason: format!("TLS cannot be set up: {error}"),
    }
}

impl Configs {
    fn new(
        config: &TlsConfig,
        provider: &Arc<CryptoProvider>,
        pair: &Pair,
        trust: &Trust,
        tickets: &Tickets,
    ) -> Result<Self, TlsError> {
        let versions: &[&SupportedProtocolVersion] = match config.min_version {
            TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let server_config = |versions, protocols: &[&[u8]], ticketer: &Arc<dyn ProducesTickets>| {
            let builder = ServerConfig::builder_with_provider(provider.clone());
            let builder = builder
                .with_protocol_versions(versions)
                .map_err(no_config)?;
            let builder = builder.with_client_cert_verifier(trust.verifier.clone());
            let mut config = builder.with_cert_resolver(pair.resolver.clone());
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            // Tickets carry the session; this is for clients that know none, and for TLS 1.2 only.
            config.session_storage = tickets.sessions.clone();
            config.ticketer = ticketer.clone();
            config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
            config.max_early_data_size = 0;
            Ok(Arc::new(config))
        };
        Ok(Self {
            tcp: server_config(versions, &[b"h2", b"http/1.1", b"http/1.0"], &tickets.tcp)?,
            quic: server_config(&[&rustls::version::TLS13], &[b"h3"], &tickets.quic)?,
        })
    }
}
