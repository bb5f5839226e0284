//! The program's own manual: the contract of the wire, completions for shells, man pages.
//!
//! Packages are made with these, so that none of them is written by hand or kept beside the code.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::say;
use crate::http::openapi;
use crate::http::openapi::doors::{DOOR_NAMES, door_document};

const DOOR: &str = "door";

pub(crate) fn commands() -> [Command; 3] {
    let shell = Arg::new("SHELL")
        .required(true)
        .value_parser(value_parser!(Shell));
    let folder = Arg::new("FOLDER")
        .required(true)
        .value_parser(value_parser!(PathBuf))
        .help("where they go; must exist");
    let door = Arg::new(DOOR)
        .long(DOOR)
        .value_parser(PossibleValuesParser::new(DOOR_NAMES))
        .help("that of a front door");
    [
        Command::new("openapi")
            .about("Print the contract of the wire as OpenAPI 3.1")
            .arg(door),
        Command::new("completions")
            .about("Print completions for a shell")
            .arg(shell),
        Command::new("man")
            .about("Write man pages: forebay.1, forebay-serve.1 and so on")
            .arg(folder),
    ]
}

pub(crate) fn openapi(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let document = match arguments.get_one::<String>(DOOR) {
        Some(door) => door_document(door).context("clap knows the names")?,
        None => openapi::document(),
    };
    say(document.trim_end());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn completions(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let shell = arguments
        .get_one::<Shell>("SHELL")
        .context("clap requires it")?;
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut super::command(), "forebay", &mut script);
    say(String::from_utf8(script)?.trim_end());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn pages(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let folder = arguments
        .get_one::<PathBuf>("FOLDER")
        .context("clap requires it")?;
    clap_mangen::generate_to(super::command(), folder)
        .with_context(|| folder.display().to_string())?;
    Ok(ExitCode::SUCCESS)
}
