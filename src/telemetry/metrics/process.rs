//! What the process itself takes: processor time and memory, as the kernel counts them.
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

/// Writes both metrics in Prometheus' text format.
pub(crate) fn write(text: &mut String) {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let seconds = cpu_seconds(&read("/proc/self/stat")).unwrap_or_default();
    let bytes = resident_bytes(&read("/proc/self/status")).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "# HELP process_cpu_seconds_total Processor time of the process, in user and system mode\n\
         # TYPE process_cpu_seconds_total counter\n\
         process_cpu_seconds_total {seconds}\n\
         # HELP process_resident_memory_bytes Memory that the process has resident\n\
         # TYPE process_resident_memory_bytes gauge\n\
         process_resident_memory_bytes {bytes}\n"
    );
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<f64>().ok();
    Some((ticks(USER_TICKS)? + ticks(SYSTEM_TICKS)?) / TICKS_PER_SECOND)
}

/// From the line `VmRSS: 10240 kB`, with white space of any length.
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
