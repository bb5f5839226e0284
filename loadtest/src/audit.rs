//! The audit: reads a sink back and compares it, record by record, with what the fleet's ledger
//! says.
//!
//! A reading that was answered 204 must be there once, unchanged, under its device's name, and
//! before anything that the device sent later. One that was refused, or never sent, must not be
//! there. One without an answer, or with 504, may be. Records of other runs, or of nobody's, are
//! counted and left alone: a sink may have been used before. Memory: about 40 bytes a request;
//! readers hand over one record at a time.

mod files;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kinesis")]
mod kinesis;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cli::Audit;
use crate::ledger::{self, Entry, Status};
use crate::payload::{Origin, RunId, device_name, digest};

/// Examples of each kind of difference that are shown.
const EXAMPLES_MAX: usize = 5;

/// A record of the sink.
pub struct Found<'a> {
    /// The device, as the gateway says it.
    pub device: &'a str,
    pub payload: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Answered 204, and not there.
    Lost,
    /// There more than once.
    Duplicated,
    /// Answered 204, and there after something that its device sent later.
    Reordered,
    /// Other bytes than were sent, or another device.
    Corrupted,
    /// There, although it was refused, never sent, or not in the ledger.
    Unexpected,
}

impl Fault {
    const ALL: [Self; 5] = [
        Self::Lost,
        Self::Duplicated,
        Self::Reordered,
        Self::Corrupted,
        Self::Unexpected,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Corrupted => "corrupted",
            Self::Unexpected => "unexpected",
        }
    }
}

/// Compares; records of one device are shown to it in the sink's order.
pub struct Comparison {
    run: RunId,
    /// By device and sequence.
    entries: Vec<Entry>,
    /// How often each was found.
    found: Vec<u32>,
    /// The latest sequence found, by device.
    latest: HashMap<u32, u32>,
    records: u64,
    foreign: u64,
    counts: [u64; Fault::ALL.len()],
    examples: Vec<(Fault, String)>,
}

impl Comparison {
    fn new(run: RunId, mut entries: Vec<Entry>) -> Result<Self> {
        entries.sort_unstable_by_key(|entry| (entry.device, entry.sequence));
        let is_same = |pair: &[Entry]| {
            (pair[0].device, pair[0].sequence) == (pair[1].device, pair[1].sequence)
        };
        ensure!(
            !entries.windows(2).any(is_same),
            "the ledger names a request twice: it is damaged"
        );
        Ok(Self {
            run,
            found: vec![0; entries.len()],
            entries,
            latest: HashMap::new(),
            records: 0,
            foreign: 0,
            counts: Default::default(),
            examples: Vec::new(),
        })
    }

    /// Takes the next record of the sink.
    pub fn take(&mut self, record: &Found) {
        self.records += 1;
        match Origin::of(record.payload) {
            Some(origin) if origin.run == self.run => self.compare(origin, record),
            None if self.may_be_ours(record.device) => {
                self.fault(Fault::Corrupted, || {
                    format!("a payload of {} that cannot be read", record.device)
                });
            }
            _ => self.foreign += 1,
        }
    }

    fn compare(&mut self, origin: Origin, record: &Found) {
        let name = || format!("{} #{}", device_name(origin.device), origin.sequence);
        let key = (origin.device, origin.sequence);
        let Ok(place) = self
            .entries
            .binary_search_by_key(&key, |entry| (entry.device, entry.sequence))
        else {
            return self.fault(Fault::Unexpected, || {
                format!("{}: not in the ledger", name())
            });
        };
        let Entry {
            status,
            digest: sent,
            ..
        } = self.entries[place];
        self.found[place] += 1;
        if self.found[place] > 1 {
            return self.fault(Fault::Duplicated, || format!("{} ({status})", name()));
        }
        if digest(record.payload) != sent || record.device != device_name(origin.device) {
            self.fault(Fault::Corrupted, || {
                format!("{}, from {}", name(), record.device)
            });
        }
        if status != Status::SAFE && !status.is_unknown() {
            self.fault(Fault::Unexpected, || format!("{}: it was {status}", name()));
        }
        let latest = self.latest.entry(origin.device).or_insert(origin.sequence);
        let (is_late, before) = (origin.sequence < *latest, *latest);
        *latest = before.max(origin.sequence);
        // Of what was not known to be safe, nobody promised the order.
        if is_late && status == Status::SAFE {
            self.fault(Fault::Reordered, || format!("{} after #{before}", name()));
        }
    }

    /// Whether the ledger has that device.
    fn may_be_ours(&self, device: &str) -> bool {
        let number: Option<u32> = device
            .strip_prefix("load-")
            .and_then(|number| number.parse().ok());
        number.is_some_and(|number| {
            self.entries
                .binary_search_by_key(&number, |entry| entry.device)
                .is_ok()
        })
    }

