//! The results in the terminal.

use super::{Group, Report, Statuses, Total, Verdict};
use crate::statistics::Summary;

pub(crate) fn summary(report: &Report) -> String {
    let mut text = head(report);
    text += &requests(&report.total);
    if report.groups.noisy.is_some() {
        text += &group("fleet", report.groups.fleet.as_ref());
        text += &group("noisy", report.groups.noisy.as_ref());
    }
    text += &setup(report);
    text += &usage(report);
    text + &verdict(&report.verdict)
}

fn head(report: &Report) -> String {
    let (load, total) = (&report.load, &report.total);
    format!(
        "\n{} devices, {}, {}: {} requests in {} s, {:.0}/s\n",
        load.devices,
        load.protocol.as_deref().unwrap_or("?"),
        load.scenario.as_deref().unwrap_or("?"),
        total.requests,
        load.duration_s,
        total.per_second,
    )
}

fn requests(total: &Total) -> String {
    format!(
        "statuses      {}\n\
         latency ms    {}   (from the intended time)\n\
         service ms    {}   (from the sending)\n\
         behind {}, missed {}; handshakes {} ({} failed)\n",
        statuses(&total.statuses),
        quantiles(&total.latency_us),
        quantiles(&total.service_us),
        total.behind,
        total.missed,
        total.handshakes,
        total.handshakes_failed
    )
}

fn group(name: &str, group: Option<&Group>) -> String {
    let Some(group) = group else {
        return String::new();
    };
    format!(
        "{name:<13} {}; latency ms {}\n",
        statuses(&group.statuses),
        quantiles(&group.latency_us)
    )
}

fn setup(report: &Report) -> String {
    let setup = &report.setup;
    format!(
        "setup         {} certificates at {}/s; {} connections, handshake ms p50 {} p99 {}\n",
        setup.certificates,
        setup.certificates_per_second,
        setup.connections,
        milliseconds(setup.handshake_us.p50, 1),
        milliseconds(setup.handshake_us.p99, 1),
    )
}

fn usage(report: &Report) -> String {
    let generator = &report.generator;
    let mut text = format!(
        "generator     {:.2} cores, busiest thread {:.0} %, {:.1} µs a request, sends late by p99 {} ms\n",
        generator.cores,
        generator.busiest_thread_cores * 100.0,
        generator.cpu_us_per_request,
        milliseconds(report.total.send_lateness_us.p99, 1),
    );
    if let Some(server) = &report.server {
        text += &format!(
            "server        {:.2} cores, {:.1} µs a request, peak RSS {} MiB\n",
            server.cores,
            server.cpu_us_per_request,
            mebibytes(server.rss_peak_bytes, 1),
        );
    }
    text
}

fn verdict(verdict: &Verdict) -> String {
    let mut text = format!("verdict       {}\n", fitness(verdict));
    for line in verdict.reasons.iter().chain(&verdict.notes) {
        text += &format!("              {line}\n");
    }
    text
}

pub(crate) fn fitness(verdict: &Verdict) -> &'static str {
    if verdict.fit {
        "fit"
    } else {
        "NOT TO BE TRUSTED"
    }
}

fn statuses(statuses: &Statuses) -> String {
    let mut pairs = Vec::new();
    for (status, count) in statuses {
        pairs.push(format!("{status}: {count}"));
    }
    pairs.join(", ")
}

fn quantiles(times: &Summary) -> String {
    let quantile = |name: &str, us: u64| format!("{name} {}", milliseconds(us, 1));
    [
        quantile("p50", times.p50),
        quantile("p90", times.p90),
        quantile("p99", times.p99),
        quantile("p99.9", times.p99_9),
        quantile("max", times.max),
    ]
    .join("  ")
}

pub(crate) fn milliseconds(microseconds: u64, digits: usize) -> String {
    format!("{:.digits$}", microseconds as f64 / 1e3)
}

/// Bytes in MiB; `-` where there are none.
pub(crate) fn mebibytes(bytes: Option<u64>, digits: usize) -> String {
    match bytes {
        Some(bytes) => format!("{:.digits$}", bytes as f64 / 1_048_576.0),
        None => "-".to_owned(),
    }
}
