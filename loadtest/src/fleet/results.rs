//! Fills the report of a run from what was gathered and observed.

use std::collections::BTreeMap;

use clap::ValueEnum;

use super::gather::Gathered;
use super::observer::{Observer, Usage};
use super::verdict;
use crate::cli::Fleet;
use crate::ledger::Status;
use crate::payload::RunId;
use crate::process;
use crate::protocol::Protocol;
use crate::report::{
    Event, Generator, Group, Groups, Load, Machine, Report, Server, Setup, Spoken, Total, VERSION,
};
use crate::scenario;
use crate::statistics::Tally;

pub(crate) fn of(
    options: &Fleet,
    run: RunId,
    gathered: Gathered,
    observer: &Observer,
    events: Vec<Event>,
) -> Report {
    let total = gathered.total();
    let usage = observer.usage();
    Report {
        version: VERSION,
        run: run.to_string(),
        ended_at: jiff::Timestamp::now().to_string(),
        machine: machine(),
        load: load(options),
        setup: setup(&gathered),
        total: total_of(&total, options),
        groups: groups(&gathered),
        protocols: protocols(&gathered, options),
        audit: None,
        latency_histogram: total.latency.clone(),
        server: server(&usage, observer, total.ended()),
        generator: generator(&usage, total.ended()),
        verdict: verdict::of(&total, &gathered.setup, &usage, &gathered.faults),
        seconds: gathered.seconds,
        usage: observer.seconds.clone(),
        events,
    }
}

fn machine() -> Machine {
    Machine {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        cpu: process::cpu_model(),
    }
}

fn load(options: &Fleet) -> Load {
    Load {
        url: options.server.url.clone(),
        devices: options.devices,
        protocol: name(options.protocol),
        scenario: name(options.scenario),
        interval_s: options.interval().as_secs_f64(),
        duration_s: options.duration.as_secs_f64(),
        payload_bytes: options.server.payload_bytes,
        reconnect: options.reconnect,
        resume: options.resume,
        processes: options.processes,
        threads: options.threads,
        source_addresses: options.source_addresses,
        sockets: options.sockets,
        seed: options.seed,
        expect: options.server.expect,
    }
}

/// The value as the command line names it.
fn name(value: impl ValueEnum) -> Option<String> {
    let value = value.to_possible_value()?;
    Some(value.get_name().to_owned())
}

fn setup(gathered: &Gathered) -> Setup {
    let seconds = gathered.certificate_seconds.max(1e-6);
    Setup {
        certificates: gathered.certificates,
        certificates_per_second: (gathered.certificates as f64 / seconds).round(),
        seconds: gathered.setup_seconds,
        connections: gathered.setup.handshakes.count(),
        connections_failed: gathered.setup.handshakes_failed,
        handshake_us: gathered.setup.handshakes.summary(),
    }
}

fn total_of(total: &Tally, options: &Fleet) -> Total {
    let requests = total.ended();
    Total {
        requests,
        per_second: requests as f64 / options.duration.as_secs_f64(),
        expected: total.count(Status(options.server.expect)),
        statuses: total.statuses_by_name(),
        behind: total.behind,
        missed: total.missed,
        latency_us: total.latency.summary(),
        service_us: total.service.summary(),
        send_lateness_us: total.lateness.summary(),
        handshakes: total.handshakes.count(),
        handshakes_failed: total.handshakes_failed,
        handshake_us: total.handshakes.summary(),
    }
}

/// Gathers the figures of each protocol that was spoken, by its name.
fn protocols(gathered: &Gathered, options: &Fleet) -> BTreeMap<String, Spoken> {
    let mut spoken = BTreeMap::new();
    for (protocol, tally) in Protocol::ALL.into_iter().zip(&gathered.protocols) {
        if tally.ended() == 0 && tally.missed == 0 {
            continue;
        }
        let of = Spoken {
            requests: tally.ended(),
            expected: tally.count(Status(options.server.expect)),
            missed: tally.missed,
            latency_us: tally.latency.summary(),
            latency_histogram: tally.latency.clone(),
        };
        spoken.insert(name(protocol).unwrap_or_default(), of);
    }
    spoken
}

fn groups(gathered: &Gathered) -> Groups {
    let of = |group: scenario::Group| group_of(&gathered.groups[group as usize]);
    Groups {
        fleet: of(scenario::Group::Fleet),
        noisy: of(scenario::Group::Noisy),
    }
}

fn group_of(tally: &Tally) -> Option<Group> {
    if tally.ended() == 0 && tally.missed == 0 {
        return None;
    }
    Some(Group {
        requests: tally.ended(),
        statuses: tally.statuses_by_name(),
        missed: tally.missed,
        latency_us: tally.latency.summary(),
    })
}

fn server(usage: &Usage, observer: &Observer, requests: u64) -> Option<Server> {
    let cpu_seconds = usage.server_cpu_seconds?;
    Some(Server {
        cpu_seconds,
        cores: cpu_seconds / usage.seconds,
        cpu_us_per_request: micros_per_request(cpu_seconds, requests),
        rss_peak_bytes: observer.rss_peak_bytes(),
        pss_bytes: observer.server_pss_bytes,
    })
}

fn generator(usage: &Usage, requests: u64) -> Generator {
    let cpu_seconds = usage.generator_cores * usage.seconds;
    Generator {
        cores: usage.generator_cores,
        busiest_thread_cores: usage.busiest_thread_cores,
        cpu_us_per_request: micros_per_request(cpu_seconds, requests),
        machine_idle: usage.machine_idle,
    }
}

fn micros_per_request(cpu_seconds: f64, requests: u64) -> f64 {
    cpu_seconds * 1e6 / requests.max(1) as f64
}
