//! The same fleet against several servers, in turn, by the same clock, and one table.
//!
//! Each run is this program's own `fleet`, so a peer is measured exactly as Forebay is. The results
//! stay in a folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cli::Peers;
use crate::report::{Report, compare};

pub fn run(options: &Peers) -> Result<()> {
    let servers: Vec<(&str, &str)> = options
        .servers
        .iter()
        .map(|server| named(server))
        .collect::<Result<_>>()?;
    std::fs::create_dir_all(&options.results)
        .with_context(|| options.results.display().to_string())?;
    let mut results: Vec<Vec<Report>> = vec![Vec::new(); servers.len()];
    for round in 1..=options.rounds {
        for ((name, url), results) in servers.iter().zip(&mut results) {
            eprintln!("round {round}: {name}");
            let file = options.results.join(format!("{name}-{round}.json"));
            results.push(run_fleet(url, &options.load, &file)?);
        }
    }
    let names = servers.iter().map(|(name, _)| (*name).to_owned());
    let reports: Vec<(String, Report)> = names.zip(results.into_iter().map(middle)).collect();
    print!("{}", compare::table(&reports));
    Ok(())
}

fn named(server: &str) -> Result<(&str, &str)> {
    let (name, url) = server
        .split_once('=')
        .with_context(|| format!("{server}: NAME=URL"))?;
    let is_file_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    ensure!(is_file_name, "{name}: letters, digits, - and _");
    Ok((name, url))
}

/// A URL may bring options of its own, as `URL --pid 4711`.
fn run_fleet(url: &str, load: &[String], file: &PathBuf) -> Result<Report> {
    let status = Command::new(std::env::current_exe()?)
        .arg("fleet")
        .args(url.split(' '))
        .args(load)
        .arg("--report")
        .arg(file)
        .status()?;
    ensure!(
        status.success(),
        "the fleet against {url} ended with {status}"
    );
    compare::read(Path::new(file))
}

/// By the 99th percentile.
fn middle(mut reports: Vec<Report>) -> Report {
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
