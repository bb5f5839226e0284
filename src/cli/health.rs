//! `forebay health`: is the gateway of this machine ready? For a container's health check, where
//! there is no curl.
//!
//! It asks the admin address, and prints the answer. Exit code 0 for yes, 1 for no and for no
//! answer.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command};

use super::say;
use crate::config::variables::{Default, Variable};

const ADDRESS: &str = "FOREBAY_ADMIN_LISTEN";

/// For connecting, and for each read and write: well below what an orchestrator waits.
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
    let given = arguments
        .get_one::<String>(ADDRESS)
        .cloned()
        .or_else(|| std::env::var(ADDRESS).ok());
    let address = given.unwrap_or_else(|| default_address().into());
    let address: SocketAddr = address
        .parse()
        .with_context(|| format!("{ADDRESS}: {address:?} is not an IP address and a port"))?;
    let path = if arguments.get_flag("live") {
        "/livez"
    } else {
        "/readyz"
    };
    let address = reachable(address);
    let answer = ask(address, path).with_context(|| format!("http://{address}{path}"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is not HTTP")?;
    say(body.trim_end());
    let is_ok = head.split(' ').nth(1) == Some("200");
    Ok(if is_ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn default_address() -> &'static str {
    match Variable::find(ADDRESS).map(|variable| variable.default) {
        Some(Default::Value(value)) => value,
        _ => unreachable!("the admin address has a default"),
    }
}

/// Who listens on every address is asked on the loopback one.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
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
