//! Watches the server and the generator itself while a run lasts: CPU and memory, once a second.

use std::collections::HashMap;
use std::time::Duration;

use crate::process;
use crate::report::UsageSecond;

const PERIOD: Duration = Duration::from_secs(1);

/// Readings of the counters at one time of the run.
#[derive(Clone, Default)]
struct Reading {
    at: Duration,
    server_seconds: Option<f64>,
    generator_seconds: f64,
    /// The time that each thread of the generator has used, by its id.
    threads: HashMap<u32, f64>,
    /// Idle time and all time of the machine.
    machine: Option<(f64, f64)>,
}

/// Reads the counters once a second.
pub(crate) struct Observer {
    server: Option<u32>,
    workers: Vec<u32>,
    first: Option<Reading>,
    last: Option<Reading>,
    /// Cores and bytes, once a second.
    pub seconds: Vec<UsageSecond>,
    pub server_pss_bytes: Option<u64>,
}

/// Shares of cores over a whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub server_cpu_seconds: Option<f64>,
    pub generator_cores: f64,
    pub busiest_thread_cores: f64,
    /// The idle part of all cores, 0 to 1.
    pub machine_idle: f64,
    pub seconds: f64,
}

impl Observer {
    pub(crate) fn new(server: Option<u32>, workers: Vec<u32>) -> Self {
        Self {
            server,
            workers,
            first: None,
            last: None,
            seconds: Vec::new(),
            server_pss_bytes: None,
        }
    }

    /// Reads the counters if it is time, and says whether it was. The last reading is that at the
    /// end of the run.
    pub(crate) fn observe(&mut self, running: Duration, duration: Duration) -> bool {
        if !self.is_due(running, duration) {
            return false;
        }
        let now = self.read(running);
        if let Some(last) = &self.last {
            self.seconds.push(self.second(last, &now));
        }
        self.first.get_or_insert_with(|| now.clone());
        self.last = Some(now);
        let pss_bytes = self.server.and_then(process::tree_pss_bytes);
        self.server_pss_bytes = pss_bytes.or(self.server_pss_bytes);
        true
    }

    fn is_due(&self, running: Duration, duration: Duration) -> bool {
        let Some(last) = &self.last else { return true };
        debug_assert!(last.at <= running, "time goes forward");
        last.at < duration && running >= (last.at + PERIOD).min(duration)
    }

    fn read(&self, at: Duration) -> Reading {
        let workers = || self.workers.iter().copied();
        let own_seconds = workers().filter_map(process::tree_cpu_seconds);
        let threads = workers().flat_map(process::threads_cpu_seconds);
        Reading {
            at,
            server_seconds: self.server.and_then(process::tree_cpu_seconds),
            generator_seconds: own_seconds.sum(),
            threads: threads.collect(),
            machine: process::machine_idle_and_total_seconds(),
        }
    }

    fn second(&self, last: &Reading, now: &Reading) -> UsageSecond {
        let usage = usage(last, now);
        UsageSecond {
            t: now.at.as_secs_f64(),
            server_cores: usage.server_cpu_seconds.map(|cpu| cpu / usage.seconds),
            server_rss_bytes: self.server.and_then(process::tree_rss_bytes),
            generator_cores: usage.generator_cores,
            busiest_thread_cores: usage.busiest_thread_cores,
        }
    }

    /// The usage over the whole run.
    pub(crate) fn usage(&self) -> Usage {
        match (&self.first, &self.last) {
            (Some(first), Some(last)) if last.at > first.at => usage(first, last),
            _ => Usage::default(),
        }
    }

    pub(crate) fn rss_peak_bytes(&self) -> Option<u64> {
        let bytes = self.seconds.iter().map(|second| second.server_rss_bytes);
        bytes.flatten().max()
    }
}

fn usage(first: &Reading, last: &Reading) -> Usage {
    let seconds = (last.at - first.at).as_secs_f64().max(1e-3);
    let server = first.server_seconds.zip(last.server_seconds);
    let machine = first.machine.zip(last.machine);
    Usage {
        server_cpu_seconds: server.map(|(first, last)| last - first),
        generator_cores: (last.generator_seconds - first.generator_seconds) / seconds,
        busiest_thread_cores: busiest_thread_seconds(first, last) / seconds,
        machine_idle: machine.map_or(1.0, idle_share),
        seconds,
    }
}

fn busiest_thread_seconds(first: &Reading, last: &Reading) -> f64 {
    let mut most = 0.0;
    for (id, used) in &last.threads {
        let before = first.threads.get(id).copied().unwrap_or(0.0);
        most = f64::max(most, used - before);
    }
    most
}

/// The idle part of all cores between two readings of idle time and all time.
fn idle_share((first, last): ((f64, f64), (f64, f64))) -> f64 {
    (last.0 - first.0) / (last.1 - first.1).max(1e-3)
}
