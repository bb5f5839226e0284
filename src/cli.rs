//! The command line: `serve`, `check`, `dev`, `pki`, `spool`, `rules`, `devices`, `health`, and what
//! the program tells about itself.
//!
//! `main` calls it. Arguments become a configuration for the gateway or a call of `pki`; nothing
//! else reads them. A command that cannot do what it was asked for says why on stderr: exit code 2
//! for arguments and configurations that cannot be understood, 1 for the rest.

mod check;
mod dev;
mod devices;
mod health;
mod manual;
mod pki;
mod rules;
mod spool;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Command};

use crate::config::variables::{Default, VARIABLES, Variable, flag_of, kafka_variable};
use crate::config::{Config, ConfigErrors, raise_open_file_limit};
use crate::gateway::{self, Bound};
use crate::telemetry;

/// Exit code for arguments and configurations that are wrong.
pub(crate) const USAGE: u8 = 2;

/// Runs the command that the arguments name.
pub fn run() -> anyhow::Result<ExitCode> {
    let matches = command().get_matches();
    match matches.subcommand() {
        Some(("serve", flags)) => serve(flags),
        Some(("check", flags)) => check::run(flags),
        Some(("dev", flags)) => dev::run(flags),
        Some(("pki", arguments)) => pki::run(arguments),
        Some(("spool", arguments)) => spool::run(arguments),
        Some(("devices", arguments)) => devices::run(arguments),
        Some(("rules", arguments)) => rules::run(arguments),
        Some(("health", arguments)) => health::run(arguments),
        Some(("openapi", arguments)) => manual::openapi(arguments),
        Some(("completions", arguments)) => manual::completions(arguments),
        Some(("man", arguments)) => manual::pages(arguments),
        _ => unreachable!("clap requires one of the commands"),
    }
}

fn command() -> Command {
    let serve = Command::new("serve")
        .about("Serve devices, configured by the environment and flags")
        .args(flags(&[]));
    Command::new("forebay")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Telemetry ingestion gateway: devices post over mutual TLS, a 204 means that the reading is safe")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([serve, dev::command(), pki::command(), spool::command(), check::command()])
        .subcommands([rules::command(), devices::command(), health::command()])
        .subcommands(manual::commands())
}

/// Values in the place of some defaults, by variable.
type Preset = (&'static str, String);

/// A flag for each variable.
fn flags(presets: &[Preset]) -> impl Iterator<Item = Arg> {
    let preset = |variable: &Variable| presets.iter().find(|(name, _)| *name == variable.name);
    let listed = VARIABLES.iter();
    let flags = listed.map(move |variable| flag(variable, preset(variable)));
    flags.chain(kafka_flags())
}

/// Flags for the properties of librdkafka that the arguments name: there are more than a help text
/// could list.
fn kafka_flags() -> impl Iterator<Item = Arg> {
    let mut named = BTreeSet::new();
    for argument in std::env::args_os() {
        named.extend(argument.to_str().and_then(kafka_variable));
    }
    named.retain(|name| Variable::find(name).is_none());
    named.into_iter().map(kafka_flag)
}

fn kafka_flag(variable: String) -> Arg {
    Arg::new(variable.clone())
        .long(flag_of(&variable))
        .value_name("VALUE")
        .help(variable)
}

fn flag(variable: &Variable, preset: Option<&Preset>) -> Arg {
    let default = match (preset, variable.default) {
        (Some((_, value)), _) => format!("[default: {value}]"),
        (None, Default::Value(value)) => format!("[default: {value}]"),
        (None, Default::Unset(meaning)) => format!("[default: {meaning}]"),
        (None, Default::Required) => "[required]".into(),
    };
    let Variable {
        name,
        meaning,
        group,
        ..
    } = variable;
    Arg::new(*name)
        .long(variable.flag())
        .value_name("VALUE")
        .help(format!("{meaning} {default} [{name}]"))
        .help_heading(*group)
}

/// The flags that were given, by variable: an argument's id is its variable.
fn given(matches: &ArgMatches) -> Vec<(String, String)> {
    let flag = |id: &clap::Id| {
        // A switch of the command's own is no variable.
        let value = matches.try_get_one::<String>(id.as_str()).ok()??;
        Some((id.to_string(), value.clone()))
    };
    matches.ids().filter_map(flag).collect()
}

fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into()))
    };
    std::env::vars_os().filter_map(text)
}

fn serve(flags: &ArgMatches) -> anyhow::Result<ExitCode> {
    raise_open_file_limit();
    match Config::load(environment(), given(flags)) {
        Ok(config) => start(config, |_| {}),
        Err(errors) => Ok(wrong(&errors)),
    }
}

fn start(config: Config, on_bound: impl FnOnce(Bound)) -> anyhow::Result<ExitCode> {
    match start_log(&config) {
        Ok(()) => gateway::run(config, on_bound),
        Err(errors) => Ok(wrong(&errors)),
    }
}

/// Starts the log, which alone knows whether its filter can be read.
fn start_log(config: &Config) -> Result<(), ConfigErrors> {
    telemetry::log::start(&config.log)
        .map_err(|error| ConfigErrors(vec![format!("FOREBAY_LOG: {error}")]))
}

fn wrong(errors: &ConfigErrors) -> ExitCode {
    eprintln!("{errors}");
    ExitCode::from(USAGE)
}

/// The address at which this machine reaches what listens on a bound one: whoever listens on every
/// address is found on the loopback one.
fn reachable(bound: SocketAddr) -> SocketAddr {
    let ip = match bound.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, bound.port())
}

/// Prints a line for people. Where nobody reads, that is no fault.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
