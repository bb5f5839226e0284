//! Figures of processes from /proc: CPU time and memory of the server, of the generator's threads, of
//! the whole machine.
//!
//! Times are in seconds of one core, sizes in bytes. What cannot be read (the process has ended, or
//! belongs to somebody else) is `None` or left out.

use std::fs;
use std::path::Path;

/// Clock ticks a second in /proc: USER_HZ, 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

const PAGE_BYTES: u64 = 4096;

/// User and system time of a process and everything below it, threads that have ended included.
pub(crate) fn tree_cpu_seconds(pid: u32) -> Option<f64> {
    let own = cpu_seconds(format!("/proc/{pid}/stat"))?;
    let below = children(pid).into_iter().filter_map(tree_cpu_seconds);
    Some(own + below.sum::<f64>())
}

/// Resident memory of a process and everything below it; shared pages count once for each.
pub(crate) fn tree_rss_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    let below = children(pid).into_iter().filter_map(tree_rss_bytes);
    Some(pages * PAGE_BYTES + below.sum::<u64>())
}

/// Proportional memory of a process and everything below it: a page that n share counts 1/n.
pub(crate) fn tree_pss_bytes(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    let below = children(pid).into_iter().filter_map(tree_pss_bytes);
    Some(kib * 1024 + below.sum::<u64>())
}

/// Thread ids of a process with the time each has used.
pub(crate) fn threads_cpu_seconds(pid: u32) -> Vec<(u32, f64)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let thread = |task: fs::DirEntry| {
        let id = task.file_name().to_str()?.parse().ok()?;
        Some((id, cpu_seconds(task.path().join("stat"))?))
    };
    tasks.flatten().filter_map(thread).collect()
}

/// Idle time and all time of all cores together.
pub(crate) fn machine_idle_and_total_seconds() -> Option<(f64, f64)> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_ascii_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // Fields: user nice system idle iowait irq softirq steal; guest time is in user already.
    let idle = ticks.get(3)? + ticks.get(4)?;
    let total: f64 = ticks.iter().take(8).sum();
    Some((idle / TICKS_PER_SECOND, total / TICKS_PER_SECOND))
}

/// The processor's name.
pub(crate) fn cpu_model() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(": ")?.1.to_owned())
}

fn cpu_seconds(stat_file: impl AsRef<Path>) -> Option<f64> {
    let stat = fs::read_to_string(stat_file).ok()?;
    // The name, in parentheses, may hold anything; utime and stime are fields 14 and 15 of proc(5).
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
    Some((ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let mut children = Vec::new();
    for task in tasks.flatten() {
        let list = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let ids = list.split_ascii_whitespace();
        children.extend(ids.filter_map(|id| id.parse::<u32>().ok()));
    }
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_cpu_and_memory() {
        let pid = std::process::id();
        let mut sum = 0_u64;
        let a_thread_has_worked = || {
            threads_cpu_seconds(pid)
                .iter()
                .any(|(_, seconds)| *seconds >= 0.05)
        };
        while !a_thread_has_worked() {
            sum = std::hint::black_box((0..1_000_000).fold(sum, u64::wrapping_add));
        }
        assert!(tree_cpu_seconds(pid).unwrap() >= 0.05);
        let (rss, pss) = (tree_rss_bytes(pid).unwrap(), tree_pss_bytes(pid).unwrap());
        assert!(
            rss > 1 << 20 && pss > 1 << 19 && pss <= rss + (1 << 22),
            "{rss} {pss}"
        );
        let (idle, total) = machine_idle_and_total_seconds().unwrap();
        assert!(idle <= total && total > 0.0);
    }

    #[test]
    fn a_process_that_is_not_there_has_nothing() {
        assert_eq!(
            (tree_cpu_seconds(u32::MAX), tree_pss_bytes(u32::MAX)),
            (None, None)
        );
    }
}
