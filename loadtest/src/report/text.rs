//! The results in the terminal.

use serde_json::Value;

pub fn summary(report: &Value) -> String {
    let total = &report["total"];
    let latency = &total["latency_us"];
    let mut text = format!(
        "\n{} devices, {}, {}: {} requests in {} s, {}/s\n",
        report["load"]["devices"],
        report["load"]["protocol"].as_str().unwrap_or("?"),
        report["load"]["scenario"].as_str().unwrap_or("?"),
        total["requests"],
        report["load"]["duration_s"],
        number(&total["per_second"], 1.0, 0),
    );
    text += &format!("statuses      {}\n", statuses(&total["statuses"]));
    text += &format!(
        "latency ms    {}   (from the intended time)\n",
        quantiles(latency)
    );
    text += &format!(
        "service ms    {}   (from the sending)\n",
        quantiles(&total["service_us"])
    );
    text += &format!("behind {}, missed {}; ", total["behind"], total["missed"]);
    text += &format!(
        "handshakes {} ({} failed)\n",
        total["handshakes"], total["handshakes_failed"]
    );
    if report["groups"]["noisy"].is_object() {
        for name in ["fleet", "noisy"] {
            let group = &report["groups"][name];
            text += &format!(
                "{name:<13} {}; latency ms {}\n",
                statuses(&group["statuses"]),
                quantiles(&group["latency_us"])
            );
        }
    }
    text += &setup(report);
    text += &usage(report);
    text + &verdict(&report["verdict"])
}

fn setup(report: &Value) -> String {
    let setup = &report["setup"];
    format!(
        "setup         {} certificates at {}/s; {} connections, handshake ms p50 {} p99 {}\n",
        setup["certificates"],
        setup["certificates_per_second"],
        setup["connections"],
        number(&setup["handshake_us"]["p50"], 1e-3, 1),
        number(&setup["handshake_us"]["p99"], 1e-3, 1),
    )
}

fn usage(report: &Value) -> String {
    let generator = &report["generator"];
    let mut text = format!(
        "generator     {} cores, busiest thread {} %, {} µs a request, sends late by p99 {} ms\n",
        number(&generator["cores"], 1.0, 2),
        number(&generator["busiest_thread_cores"], 100.0, 0),
        number(&generator["cpu_us_per_request"], 1.0, 1),
        number(&report["total"]["send_lateness_us"]["p99"], 1e-3, 1),
    );
    let server = &report["server"];
    if server.is_object() {
        text += &format!(
            "server        {} cores, {} µs a request, peak RSS {} MiB\n",
            number(&server["cores"], 1.0, 2),
            number(&server["cpu_us_per_request"], 1.0, 1),
            number(&server["rss_peak_bytes"], 1.0 / 1_048_576.0, 1),
        );
    }
    text
}

fn verdict(verdict: &Value) -> String {
    let list = |name: &str| verdict[name].as_array().cloned().unwrap_or_default();
    let fit = if verdict["fit"] == true {
        "fit"
    } else {
        "NOT TO BE TRUSTED"
    };
    let mut text = format!("verdict       {fit}\n");
    for line in list("reasons").iter().chain(&list("notes")) {
        text += &format!("              {}\n", line.as_str().unwrap_or_default());
    }
    text
}

pub fn statuses(statuses: &Value) -> String {
    let pairs = statuses.as_object().into_iter().flatten();
    pairs
        .map(|(status, count)| format!("{status}: {count}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn quantiles(times: &Value) -> String {
    let quantile = |name: &str| format!("{name} {}", number(&times[name], 1e-3, 1));
    ["p50", "p90", "p99", "p99_9", "max"]
        .map(quantile)
        .join("  ")
        .replace("p99_9", "p99.9")
}

/// `-` where there is none.
pub fn number(value: &Value, factor: f64, digits: usize) -> String {
    value.as_f64().map_or_else(
        || "-".into(),
        |value| format!("{:.digits$}", value * factor),
    )
}
