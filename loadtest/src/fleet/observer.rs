//! Watches the server and the generator itself while a run lasts: CPU and memory, once a second.

use std::collections::HashMap;
use std::time::Duration;

use crate::process;
use crate::report::UsageSecond;

const PERIOD: Duration = Duration::from_secs(1);

/// Readings of the counters at one time.
#[derive(Clone, Default)]
struct Reading {
    at: Duration,
    server_seconds: Option<f64>,
    generator_seconds: f64,
    threads: HashMap<u32, f64>,
    machine: Option<(f64, f64)>,
}

pub struct Observer {
    server: Option<u32>,
    workers: Vec<u32>,
    first: Option<Reading>,
    last: Option<Reading>,
    /// Cores and bytes, a second each.
    pub seconds: Vec<UsageSecond>,
    pub server_pss_bytes: Option<u64>,
}

/// Shares of cores over a whole run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    pub server_cpu_seconds: Option<f64>,
    pub generator_cores: f64,
    pub busiest_thread_cores: f64,
    /// Of all cores, 0 to 1.
    pub machine_idle: f64,
    pub seconds: f64,
}

impl Observer {
    pub fn new(server: Option<u32>, workers: Vec<u32>) -> Self {
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
    pub fn observe(&mut self, running: Duration, duration: Duration) -> bool {
        let due = self
            .last
            .as_ref()
            .map_or(Duration::ZERO, |last| (last.at + PERIOD).min(duration));
        let is_over = self.last.as_ref().is_some_and(|last| last.at >= duration);
        if running < due || is_over {
            return false;
        }
        let now = self.read(running);
        if let Some(last) = &self.last {
            self.seconds.push(self.second(last, &now));
        }
        self.first.get_or_insert_with(|| now.clone());
        self.last = Some(now);
        self.server_pss_bytes = self
            .server
            .and_then(process::tree_pss_bytes)
            .or(self.server_pss_bytes);
        true
    }

    fn read(&self, at: Duration) -> Reading {
        let threads = self
            .workers
            .iter()
            .flat_map(|worker| process::threads_cpu_seconds(*worker))
            .collect();
        Reading {
            at,
            server_seconds: self.server.and_then(process::tree_cpu_seconds),
            generator_seconds: self
                .workers
                .iter()
                .filter_map(|worker| process::tree_cpu_seconds(*worker))
                .sum(),
            threads,
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

    /// Over the whole run.
    pub fn usage(&self) -> Usage {
        match (&self.first, &self.last) {
            (Some(first), Some(last)) if last.at > first.at => usage(first, last),
            _ => Usage::default(),
        }
    }

    pub fn rss_peak_bytes(&self) -> Option<u64> {
        self.seconds
            .iter()
            .filter_map(|second| second.server_rss_bytes)
            .max()
    }
}

fn usage(first: &Reading, last: &Reading) -> Usage {
    let seconds = (last.at - first.at).as_secs_f64().max(1e-3);
    let thread = |(id, used): (&u32, &f64)| used - first.threads.get(id).copied().unwrap_or(0.0);
    let machine = first.machine.zip(last.machine);
    Usage {
        server_cpu_seconds: first
            .server_seconds
            .zip(last.server_seconds)
            .map(|(first, last)| last - first),
        generator_cores: (last.generator_seconds - first.generator_seconds) / seconds,
        busiest_thread_cores: last.threads.iter().map(thread).fold(0.0, f64::max) / seconds,
        machine_idle: machine.map_or(1.0, |(first, last)| {
            (last.0 - first.0) / (last.1 - first.1).max(1e-3)
        }),
        seconds,
    }
}
