//! The metrics of the process: its build, its start, and its processor time and memory as the kernel
//! counts them.
//!
//! Read from /proc/self (proc(5)) when somebody asks, and named as Prometheus' own client libraries
//! name it, so that dashboards made for those find it. What cannot be read is 0.

use std::fmt::Write as _;
use std::fs;

/// The ticks of a second in /proc: a tick is a hundredth of a second on every architecture that the gateway is built for:
/// USER_HZ, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// Places in /proc/self/stat after the program's name, which may hold spaces and ends with the last
/// parenthesis.
const USER_TICKS: usize = 11;
const SYSTEM_TICKS: usize = 12;
const START_TICKS: usize = 19;

/// Writes these metrics in Prometheus' text format.
pub(crate) fn write(text: &mut String) {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let seconds = cpu_seconds(&read("/proc/self/stat")).unwrap_or_default();
    let started = start_seconds(&read("/proc/self/stat"), &read("/proc/stat")).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    let bytes = resident_bytes(&read("/proc/self/status")).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# HELP process_cpu_seconds_total Processor time of the process, in user and system mode\n\
         # TYPE process_cpu_seconds_total counter\n\
         process_cpu_seconds_total {seconds}\n\
         # HELP process_resident_memory_bytes Memory that the process has resident\n\
         # TYPE process_resident_memory_bytes gauge\n\
         process_resident_memory_bytes {bytes}\n\
         # HELP process_start_time_seconds When the process started, in seconds since 1970\n\
         # TYPE process_start_time_seconds gauge\n\
         process_start_time_seconds {started}\n\
         # HELP forebay_build_info 1; the version is a label\n\
         # TYPE forebay_build_info gauge\n\
         forebay_build_info{{version=\"{version}\"}} 1\n"
    );
}

/// When the process started: its ticks since the machine's boot, and when that was.
fn start_seconds(stat: &str, system: &str) -> Option<f64> {
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    let boot: f64 = boot.trim().parse().ok()?;
    Some(boot + field(stat, START_TICKS)? / TICKS_PER_SECOND)
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((field(stat, USER_TICKS)? + field(stat, SYSTEM_TICKS)?) / TICKS_PER_SECOND)
}

/// The number at a place after the program's name.
fn field(stat: &str, place: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(place)?.parse().ok()
}

/// Reads the line `VmRSS: 10240 kB`, with white space of any length.
fn resident_bytes(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_the_end_of_the_name() {
        let stat = "7 (a) S 1 (b)) S 1 7 7 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 8 0 99 1000000 300 1844674407 1 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("7 (a) S 1"), None);
        assert_eq!(
            start_seconds(stat, "cpu 1\nbtime 1700000000\n"),
            Some(1_700_000_000.99)
        );
    }

    #[test]
    fn memory_is_told_in_bytes() {
        assert_eq!(
            resident_bytes("VmHWM:\t   20 kB\nVmRSS:\t   10 kB\n"),
            Some(10240.0)
        );
    }

    #[test]
    fn this_process_has_some() {
        let mut text = String::new();
        write(&mut text);
        let last = text.lines().last().and_then(|line| line.rsplit_once(' '));
        assert!(last.unwrap().1.parse::<f64>().unwrap() > 0.0, "{text}");
    }
}
