//! The results as one HTML page that needs nothing else: styles and plots are in it, light and
//! dark.

use super::plot::{Plot, Scale, Series, escape, short};
use super::text::{mebibytes, milliseconds};
use super::{Report, Second, UsageSecond, Verdict};

const STYLE: &str = include_str!("page.css");

pub fn page(report: &Report) -> String {
    let load = &report.load;
    let title = format!(
        "{} devices · {} · {}",
        load.devices,
        load.protocol.as_deref().unwrap_or_default(),
        load.scenario.as_deref().unwrap_or_default()
    );
    let parts = [
        verdict(&report.verdict),
        tiles(report),
        plots(report),
        statuses(report),
        details(report),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main>\n<header><h1>{title}</h1><p>{}</p></header>\n{}</main></body></html>\n",
        escape(&subtitle(report)),
        parts.concat(),
    )
}

fn subtitle(report: &Report) -> String {
    let load = &report.load;
    let ended_at = report.ended_at.get(..16).unwrap_or_default();
    format!(
        "{} · {} s · {} bytes each · {} · {} cores, {}",
        load.url,
        load.duration_s,
        load.payload_bytes,
        ended_at.replace('T', " "),
        report.machine.cores,
        report
            .machine
            .cpu
            .as_deref()
            .unwrap_or("an unknown processor"),
    )
}

fn verdict(verdict: &Verdict) -> String {
    let lines = verdict.reasons.iter().chain(&verdict.notes);
    let lines: Vec<String> = lines.map(|line| escape(line)).collect();
    let (class, says) = if verdict.fit {
        (
            "fit",
            "The generator was fit: these figures are the server's.",
        )
    } else {
        ("unfit", "Not to be trusted.")
    };
    format!(
        "<p class=\"verdict {class}\"><b>{says}</b> {}</p>\n",
        lines.join(" · ")
    )
}

fn tiles(report: &Report) -> String {
    let total = &report.total;
    let latency = &total.latency_us;
    let share = 100.0 * total.expected as f64 / total.requests.max(1) as f64;
    // Rounded down: 100 % means all of them.
    let share = (share * 1000.0).floor() / 1000.0;
    let mut tiles = vec![
        tile("requests a second", &short(total.per_second), ""),
        tile("answered as expected", &share.to_string(), "%"),
        tile("median latency", &milliseconds(latency.p50, 2), "ms"),
        tile("99th percentile", &milliseconds(latency.p99, 1), "ms"),
        tile("99.9th percentile", &milliseconds(latency.p99_9, 1), "ms"),
        tile("slowest", &milliseconds(latency.max, 1), "ms"),
    ];
    if let Some(server) = &report.server {
        let cpu = format!("{:.1}", server.cpu_us_per_request);
        let memory = mebibytes(server.rss_peak_bytes, 0);
        tiles.push(tile("server CPU a request", &cpu, "µs"));
        tiles.push(tile("server memory, peak", &memory, "MiB"));
    }
    format!("<section class=\"tiles\">{}</section>\n", tiles.concat())
}

fn tile(name: &str, value: &str, unit: &str) -> String {
    format!(
        "<div class=\"tile\"><span>{name}</span><strong>{value}<small>{unit}</small></strong></div>"
    )
}

fn plots(report: &Report) -> String {
    // What comes after the run is the end of requests that were sent in it, in part of a second.
    let is_in_run = |second: &&Second| f64::from(second.t) <= report.load.duration_s;
    let seconds: Vec<&Second> = report.seconds.iter().take_while(is_in_run).collect();
    let events: Vec<(f64, String)> = report
        .events
        .iter()
        .map(|event| (event.t, event.what.clone()))
        .collect();
    let over_time = |title, unit, note, series| Plot {
        title,
        unit,
        note,
        scale: Scale::Linear,
        stacked: false,
        x_labels: &[],
        series,
        events: &events,
    };
    let latency = over_time(
        "Latency over time",
        "ms",
        "milliseconds from the intended time",
        latency(&seconds),
    );
    let answers = over_time("Answers a second", "/s", "", answers(report, &seconds));
    let memory = over_time("Server memory", "MiB", "resident, MiB", memory(report));
    let connections = over_time(
        "Connections",
        "",
        "open at the end of each second",
        connections(&seconds),
    );
    [
        stacked(answers).to_html(),
        Plot {
            scale: Scale::Log,
            ..latency
        }
        .to_html(),
        distribution(report),
        over_time("CPU", "cores", "cores", cores(report)).to_html(),
        stacked(memory).to_html(),
        stacked(connections).to_html(),
    ]
    .concat()
}

