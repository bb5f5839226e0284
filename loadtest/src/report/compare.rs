//! Two results side by side, with the ratio of the second to the first.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::text::number;

/// What is compared: a name, where it stands, the factor to the unit that is shown.
const ROWS: [(&str, &str, f64); 13] = [
    ("requests/s", "/total/per_second", 1.0),
    ("as expected", "/total/expected", 1.0),
    ("missed", "/total/missed", 1.0),
    ("latency p50 ms", "/total/latency_us/p50", 1e-3),
    ("latency p90 ms", "/total/latency_us/p90", 1e-3),
    ("latency p99 ms", "/total/latency_us/p99", 1e-3),
    ("latency p99.9 ms", "/total/latency_us/p99_9", 1e-3),
    ("latency max ms", "/total/latency_us/max", 1e-3),
    ("handshake p99 ms", "/setup/handshake_us/p99", 1e-3),
    ("server µs/request", "/server/cpu_us_per_request", 1.0),
    (
        "server RSS MiB",
        "/server/rss_peak_bytes",
        1.0 / 1_048_576.0,
    ),
    ("generator µs/request", "/generator/cpu_us_per_request", 1.0),
    ("sends late p99 ms", "/total/send_lateness_us/p99", 1e-3),
];

pub fn run(first: &Path, second: &Path) -> Result<()> {
    let name = |path: &Path| {
        path.file_stem()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    };
    print!(
        "{}",
        table(&[(name(first), read(first)?), (name(second), read(second)?)])
    );
    Ok(())
}

pub fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

/// The first is what the others are compared with.
pub fn table(reports: &[(String, Value)]) -> String {
    let mut text = format!("{:<22}", "");
    for (name, _) in reports {
        text += &format!("{name:>20}");
    }
    text.push('\n');
    for (name, place, factor) in ROWS {
        let values: Vec<&Value> = reports
            .iter()
            .map(|(_, report)| report.pointer(place).unwrap_or(&Value::Null))
            .collect();
        text += &format!("{name:<22}");
        for value in &values {
            text += &format!("{:>20}", cell(value, values[0], factor));
        }
        text.push('\n');
    }
    text += &format!("{:<22}", "generator");
    for (_, report) in reports {
        text += &format!(
            "{:>20}",
            if report["verdict"]["fit"] == true {
                "fit"
            } else {
                "NOT TO BE TRUSTED"
            }
        );
    }
    text + "\n"
}

fn cell(value: &Value, first: &Value, factor: f64) -> String {
    let ratio = value
        .as_f64()
        .zip(first.as_f64())
        .filter(|(_, first)| *first > 0.0)
        .map(|(value, first)| value / first);
    let ratio = ratio.map_or_else(|| "       ".into(), |ratio| format!(" ×{ratio:<5.2}"));
    format!("{}{ratio}", number(value, factor, 2))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ratios_are_to_the_first() {
        let report =
            |p99: u64| json!({"total": {"latency_us": {"p99": p99}}, "verdict": {"fit": true}});
        let table = table(&[("a".into(), report(2000)), ("b".into(), report(3000))]);
        let row = table
            .lines()
            .find(|line| line.starts_with("latency p99 ms"))
            .unwrap();
        assert_eq!(
            row.split_whitespace().skip(3).collect::<Vec<_>>(),
            ["2.00", "×1.00", "3.00", "×1.50"]
        );
        assert!(
            table
                .lines()
                .any(|line| line.starts_with("missed") && line.contains('-'))
        );
    }
}
