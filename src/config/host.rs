//! What the machine allows this process, for defaults that follow from it.

#![allow(unsafe_code)] // getrlimit and setrlimit

use std::fs;

/// Open files that are not connections: the sink's, the logs', the runtimes'.
const OTHER_FILES_SHARE: u64 = 4;

/// The memory this process may use, in bytes: its control group's (cgroup v2) or the machine's.
pub fn memory_bytes() -> Option<u64> {
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    limit.into_iter().chain(total).min()
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Connections that leave enough of the open-file limit for everything else.
pub fn connections_max() -> usize {
    let files = open_file_limit().rlim_cur;
    usize::try_from(files - files / OTHER_FILES_SHARE).unwrap_or(usize::MAX).clamp(1, 1 << 24)
}

/// Raises the limit of open files to what the process may raise it to.
pub fn raise_open_file_limit() {
    let mut limit = open_file_limit();
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a valid rlimit for the duration of the call. A refusal leaves the limit as it was.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

fn open_file_limit() -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
    // SAFETY: the pointer is to a valid rlimit that the call may write to. On failure it keeps POSIX's least.
    let _ = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit
}
