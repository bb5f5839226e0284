//! `forebay health`: is the gateway of this machine ready? For a container's health check, where
//! there is no curl.
//!
//! It asks the admin address, and prints the answer. Exit code 0 for yes, 1 for no and for no
//! answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{reachable, say};
use crate::config::variables::{Default, Variable};

const ADDRESS: &str = "FOREBAY_ADMIN_LISTEN";

/// The most that connecting, and each read and write, may take: well below what an orchestrator
/// waits.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The most of an answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

pub(crate) fn command() -> Command {
    let address = Arg::new(ADDRESS)
        .long("admin-listen")
        .value_name("ADDRESS")
        .help(format!(
            "where the gateway's admin address is [default: {}] [{ADDRESS}]",
            default_address()
        ));
    let live = Arg::new("live")
        .long("live")
        .action(ArgAction::SetTrue)
        .help("ask whether it lives (/livez) in place of whether it takes readings (/readyz)");
    Command::new("health")
        .about("Ask the gateway of this machine whether it is ready")
        .args([address, live])
}

pub(crate) fn run(arguments: &ArgMatches) -> anyhow::Result<ExitCode> {
    let path = match arguments.get_flag("live") {
        true => "/livez",
        false => "/readyz",
    };
    let address = reachable(address(arguments)?);
    let answer = ask(address, path).with_context(|| format!("http://{address}{path}"))?;
    let parts = answer.split_once("\r\n\r\n");
    let (head, body) = parts.context("the answer is not HTTP")?;
    say(body.trim_end());
    match head.split(' ').nth(1) {
        Some("200") => Ok(ExitCode::SUCCESS),
        _ => Ok(ExitCode::FAILURE),
    }
}

/// The admin address: as the flag says it, or the variable, or the default.
fn address(arguments: &ArgMatches) -> anyhow::Result<SocketAddr> {
    let flag = arguments.get_one::<String>(ADDRESS).cloned();
    let given = flag.or_else(|| std::env::var(ADDRESS).ok());
    let text = given.unwrap_or_else(|| default_address().into());
    let address = text.parse();
    address.with_context(|| format!("{ADDRESS}: {text:?} is not an IP address and a port"))
}

fn default_address() -> &'static str {
    match Variable::find(ADDRESS).map(|variable| variable.default) {
        Some(Default::Value(value)) => value,
        _ => unreachable!("the admin address has a default"),
    }
}

fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}
