//! `forebay spool`: look into a spool whose gateway does not run, and hand its dead letters over
//! once more.
//!
//! Every command takes the spool as a gateway does: it waits for no other holder, cuts a torn tail,
//! and sets damage aside in `quarantine`.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::say;
use crate::config::WhenFull;
use crate::record::{Record, Timestamp};
use crate::sink::file::line;
use crate::spool::{
    Draft, Found, Frame, GatewayDisk, Keys, Log, Options, QUARANTINE, Recovery, Spool,
};
use crate::telemetry::metrics::SpoolMetrics;

const DIR: &str = "FOREBAY_SPOOL_DIR";
const KEY_FILE: &str = "FOREBAY_SPOOL_KEY_FILE";

pub(crate) fn command() -> Command {
    let dead = Arg::new("dead-letters")
        .long("dead-letters")
        .action(ArgAction::SetTrue);
    let commands = [
        Command::new("ls").about(
            "List what waits for delivery and what the streams refused for good, with the reasons",
        ),
        Command::new("verify")
            .about("Read everything; exit code 1 if anything was damaged or torn"),
        Command::new("dump")
            .about("Print the records, a line of JSON each, as the file sink writes them")
            .arg(dead.help(
                "Those that the streams refused for good, instead of those that wait for delivery",
            )),
        Command::new("replay").about("Let the next gateway deliver the dead letters once more"),
    ];
    Command::new("spool")
        .about("Look into a spool while no gateway uses it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(
            commands.map(|command| command.args([path("dir", DIR), path("key-file", KEY_FILE)])),
        )
}

fn path(name: &'static str, variable: &'static str) -> Arg {
    let help = format!("[default: {variable}]");
    Arg::new(name)
        .long(name)
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help(help)
}

