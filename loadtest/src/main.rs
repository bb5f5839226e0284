//! The load generator of Forebay: a fleet of devices, the audit of what arrived, and the figures.
//!
//! [`fleet`] puts load on a server, open loop: [`schedule`] says when each device means to send,
//! [`scenario`] what befalls it, [`client`] speaks the protocols, [`statistics`] counts, [`ledger`]
//! remembers. [`audit`] compares a sink with the ledger; [`report`] makes results readable and
//! judges whether the generator was fit. [`peers`] runs fleets against several servers, [`burn`]
//! measures in a closed loop what only CPU and memory figures are taken from. Exit codes: 0; 1
//! where an audit found differences or something failed; 2 for a command line that makes no sense.

mod audit;
mod burn;
mod certificates;
mod cli;
mod client;
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

use std::process::ExitCode;

use clap::Parser;

use cli::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match cli::Arguments::parse().command {
        // A figure that is not to be trusted says so; the run itself has succeeded.
        Command::Fleet(fleet) => fleet::run(*fleet).map(|_is_fit| true),
        Command::Audit(audit) => audit::run(&audit),
        Command::Peers(peers) => peers::run(&peers).map(|()| true),
        Command::Burn(burn) => burn::run(*burn).map(|()| true),
        Command::Compare(compare) => {
            report::compare::run(&compare.first, &compare.second).map(|()| true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("loadtest: {error:#}");
            ExitCode::FAILURE
        }
    }
}
