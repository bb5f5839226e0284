//! The files as they are: read at start, looked at every few seconds, read again when they have
//! changed.
//!
//! The gateway calls [`Reloader::look`] on a thread that may block. Two parts are good or bad by
//! themselves, the server's certificate with its key, and the authorities with their CRLs: a part
//! that cannot be used leaves the last good one in force, and is an error once, until its files
//! change again. Connections notice nothing: handshakes under way end with what they began with,
//! new ones take what is current. Tickets are kept as long as the authorities are the same ones, so
//! that no session is resumed that they would not let in; rustls changes their keys every six
//! hours.

use std::path::PathBuf;
use std::slice;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::ProducesTickets;
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio::sync::watch;

use super::files::CLIENT_CA;
use super::pair::Pair;
use super::reset::Resets;
use super::sessions::Sessions;
use super::tickets::{SharedCertificates, ShortTickets};
use super::trust::Trust;
use super::{Configs, Revocation, Tls, TlsError};
use crate::config::{TlsConfig, TlsVersion};
use crate::durable::stamp::{Stamp, stamp};
use crate::identity::ServerCertificate;
use crate::record::Timestamp;

/// TLS 1.3 session tickets that a client is sent; each costs the client memory and the server a
/// round of encryption.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// Keeps what the files say current.
pub(crate) struct Reloader {
    loaded: Loaded,
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

impl Change {
    fn is_in_force(&self) -> bool {
        !matches!(self, Self::Failed(_))
    }
}

impl Reloader {
    /// Reads all files.
    pub(crate) fn start(config: TlsConfig) -> Result<Self, TlsError> {
        let resets = Resets::load(&config.key)?;
        let loaded = Loaded::start(config)?;
        let certificates = Arc::<SharedCertificates>::default();
        let tickets = Tickets::new(&certificates)?;
        let configs = Arc::new(ArcSwap::from_pointee(loaded.configs(&tickets)?));
        let revocation = watch::Sender::new(loaded.trust.value.revocation.clone());
        Ok(Self {
            loaded,
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
        &self.loaded.pair.value.certificate
    }

    /// Looks at the files, and reads those parts that have changed, or all of them. May take a
    /// second, and blocks.
    pub(crate) fn look(&mut self, reads_all: bool) -> Vec<Change> {
        let authorities_before = self.loaded.trust.value.authorities.clone();
        let mut changes = Vec::new();
        changes.extend(self.loaded.look_at_pair(reads_all));
        changes.extend(self.loaded.look_at_trust(reads_all));
        if changes.iter().any(Change::is_in_force) {
            let has_new_authorities = self.loaded.trust.value.authorities != authorities_before;
            let published = self.publish(has_new_authorities);
            changes.extend(published.err().map(Change::Failed));
        }
        changes
    }

    fn publish(&mut self, has_new_authorities: bool) -> Result<(), TlsError> {
        if has_new_authorities {
            self.tickets = Tickets::new(&self.certificates)?;
        }
        let configs = self.loaded.configs(&self.tickets)?;
        self.configs.store(Arc::new(configs));
        let revocation = &self.loaded.trust.value.revocation;
        self.revocation.send_replace(revocation.clone());
        Ok(())
    }
}

/// What the files held when they were last good, and what it takes to load them again.
struct Loaded {
    config: TlsConfig,
    provider: Arc<CryptoProvider>,
    pair: Watched<Pair>,
    trust: Watched<Trust>,
}

impl Loaded {
    fn start(config: TlsConfig) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pair_files = [&config.cert[..], &config.key].concat();
        let pair = Watched::start(pair_files, || Pair::load(&config, &provider))?;
        let trust_files = [slice::from_ref(&config.client_ca), &config.crl].concat();
        let trust = Watched::start(trust_files, || Trust::load(&config, &provider, None))?;
        Ok(Self {
            config,
            provider,
            pair,
            trust,
        })
    }

    fn look_at_pair(&mut self, reads_all: bool) -> Option<Change> {
        let load = || Pair::load(&self.config, &self.provider);
        let looked = self.pair.look(reads_all, load)?;
        Some(match looked {
            Ok(()) => Change::Certificate(self.pair.value.certificate.clone()),
            Err(error) => Change::Failed(error),
        })
    }

    fn look_at_trust(&mut self, reads_all: bool) -> Option<Change> {
        let before = self.trust.value.revocation.clone();
        let load = || Trust::load(&self.config, &self.provider, Some(&before));
        let looked = self.trust.look(reads_all, load)?;
        let trust = &self.trust.value;
        Some(match looked {
            Ok(()) => Change::Trust {
                authorities: trust.authorities.len(),
                revoked: trust.revocation.revoked_len(),
            },
            Err(error) => Change::Failed(error),
        })
    }

    /// Makes what new handshakes are made with.
    fn configs(&self, tickets: &Tickets) -> Result<Configs, TlsError> {
        let versions: &[_] = match self.config.min_version {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let mut tcp = self.server_config(versions)?;
        tcp.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(Vec::from).into();
        tcp.ticketer = tickets.tcp.clone();
        // Tickets carry the session; this is for clients that know none, and for TLS 1.2 only.
        tcp.session_storage = tickets.sessions.clone();
        let mut quic = self.server_config(&[&TLS13])?;
        quic.alpn_protocols = vec![b"h3".to_vec()];
        quic.ticketer = tickets.quic.clone();
        Ok(Configs {
            tcp: Arc::new(tcp),
            quic: Arc::new(quic),
        })
    }

    /// What TCP and QUIC have in common.
    fn server_config(
        &self,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_protocol_versions(versions);
        let trust = &self.trust.value;
        let mut config = builder
            .map_err(no_config)?
            .with_client_cert_verifier(trust.verifier.clone())
            .with_cert_resolver(self.pair.value.resolver.clone());
        config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
        config.max_early_data_size = 0;
        Ok(config)
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
        let seen = files.iter().map(|file| stamp(file)).collect();
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
        let stamps: Vec<_> = self.files.iter().map(|file| stamp(file)).collect();
        debug_assert_eq!(stamps.len(), self.seen.len(), "the list of files is fixed");
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

/// What encrypts session tickets, and the sessions of clients of TLS 1.2 that know no tickets. A
/// session of TCP is not resumed on QUIC.
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

/// The error of a step in which only the system's randomness could fail.
fn no_config(error: rustls::Error) -> TlsError {
    TlsError::Invalid {
        variable: CLIENT_CA,
        reason: format!("TLS cannot be set up: {error}"),
    }
}
