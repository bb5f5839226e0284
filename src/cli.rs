//! The command line: `serve`, `check`, `dev`, `pki`, `spool`, `health`, and what the program tells
//! about itself.
//!
//! `main` calls it. Arguments become a configuration for the gateway or a call of `pki`; nothing
//! else reads them. A command that cannot do what it was asked for says why on stderr: exit code 2
//! for arguments and configurations that cannot be understood, 1 for the rest.

mod dev;
mod health;
mod manual;
mod pki;
mod spool;

use std::collections::BTreeSet;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use crate::config::variables::{Default, VARIABLES, Variable, flag_of, kafka_variable};
use crate::config::{Config, ConfigErrors, Raw, raise_open_file_limit};
use crate::{gateway, telemetry};

/// Exit code for arguments and configurations that are wrong.
pub(crate) const USAGE: u8 = 2;

/// Runs the command that the arguments name.
pub fn run() -> anyhow::Result<ExitCode> {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("serve", flags)) => serve(flags),
        Some(("check", flags)) => check(flags),
        Some(("dev", flags)) => dev::run(flags),
        Some(("pki", arguments)) => pki::run(arguments),
        Some(("spool", arguments)) => spool::run(arguments),
        Some(("health", arguments)) => health::run(arguments),
        Some(("openapi", _)) => manual::openapi(),
        Some(("completions", arguments)) => manual::completions(arguments),
        Some(("man", arguments)) => manual::pages(arguments),
        _ => unreachable!("clap requires one of the commands"),
    }
}

fn command() -> Command {
    let serve = Command::new("serve")
        .about("Serve devices, configured by the environment and flags")
        .args(flags(&[]));
    let check = Command::new("check")
        .about("Print the effective configuration and where it comes from")
        .args(flags(&[]));
    Command::new("forebay")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Telemetry ingestion gateway: devices post over mutual TLS, a 204 means that the reading is safe")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([serve, dev::command(), pki::command(), spool::command(), check, health::command()])
        .subcommands(manual::commands())
}

/// Values in the place of some defaults, by variable.
type Preset = (&'static str, String);

/// A flag for each variable.
fn flags(presets: &[Preset]) -> impl Iterator<Item = Arg> {
    let preset = |variable: &Variable| presets.iter().find(|(name, _)| *name == variable.name);
    VARIABLES
        .iter()
        .map(move |variable| flag(variable, preset(variable)))
        .chain(kafka_flags())
}

/// Flags for those of librdkafka's properties that the arguments name: there are more than a help
/// text could list.
fn kafka_flags() -> impl Iterator<Item = Arg> {
    let arguments = std::env::args_os().filter_map(|argument| argument.into_string().ok());
    let named: BTreeSet<String> = arguments
        .filter_map(|argument| kafka_variable(&argument))
        .collect();
    let unlisted = named
        .into_iter()
        .filter(|name| Variable::find(name).is_none());
    unlisted.map(|name| {
        Arg::new(name.clone())
            .long(flag_of(&name))
            .value_name("VALUE")
            .help(name)
    })
}

fn flag(variable: &Variable, preset: Option<&Preset>) -> Arg {
    let default = match (preset, variable.default) {
        (Some((_, value)), _) => format!("[default: {value}]"),
        (None, Default::Value(value)) => format!("[default: {value}]"),
        (None, Default::Unset(meaning)) => format!("[default: {meaning}]"),
        (None, Default::Required) => "[required]".into(),
    };
    Arg::new(variable.name)
        .long(variable.flag())
        .value_name("VALUE")
        .help(format!(
            "{} {default} [{}]",
            variable.meaning, variable.name
        ))
        .help_heading(variable.group)
}

/// The flags that were given, by variable: an argument's id is its variable.
fn given(matches: &ArgMatches) -> Vec<(String, String)> {
    let flag = |id: &clap::Id| {
        Some((
            id.to_string(),
            matches.get_one::<String>(id.as_str())?.clone(),
        ))
    };
    matches.ids().filter_map(flag).collect()
}

fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| {
        Some((
            name.into_string().ok()?,
            value.to_string_lossy().into_owned(),
        ))
    })
}

fn serve(flags: &ArgMatches) -> anyhow::Result<ExitCode> {
    raise_open_file_limit();
    match Config::load(environment(), given(flags)) {
        Ok(config) => start(config, |_| {}),
        Err(errors) => Ok(wrong(&errors)),
    }
}

fn start(config: Config, on_bound: impl FnOnce(SocketAddr)) -> anyhow::Result<ExitCode> {
    match start_log(&config) {
        Ok(()) => gateway::run(config, on_bound),
        Err(errors) => Ok(wrong(&errors)),
    }
}

/// Only the log knows whether its filter can be read.
fn start_log(config: &Config) -> Result<(), ConfigErrors> {
    telemetry::log::start(&config.log)
        .map_err(|error| ConfigErrors(vec![format!("FOREBAY_LOG: {error}")]))
}

fn check(flags: &ArgMatches) -> anyhow::Result<ExitCode> {
    raise_open_file_limit();
    let (raw, _) = Raw::new(environment(), given(flags));
    say(raw.describe().trim_end());
    let checked = Config::load(environment(), given(flags)).and_then(|config| start_log(&config));
    Ok(checked.map_or_else(|errors| wrong(&errors), |()| ExitCode::SUCCESS))
}

fn wrong(errors: &ConfigErrors) -> ExitCode {
    eprintln!("{errors}");
    ExitCode::from(USAGE)
}

/// Prints a line for people. Where nobody reads, that is no fault.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
