//! Opens the spool at the start, as configured.

use anyhow::Context;

use crate::config::{Config, SpoolConfig};
use crate::delivery::Backlog;
use crate::spool::keys::Keys;
use crate::spool::{Options, Recovery, Spool};
use crate::telemetry::metrics::Metrics;

/// `None` where none is configured. What a process before this one left in it is told of.
pub fn open(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Backlog>> {
    let Some(config) = &config.spool else {
        return Ok(None);
    };
    let SpoolConfig {
        dir,
        bytes_max,
        when_full,
        ..
    } = config.clone();
    let keys = keys(config)?;
    let (spool, found) = Spool::open(Options {
        dir,
        bytes_max,
        when_full,
        keys,
        metrics: metrics.spool(),
    })
    .context("FOREBAY_SPOOL_DIR: the spool cannot be opened")?;
    let Recovery { records, bytes, .. } = found.backlog;
    if records > 0 {
        tracing::info!(
            records,
            bytes,
            "the spool holds records: they are delivered now"
        );
    }
    Ok(Some(Backlog::new(spool, config.mode)))
}

fn keys(config: &SpoolConfig) -> anyhow::Result<Keys> {
    match &config.key_file {
        Some(file) => Keys::read(file).context("FOREBAY_SPOOL_KEY_FILE"),
        None => Ok(Keys::default()),
    }
}