    fn fault(&mut self, fault: Fault, example: impl Fn() -> String) {
        self.counts[fault as usize] += 1;
        if self.counts[fault as usize] <= EXAMPLES_MAX as u64 {
            self.examples.push((fault, example()));
        }
    }

    fn finish(mut self) -> Findings {
        for place in 0..self.entries.len() {
            let Entry {
                device,
                sequence,
                status,
                ..
            } = self.entries[place];
            if status == Status::SAFE && self.found[place] == 0 {
                self.fault(Fault::Lost, || {
                    format!("{} #{sequence}", device_name(device))
                });
            }
        }
        let with = |wanted: fn(Status) -> bool| {
            self.entries
                .iter()
                .filter(|entry| wanted(entry.status))
                .count()
        };
        let unknown_there =
            |(entry, found): (&Entry, &u32)| entry.status.is_unknown() && *found > 0;
        Findings {
            run: self.run,
            requests: self.entries.len(),
            safe: with(|status| status == Status::SAFE),
            unknown: with(Status::is_unknown),
            unknown_there: self
                .entries
                .iter()
                .zip(&self.found)
                .filter(|pair| unknown_there(*pair))
                .count(),
            records: self.records,
            foreign: self.foreign,
            counts: self.counts,
            examples: self.examples,
        }
    }
}

/// What an audit has come to.
struct Findings {
    run: RunId,
    requests: usize,
    safe: usize,
    unknown: usize,
    /// Of those without a known outcome, how many are in the sink.
    unknown_there: usize,
    records: u64,
    foreign: u64,
    counts: [u64; Fault::ALL.len()],
    examples: Vec<(Fault, String)>,
}

impl Findings {
    fn is_good(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    fn to_json(&self) -> Value {
        let counts =
            Fault::ALL.map(|fault| (fault.name().to_owned(), json!(self.counts[fault as usize])));
        let examples: Vec<Value> = self
            .examples
            .iter()
            .map(|(fault, example)| json!({"fault": fault.name(), "what": example}))
            .collect();
        json!({
            "run": self.run.to_string(), "requests": self.requests, "safe": self.safe, "unknown": self.unknown,
            "unknown_there": self.unknown_there, "records": self.records, "of_other_runs": self.foreign,
            "faults": serde_json::Map::from_iter(counts), "examples": examples, "good": self.is_good(),
        })
    }

    fn to_text(&self) -> String {
        let mut text = format!(
            "run {}: {} requests, {} of them 204, {} with an unknown outcome ({} of these arrived)\n\
             sink: {} records, {} of other runs\n\n",
            self.run,
            self.requests,
            self.safe,
            self.unknown,
            self.unknown_there,
            self.records,
            self.foreign,
        );
        for fault in Fault::ALL {
            text += &format!(
                "  {:<11}{:>10}\n",
                fault.name(),
                self.counts[fault as usize]
            );
            let examples = self.examples.iter().filter(|(kind, _)| *kind == fault);
            examples.for_each(|(_, example)| text += &format!("             {example}\n"));
        }
        text + if self.is_good() {
            "\ngood: every 204 is there once, whole and in order\n"
        } else {
            "\nNOT GOOD\n"
        }
    }
}

/// Runs the audit and returns whether all is good.
pub fn run(options: &Audit) -> Result<bool> {
    let (run, entries) = ledger::read(&options.ledger)?;
    let mut comparison = Comparison::new(run, entries)?;
    read_sink(options, &mut comparison)?;
    let findings = comparison.finish();
    print!("{}", findings.to_text());
    if let Some(path) = &options.report {
        let text = serde_json::to_string_pretty(&findings.to_json())?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    Ok(findings.is_good())
}

fn read_sink(options: &Audit, comparison: &mut Comparison) -> Result<()> {
    let sink = &options.sink;
    match (&sink.files, &sink.kafka, &sink.kinesis) {
        (Some(folder), _, _) => files::read(Path::new(folder), comparison),
        (_, Some(bootstrap), _) => read_kafka(bootstrap, &options.topic, comparison),
        (_, _, Some(endpoint)) => read_kinesis(endpoint, &options.stream, comparison),
        _ => anyhow::bail!("one of --files, --kafka and --kinesis is needed"),
    }
}

#[cfg(feature = "kafka")]
use kafka::read as read_kafka;
#[cfg(feature = "kinesis")]
use kinesis::read as read_kinesis;

#[cfg(not(feature = "kafka"))]
fn read_kafka(_: &str, _: &str, _: &mut Comparison) -> Result<()> {
    anyhow::bail!("built without Kafka: cargo build -p loadtest --features kafka")
}

#[cfg(not(feature = "kinesis"))]
fn read_kinesis(_: &str, _: &str, _: &mut Comparison) -> Result<()> {
    anyhow::bail!("built without Kinesis: cargo build -p loadtest --features kinesis")
}

#[cfg(test)]
mod tests;
