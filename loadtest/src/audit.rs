//! The audit: reads a sink back and compares it, record by record, with what the fleet's ledger
//! says.
//!
//! A reading that was answered 204 must be there once, unchanged, under its device's name, and
//! before anything that the device sent later. One that was refused, or never sent, must not be
//! there. One without an answer, or with 504, may be. Records of other runs, or of nobody's, are
//! counted and left alone: a sink may have been used before. Memory: about 40 bytes a request;
//! readers hand over one record at a time.

pub(crate) mod faults;
mod files;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kinesis")]
mod kinesis;

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::cli::{Audit, SinkChoice};
use crate::ledger::{self, Entry, Status};
use crate::payload::{Origin, RunId, device_name, digest};
use crate::report::{self, Audited};
use faults::Faults;

/// A record of the sink.
pub(crate) struct Found<'a> {
    /// The device's name, as the gateway says it; empty where it names none.
    pub device: &'a str,
    pub payload: &'a [u8],
}

/// Is shown what a sink holds, the records of one device in the sink's order.
pub(crate) trait Auditor {
    fn take(&mut self, record: &Found);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The reading was answered 204, and is not there.
    Lost,
    /// The reading is there more than once.
    Duplicated,
    /// The reading was answered 204, and is there after one that its device sent later.
    Reordered,
    /// The reading has other bytes than were sent, or another device.
    Corrupted,
    /// The reading is there, although it was refused, never sent, or is not in the ledger.
    Unexpected,
}

const FAULT_NAMES: [&str; 5] = ["lost", "duplicated", "reordered", "corrupted", "unexpected"];

/// Compares what it is shown with the ledger.
pub(crate) struct Comparison {
    run: RunId,
    /// Entries of the ledger, sorted by device and sequence.
    entries: Vec<Entry>,
    /// Times that each entry was found.
    found: Vec<u32>,
    /// The latest sequence that was found of each device.
    latest: HashMap<u32, u32>,
    records: u64,
    foreign: u64,
    faults: Faults,
}

impl Auditor for Comparison {
    fn take(&mut self, record: &Found) {
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
}

impl Comparison {
    fn new(run: RunId, mut entries: Vec<Entry>) -> Result<Self> {
        entries.sort_unstable_by_key(Entry::key);
        let is_same = |pair: &[Entry]| pair[0].key() == pair[1].key();
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
            faults: Faults::of(&FAULT_NAMES),
        })
    }

    fn compare(&mut self, origin: Origin, record: &Found) {
        let key = (origin.device, origin.sequence);
        let place = self.entries.binary_search_by_key(&key, Entry::key);
        let Ok(place) = place else {
            let example = || format!("{}: not in the ledger", name(key));
            return self.fault(Fault::Unexpected, example);
        };
        let entry = self.entries[place];
        debug_assert_eq!(entry.key(), key, "it has been looked for");
        self.found[place] += 1;
        if self.found[place] > 1 {
            let example = || format!("{} ({})", name(key), entry.status);
            return self.fault(Fault::Duplicated, example);
        }
        self.compare_content(entry, record);
        self.compare_order(entry);
    }

    /// Whether the record is what was sent, and may be there.
    fn compare_content(&mut self, entry: Entry, record: &Found) {
        let is_whole = digest(record.payload) == entry.digest;
        if !is_whole || record.device != device_name(entry.device) {
            let example = || format!("{}, from {}", name(entry.key()), record.device);
            self.fault(Fault::Corrupted, example);
        }
        if entry.status != Status::SAFE && !entry.status.is_unknown() {
            let example = || format!("{}: it was {}", name(entry.key()), entry.status);
            self.fault(Fault::Unexpected, example);
        }
    }

    /// Whether the record stands before what its device sent later.
    fn compare_order(&mut self, entry: Entry) {
        let latest = self.latest.entry(entry.device).or_insert(entry.sequence);
        let before = *latest;
        *latest = before.max(entry.sequence);
        // Of what was not known to be safe, nobody promised the order.
        if entry.sequence < before && entry.status == Status::SAFE {
            let example = || format!("{} after #{before}", name(entry.key()));
            self.fault(Fault::Reordered, example);
        }
    }

    /// Whether the ledger has that device.
    fn may_be_ours(&self, device: &str) -> bool {
        let number = device.strip_prefix("load-").unwrap_or_default();
        let Ok(number) = number.parse::<u32>() else {
            return false;
        };
        let place = self.entries.binary_search_by_key(&number, |e| e.device);
        place.is_ok()
    }

    fn fault(&mut self, fault: Fault, example: impl FnOnce() -> String) {
        self.faults.add(fault as usize, example);
    }

    fn finish(mut self) -> Findings {
        self.look_for_lost();
        debug_assert_eq!(self.entries.len(), self.found.len(), "one count each");
        let mut findings = Findings {
            run: self.run,
            requests: self.entries.len(),
            safe: 0,
            unknown: 0,
            unknown_there: 0,
            records: self.records,
            foreign: self.foreign,
            faults: self.faults,
        };
        for (entry, found) in self.entries.iter().zip(self.found) {
            let is_unknown = entry.status.is_unknown();
            findings.safe += usize::from(entry.status == Status::SAFE);
            findings.unknown += usize::from(is_unknown);
            findings.unknown_there += usize::from(is_unknown && found > 0);
        }
        findings
    }

    fn look_for_lost(&mut self) {
        for place in 0..self.entries.len() {
            let entry = self.entries[place];
            if entry.status == Status::SAFE && self.found[place] == 0 {
                self.fault(Fault::Lost, || name(entry.key()));
            }
        }
    }
}

