//! Logs: structured lines on stderr, text for people and JSON for machines.
//!
//! tracing-subscriber escapes control characters in text and JSON; no payload, head or key is ever a field.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::LogConfig;

/// Starts logging, once a process. An error is a filter that cannot be read.
pub fn start(config: &LogConfig) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(&config.filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if config.json {
        builder.json().flatten_event(true).init();
    } else {
        builder.init();
    }
    Ok(())
}
