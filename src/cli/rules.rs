//! `forebay rules check`: what a rules file makes of readings, before a gateway has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches, Command, value_parser};

use super::{USAGE, environment, say};
use crate::config::Raw;
use crate::record::DeviceId;
use crate::rules::{Fault, Rules, Verdict};

pub(crate) fn command() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .required(true)
        .help("The rules file");
    let samples = Arg::new("sample")
        .value_name("SAMPLE")
        .value_parser(value_parser!(PathBuf))
        .num_args(0..)
        .help("Files of one reading each");
    let device = Arg::new("device")
        .long("device")
        .value_name("ID")
        .default_value("device")
        .help("The device that sends them");
    let check = Command::new("check")
        .about("Say what would become of each reading, and print it as it would go on")
        .after_help("Exit code 1 if a reading would be refused, 2 if the rules cannot be used.")
        .args([file, samples, device]);
    Command::new("rules")
        .about("Try the rules of a stream")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(check)
}

pub(crate) fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some(("check", arguments)) = arguments.subcommand() else {
        unreachable!("clap requires the command")
    };
    let file = arguments.get_one::<PathBuf>("file");
    let rules = match Rules::read(file.expect("clap requires it")) {
        Ok(rules) => rules,
        Err(error) => return Ok(wrong(&error.to_string())),
    };
    let id = arguments.get_one::<String>("device").expect("a default");
    let Some(device) = DeviceId::parse(id) else {
        return Ok(wrong(
            "--device: an id has 1 to 128 characters of A-Za-z0-9._:/@-",
        ));
    };
    let samples = arguments.get_many::<PathBuf>("sample").unwrap_or_default();
    let mut code = ExitCode::SUCCESS;
    for sample in samples {
        if !passes(&rules, sample, &device)? {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn wrong(fault: &str) -> ExitCode {
    eprintln!("{fault}");
    ExitCode::from(USAGE)
}

/// Says what would become of a sample, and whether it would pass.
fn passes(rules: &Rules, sample: &Path, device: &DeviceId) -> anyhow::Result<bool> {
    let name = sample.display();
    let payload = fs::read(sample).with_context(|| name.to_string())?;
    let (raw, _) = Raw::new(environment(), []);
    let verdict = rules.judge(payload.into(), device, raw.body_bytes_max());
    match &verdict {
        Ok(verdict) => say_passed(&name.to_string(), verdict),
        Err(Fault::SchemaViolation(place)) => {
            say(&format!("{name}: refused, schema-violation at \"{place}\""));
        }
        Err(fault) => say(&format!("{name}: refused, {}", fault.rejection().label())),
    }
    Ok(verdict.is_ok())
}

fn say_passed(name: &str, verdict: &Verdict) {
    match &verdict.violation {
        None => say(&format!("{name}: accepted")),
        Some(place) => say(&format!(
            "{name}: accepted, with the header schema-violation: {place}"
        )),
    }
    say(&String::from_utf8_lossy(&verdict.payload));
}