/// A request by its device and sequence, as the findings name it.
fn name((device, sequence): (u32, u32)) -> String {
    format!("{} #{sequence}", device_name(device))
}

/// Findings of an audit.
struct Findings {
    run: RunId,
    requests: usize,
    safe: usize,
    unknown: usize,
    /// Requests without a known outcome that are in the sink.
    unknown_there: usize,
    records: u64,
    foreign: u64,
    faults: Faults,
}

impl Findings {
    fn to_json(&self) -> Value {
        self.faults.report(json!({
            "run": self.run.to_string(), "requests": self.requests, "safe": self.safe, "unknown": self.unknown,
            "unknown_there": self.unknown_there, "records": self.records, "of_other_runs": self.foreign,
        }))
    }

    fn to_text(&self) -> String {
        let good = "good: every 204 is there once, whole and in order";
        format!(
            "run {}: {} requests, {} of them 204, {} with an unknown outcome ({} of these arrived)\n\
             sink: {} records, {} of other runs\n\n{}",
            self.run,
            self.requests,
            self.safe,
            self.unknown,
            self.unknown_there,
            self.records,
            self.foreign,
            self.faults.to_text(good),
        )
    }
}

/// Runs the audit and returns whether all is good.
pub(crate) fn run(options: &Audit) -> Result<bool> {
    let (run, entries) = ledger::read(&options.ledger)?;
    let mut comparison = Comparison::new(run, entries)?;
    let Audit { topic, stream, .. } = options;
    read_sink(&options.sink, topic, stream, &mut comparison)?;
    let findings = comparison.finish();
    print!("{}", findings.to_text());
    write_report(&findings.to_json(), options.report.as_deref())?;
    if let Some(fleet) = &options.fleet {
        tell(&findings, fleet, options.html.as_deref())?;
    }
    Ok(findings.faults.are_none())
}

/// Writes what was found as JSON, where that is wanted.
pub(crate) fn write_report(findings: &Value, path: Option<&Path>) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let text = serde_json::to_string_pretty(findings)?;
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Writes the verdict into the report of the fleet, and onto its page.
fn tell(findings: &Findings, fleet: &Path, page: Option<&Path>) -> Result<()> {
    let mut report = report::read(fleet)?;
    let audited: Audited = serde_json::from_value(findings.to_json())?;
    ensure!(
        audited.run == report.run,
        "{} is of another run than the ledger",
        fleet.display()
    );
    report.audit = Some(audited);
    report::write(&report, Some(fleet), page)
}

/// Shows an auditor all that a sink holds, of a topic or a stream where it has several.
pub(crate) fn read_sink(
    sink: &SinkChoice,
    topic: &str,
    stream: &str,
    auditor: &mut dyn Auditor,
) -> Result<()> {
    match (&sink.files, &sink.kafka, &sink.kinesis) {
        (Some(folder), _, _) => files::read(Path::new(folder), auditor),
        (_, Some(bootstrap), _) => read_kafka(bootstrap, topic, auditor),
        (_, _, Some(endpoint)) => read_kinesis(endpoint, stream, auditor),
        _ => anyhow::bail!("one of --files, --kafka and --kinesis is needed"),
    }
}

#[cfg(feature = "kafka")]
use kafka::read as read_kafka;
#[cfg(feature = "kinesis")]
use kinesis::read as read_kinesis;

#[cfg(not(feature = "kafka"))]
fn read_kafka(_: &str, _: &str, _: &mut dyn Auditor) -> Result<()> {
    anyhow::bail!("built without Kafka: cargo build -p loadtest --features kafka")
}

#[cfg(not(feature = "kinesis"))]
fn read_kinesis(_: &str, _: &str, _: &mut dyn Auditor) -> Result<()> {
    anyhow::bail!("built without Kinesis: cargo build -p loadtest --features kinesis")
}

#[cfg(test)]
mod tests;
