//! A disk that fails under the spool of the real program: nothing is answered 204 that was not synced, and once the disk is well
//! the gateway is, without a restart.
//!
//! Failed calls come from a library of a few lines in front of the C library (`tests/support/faulty_disk.c`); a full disk is a
//! full one, in a mount namespace of the gateway's own.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use crate::brokers;
use crate::harness::load::Outcomes;
use crate::harness::{Gateway, Load, Setup, eventually};
use crate::spool::{audit, in_files, start_load, wait_until_drained};

/// A disk that holds the gateway's spool and fails its calls with one error.
struct FaultyDisk {
    error: PathBuf,
}

impl FaultyDisk {
    /// Of a gateway with a spool.
    fn under(setup: Setup) -> (Self, Setup) {
        let [library, error, spool] =
            ["faulty_disk.so", "error", "spool"].map(|name| setup.path(name));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/faulty_disk.c");
        let mut compiler = Command::new("cc");
        let built = compiler
            .args(["-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(source)
            .status();
        assert!(built.expect("there is a C compiler").success());
        let setup = setup
            .set("FAULTY_DISK", spool.display())
            .set("FAULTY_DISK_ERROR", error.display());
        (Self { error }, setup.set("LD_PRELOAD", library.display()))
    }

    fn fail(&self, errno: i32) {
        fs::write(&self.error, errno.to_string()).expect("a file");
    }

    fn heal(&self) {
        fs::remove_file(&self.error).expect("it fails");
    }
}

/// Every request is refused, and who asks is told why.
fn nothing_is_safe(gateway: &Gateway, load: &Load, reason: &str) {
    eventually("unready", || !gateway.is_ready());
    let said = gateway.admin("/readyz").1;
    assert!(said.contains(reason), "{said}");
    eventually("the metric", || gateway.metric("forebay_spool_up") == 0.0);
    assert!(gateway.metric("forebay_spool_disk_failures_total") > 0.0);
    let accepted = load.seen(204);
    load.wait_for(503, load.seen(503) + 20);
    assert_eq!(load.seen(204), accepted, "a 204, and nothing was synced");
}

fn is_back(gateway: &Gateway, load: Load) -> Outcomes {
    gateway.wait_until_ready();
    load.wait_for(204, load.seen(204) + 100);
    let outcomes = load.stop();
    wait_until_drained(gateway);
    eventually("a spool that takes records", || {
        gateway.metric("forebay_spool_up") == 1.0
    });
    outcomes
}

fn always_survives(errno: i32, reason: &str) {
    let (disk, setup) = FaultyDisk::under(Setup::new().without_limits().with_spool("always"));
    let gateway = setup.start();
    assert_eq!(gateway.metric("forebay_spool_up"), 1.0);
    let (_clients, load) = start_load(&gateway, "reading", 64);
    load.wait_for(204, 100);
    disk.fail(errno);
    nothing_is_safe(&gateway, &load, reason);
    disk.heal();
    let outcomes = is_back(&gateway, load);
    assert_eq!(audit(&outcomes, &in_files(&gateway)), 0);
}

#[test]
fn a_disk_with_errors_is_503_until_it_has_none() {
    always_survives(libc::EIO, "Input/output error");
}

#[test]
fn a_disk_that_has_become_read_only_is_503_until_it_is_not() {
    always_survives(libc::EROFS, "Read-only file system");
}

#[test]
fn a_disk_without_room_is_503_until_there_is_some() {
    always_survives(libc::ENOSPC, "No space left on device");
}

/// Stream and disk fail together, and the stream comes back alone: what is on disk is delivered, and then it does without.
#[test]
fn once_the_stream_is_back_a_disk_that_fails_costs_nothing() {
    let broker = brokers::pausable();
    let setup = broker
        .gateway_to("disk-fails")
        .without_limits()
        .with_spool("overflow");
    let (disk, setup) = FaultyDisk::under(setup);
    let gateway = setup.start();
    let (_clients, load) = start_load(&gateway, "reading", 64);
    load.wait_for(204, 100);
    let paused = broker.pause();
    load.wait_for(204, load.seen(204) + 200);
    disk.fail(libc::EIO);
    nothing_is_safe(&gateway, &load, "Input/output error");
    drop(paused);
    gateway.wait_until_ready();
    load.wait_for(204, load.seen(204) + 200);
    disk.heal();
    let outcomes = is_back(&gateway, load);
    audit(&outcomes, &broker.bodies("disk-fails"));
}

/// The quota is larger than the disk, and somebody else takes the last byte: segments that are delivered make room again.
#[test]
fn a_spool_that_fills_its_disk_empties_it_again() {
    const UNSHARE: [&str; 3] = ["/usr/bin/unshare", "--map-root-user", "--mount"];
    let broker = brokers::pausable();
    let setup = broker
        .gateway_to("disk-full")
        .without_limits()
        .with_spool("always");
    let spool = setup.path("spool");
    fs::create_dir(&spool).expect("a folder");
    let mount = format!("mount -t tmpfs -o size=40m none {}", spool.display());
    let setup = setup
        .set("FOREBAY_SPOOL_BYTES_MAX", "128MiB")
        .after(&UNSHARE, &mount);
    if !setup.run(&["--version"]).status.success() {
        return eprintln!("skipped: this machine lets nobody mount in a namespace of their own");
    }
    let gateway = setup.start();
    let paused = broker.pause();
    let (_clients, load) = start_load(&gateway, "reading", 200_000);
    load.wait_for(503, 1);
    let filler = format!("/proc/{}/root{}/filler", gateway.id(), spool.display());
    let mut filler = File::create(filler).expect("a file");
    // A disk without room for several readings may have room for one.
    while filler.write_all(&[0; 4096]).is_ok() {}
    nothing_is_safe(&gateway, &load, "No space left on device");
    drop(paused);
    let outcomes = is_back(&gateway, load);
    audit(&outcomes, &broker.bodies("disk-full"));
}
