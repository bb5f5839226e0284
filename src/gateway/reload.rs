//! Looks at the files of TLS, of devices and of rules every two seconds, and at once after SIGHUP,
//! and makes known what has changed.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::devices::DevicesWatch;
use super::ends::Warned;
use super::foundation::Foundation;
use super::notify::Notifier;
use crate::config::{Config, HttpConfig};
use crate::identity::ServerCertificate;
use crate::ingest::Routes;
use crate::record::Timestamp;
use crate::rules::{self, SinkHeaders};
use crate::telemetry::audit::Event;
use crate::telemetry::observers::Observers;
use crate::tls::{Change, Reloader};
use crate::words::Reload;

/// A changed file is in force within 5 s: this, and the time that it takes to read it.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

const _: () = assert!(LOOK_INTERVAL.as_secs() < 5);

/// Everything that is made of files, and made anew when they change.
pub(crate) struct Reloaded {
    pub tls: Reloader,
    pub devices: DevicesWatch,
    pub rules: rules::Files,
}

/// Reads the rules of all streams; an error is one that cannot be used.
pub(crate) fn rules(config: &Config, foundation: &Foundation) -> anyhow::Result<rules::Files> {
    let files = rules::Files::start(
        &config.stream_rules,
        &config.streams,
        sink_headers(config),
        config.http.body_bytes_max,
        foundation.observers.metrics.rejected(),
    );
    files.map_err(|error| anyhow!("{}: {error}", rules::VARIABLE))
}

/// Whether a gateway would start with the rules of all streams.
pub(crate) fn check_rules(config: &Config) -> anyhow::Result<()> {
    rules::check(&config.stream_rules, sink_headers(config))?;
    Ok(())
}

fn sink_headers(config: &Config) -> SinkHeaders {
    match config.sink.keeps_headers() {
        true => SinkHeaders::Kept,
        false => SinkHeaders::Dropped,
    }
}

/// Changes that a look at all files has found.
#[derive(Default)]
struct Changes {
    tls: Vec<Change>,
    rules: Vec<rules::Change>,
}

impl Reloaded {
    /// Looks at the files, and reads those that have changed, or all of them. Blocks.
    fn look(&mut self, reads_all: bool, observers: &Observers) -> Changes {
        let tls = self.tls.look(reads_all);
        self.devices.look(reads_all, &mut self.tls, observers);
        let rules = self.rules.look(reads_all);
        Changes { tls, rules }
    }
}

/// Watches the files.
pub(crate) struct Watch {
    reloaded: Reloaded,
    routes: Arc<Routes>,
    observers: Observers,
    /// Names beside those of the server's certificate.
    authorities: Vec<String>,
    warned: Warned,
}

impl Watch {
    pub(crate) fn new(
        config: &HttpConfig,
        reloaded: Reloaded,
        routes: &Arc<Routes>,
        foundation: &Foundation,
    ) -> Self {
        let mut watch = Self {
            reloaded,
            routes: routes.clone(),
            observers: foundation.observers.clone(),
            authorities: config.authorities.clone(),
            warned: Warned::default(),
        };
        watch.tell_ends();
        watch
    }

    /// Runs until it is dropped. Files are read on another thread: a list of a million entries
    /// takes a while.
    pub(crate) async fn run(mut self, mut hangup: Signal, notifier: Notifier) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let reads_all = tokio::select! {
                _ = hangup.recv() => true,
                _ = looks.tick() => false,
            };
            if reads_all {
                self.observers.reopen();
                notifier.reloading();
            }
            let looked = spawn_blocking(move || {
                let changes = self.reloaded.look(reads_all, &self.observers);
                (self, changes)
            });
            let Ok((watch, changes)) = looked.await else {
                return tracing::error!("files are not looked at any more: restart the gateway");
            };
            self = watch;
            for change in &changes.tls {
                self.make_known(change);
                self.warned.forget();
            }
            for change in &changes.rules {
                self.make_rules_known(change);
            }
            self.tell_ends();
            if reads_all {
                notifier.ready();
            }
        }
    }

    /// Says when what is in force ends, and warns of what is near its end, or past it.
    fn tell_ends(&mut self) {
        let (certificate, ends) = (
            self.reloaded.tls.certificate().not_after,
            self.reloaded.tls.ends(),
        );
        let files = self.observers.metrics.files();
        files.set_certificate_end(certificate);
        files.set_trust_ends(ends.authority, ends.list);
        let ends = [Some(certificate), Some(ends.authority), ends.list];
        self.warned.look(ends, Timestamp::now());
    }

    fn make_known(&self, change: &Change) {
        match change {
            Change::Certificate(certificate) => self.present(certificate),
            Change::Trust {
                authorities,
                revoked,
            } => {
                tracing::info!(authorities, revoked, "client authorities and CRLs reloaded");
                let metrics = &self.observers.metrics;
                metrics.reload_succeeded(Reload::ClientCa);
                metrics.reload_succeeded(Reload::Crl);
                self.observers.audit.record(Event::RevocationsApplied {
                    authorities: *authorities,
                    revoked: *revoked,
                });
            }
            Change::Failed(error) => self.tell_failure(error.what(), error),
        }
    }

    fn make_rules_known(&self, change: &rules::Change) {
        match change {
            rules::Change::InForce { stream } => {
                tracing::info!(stream, "rules reloaded");
                self.observers.metrics.reload_succeeded(Reload::Rules);
            }
            rules::Change::Failed(error) => self.tell_failure(Reload::Rules, error),
        }
    }

    /// The server goes by the names of its new certificate.
    fn present(&self, certificate: &ServerCertificate) {
        let Observers { metrics, audit, .. } = &self.observers;
        metrics.reload_succeeded(Reload::Certificate);
        let authorities = super::authorities(certificate, &self.authorities);
        self.routes.rename(authorities);
        let names = certificate.names.join(",");
        tracing::info!(names, "server certificate reloaded");
        audit.record(Event::CertificateReloaded { names: &names });
    }

    fn tell_failure(&self, what: Reload, error: &dyn Error) {
        self.observers.reload_failed(what, error);
        tracing::error!(what = what.label(), %error, "a changed file cannot be used: what was there before stays in force");
    }
}
