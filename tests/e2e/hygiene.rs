//! Nothing of what a client sends comes out anywhere else, whatever it is.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Ask, Client, Gateway, Protocol, Setup};

/// In every part of a request.
const MARK: &str = "HOSTILE-MARK";

fn series(gateway: &Gateway) -> Vec<String> {
    let metrics = gateway.admin("/metrics").1;
    let names = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit_once(' '));
    let mut names: Vec<String> = names.map(|(name, _)| name.to_owned()).collect();
    names.sort();
    names
}

/// Requests that are wrong in every way, and what is said of them.
fn provoke(gateway: &Gateway, device: &str) {
    let device = gateway.device(device);
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, gateway, &device);
        for ask in [
            Ask::post(MARK).to(&format!("/{MARK}")),
            Ask::post(MARK).to(&format!("/v1/streams/{MARK}")),
            Ask::post(MARK).at(&format!("{MARK}.example")),
            Ask::post(MARK).by(MARK),
            Ask::post(MARK).with("content-encoding", MARK),
            Ask::post(MARK).with("idempotency-key", &MARK.repeat(9)),
            Ask::post(MARK).with(MARK, MARK),
        ] {
            let reply = client.send(&ask);
            assert!(
                !String::from_utf8_lossy(&reply.body).contains(MARK),
                "{protocol}: {reply:?}"
            );
        }
    }
    let tls = tls(gateway, Some(&device), "http/1.1");
    for bytes in [
        format!("{MARK} / HTTP/9.9\r\n\r\n"),
        format!("POST /\x1b[2J{MARK} HTTP/1.1\r\nhost: {MARK}\r\n{MARK}\r\n\r\n"),
        format!("POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: {MARK}\r\n\r\n"),
    ] {
        let said = block_on(async {
            let mut raw = Raw::open(gateway.address, tls.clone())
                .await
                .expect("a connection");
            raw.send(bytes.as_bytes()).await.expect("it listens");
            raw.receive_all().await
        });
        assert!(!String::from_utf8_lossy(&said).contains(MARK), "{said:?}");
    }
}

#[test]
fn a_log_has_nothing_of_a_client_and_metrics_no_series() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("audit.log");
    // Not `debug` for all: what a library says of a request's bytes at that level is for who asks for it.
    let setup = Setup::new()
        .without_limits()
        .set("FOREBAY_LOG", "info,forebay=trace");
    let gateway = setup.set("FOREBAY_AUDIT_LOG", file.display()).start();
    provoke(&gateway, "plc-1");
    let before = series(&gateway);
    for device in ["plc-2", "plc-3", "plc-4"] {
        provoke(&gateway, device);
    }
    assert_eq!(series(&gateway), before, "series depend on nobody's input");
    let audit = std::fs::read_to_string(&file).expect("the audit log");
    for (what, text) in [
        ("log", gateway.log()),
        ("audit log", audit),
        ("metrics", gateway.admin("/metrics").1),
    ] {
        assert!(!text.contains(MARK), "{what}: {text}");
    }
}

#[test]
fn a_key_that_others_can_read_is_warned_about() {
    // The files are of the group that the gateway runs as: it is one of those who may.
    for (mode, warns) in [(0o600, false), (0o640, false), (0o604, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let spool_key = folder.path().join("spool.keys");
        std::fs::write(&spool_key, "5a".repeat(32)).expect("a file");
        let setup = Setup::new().set("FOREBAY_SPOOL_DIR", folder.path().join("spool").display());
        let setup = setup.set("FOREBAY_SPOOL_KEY_FILE", spool_key.display());
        for key in [&setup.pki.server.key, &spool_key] {
            std::fs::set_permissions(key, PermissionsExt::from_mode(mode)).expect("a file");
        }
        let log = setup.start().log();
        let warnings = log
            .lines()
            .filter(|line| line.contains("can be read by others"));
        let told = |variable| warnings.clone().any(|line| line.contains(variable));
        let expected = [warns; 2];
        assert_eq!(
            ["FOREBAY_TLS_KEY", "FOREBAY_SPOOL_KEY_FILE"].map(told),
            expected,
            "{mode:o}: {log}"
        );
    }
}

/// Every file and folder below this one with its mode.
fn modes(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut modes = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let metadata = entry.metadata().expect("its metadata");
        modes.push((entry.path(), metadata.permissions().mode() & 0o777));
        if metadata.is_dir() {
            modes.extend(self::modes(&entry.path()));
        }
    }
    modes
}

/// Whatever the umask lets through, readings and the names of devices are not for every user of the machine.
#[test]
fn what_the_gateway_writes_is_not_for_everybody() {
    let setup = Setup::new().with_spool("always").after(&[], "umask 000");
    let written = setup.path("data");
    let setup = setup
        .set("FOREBAY_SPOOL_DIR", written.join("spool").display())
        .set("FOREBAY_AUDIT_LOG", written.join("audit.log").display())
        .set("FOREBAY_ACCESS_LOG", written.join("access.log").display());
    std::fs::create_dir(&written).expect("a folder");
    let gateway = setup.start();
    let client = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    assert_eq!(client.send(&Ask::post("1")).status, 204);
    crate::spool::wait_until_drained(&gateway);
    let modes = modes(&written);
    for name in [
        "audit.log",
        "access.log",
        "telemetry",
        "spool",
        "cursor-0",
        "dead-letters",
    ] {
        assert!(
            modes.iter().any(|(path, _)| path.ends_with(name)),
            "{name}: {modes:?}"
        );
    }
    for (path, mode) in modes {
        let expected = if path.is_dir() { 0o750 } else { 0o640 };
        assert_eq!(mode, expected, "{}: {mode:o}", path.display());
    }
}