/// The same with its area.
fn stacked(plot: Plot<'_>) -> Plot<'_> {
    Plot {
        stacked: true,
        ..plot
    }
}

fn latency(seconds: &[&Second]) -> Vec<Series> {
    let line = |name: &str, class, read: fn(&Second) -> u64| {
        let point = |second: &&Second| (f64::from(second.t), read(second) as f64 / 1e3);
        series(name, class, seconds.iter().map(point))
    };
    vec![
        line("median", "c1", |second| second.p50),
        line("90 %", "c2", |second| second.p90),
        line("99 %", "c3", |second| second.p99),
        line("99.9 %", "c4", |second| second.p99_9),
        line("slowest", "c5", |second| second.max),
    ]
}

fn cores(report: &Report) -> Vec<Series> {
    let line = |name: &str, class, read: fn(&UsageSecond) -> Option<f64>| {
        let point = |second: &UsageSecond| Some((second.t, read(second)?));
        series(name, class, report.usage.iter().filter_map(point))
    };
    vec![
        line("server", "c1", |second| second.server_cores),
        line("generator", "c2", |second| Some(second.generator_cores)),
        line("its busiest thread", "c3", |second| {
            Some(second.busiest_thread_cores)
        }),
    ]
}

fn memory(report: &Report) -> Vec<Series> {
    let point = |second: &UsageSecond| {
        let bytes = second.server_rss_bytes?;
        Some((second.t, bytes as f64 / 1_048_576.0))
    };
    let points = report.usage.iter().filter_map(point);
    vec![series("memory", "c1", points)]
}

fn connections(seconds: &[&Second]) -> Vec<Series> {
    let point = |second: &&Second| (f64::from(second.t), second.connections as f64);
    vec![series("open connections", "c1", seconds.iter().map(point))]
}

fn series(name: &str, class: &'static str, points: impl Iterator<Item = (f64, f64)>) -> Series {
    Series {
        name: name.to_owned(),
        class,
        points: points.collect(),
    }
}

/// Whether a status is of a kind, given the expected one.
type IsKind = fn(&str, &str) -> bool;

const KINDS: [(&str, &str, IsKind); 4] = [
    ("as expected", "c1", |status, expected| status == expected),
    ("refused, 4xx and others", "c3", |status, expected| {
        status != expected && !status.starts_with(['5', 'u'])
    }),
    ("failed, 5xx", "c5", |status, expected| {
        status != expected && status.starts_with('5')
    }),
    ("no answer", "c4", |status, _| status.starts_with('u')),
];

/// Answers by kind; kinds that never came are left out.
fn answers(report: &Report, seconds: &[&Second]) -> Vec<Series> {
    let expected = report.load.expect.to_string();
    let mut all = Vec::new();
    for (name, class, is_kind) in KINDS {
        let count = |second: &Second| -> u64 {
            let statuses = second.statuses.iter();
            let of_kind = statuses.filter(|(status, _)| is_kind(status, &expected));
            of_kind.map(|(_, count)| count).sum()
        };
        let points = seconds
            .iter()
            .map(|second| (f64::from(second.t), count(second) as f64));
        let line = series(name, class, points);
        if class == "c1" || line.points.iter().any(|(_, count)| *count > 0.0) {
            all.push(line);
        }
    }
    all
}

/// Percentiles, each nine as wide as the one before it.
fn distribution(report: &Report) -> String {
    const LABELS: [(f64, &str); 6] = [
        (0.0, "0 %"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
        (5.0, "99.999 %"),
    ];
    let all = report.latency_histogram.count().max(1) as f64;
    let mut below = 0;
    let mut points = Vec::new();
    for (microseconds, count) in report.latency_histogram.buckets() {
        let nines = -(1.0 - below as f64 / all).log10();
        points.push((nines, microseconds as f64 / 1e3));
        below += count;
    }
    Plot {
        title: "Latency distribution",
        unit: "ms",
        note: "milliseconds that this part of all requests did not exceed",
        scale: Scale::Log,
        stacked: false,
        x_labels: &LABELS,
        series: vec![series("latency", "c1", points.into_iter())],
        events: &[],
    }
    .to_html()
}

fn statuses(report: &Report) -> String {
    let all = report.total.requests.max(1) as f64;
    let expected = report.load.expect.to_string();
    let mut rows = String::new();
    for (status, count) in &report.total.statuses {
        let share = *count as f64 / all * 100.0;
        let class = if *status == expected { "c1" } else { "c5" };
        rows += &format!(
            "<tr><th>{status}</th><td>{count}</td><td>{share:.3} %</td>\
             <td class=\"bar\"><div class=\"{class}\" style=\"width:{share:.2}%\"></div></td></tr>"
        );
    }
    format!("<figure><figcaption><b>Statuses</b></figcaption><table>{rows}</table></figure>\n")
}

fn details(report: &Report) -> String {
    let (total, setup, generator) = (&report.total, &report.setup, &report.generator);
    let handshake = format!(
        "{}, {}",
        milliseconds(setup.handshake_us.p50, 1),
        milliseconds(setup.handshake_us.p99, 1)
    );
    let rows = [
        row(
            "sent late because the last answer was awaited",
            total.behind,
        ),
        row("not sent by the end", total.missed),
        row("certificates made, a second", setup.certificates_per_second),
        row("connections before the run", setup.connections),
        row("handshake, p50 and p99 (ms)", handshake),
        row(
            "connections during the run, failed",
            format!("{}, {}", total.handshakes, total.handshakes_failed),
        ),
        row(
            "generator's CPU a request (µs)",
            format!("{:.1}", generator.cpu_us_per_request),
        ),
        row(
            "generator's busiest thread (% of a core)",
            format!("{:.0}", generator.busiest_thread_cores * 100.0),
        ),
        row(
            "idle devices sent late by, p99 (ms)",
            milliseconds(total.send_lateness_us.p99, 2),
        ),
        row(
            "idle part of the machine (%)",
            format!("{:.0}", generator.machine_idle * 100.0),
        ),
    ];
    format!(
        "<figure><figcaption><b>Details</b></figcaption><table>{}</table></figure>\n",
        rows.concat()
    )
}

fn row(name: &str, value: impl std::fmt::Display) -> String {
    format!("<tr><th>{name}</th><td>{value}</td></tr>")
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"{
        "load": {"devices": 7, "protocol": "mix", "scenario": "steady", "url": "https://<host>/", "expect": 204,
                 "duration_s": 2.0},
        "total": {"requests": 200, "expected": 180, "per_second": 100.0, "statuses": {"204": 180, "503": 20},
                  "latency_us": {"p50": 900, "p99": 5000, "p99_9": 8000, "max": 9000}},
        "latency_histogram": [[900, 100], [5000, 80], [9000, 20]],
        "events": [{"t": 1.5, "what": "kill"}],
        "verdict": {"fit": false, "reasons": ["too slow"]}
    }"#;

    #[test]
    fn a_page_needs_nothing_else_and_shows_what_was_measured() {
        let mut report: Report = serde_json::from_str(REPORT).unwrap();
        for t in [1, 2] {
            report.seconds.push(Second {
                t,
                statuses: [("204".to_owned(), 90), ("503".to_owned(), 10)].into(),
                p50: 900,
                p99: 5000,
                max: 9000,
                connections: 7,
                ..Second::default()
            });
        }
        let page = page(&report);
        for text in [
            "Not to be trusted",
            "too slow",
            "https://&lt;host&gt;/",
            "failed, 5xx",
            "<title>kill</title>",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("http://") && !page.contains("src=") && !page.contains("NaN"));
        assert_eq!(page.matches("<svg").count(), 4);
    }
}
