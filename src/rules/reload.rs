//! The rules files as they are: read at start, looked at every few seconds, read again when one of
//! them, or of the files that it names, has changed.
//!
//! The gateway calls [`Files::look`] on a thread that may block. The rules of a stream change as
//! one: file, schema, what that refers to, and keys. Rules that cannot be used leave the last good
//! ones in force, and are an error once, until their files change again.

use std::sync::Arc;

use super::rulebook::Rulebook;
use super::sources::Sources;
use super::{Rules, RulesError, SinkHeaders, file};
use crate::config::{StreamConfig, StreamRules};
use crate::record::StreamIndex;
use crate::telemetry::metrics::RejectedRecords;

/// Reads in a row, at start, of files that somebody writes meanwhile.
const READS_MAX: usize = 5;

/// Reads all files and keeps nothing: would a gateway start with them?
pub(crate) fn check(configs: &[StreamRules], headers: SinkHeaders) -> Result<(), RulesError> {
    for config in configs {
        let (_, read) = read_whole(config, headers);
        read?;
    }
    Ok(())
}

/// Keeps the rules of all streams current.
pub(crate) struct Files {
    watched: Vec<Watched>,
    rulebook: Rulebook,
    headers: SinkHeaders,
}

/// The rules file of a stream.
struct Watched {
    config: StreamRules,
    stream: StreamIndex,
    sources: Arc<Sources>,
}

/// Change that a look at the files has found.
#[derive(Debug)]
pub(crate) enum Change {
    /// Other rules are in force.
    InForce { stream: String },
    /// Something has changed that cannot be used: what was there before stays in force.
    Failed(RulesError),
}

impl Files {
    /// Reads all files; each must be good.
    pub(crate) fn start(
        configs: &[StreamRules],
        streams: &[StreamConfig],
        headers: SinkHeaders,
        bytes_max: usize,
        rejected: RejectedRecords,
    ) -> Result<Self, RulesError> {
        let mut rules: Vec<Option<Arc<Rules>>> = streams.iter().map(|_| None).collect();
        let mut watched = Vec::with_capacity(configs.len());
        for config in configs {
            let index = streams
                .iter()
                .position(|stream| stream.name == config.stream);
            let index = index.expect("the configuration knows the stream");
            let (sources, read) = read_whole(config, headers);
            rules[index] = Some(Arc::new(read?));
            let stream = StreamIndex(index as u16);
            let config = config.clone();
            watched.push(Watched {
                config,
                stream,
                sources,
            });
        }
        Ok(Self {
            watched,
            rulebook: Rulebook::new(rules, bytes_max, rejected),
            headers,
        })
    }

    /// Returns the rulebook that workers ask.
    pub(crate) fn rulebook(&self) -> Rulebook {
        self.rulebook.clone()
    }

    /// Looks at the files, and reads the rules of those streams of which one has changed, or all.
    /// Blocks.
    pub(crate) fn look(&mut self, reads_all: bool) -> Vec<Change> {
        let mut changes = Vec::new();
        for watched in &mut self.watched {
            if reads_all || !watched.sources.are_unchanged() {
                changes.extend(watched.read(&self.rulebook, self.headers));
            }
        }
        changes
    }
}

impl Watched {
    /// Puts the rules in force as they are now. What is still being written waits for the next
    /// look.
    fn read(&mut self, rulebook: &Rulebook, headers: SinkHeaders) -> Option<Change> {
        let (sources, read) = read(&self.config, headers);
        if !sources.are_unchanged() {
            return None;
        }
        self.sources = sources;
        Some(match read {
            Ok(rules) => {
                rulebook.replace(self.stream, rules);
                let stream = self.config.stream.clone();
                Change::InForce { stream }
            }
            Err(error) => Change::Failed(error),
        })
    }
}

type Read = (Arc<Sources>, Result<Rules, RulesError>);

fn read(config: &StreamRules, headers: SinkHeaders) -> Read {
    let sources = Arc::<Sources>::default();
    let read = file::read(&config.file, &sources, headers);
    (sources, read)
}

/// Reads files that nobody writes meanwhile, as far as that can be had.
fn read_whole(config: &StreamRules, headers: SinkHeaders) -> Read {
    for _ in 1..READS_MAX {
        let (sources, rules) = read(config, headers);
        if sources.are_unchanged() {
            return (sources, rules);
        }
    }
    read(config, headers)
}
