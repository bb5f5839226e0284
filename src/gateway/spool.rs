//! Opens the spool at the start, as configured.

use anyhow::Context;

use crate::config::{Config, SpoolConfig};
use crate::delivery::Backlog;
use crate::spool::{Keys, Options, Recovery, Spool};
use crate::telemetry::metrics::Metrics;

/// `None` where none is configured. What a process before this one left in it is told of.
pub(crate) fn open(config: &Config, metrics: &Metrics) -> anyhow::Result<Option<Backlog>> {
    let memory_bytes_max = config.memory_bytes_max;
    let Some(config) = &config.spool else {
        return Ok(None);
    };
    let options = Options {
        dir: config.dir.clone(),
        bytes_max: config.bytes_max,
        when_full: config.when_full,
        keys: keys(config)?,
        metrics: metrics.spool(),
    };
    let (spool, found) = Spool::open_within(options, memory_bytes_max)
        .context("FOREBAY_SPOOL_DIR: the spool cannot be opened")?;
    metrics.spool().set_bytes_max(config.bytes_max);
    let Recovery { records, bytes, .. } = found.backlog;
    let (dir, bytes_max) = (config.dir.display(), config.bytes_max);
    let dead_letters = found.dead_letters.records;
    tracing::info!(%dir, bytes_max, bytes, records, dead_letters, "the spool is open");
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
