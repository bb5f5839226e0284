//! The same fleet against several servers, in turn, by the same clock, and one table.
//!
//! Each run is this program's own `fleet`, so a peer is measured exactly as Forebay is. The results
//! stay in a folder.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cli::Peers;
use crate::report::{self, Report, compare};

pub(crate) fn run(options: &Peers) -> Result<()> {
    let mut servers = Vec::new();
    for server in &options.servers {
        servers.push((named(server)?, Vec::new()));
    }
    let folder = &options.results;
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    for round in 1..=options.rounds {
        for ((name, url), reports) in &mut servers {
            eprintln!("round {round}: {name}");
            let file = folder.join(format!("{name}-{round}.json"));
            reports.push(run_fleet(url, &options.load, &file)?);
        }
    }
    let mut middles = Vec::new();
    for ((name, _), reports) in servers {
        middles.push((name.to_owned(), middle(reports)));
    }
    print!("{}", compare::table(&middles));
    Ok(())
}

/// The name and the URL of `NAME=URL`.
fn named(server: &str) -> Result<(&str, &str)> {
    let parts = server.split_once('=');
    let (name, url) = parts.with_context(|| format!("{server}: NAME=URL"))?;
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_file_name = !name.is_empty() && name.bytes().all(may_stand);
    ensure!(is_file_name, "{name}: letters, digits, - and _");
    Ok((name, url))
}

/// Runs a fleet against a URL, which may bring options of its own, as `URL --pid 4711`.
fn run_fleet(url: &str, load: &[String], file: &Path) -> Result<Report> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("fleet").args(url.split(' ')).args(load);
    command.arg("--report").arg(file);
    let status = command.status()?;
    ensure!(
        status.success(),
        "the fleet against {url} ended with {status}"
    );
    report::read(file)
}

/// The report in the middle, by the 99th percentile.
fn middle(mut reports: Vec<Report>) -> Report {
    assert!(!reports.is_empty(), "there is one round at least");
    reports.sort_by_key(|report| report.total.latency_us.p99);
    let middle = reports.len() / 2;
    reports.swap_remove(middle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_round_counts() {
        let report = |p99| {
            let mut report = Report::default();
            report.total.latency_us.p99 = p99;
            report
        };
        assert_eq!(middle(vec![report(9), report(1), report(5)]), report(5));
    }

    #[test]
    fn a_server_has_a_name() {
        assert_eq!(
            named("nginx=https://127.0.0.1/a=b").unwrap(),
            ("nginx", "https://127.0.0.1/a=b")
        );
        assert!(named("https://127.0.0.1/").is_err() && named("a/b=https://127.0.0.1/").is_err());
    }
}
