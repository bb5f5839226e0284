//! `forebay devices`: say what a devices file gives to whom, and shut a device out or let it in.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{USAGE, say};
use crate::config::Quota;
use crate::devices::{
    self, Change, Counts, Devices, DevicesError, EditError, Edited, Fingerprint, Settings, Source,
    Verdict, rewrite,
};
use crate::record::DeviceId;

const FILE: &str = "FOREBAY_DEVICES_FILE";

/// Word for a setting that a rule leaves to the environment.
const ELSEWHERE: &str = "environment";

pub(crate) fn command() -> Command {
    let check = Command::new("check")
        .about("Read a devices file and say what each device gets; exit code 2 for a faulty file")
        .arg(path("FILE").required(true))
        .arg(
            id().num_args(0..)
                .help("Device ids, or sha256: and the fingerprint of a certificate"),
        );
    let deny = Command::new("deny")
        .about("Shut a device out: its line in the devices file is changed, or added, in one step")
        .args([id().required(true), file()]);
    let allow = Command::new("allow")
        .about("Let a device in, with the settings that it had")
        .args([id().required(true), file()]);
    Command::new("devices")
        .about("Look into a devices file, and edit it")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([check, deny, allow])
}

fn path(name: &'static str) -> Arg {
    Arg::new(name).value_parser(value_parser!(PathBuf))
}

fn file() -> Arg {
    path("file")
        .long("file")
        .value_name("FILE")
        .help(format!("[default: {FILE}]"))
}

fn id() -> Arg {
    Arg::new("ID")
}

pub(crate) fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    match arguments.subcommand() {
        Some(("check", arguments)) => Ok(check(arguments)),
        Some(("deny", arguments)) => change(arguments, Change::Deny),
        Some(("allow", arguments)) => change(arguments, Change::Allow),
        _ => unreachable!("clap requires one of the commands"),
    }
}

fn check(arguments: &ArgMatches) -> ExitCode {
    let file: &PathBuf = arguments.get_one("FILE").expect("it is required");
    let devices = match devices::read(file) {
        Ok(devices) => devices,
        Err(error) => return wrong(&error.to_string()),
    };
    let ids: Vec<&String> = arguments.get_many("ID").unwrap_or_default().collect();
    if let Some(other) = ids.iter().find(|id| DeviceId::parse(id).is_none()) {
        return not_an_id(other);
    }
    let Counts { exact, globs, pins } = devices.counts();
    let file = file.display();
    say(&format!(
        "{file}: {exact} exact rules, {globs} globs, {pins} pins"
    ));
    for id in ids {
        say(&explained(&devices, id));
    }
    ExitCode::SUCCESS
}

fn wrong(why: &str) -> ExitCode {
    eprintln!("{why}");
    ExitCode::from(USAGE)
}

fn not_an_id(text: &str) -> ExitCode {
    wrong(&format!(
        "\"{}\" is no device id: 1 to 128 characters of A-Za-z0-9._:/@-",
        text.escape_debug()
    ))
}

/// Explains what a device gets, and by which line.
fn explained(devices: &Devices, asked: &str) -> String {
    let fingerprint = asked.strip_prefix("sha256:").and_then(Fingerprint::parse);
    let pin = fingerprint.and_then(|certificate| devices.pin(&certificate));
    let (id, named) = match pin {
        Some(pin) => (
            pin.id,
            format!("{asked} is {}, by line {}; ", pin.id, pin.line),
        ),
        None => (asked, String::new()),
    };
    let (of_id, source) = devices.verdict(id);
    let verdict = match fingerprint {
        Some(certificate) => devices.verdict_of(&certificate, id),
        None => of_id,
    };
    let gets = match verdict {
        Verdict::Denied => "deny".to_owned(),
        Verdict::Allowed(settings) => format!("allow {}", written(&settings)),
    };
    let mut line = format!("{named}{id}: {gets} ({})", told(source));
    for certificate in devices.pins_of(id) {
        line += &format!(", pinned as sha256:{certificate}");
    }
    line
}

fn told(source: Source) -> String {
    match source {
        Source::Exact { line } | Source::Glob { line } => format!("line {line}"),
        Source::Default { line } => format!("default, line {line}"),
        Source::Silence => "default".to_owned(),
    }
}

fn written(settings: &Settings) -> String {
    let rate = |quota: Quota| format!("{}/{}", quota.rate, quota.burst);
    let bytes = |quota: Quota| format!("{}/{}", size(quota.rate as u64), size(quota.burst));
    let requests = settings.requests.map_or(ELSEWHERE.to_owned(), rate);
    let bytes = settings.bytes.map_or(ELSEWHERE.to_owned(), bytes);
    let streams = match &settings.streams {
        Some(streams) => streams.join(","),
        None => ELSEWHERE.to_owned(),
    };
    format!("rate={requests} bytes={bytes} streams={streams}")
}

/// A number of bytes, in the largest unit of which it is a multiple.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (unit, name) in UNITS {
        if bytes > 0 && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

fn change(arguments: &ArgMatches, change: Change) -> anyhow::Result<ExitCode> {
    let text: &String = arguments.get_one("ID").expect("it is required");
    let Some(id) = DeviceId::parse(text) else {
        return Ok(not_an_id(text));
    };
    let given = arguments.get_one::<PathBuf>("file").cloned();
    let file = given.or_else(|| std::env::var_os(FILE).map(PathBuf::from));
    let file = file.with_context(|| format!("which file? Give --file or set {FILE}"))?;
    let edited = match rewrite(&file, &id, change) {
        Ok(edited) => edited,
        Err(EditError::Devices(error @ DevicesError::Faulty { .. })) => {
            return Ok(wrong(&format!("nothing was changed: {error}")));
        }
        Err(error) => return Err(error.into()),
    };
    let (is, file) = (outcome(change, edited), file.display());
    say(&format!("{id} {is} in {file}"));
    Ok(ExitCode::SUCCESS)
}

fn outcome(change: Change, edited: Edited) -> &'static str {
    match (change, edited) {
        (Change::Deny, Edited::Changed) => "is denied",
        (Change::Deny, Edited::Unchanged) => "was denied already",
        (Change::Allow, Edited::Changed) => "is allowed",
        (Change::Allow, Edited::Unchanged) => "was allowed already",
    }
}
