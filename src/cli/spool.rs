//! `forebay spool`: look into a spool whose gateway does not run, and hand its dead letters over once more.
//!
//! Every command takes the spool as a gateway does: it waits for no other holder, cuts a torn tail, and sets damage aside
//! in `quarantine`.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::say;
use crate::config::WhenFull;
use crate::record::Timestamp;
use crate::sink::file::line;
use crate::spool::{
    Draft, Found, Frame, Keys, Log, Options, QUARANTINE, RealDisk, Recovery, Spool,
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
    let keys =
        path("key-file", KEY_FILE).map_or_else(|| Ok(Keys::default()), |file| Keys::read(&file))?;
    // What is there stays, however much it is.
    let (bytes_max, when_full, metrics) = (u64::MAX / 2, WhenFull::Reject, SpoolMetrics::unseen());
    Ok(Spool::open(Options {
        dir,
        bytes_max,
        when_full,
        keys,
        metrics,
    })?)
}

/// Calls with each frame, oldest first.
fn each_frame(
    log: &Log<RealDisk>,
    mut act: impl FnMut(Frame) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut reader = log.reader();
    while let Some(frame) = reader.next_frame()? {
        act(frame)?;
    }
    Ok(())
}

/// Records of one stream and reason.
struct Group {
    records: u64,
    payload_bytes: u64,
    oldest: Timestamp,
    newest: Timestamp,
}

type Key = (Arc<str>, Option<Arc<str>>);

fn groups(log: &Log<RealDisk>) -> anyhow::Result<BTreeMap<Key, Group>> {
    let mut groups = BTreeMap::new();
    each_frame(log, |frame| {
        for record in &frame.records {
            let at = record.received_at;
            let group = groups
                .entry((frame.stream.clone(), frame.reason.clone()))
                .or_insert(Group {
                    records: 0,
                    payload_bytes: 0,
                    oldest: at,
                    newest: at,
                });
            group.records += 1;
            group.payload_bytes += record.payload.len() as u64;
            (group.oldest, group.newest) = (group.oldest.min(at), group.newest.max(at));
        }
        Ok(())
    })?;
    Ok(groups)
}

fn list(spool: &Spool) -> anyhow::Result<()> {
    for (log, name) in [
        (&spool.backlog, "waiting record"),
        (&spool.dead_letters, "dead letter"),
    ] {
        let groups = groups(log)?;
        let records: u64 = groups.values().map(|group| group.records).sum();
        say(&format!(
            "{records} {name}{}",
            if records == 1 { "" } else { "s" }
        ));
        for (
            (stream, reason),
            Group {
                records,
                payload_bytes,
                oldest,
                newest,
            },
        ) in groups
        {
            let (oldest, newest) = (line::rfc3339(oldest), line::rfc3339(newest));
            let reason = reason.map_or(String::new(), |reason| {
                format!(", refused: {}", reason.escape_debug())
            });
            say(&format!(
                "  {stream}: {records}, {payload_bytes} bytes, received {oldest} to {newest}{reason}"
            ));
        }
    }
    Ok(())
}

fn verify(spool: &Spool, found: Found) -> anyhow::Result<ExitCode> {
    let waiting = verify_log(&spool.backlog, "waiting", found.backlog)?;
    let dead_letters = verify_log(&spool.dead_letters, "dead letters", found.dead_letters)?;
    Ok(if waiting && dead_letters {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Says whether all of the log is whole, when it was opened and now that it is read.
fn verify_log(log: &Log<RealDisk>, name: &str, found: Recovery) -> anyhow::Result<bool> {
    let (expected, mut read) = (log.records(), 0);
    each_frame(log, |frame| {
        read += frame.records.len() as u64;
        Ok(())
    })?;
    let damaged = expected - read + found.torn_records;
    say(&format!("{name}: {read} records read, {damaged} damaged"));
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
    Ok(damaged == 0 && found.damaged() == 0)
}

fn dump(log: &Log<RealDisk>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    each_frame(log, |frame| {
        let mut lines = Vec::new();
        frame
            .records
            .iter()
            .for_each(|record| line::render(record, &mut lines));
        out.write_all(&lines).context("stdout")
    })?;
    out.flush().context("stdout")
}

/// A dead letter is done with once it is safe among the records that wait.
fn replay(spool: &Spool) -> anyhow::Result<()> {
    let mut records = 0;
    each_frame(&spool.dead_letters, |frame| {
        let draft = Draft::new(&frame.stream, &frame.records)?;
        let (answer, answered) = mpsc::sync_channel(1);
        spool
            .backlog
            .append(draft, move |places| drop(answer.send(places)));
        answered.recv().context("the spool has stopped")??;
        spool
            .dead_letters
            .retire(frame.places.iter().map(|place| *place..place + 1));
        records += frame.records.len();
        Ok(())
    })?;
    say(&format!(
        "{records} dead letters wait for delivery again: start the gateway"
    ));
    Ok(())
}
