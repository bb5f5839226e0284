//! The metrics of files that are read again while the gateway runs: whether each is good, and when
//! the certificates and lists in it end.
//!
//! The gateway's watch over files writes it, and whoever else reads files again; once a look or less
//! often, through the exporter's handles.

use metrics::{Counter, Gauge};

use super::register::{counters, each, gauge, gauges};
use crate::record::Timestamp;
use crate::words::Reload;

/// Handles of what is counted of files.
pub(crate) struct FileMetrics {
    certificate: Gauge,
    client_ca: Gauge,
    crl: Gauge,
    failures: Vec<Counter>,
    is_good: Vec<Gauge>,
}

impl FileMetrics {
    pub(super) fn register() -> Self {
        let is_good = gauges(
            "forebay_tls_reload_ok",
            "0 while a changed file cannot be used: the next start would fail; by what it holds",
            each("what", &Reload::LABELS),
        );
        // A bad file at the start ends the gateway, so all of them are good here.
        is_good.iter().for_each(|gauge| gauge.set(1));
        Self {
            certificate: gauge(
                "forebay_tls_certificate_expiry_timestamp_seconds",
                "When the first certificate of the server's chain expires",
            ),
            client_ca: gauge(
                "forebay_tls_client_ca_expiry_timestamp_seconds",
                "When the first authority of FOREBAY_TLS_CLIENT_CA expires",
            ),
            crl: gauge(
                "forebay_tls_crl_next_update_timestamp_seconds",
                "The least nextUpdate of all lists: from then on devices of its issuer are refused; 0 without a list",
            ),
            failures: counters(
                "forebay_tls_reload_failures_total",
                "Changed files that could not be used, by what they hold",
                each("what", &Reload::LABELS),
            ),
            is_good,
        }
    }

    /// Says when the server's own chain expires.
    pub(crate) fn set_certificate_end(&self, at: Timestamp) {
        self.certificate.set(seconds(at));
    }

    /// Says when the first authority of the bundle expires, and when the first list is due; `None`
    /// where there is no list.
    pub(crate) fn set_trust_ends(&self, client_ca: Timestamp, crl: Option<Timestamp>) {
        self.client_ca.set(seconds(client_ca));
        self.crl.set(crl.map_or(0.0, seconds));
    }

    /// Counts a changed file that could not be used; what was there before stays in force.
    pub(crate) fn failed(&self, what: Reload) {
        self.failures[what.index()].increment(1);
        self.is_good[what.index()].set(0);
    }

    /// Says that the file, as it is now, is in force.
    pub(crate) fn succeeded(&self, what: Reload) {
        self.is_good[what.index()].set(1);
    }
}

/// An instant as Prometheus tells it.
fn seconds(at: Timestamp) -> f64 {
    (at.0 / 1000) as f64
}
