//! The results as one HTML page that needs nothing else: styles and plots are in it, light and dark.

use serde_json::Value;

use super::plot::{Plot, Scale, Series, escape, short};
use super::text::number;

const STYLE: &str = include_str!("page.css");

pub fn page(report: &Value) -> String {
    let load = &report["load"];
    let title = format!(
        "{} devices · {} · {}",
        load["devices"],
        load["protocol"].as_str().unwrap_or_default(),
        load["scenario"].as_str().unwrap_or_default()
    );
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{title}</title>\
         <style>{STYLE}</style></head><body><main>\n<header><h1>{title}</h1><p>{}</p></header>\n{}{}{}{}{}</main></body></html>\n",
        escape(&subtitle(report)),
        verdict(&report["verdict"]),
        tiles(report),
        plots(report),
        statuses(report),
        details(report),
    )
}

fn subtitle(report: &Value) -> String {
    let load = &report["load"];
    format!(
        "{} · {} s · {} bytes each · {} · {} cores, {}",
        load["url"].as_str().unwrap_or_default(),
        load["duration_s"],
        load["payload_bytes"],
        report["ended_at"]
            .as_str()
            .and_then(|at| at.get(..16))
            .unwrap_or_default()
            .replace('T', " "),
        report["machine"]["cores"],
        report["machine"]["cpu"]
            .as_str()
            .unwrap_or("an unknown processor"),
    )
}

fn verdict(verdict: &Value) -> String {
    let lines = |name: &str| verdict[name].as_array().cloned().unwrap_or_default();
    let text: Vec<String> = [lines("reasons"), lines("notes")]
        .concat()
        .iter()
        .map(|line| escape(line.as_str().unwrap_or_default()))
        .collect();
    let (class, says) = if verdict["fit"] == true {
        (
            "fit",
            "The generator was fit: these figures are the server's.",
        )
    } else {
        ("unfit", "Not to be trusted.")
    };
    format!(
        "<p class=\"verdict {class}\"><b>{says}</b> {}</p>\n",
        text.join(" · ")
    )
}

fn tiles(report: &Value) -> String {
    let total = &report["total"];
    let latency = &total["latency_us"];
    let share = total["expected"].as_f64().zip(total["requests"].as_f64());
    let share = share.map_or(0.0, |(expected, all)| 100.0 * expected / all.max(1.0));
    // Rounded down: 100 % means all of them.
    let share = format!("{}", (share * 1000.0).floor() / 1000.0);
    let mut tiles = vec![
        (
            "requests a second",
            total["per_second"]
                .as_f64()
                .map_or_else(|| "-".into(), short),
            "",
        ),
        ("answered as expected", share, "%"),
        ("median latency", number(&latency["p50"], 1e-3, 2), "ms"),
        ("99th percentile", number(&latency["p99"], 1e-3, 1), "ms"),
        (
            "99.9th percentile",
            number(&latency["p99_9"], 1e-3, 1),
            "ms",
        ),
        ("slowest", number(&latency["max"], 1e-3, 1), "ms"),
    ];
    if report["server"].is_object() {
        tiles.push((
            "server CPU a request",
            number(&report["server"]["cpu_us_per_request"], 1.0, 1),
            "µs",
        ));
        tiles.push((
            "server memory, peak",
            number(&report["server"]["rss_peak_bytes"], 1.0 / 1_048_576.0, 0),
            "MiB",
        ));
    }
    let tile = |(name, value, unit): (&str, String, &str)| {
        format!(
            "<div class=\"tile\"><span>{name}</span><strong>{value}<small>{unit}</small></strong></div>"
        )
    };
    format!(
        "<section class=\"tiles\">{}</section>\n",
        tiles.into_iter().map(tile).collect::<String>()
    )
}

