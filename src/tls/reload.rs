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
use tokio::sync::watch;

use super::files::CLIENT_CA;
use super::pair::Pair;
use super::quic::QuicConfigs;
use super::reset::Resets;
use super::sessions::Sessions;
use super::settings::{FROM_TLS12, FROM_TLS13, Settings, server_config};
use super::tickets::{SharedCertificates, ShortTickets};
use super::trust::{Ends, Trust};
use super::{Configs, Revocation, Tls, TlsError};
use crate::config::{TlsConfig, TlsVersion};
use crate::devices::Devices;
use crate::durable::stamp::{Stamp, stamp};
use crate::identity::ServerCertificate;
use crate::record::Timestamp;

/// HTTP/1.1 by the name that devices of AWS IoT Core ask for
/// (<https://docs.aws.amazon.com/iot/latest/developerguide/protocols.html#protocol-port-mapping>).
const AMAZON_HTTP: &[u8] = b"x-amzn-http-ca";

/// Keeps what the files say current.
pub(crate) struct Reloader {
    loaded: Loaded,
    tickets: Tickets,
    certificates: Arc<SharedCertificates>,
    resets: Resets,
    configs: Arc<ArcSwap<Configs>>,
    revocation: watch::Sender<Arc<Revocation>>,
}

/// Change that a look at the files has found.
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
    /// Reads all files. `devices` has the certificates that need no chain.
    pub(crate) fn start(
        config: TlsConfig,
        devices: watch::Receiver<Arc<Devices>>,
    ) -> Result<Self, TlsError> {
        let resets = Resets::load(&config.key)?;
        let loaded = Loaded::start(config, devices)?;
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

    /// The handles that workers take.
    pub(crate) fn tls(&self) -> Tls {
        Tls {
            configs: self.configs.clone(),
            resets: self.resets.clone(),
            revocation: self.revocation.subscribe(),
            devices: self.loaded.devices.clone(),
            certificates: self.certificates.clone(),
        }
    }

    pub(crate) fn certificate(&self) -> &ServerCertificate {
        &self.loaded.pair.value.certificate
    }

    /// When what the files hold ends, as it is in force.
    pub(crate) fn ends(&self) -> Ends {
        self.loaded.trust.value.ends
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

    /// Has every session begin anew: one that has begun with a pin that is gone must not go on.
    pub(crate) fn void_tickets(&mut self) -> Result<(), TlsError> {
        self.publish(true)
    }

    fn publish(&mut self, voids_tickets: bool) -> Result<(), TlsError> {
        if voids_tickets {
            self.tickets = Tickets::new(&self.certificates)?;
        }
        let configs = self.loaded.configs(&self.tickets)?;
        self.configs.store(Arc::new(configs));
        let revocation = &self.loaded.trust.value.revocation;
        self.revocation.send_replace(revocation.clone());
        Ok(())
    }
}

/// The files' contents when they were last good, and the means to load them again.
struct Loaded {
    config: TlsConfig,
    provider: Arc<CryptoProvider>,
    devices: watch::Receiver<Arc<Devices>>,
    pair: Watched<Pair>,
    trust: Watched<Trust>,
}

impl Loaded {
    fn start(config: TlsConfig, devices: watch::Receiver<Arc<Devices>>) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pair_files = [&config.cert[..], &config.key].concat();
        let pair = Watched::start(pair_files, || Pair::load(&config, &provider))?;
        let trust_files = [slice::from_ref(&config.client_ca), &config.crl].concat();
        let load = || Trust::load(&config, &provider, &devices, None);
        let trust = Watched::start(trust_files, load)?;
        Ok(Self {
            config,
            provider,
            devices,
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
        let load = || Trust::load(&self.config, &self.provider, &self.devices, Some(&before));
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
        let versions = match self.config.min_version {
            TlsVersion::Tls12 => FROM_TLS12,
            TlsVersion::Tls13 => FROM_TLS13,
        };
        let trust = &self.trust.value;
        let resolver = self.pair.value.resolver.clone();
        let settings = Settings {
            provider: self.provider.clone(),
            versions,
        };
        let tcp = server_config(&settings, trust.verifier.clone(), resolver.clone());
        let mut tcp = tcp.map_err(no_config)?;
        tcp.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(Vec::from).into();
        if self.config.amazon_alpn {
            tcp.alpn_protocols.push(AMAZON_HTTP.to_vec());
        }
        tcp.ticketer = tickets.tcp.clone();
        // Tickets carry the session; this is for clients that know none, and for TLS 1.2 only.
        tcp.session_storage = tickets.sessions.clone();
        let quic = QuicConfigs {
            settings: Settings {
                versions: FROM_TLS13,
                ..settings
            },
            verifier: trust.verifier.clone(),
            resolver,
            ticketer: tickets.quic.clone(),
            sessions: tickets.sessions.clone(),
        };
        Ok(Configs {
            tcp: Arc::new(tcp),
            quic,
            verifier: trust.verifier.clone(),
        })
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

/// Keys of session tickets, and the sessions of TLS 1.2 clients that know no tickets. A session of
/// TCP is not resumed on QUIC.
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
