//! The results of a fleet: one JSON document, from which text, HTML page and comparison are made.
//!
//! Its fields are described in `loadtest/README.md`. Times are microseconds, sizes bytes, CPU seconds or cores.

pub mod compare;
pub mod html;
mod plot;
pub mod text;
mod verdict;

use serde_json::{Value, json};

use crate::cli::Fleet;
use crate::fleet::{Gathered, Observer};
use crate::payload::RunId;
use crate::process;
use crate::scenario::Group;
use crate::statistics::Tally;

/// Of this description.
const VERSION: u32 = 1;

pub fn build(
    options: &Fleet,
    run: RunId,
    gathered: &Gathered,
    observer: &Observer,
    events: Vec<Value>,
) -> Value {
    let total = gathered.total();
    let usage = observer.usage();
    let seconds = options.duration.as_secs_f64();
    let requests = total.ended();
    let micros_per_request = |cpu: f64| cpu * 1e6 / requests.max(1) as f64;
    json!({
        "version": VERSION,
        "run": run.to_string(),
        "ended_at": jiff::Timestamp::now().to_string(),
        "machine": {"cores": std::thread::available_parallelism().map_or(1, usize::from), "cpu": process::cpu_model()},
        "load": load(options),
        "setup": {
            "certificates": gathered.certificates,
            "certificates_per_second": (gathered.certificates as f64 / gathered.certificate_seconds.max(1e-6)).round(),
            "seconds": gathered.setup_seconds,
            "connections": gathered.setup.handshakes.count(), "connections_failed": gathered.setup.handshakes_failed,
            "handshake_us": gathered.setup.handshakes.summary(),
        },
        "total": {
            "requests": requests, "per_second": requests as f64 / seconds,
            "expected": total.count(crate::ledger::Status(options.server.expect)),
            "statuses": total.statuses_json(), "behind": total.behind, "missed": total.missed,
            "latency_us": total.latency.summary(), "service_us": total.service.summary(),
            "send_lateness_us": total.lateness.summary(),
            "handshakes": total.handshakes.count(), "handshakes_failed": total.handshakes_failed,
            "handshake_us": total.handshakes.summary(),
        },
        "groups": {"fleet": group(&gathered.groups[Group::Fleet as usize]), "noisy": group(&gathered.groups[Group::Noisy as usize])},
        "latency_histogram": total.latency.to_json(),
        "seconds": gathered.seconds,
        "usage": observer.seconds,
        "events": events,
        "server": usage.server_cpu_seconds.map(|cpu| json!({
            "cpu_seconds": cpu, "cores": cpu / usage.seconds, "cpu_us_per_request": micros_per_request(cpu),
            "rss_peak_bytes": observer.rss_peak_bytes(), "pss_bytes": observer.server_pss_bytes,
        })),
        "generator": {
            "cores": usage.generator_cores, "busiest_thread_cores": usage.busiest_thread_cores,
            "cpu_us_per_request": micros_per_request(usage.generator_cores * usage.seconds),
            "machine_idle": usage.machine_idle,
        },
        "verdict": verdict::of(&total, &gathered.setup, &usage, &gathered.faults).to_json(),
    })
}

fn load(options: &Fleet) -> Value {
    let name = |value: Option<clap::builder::PossibleValue>| {
        value.map(|value| value.get_name().to_owned())
    };
    use clap::ValueEnum;
    json!({
        "url": options.server.url, "devices": options.devices, "protocol": name(options.protocol.to_possible_value()),
        "scenario": name(options.scenario.to_possible_value()), "interval_s": options.interval().as_secs_f64(),
        "duration_s": options.duration.as_secs_f64(), "payload_bytes": options.server.payload_bytes,
        "reconnect": options.reconnect, "resume": options.resume, "processes": options.processes,
        "threads": options.threads, "source_addresses": options.source_addresses, "sockets": options.sockets,
        "seed": options.seed, "expect": options.server.expect,
    })
}

/// `None` where nobody was in it.
fn group(tally: &Tally) -> Option<Value> {
    let is_empty = tally.ended() == 0 && tally.missed == 0;
    (!is_empty).then(|| {
        json!({
            "requests": tally.ended(), "statuses": tally.statuses_json(), "missed": tally.missed,
            "latency_us": tally.latency.summary(),
        })
    })
}
