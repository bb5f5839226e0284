//! The load generator of Forebay: a fleet of devices, the audit of what arrived, and the figures.
//!
//! [`fleet`] puts load on a server, open loop: [`schedule`] says when each device means to send,
//! [`scenario`] what befalls it, [`client`] speaks the protocols, [`statistics`] counts, [`ledger`]
//! remembers. [`audit`] compares a sink with the ledger; [`visits`] remember connections, and
//! [`events`] compares what a gateway tells of them with that; [`report`] makes results readable and
//! judges whether the generator was fit. [`peers`] runs fleets against several servers, [`burn`]
//! measures in a closed loop what only CPU and memory figures are taken from. Exit codes: 0; 1
//! where an audit found differences or something failed; 2 for a command line that makes no sense.

#![deny(unreachable_pub)]

mod audit;
mod burn;
mod certificates;
mod cli;
mod client;
mod envelope;
mod events;
mod fleet;
mod ledger;
mod payload;
mod peers;
mod process;
mod protocol;
mod random;
mod report;
mod scenario;
mod schedule;
mod statistics;
mod target;
mod visits;

use std::process::ExitCode;

use clap::Parser;

use cli::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let run = run(cli::Arguments::parse().command);
    run.unwrap_or_else(|error| {
        eprintln!("loadtest: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        // A figure that is not to be trusted says so; the run itself has succeeded.
        Command::Fleet(fleet) => drop(fleet::run(*fleet)?),
        Command::Audit(audit) if !audit::run(&audit)? => return Ok(ExitCode::FAILURE),
        Command::Events(events) if !events::run(&events)? => return Ok(ExitCode::FAILURE),
        Command::Audit(_) | Command::Events(_) => {}
        Command::Peers(peers) => peers::run(&peers)?,
        Command::Burn(burn) => burn::run(*burn)?,
        Command::Compare(compare) => report::compare::run(&compare.first, &compare.second)?,
    }
    Ok(ExitCode::SUCCESS)
}
