//! The protocols apart: what each was answered and how fast, as a table and as distributions.

use super::html::series;
use super::plot::{Plot, Scale, Series};
use super::text::milliseconds;
use super::{Report, Spoken};
use crate::statistics::Times;

/// The name of a protocol in reports, for people, and the class of its line.
const NAMES: [(&str, &str, &str); 3] = [
    ("h1", "HTTP/1.1", "c1"),
    ("h2", "HTTP/2", "c2"),
    ("h3", "HTTP/3", "c3"),
];

/// The parts of all requests that a distribution is marked at, by their nines.
const NINES: [(f64, &str); 6] = [
    (0.0, "0 %"),
    (1.0, "90 %"),
    (2.0, "99 %"),
    (3.0, "99.9 %"),
    (4.0, "99.99 %"),
    (5.0, "99.999 %"),
];

/// A row for each protocol that was spoken; nothing where the report has none.
pub(super) fn table(report: &Report) -> String {
    let mut rows = String::new();
    for (protocol, name, class) in NAMES {
        if let Some(spoken) = report.protocols.get(protocol) {
            rows += &row(name, class, spoken);
        }
    }
    if rows.is_empty() {
        return rows;
    }
    format!(
        "<figure class=\"scroll\" tabindex=\"0\"><figcaption><b>Protocols</b> <span>latency in milliseconds</span></figcaption>\
         <table><thead><tr><th scope=\"col\">spoken</th><th scope=\"col\">requests</th><th scope=\"col\">as expected</th>\
         <th scope=\"col\">missed</th><th scope=\"col\">median</th><th scope=\"col\">99 %</th><th scope=\"col\">99.9 %</th>\
         <th scope=\"col\">slowest</th></tr></thead>{rows}</table></figure>\n"
    )
}

fn row(name: &str, class: &str, spoken: &Spoken) -> String {
    let latency = &spoken.latency_us;
    let times = [latency.p50, latency.p99, latency.p99_9, latency.max];
    let times = times.map(|time| format!("<td>{}</td>", milliseconds(time, 1)));
    let Spoken {
        requests,
        expected,
        missed,
        ..
    } = spoken;
    format!(
        "<tr><th scope=\"row\" class=\"key {class}\">{name}</th><td>{requests}</td><td>{expected}</td><td>{missed}</td>{}</tr>",
        times.concat()
    )
}

/// The latency that each part of the requests did not exceed, each nine as wide as the one before; a
/// line for each protocol, or one for all where the report does not tell them apart.
pub(super) fn distribution(report: &Report) -> Plot<'static> {
    let mut lines: Vec<Series> = Vec::new();
    for (protocol, name, class) in NAMES {
        if let Some(spoken) = report.protocols.get(protocol) {
            let points = nines(&spoken.latency_histogram).into_iter();
            lines.push(series(name, class, points));
        }
    }
    if lines.is_empty() {
        let points = nines(&report.latency_histogram).into_iter();
        lines.push(series("latency", "c1", points));
    }
    Plot {
        title: "Latency distribution",
        unit: "ms",
        note: "milliseconds that this part of the requests did not exceed",
        scale: Scale::Log,
        stacked: false,
        x_labels: &NINES,
        series: lines,
        events: &[],
    }
}

/// Returns for each latency, in milliseconds, the nines of the share of requests below it.
fn nines(times: &Times) -> Vec<(f64, f64)> {
    let all = times.count().max(1) as f64;
    let mut below = 0;
    let mut points = Vec::new();
    for (microseconds, count) in times.buckets() {
        let nines = -(1.0 - below as f64 / all).log10();
        points.push((nines, microseconds as f64 / 1e3));
        below += count;
    }
    points
}
