//! The results as one HTML page that needs nothing else: styles and plots are in it, light and
//! dark.

use super::plot::{Plot, Scale, Series, escape, short};
use super::text::{mebibytes, milliseconds};
use super::{Report, Second, Setup, Total, UsageSecond, protocols, verdicts};

/// The look of the gateway's live page, and what a report has beyond it.
const STYLE: &str = concat!(
    include_str!("../../../src/telemetry/admin/page/tokens.css"),
    include_str!("page.css")
);

pub(crate) fn page(report: &Report) -> String {
    let title = title(report);
    let parts = [
        tiles(report),
        protocols::table(report),
        plots(report),
        statuses(report),
        details(report),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body>\n{}<main>\n<p class=\"about\">{}</p>\n{}</main></body></html>\n",
        verdicts::band(report, &title),
        escape(&subtitle(report)),
        parts.concat(),
    )
}

fn title(report: &Report) -> String {
    let load = &report.load;
    let protocol = load.protocol.as_deref().unwrap_or_default();
    let scenario = load.scenario.as_deref().unwrap_or_default();
    format!("{} devices · {protocol} · {scenario}", load.devices)
}

fn subtitle(report: &Report) -> String {
    let load = &report.load;
    let ended_at = report.ended_at.get(..16).unwrap_or_default();
    let cpu = report.machine.cpu.as_deref();
    format!(
        "{} · {} s · {} bytes each · {} · {} cores, {}",
        load.url,
        load.duration_s,
        load.payload_bytes,
        ended_at.replace('T', " "),
        report.machine.cores,
        cpu.unwrap_or("an unknown processor"),
    )
}

fn tiles(report: &Report) -> String {
    let total = &report.total;
    let latency = &total.latency_us;
    let mut tiles = vec![
        tile("requests a second", &short(total.per_second), ""),
        tile("answered as expected", &expected_percent(report), "%"),
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

/// The share of requests that were answered as expected, rounded down: 100 % means all of them.
fn expected_percent(report: &Report) -> String {
    let total = &report.total;
    debug_assert!(total.expected <= total.requests, "a part of all");
    let percent = 100.0 * total.expected as f64 / total.requests.max(1) as f64;
    ((percent * 1000.0).floor() / 1000.0).to_string()
}

fn tile(name: &str, value: &str, unit: &str) -> String {
    format!(
        "<div class=\"tile\"><span>{name}</span><strong>{value}<small>{unit}</small></strong></div>"
    )
}

fn plots(report: &Report) -> String {
    let seconds = seconds_of_run(report);
    let mut events = Vec::new();
    for event in &report.events {
        events.push((event.t, event.what.clone()));
    }
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
    let note = "milliseconds from the intended time";
    let latency = over_time("Latency over time", "ms", note, latency(&seconds));
    let answers = over_time("Answers a second", "/s", "", answers(report, &seconds));
    let memory = over_time("Server memory", "MiB", "resident, MiB", memory(report));
    let note = "open at the end of each second";
    let connections = over_time("Connections", "", note, connections(&seconds));
    [
        stacked(answers).to_html(),
        logarithmic(latency).to_html(),
        protocols::distribution(report).to_html(),
        over_time("CPU", "cores", "cores", cores(report)).to_html(),
        stacked(memory).to_html(),
        stacked(connections).to_html(),
    ]
    .concat()
}

/// The seconds of the run. What comes after it is the end of requests that were sent in it, in part
/// of a second.
fn seconds_of_run(report: &Report) -> Vec<&Second> {
    let is_in_run = |second: &&Second| f64::from(second.t) <= report.load.duration_s;
    report.seconds.iter().take_while(is_in_run).collect()
}

/// The plot with the area below its lines.
fn stacked(plot: Plot<'_>) -> Plot<'_> {
    Plot {
        stacked: true,
        ..plot
    }
}

fn logarithmic(plot: Plot<'_>) -> Plot<'_> {
    Plot {
        scale: Scale::Log,
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

pub(super) fn series(
    name: &str,
    class: &'static str,
    points: impl Iterator<Item = (f64, f64)>,
) -> Series {
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
        let point = |second: &&Second| {
            let count = count(second, |status| is_kind(status, &expected));
            (f64::from(second.t), count as f64)
        };
        let line = series(name, class, seconds.iter().map(point));
        if class == "c1" || line.points.iter().any(|(_, count)| *count > 0.0) {
            all.push(line);
        }
    }
    all
}

fn count(second: &Second, is_counted: impl Fn(&str) -> bool) -> u64 {
    let mut all = 0;
    for (status, count) in &second.statuses {
        if is_counted(status) {
            all += count;
        }
    }
    all
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
    let rows = [
        requests_details(&report.total),
        setup_details(&report.setup),
        generator_details(report),
    ];
    format!(
        "<figure><figcaption><b>Details</b></figcaption><table>{}</table></figure>\n",
        rows.concat()
    )
}

fn requests_details(total: &Total) -> String {
    let handshakes = format!("{}, {}", total.handshakes, total.handshakes_failed);
    let behind = "sent late because the last answer was awaited";
    [
        row(behind, total.behind),
        row("not sent by the end", total.missed),
        row("connections during the run, failed", handshakes),
    ]
    .concat()
}

fn setup_details(setup: &Setup) -> String {
    let times = [setup.handshake_us.p50, setup.handshake_us.p99];
    let handshake = times.map(|time| milliseconds(time, 1)).join(", ");
    [
        row("certificates made, a second", setup.certificates_per_second),
        row("connections before the run", setup.connections),
        row("handshake, p50 and p99 (ms)", handshake),
    ]
    .concat()
}

fn generator_details(report: &Report) -> String {
    let generator = &report.generator;
    let cpu_us = format!("{:.1}", generator.cpu_us_per_request);
    let busiest = format!("{:.0}", generator.busiest_thread_cores * 100.0);
    let late = milliseconds(report.total.send_lateness_us.p99, 2);
    let idle = format!("{:.0}", generator.machine_idle * 100.0);
    [
        row("generator's CPU a request (µs)", cpu_us),
        row("generator's busiest thread (% of a core)", busiest),
        row("idle devices sent late by, p99 (ms)", late),
        row("idle part of the machine (%)", idle),
    ]
    .concat()
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
        "protocols": {"h1": {"requests": 150, "expected": 150, "latency_histogram": [[900, 150]]},
                      "h3": {"requests": 50, "expected": 30, "latency_histogram": [[5000, 50]]}},
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
            "Not audited",
            "Not to be trusted",
            "too slow",
            "HTTP/3",
            "https://&lt;host&gt;/",
            "failed, 5xx",
            "<title>kill</title>",
        ] {
            assert!(page.contains(text), "{text}");
        }
        assert!(!page.contains("http://") && !page.contains("src=") && !page.contains("NaN"));
        // The band's shape, and each plot for a wide window and for a narrow one.
        assert_eq!(page.matches("<svg").count(), 1 + 2 * 4);
    }
}