fn plots(report: &Value) -> String {
    let duration = report["load"]["duration_s"].as_f64().unwrap_or(f64::MAX);
    let seconds = rows(&report["seconds"]);
    // What comes after the run is the end of requests that were sent in it, in part of a second.
    let seconds = &seconds
        [..seconds.partition_point(|second| second["t"].as_f64().is_some_and(|t| t <= duration))];
    let usage = rows(&report["usage"]);
    let events: Vec<(f64, String)> = rows(&report["events"])
        .iter()
        .map(|event| {
            (
                event["t"].as_f64().unwrap_or(0.0),
                event["what"].as_str().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    let over_time = |title, unit, note, scale, stacked, series| {
        Plot {
            title,
            unit,
            note,
            scale,
            stacked,
            x_labels: &[],
            series,
            events: &events,
        }
        .to_html()
    };
    let latency = [
        ("median", "c1", "p50"),
        ("90 %", "c2", "p90"),
        ("99 %", "c3", "p99"),
        ("99.9 %", "c4", "p99_9"),
        ("slowest", "c5", "max"),
    ];
    let latency = latency
        .map(|(name, class, field)| series(name, class, seconds, field, 1e-3))
        .into();
    let cores = vec![
        series("server", "c1", usage, "server_cores", 1.0),
        series("generator", "c2", usage, "generator_cores", 1.0),
        series(
            "its busiest thread",
            "c3",
            usage,
            "busiest_thread_cores",
            1.0,
        ),
    ];
    let connections = vec![series(
        "open connections",
        "c1",
        seconds,
        "connections",
        1.0,
    )];
    let memory = vec![series(
        "memory",
        "c1",
        usage,
        "server_rss_bytes",
        1.0 / 1_048_576.0,
    )];
    [
        over_time(
            "Answers a second",
            "/s",
            "",
            Scale::Linear,
            true,
            throughput(report, seconds),
        ),
        over_time(
            "Latency over time",
            "ms",
            "milliseconds from the intended time",
            Scale::Log,
            false,
            latency,
        ),
        distribution(report),
        over_time("CPU", "cores", "cores", Scale::Linear, false, cores),
        over_time(
            "Server memory",
            "MiB",
            "resident, MiB",
            Scale::Linear,
            true,
            memory,
        ),
        over_time(
            "Connections",
            "",
            "open at the end of each second",
            Scale::Linear,
            true,
            connections,
        ),
    ]
    .concat()
}

/// Of a status, given the expected one.
type IsKind = fn(&str, &str) -> bool;

fn throughput(report: &Value, seconds: &[Value]) -> Vec<Series> {
    let expected = report["load"]["expect"].to_string();
    let kinds: [(&str, &'static str, IsKind); 4] = [
        ("as expected", "c1", |status, expected| status == expected),
        ("refused, 4xx and others", "c3", |status, expected| {
            status != expected && !status.starts_with(['5', 'u'])
        }),
        ("failed, 5xx", "c5", |status, expected| {
            status != expected && status.starts_with('5')
        }),
        ("no answer", "c4", |status, _| status.starts_with('u')),
    ];
    let count = |second: &Value, is_kind: IsKind| -> f64 {
        let statuses = second["statuses"].as_object().into_iter().flatten();
        statuses
            .filter(|(status, _)| is_kind(status, &expected))
            .filter_map(|(_, count)| count.as_f64())
            .sum()
    };
    let at = |second: &Value| second["t"].as_f64().unwrap_or(0.0);
    let all = kinds.map(|(name, class, is_kind)| Series {
        name: name.into(),
        class,
        points: seconds
            .iter()
            .map(|second| (at(second), count(second, is_kind)))
            .collect(),
    });
    let happened = |series: &Series| {
        series.class == "c1" || series.points.iter().any(|(_, count)| *count > 0.0)
    };
    all.into_iter().filter(happened).collect()
}

/// Percentiles, each nine as wide as the one before it.
fn distribution(report: &Value) -> String {
    const LABELS: [(f64, &str); 6] = [
        (0.0, "0 %"),
        (1.0, "90 %"),
        (2.0, "99 %"),
        (3.0, "99.9 %"),
        (4.0, "99.99 %"),
        (5.0, "99.999 %"),
    ];
    let buckets = rows(&report["latency_histogram"]);
    let count = |bucket: &Value| bucket[1].as_f64().unwrap_or(0.0);
    let all: f64 = buckets.iter().map(count).sum();
    let mut below = 0.0;
    let mut points = Vec::new();
    for bucket in buckets {
        points.push((
            -(1.0 - below / all.max(1.0)).log10(),
            bucket[0].as_f64().unwrap_or(0.0) / 1e3,
        ));
        below += count(bucket);
    }
    Plot {
        title: "Latency distribution",
        unit: "ms",
        note: "milliseconds that this part of all requests did not exceed",
        scale: Scale::Log,
        stacked: false,
        x_labels: &LABELS,
        series: vec![Series {
            name: "latency".into(),
            class: "c1",
            points,
        }],
        events: &[],
    }
    .to_html()
}

fn series(name: &str, class: &'static str, rows: &[Value], field: &str, factor: f64) -> Series {
    let point = |row: &Value| Some((row["t"].as_f64()?, row[field].as_f64()? * factor));
    Series {
        name: name.into(),
        class,
        points: rows.iter().filter_map(point).collect(),
    }
}

fn rows(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn statuses(report: &Value) -> String {
    let all = report["total"]["requests"].as_f64().unwrap_or(0.0).max(1.0);
    let expected = report["load"]["expect"].to_string();
    let row = |(status, count): (&String, &Value)| {
        let share = count.as_f64().unwrap_or(0.0) / all * 100.0;
        let class = if *status == expected { "c1" } else { "c5" };
        format!(
            "<tr><th>{status}</th><td>{count}</td><td>{share:.3} %</td>\
             <td class=\"bar\"><div class=\"{class}\" style=\"width:{share:.2}%\"></div></td></tr>"
        )
    };
    let rows: String = report["total"]["statuses"]
        .as_object()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    format!("<figure><figcaption><b>Statuses</b></figcaption><table>{rows}</table></figure>\n")
}

fn details(report: &Value) -> String {
    let at = |place: &str| report.pointer(place).unwrap_or(&Value::Null);
    let rows = [
        (
            "sent late because the last answer was awaited",
            number(at("/total/behind"), 1.0, 0),
        ),
        ("not sent by the end", number(at("/total/missed"), 1.0, 0)),
        (
            "certificates made, a second",
            number(at("/setup/certificates_per_second"), 1.0, 0),
        ),
        (
            "connections before the run",
            number(at("/setup/connections"), 1.0, 0),
        ),
        (
            "handshake, p50 and p99 (ms)",
            format!(
                "{}, {}",
                number(at("/setup/handshake_us/p50"), 1e-3, 1),
                number(at("/setup/handshake_us/p99"), 1e-3, 1)
            ),
        ),
        (
            "connections during the run, failed",
            format!(
                "{}, {}",
                at("/total/handshakes"),
                at("/total/handshakes_failed")
            ),
        ),
        (
            "generator's CPU a request (µs)",
            number(at("/generator/cpu_us_per_request"), 1.0, 1),
        ),
        (
            "generator's busiest thread (% of a core)",
            number(at("/generator/busiest_thread_cores"), 100.0, 0),
        ),
        (
            "idle devices sent late by, p99 (ms)",
            number(at("/total/send_lateness_us/p99"), 1e-3, 2),
        ),
        (
            "idle part of the machine (%)",
            number(at("/generator/machine_idle"), 100.0, 0),
        ),
    ];
    let row = |(name, value): (&str, String)| format!("<tr><th>{name}</th><td>{value}</td></tr>");
    format!(
        "<figure><figcaption><b>Details</b></figcaption><table>{}</table></figure>\n",
        rows.map(row).concat()
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_page_needs_nothing_else_and_shows_what_was_measured() {
        let second = |t: u64| {
            json!({"t": t, "statuses": {"204": 90, "503": 10}, "p50": 900, "p90": 2000, "p99": 5000, "p99_9": 8000,
                   "max": 9000, "connections": 7})
        };
        let page = page(&json!({
            "load": {"devices": 7, "protocol": "mix", "scenario": "steady", "url": "https://<host>/", "expect": 204},
            "total": {"requests": 200, "expected": 180, "per_second": 100.0, "statuses": {"204": 180, "503": 20},
                      "latency_us": {"p50": 900, "p99": 5000, "p99_9": 8000, "max": 9000}},
            "latency_histogram": [[900, 100], [5000, 80], [9000, 20]],
            "seconds": [second(1), second(2)], "usage": [], "events": [{"t": 1.5, "what": "kill"}],
            "verdict": {"fit": false, "reasons": ["too slow"], "notes": []},
        }));
        assert!(
            [
                "Not to be trusted",
                "too slow",
                "https://&lt;host&gt;/",
                "failed, 5xx",
                "<title>kill</title>"
            ]
            .iter()
            .all(|text| page.contains(text))
        );
        assert!(!page.contains("http://") && !page.contains("src=") && !page.contains("NaN"));
        assert_eq!(page.matches("<svg").count(), 4);
    }
}