pub(crate) fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some((name, arguments)) = arguments.subcommand() else {
        unreachable!("clap requires one of the commands")
    };
    let (spool, found) = open(arguments)?;
    match name {
        "ls" => list(&spool)?,
        "verify" => return verify(&spool, found),
        "dump" if arguments.get_flag("dead-letters") => dump(&spool.dead_letters)?,
        "dump" => dump(&spool.backlog)?,
        _ => replay(&spool)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn open(arguments: &ArgMatches) -> anyhow::Result<(Spool, Found)> {
    let path = |name, variable| {
        let given = arguments.get_one::<PathBuf>(name).cloned();
        given.or_else(|| std::env::var_os(variable).map(PathBuf::from))
    };
    let dir = path("dir", DIR).with_context(|| format!("which spool? Give --dir or set {DIR}"))?;
    // A gateway would make the folder; here it is a mistyped name.
    anyhow::ensure!(dir.is_dir(), "{} is no folder", dir.display());
    let keys = match path("key-file", KEY_FILE) {
        Some(file) => Keys::read(&file)?,
        None => Keys::default(),
    };
    Ok(Spool::open(Options {
        dir,
        bytes_max: u64::MAX / 2, // what is there stays, however much it is
        when_full: WhenFull::Reject,
        keys,
        metrics: SpoolMetrics::unseen(),
    })?)
}

/// The records of one stream and reason.
struct Group {
    records: u64,
    payload_bytes: u64,
    oldest: Timestamp,
    newest: Timestamp,
}

type StreamAndReason = (Arc<str>, Option<Arc<str>>);

impl Group {
    fn empty() -> Self {
        Self {
            records: 0,
            payload_bytes: 0,
            oldest: Timestamp(u64::MAX),
            newest: Timestamp(0),
        }
    }

    fn add(&mut self, record: &Record) {
        self.records += 1;
        self.payload_bytes += record.payload.len() as u64;
        self.oldest = self.oldest.min(record.received_at);
        self.newest = self.newest.max(record.received_at);
    }

    fn line(&self, stream: &str, reason: Option<&str>) -> String {
        debug_assert!(self.records > 0 && self.oldest <= self.newest);
        let reason = match reason {
            Some(reason) => format!(", refused: {}", reason.escape_debug()),
            None => String::new(),
        };
        format!(
            "  {stream}: {}, {} bytes, received {} to {}{reason}",
            self.records,
            self.payload_bytes,
            self.oldest.rfc3339_millis(),
            self.newest.rfc3339_millis()
        )
    }
}

fn groups(log: &Log<GatewayDisk>) -> anyhow::Result<BTreeMap<StreamAndReason, Group>> {
    let mut groups = BTreeMap::new();
    let mut reader = log.reader();
    while let Some(frame) = reader.next_frame()? {
        let group = groups.entry((frame.stream, frame.reason));
        let group = group.or_insert_with(Group::empty);
        for record in &frame.records {
            group.add(record);
        }
    }
    Ok(groups)
}

fn list(spool: &Spool) -> anyhow::Result<()> {
    list_log(&spool.backlog, "waiting record")?;
    list_log(&spool.dead_letters, "dead letter")
}

fn list_log(log: &Log<GatewayDisk>, name: &str) -> anyhow::Result<()> {
    let groups = groups(log)?;
    let records: u64 = groups.values().map(|group| group.records).sum();
    let plural = if records == 1 { "" } else { "s" };
    say(&format!("{records} {name}{plural}"));
    for ((stream, reason), group) in &groups {
        say(&group.line(stream, reason.as_deref()));
    }
    Ok(())
}

fn verify(spool: &Spool, found: Found) -> anyhow::Result<ExitCode> {
    let waiting = verify_log(&spool.backlog, "waiting", found.backlog)?;
    let dead_letters = verify_log(&spool.dead_letters, "dead letters", found.dead_letters)?;
    if waiting && dead_letters {
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}

/// Says whether all of the log is whole, when it was opened and now that it is read.
fn verify_log(log: &Log<GatewayDisk>, name: &str, found: Recovery) -> anyhow::Result<bool> {
    let (expected, mut read) = (log.records(), 0);
    let mut reader = log.reader();
    while let Some(frame) = reader.next_frame()? {
        read += frame.records.len() as u64;
    }
    debug_assert!(read <= expected, "nobody else appends");
    let damaged = expected - read + found.torn_records;
    say(&format!("{name}: {read} records read, {damaged} damaged"));
    say_what_is_in_quarantine(found);
    Ok(damaged == 0 && found.damaged() == 0)
}

fn say_what_is_in_quarantine(found: Recovery) {
    if found.torn_records > 0 {
        say(&format!(
            "{} of them at least were in a torn tail, which is now in {QUARANTINE}",
            found.torn_records
        ));
    }
    if found.lost_segments > 0 {
        say(&format!(
            "{} segments have lost their headers: they are now in {QUARANTINE}",
            found.lost_segments
        ));
    }
}

fn dump(log: &Log<GatewayDisk>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut reader = log.reader();
    while let Some(frame) = reader.next_frame()? {
        let mut lines = Vec::new();
        for record in &frame.records {
            line::render(record, &mut lines);
        }
        out.write_all(&lines).context("stdout")?;
    }
    out.flush().context("stdout")
}

/// Moves dead letters to the records that wait, each frame once it is safe there.
fn replay(spool: &Spool) -> anyhow::Result<()> {
    let mut records = 0;
    let mut reader = spool.dead_letters.reader();
    while let Some(frame) = reader.next_frame()? {
        append(&spool.backlog, &frame)?;
        let places = frame.places.iter().map(|place| *place..place + 1);
        spool.dead_letters.retire(places);
        records += frame.records.len();
    }
    say(&format!(
        "{records} dead letters wait for delivery again: start the gateway"
    ));
    Ok(())
}

fn append(log: &Log<GatewayDisk>, frame: &Frame) -> anyhow::Result<()> {
    let draft = Draft::new(&frame.stream, &frame.records)?;
    let (answer, answered) = mpsc::sync_channel(1);
    log.append(draft, move |places| drop(answer.send(places)));
    answered.recv().context("the spool has stopped")??;
    Ok(())
}
