//! Two results side by side, with the ratio of the second to the first.

use std::path::Path;

use anyhow::Result;

use super::text::fitness;
use super::{Report, read};

/// One line of the table: a name, and what it shows of a report, in the unit of the name.
type Row = (&'static str, fn(&Report) -> Option<f64>);

const ROWS: [Row; 13] = [
    ("requests/s", |report| Some(report.total.per_second)),
    ("as expected", |report| Some(report.total.expected as f64)),
    ("missed", |report| Some(report.total.missed as f64)),
    ("latency p50 ms", |report| {
        milliseconds(report.total.latency_us.p50)
    }),
    ("latency p90 ms", |report| {
        milliseconds(report.total.latency_us.p90)
    }),
    ("latency p99 ms", |report| {
        milliseconds(report.total.latency_us.p99)
    }),
    ("latency p99.9 ms", |report| {
        milliseconds(report.total.latency_us.p99_9)
    }),
    ("latency max ms", |report| {
        milliseconds(report.total.latency_us.max)
    }),
    ("handshake p99 ms", |report| {
        milliseconds(report.setup.handshake_us.p99)
    }),
    ("server µs/request", |report| {
        Some(report.server.as_ref()?.cpu_us_per_request)
    }),
    ("server RSS MiB", |report| {
        Some(report.server.as_ref()?.rss_peak_bytes? as f64 / 1_048_576.0)
    }),
    ("generator µs/request", |report| {
        Some(report.generator.cpu_us_per_request)
    }),
    ("sends late p99 ms", |report| {
        milliseconds(report.total.send_lateness_us.p99)
    }),
];

fn milliseconds(microseconds: u64) -> Option<f64> {
    Some(microseconds as f64 / 1e3)
}

pub(crate) fn run(first: &Path, second: &Path) -> Result<()> {
    let reports = [first, second].map(|file| Ok((name(file), read(file)?)));
    let [first, second]: [Result<_>; 2] = reports;
    print!("{}", table(&[first?, second?]));
    Ok(())
}

fn name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// The reports side by side; the first is what the others are compared with.
pub(crate) fn table(reports: &[(String, Report)]) -> String {
    let names = reports.iter().map(|(name, _)| name.clone());
    let mut text = line("", names);
    for (name, read) in ROWS {
        let first = reports.first().and_then(|(_, report)| read(report));
        let cells = reports.iter().map(|(_, report)| cell(read(report), first));
        text += &line(name, cells);
    }
    let verdicts = reports.iter().map(|(_, report)| &report.verdict);
    text + &line("generator", verdicts.map(|verdict| fitness(verdict).into()))
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> String {
    let mut line = format!("{name:<22}");
    for cell in cells {
        line += &format!("{cell:>20}");
    }
    line + "\n"
}

fn cell(value: Option<f64>, first: Option<f64>) -> String {
    let Some(value) = value else {
        return "-       ".to_owned();
    };
    match first {
        Some(first) if first > 0.0 => format!("{value:.2} ×{:<5.2}", value / first),
        _ => format!("{value:.2}       "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_first() {
        let report = |p99| {
            let mut report = Report::default();
            report.total.latency_us.p99 = p99;
            report
        };
        let table = table(&[("a".into(), report(2000)), ("b".into(), report(3000))]);
        let row = |name: &str| {
            let row = table.lines().find_map(|line| line.strip_prefix(name));
            let cells = row.expect("a row").split_whitespace();
            cells.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("latency p99 ms"), ["2.00", "×1.00", "3.00", "×1.50"]);
        assert_eq!(row("server µs/request"), ["-", "-"]);
    }
}
