//! The machine's limits for this process, from which defaults follow.
//!
//! `raw` asks for the values of variables that are not set, `cli` raises the limit of open files
//! before. Nothing here fails: where the system does not say, a small machine is assumed.

#![allow(unsafe_code)] // getrlimit, setrlimit, sched_setscheduler, gethostname

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

/// Workers at most: what one byte of a QUIC connection id can name.
pub(crate) const WORKERS_MAX: usize = 256;

/// Share of open files kept for other things than connections: one in so many, for the sink, the
/// logs and the runtimes.
const OTHER_FILES_SHARE: u64 = 4;

/// Records that are not yet safe may hold one byte in so many.
const RECORDS_MEMORY_SHARE: u64 = 4;

/// Bytes of memory for each handshake that may be under way. One holds some 20 KiB, and 128 KiB at
/// the very worst: all of them hold an eighth of the memory at most.
const MEMORY_BYTES_PER_HANDSHAKE: u64 = 1 << 20;

/// However little memory there is, a small fleet can connect, and however much, nobody waits for
/// more than these.
const HANDSHAKES: std::ops::RangeInclusive<u64> = 256..=16_384;

/// More files than this are not left to everything else, however many there are.
const OTHER_FILES_MAX: u64 = 1024;

/// Connections at most, whatever the system allows.
pub(crate) const CONNECTIONS_MAX: usize = 1 << 24;

const UNKNOWN_MACHINE_BYTES: u64 = 1 << 30;

/// The value that an unset variable has on this machine, as it would be written.
pub(crate) fn default_of(name: &str) -> Option<String> {
    match name {
        "FOREBAY_WORKERS" => Some(workers().to_string()),
        "FOREBAY_CONNECTIONS_MAX" => Some(connections_within(open_files_max()).to_string()),
        "FOREBAY_HANDSHAKES_MAX" => Some(handshakes_within(memory_bytes()).to_string()),
        "FOREBAY_REPLICA" => Some(replica(&host_name())),
        "FOREBAY_MEMORY_MAX" => Some(format!("{}MiB", records_mebibytes(memory_bytes()))),
        "FOREBAY_LOG_FORMAT" => Some(
            if std::io::stderr().is_terminal() {
                "text"
            } else {
                "json"
            }
            .into(),
        ),
        _ => None,
    }
}

/// Whether a character may stand in the name of a replica: one that a URI needs not escape (RFC 3986
/// section 2.3).
pub(crate) fn is_replica_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._~-".contains(&byte)
}

/// The name of a replica on the host of this name.
fn replica(host: &str) -> String {
    let mut replica = String::with_capacity(host.len());
    for byte in host.trim().bytes() {
        replica.push(if is_replica_byte(byte) {
            byte.into()
        } else {
            '-'
        });
    }
    match replica.is_empty() {
        true => "localhost".to_owned(),
        false => replica,
    }
}

/// The name that this host goes by; empty where the system does not say.
fn host_name() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the pointer is to as many bytes as are told, which the call may write to; the last one
    // is not among them, and stays the end of the text.
    let _ = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let end = name.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&name[..end.unwrap_or(0)]).into_owned()
}

/// The cores this process may use: its affinity mask, within its control group's quota.
fn workers() -> usize {
    available_parallelism()
        .map_or(1, usize::from)
        .min(WORKERS_MAX)
}

fn records_mebibytes(memory_bytes: u64) -> u64 {
    ((memory_bytes / RECORDS_MEMORY_SHARE) >> 20).max(1)
}

fn handshakes_within(memory_bytes: u64) -> u64 {
    (memory_bytes / MEMORY_BYTES_PER_HANDSHAKE).clamp(*HANDSHAKES.start(), *HANDSHAKES.end())
}

/// The memory this process may use, in bytes: the machine's, or what its control groups leave of
/// it.
fn memory_bytes() -> u64 {
    let read = |path: &Path| fs::read_to_string(path).ok();
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let total = read(Path::new("/proc/meminfo")).and_then(|text| total_bytes(&text));
    let limits = [groups_bytes(&groups, read), total];
    let least = limits.into_iter().flatten().min();
    least.unwrap_or(UNKNOWN_MACHINE_BYTES)
}

fn total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The least limit of the process's memory group and of those above it; `groups` as in
/// `/proc/self/cgroup`.
fn groups_bytes(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let files = groups.lines().filter_map(limit_files).flatten();
    let limits = files.filter_map(|file| read(&file)?.trim().parse().ok());
    limits.min()
}

/// Lists the files with the limits of a line's group, up to the root: in a container the path may
/// be the host's, and only the root exist. `0::/path` is cgroup v2, `4:memory:/path` v1
/// (cgroups(7)).
fn limit_files(line: &str) -> Option<impl Iterator<Item = PathBuf>> {
    let (_, group) = line.split_once(':')?;
    let (controllers, path) = group.split_once(':')?;
    let (root, file) = limit_file(controllers)?;
    let below = move |group: &Path| {
        let group = group.strip_prefix("/").unwrap_or(group);
        Path::new(root).join(group).join(file)
    };
    Some(Path::new(path).ancestors().map(below))
}

/// The root of the memory groups, and the file of a limit in each.
fn limit_file(controllers: &str) -> Option<(&'static str, &'static str)> {
    if controllers.is_empty() {
        return Some(("/sys/fs/cgroup", "memory.max"));
    }
    let is_memory = controllers.split(',').any(|name| name == "memory");
    is_memory.then_some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))
}

/// The connections that leave enough of the open files for everything else.
fn connections_within(files: u64) -> u64 {
    (files - files / OTHER_FILES_SHARE).max(1)
}

/// TCP connections that leave enough of the open files for everything else, be more asked for or
/// not.
pub(crate) fn tcp_connections_max() -> usize {
    tcp_connections_within(open_files_max())
}

fn tcp_connections_within(files: u64) -> usize {
    let others = (files / OTHER_FILES_SHARE).min(OTHER_FILES_MAX);
    usize::try_from(files - others).unwrap_or(usize::MAX).max(1)
}

/// Files, connections among them, that this process may have open.
fn open_files_max() -> u64 {
    open_file_limit().rlim_cur.min(CONNECTIONS_MAX as u64)
}

/// Raises the limit of open files to what the process may raise it to.
pub(crate) fn raise_open_file_limit() {
    let mut limit = open_file_limit();
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a valid rlimit for the duration of the call. A refusal leaves the
    // limit as it was.
    let _ = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// The limit of open files, as it is and as it may be raised.
fn open_file_limit() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 1024,
        rlim_max: 1024,
    };
    // SAFETY: the pointer is to a valid rlimit that the call may write to. On failure it keeps
    // POSIX's least.
    let _ = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    limit
}

/// Tells the kernel that this thread, and those that it will start, work on batches (SCHED_BATCH,
/// sched(7)): when they are woken, a worker on the same core finishes what it is at. Where that is
/// forbidden they interrupt it.
pub(crate) fn schedule_as_batch() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer is to a valid sched_param, which the call only reads; 0 is the calling
    // thread.
    let _ = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        let read = |path: &Path| {
            files
                .iter()
                .find(|(file, _)| Path::new(file) == path)
                .map(|(_, text)| (*text).into())
        };
        groups_bytes(groups, read)
    }

    #[test]
    fn the_memory_of_a_container_is_its_groups() {
        assert_eq!(
            bytes_of("0::/\n", &[("/sys/fs/cgroup/memory.max", "536870912\n")]),
            Some(512 << 20)
        );
        assert_eq!(
            bytes_of("0::/\n", &[("/sys/fs/cgroup/memory.max", "max\n")]),
            None
        );
        assert_eq!(bytes_of("0::/\n", &[]), None);
        assert_eq!(bytes_of("", &[("/sys/fs/cgroup/memory.max", "1\n")]), None);
    }

    #[test]
    fn the_memory_of_a_service_is_the_least_of_the_groups_above_it() {
        let groups = "0::/system.slice/forebay.service\n";
        let files = [
            (
                "/sys/fs/cgroup/system.slice/forebay.service/memory.max",
                "max\n",
            ),
            ("/sys/fs/cgroup/system.slice/memory.max", "2147483648\n"),
        ];
        assert_eq!(bytes_of(groups, &files), Some(2 << 30));
        let own = [
            (
                "/sys/fs/cgroup/system.slice/forebay.service/memory.max",
                "1073741824\n",
            ),
            files[1],
        ];
        assert_eq!(bytes_of(groups, &own), Some(1 << 30));
    }

    #[test]
    fn the_older_kind_of_group_counts_too() {
        let groups = "9:cpu,memory:/docker/abc\n5:devices:/x\n0::/\n";
        let root = ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n");
        assert_eq!(bytes_of(groups, &[root]), Some(256 << 20));
        assert_eq!(bytes_of("5:devices:/x\n", &[root]), None);
    }

    #[test]
    fn shares_are_never_nothing() {
        assert_eq!([0, 4 << 20, 4 << 30].map(records_mebibytes), [1, 1, 1024]);
        assert_eq!(
            [0, 512 << 20, 4 << 30, 1 << 40].map(handshakes_within),
            [256, 512, 4096, 16_384]
        );
        assert_eq!(
            [0, 1, 4, 1024, 1_000_000].map(connections_within),
            [1, 1, 3, 768, 750_000]
        );
        assert_eq!(
            [0, 1, 4, 256, 20_000].map(tcp_connections_within),
            [1, 1, 3, 192, 18_976]
        );
        assert_eq!(
            total_bytes("MemFree: 1 kB\nMemTotal:    2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(total_bytes("MemTotal: ? kB\n"), None);
    }

    #[test]
    fn a_replica_goes_by_its_hosts_name() {
        assert_eq!(replica("gw-1.example_net/a\n"), "gw-1.example_net-a");
        assert_eq!(replica(""), "localhost");
        assert!(!host_name().is_empty());
    }

    #[test]
    fn every_default_of_this_machine_is_one() {
        assert!((1..=WORKERS_MAX).contains(&workers()));
        assert!(memory_bytes() > 1 << 20);
        for name in [
            "FOREBAY_WORKERS",
            "FOREBAY_CONNECTIONS_MAX",
            "FOREBAY_HANDSHAKES_MAX",
            "FOREBAY_MEMORY_MAX",
            "FOREBAY_LOG_FORMAT",
            "FOREBAY_REPLICA",
        ] {
            assert!(
                default_of(name).is_some_and(|value| !value.is_empty()),
                "{name}"
            );
        }
        assert_eq!(default_of("FOREBAY_TLS_CRL"), None);
    }
}
