//! The audit log: what an operator has to be able to show afterwards, and nothing that a client could write into it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::client::Quirks;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, Via, eventually};
use crate::pki::Identity;

fn audited(folder: &Path) -> (Setup, PathBuf) {
    let file = folder.join("audit.log");
    let setup = Setup::new().without_limits();
    let crl = setup.pki.revoke(&[]);
    let setup = setup
        .set("FOREBAY_TLS_CRL", crl.display())
        .set("FOREBAY_AUDIT_LOG", file.display());
    (setup, file)
}

/// All lines of a kind.
pub(crate) fn lines(file: &Path, event: &str) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    let lines = whole.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["event"] == event).collect()
}

/// The one line of a kind, once it is there.
fn line(file: &Path, event: &str, which: impl Fn(&Value) -> bool) -> Value {
    let find = || lines(file, event).into_iter().find(|line| which(line));
    eventually(event, || find().is_some());
    find().expect("it was there")
}

fn hex(serial: &[u8]) -> String {
    serial.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refused(gateway: &Gateway, protocol: Protocol, device: Option<&Identity>) {
    let opened = Client::try_open(Via::Wire, protocol, gateway, device, Quirks::default());
    let _ = opened.map(|client| {
        client
            .try_send(&Ask::post("1"))
            .expect_err("nobody is let in")
    });
}

#[test]
fn what_matters_is_written_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, file) = audited(folder.path());
    let setup = setup
        .set("FOREBAY_STREAMS", "telemetry,alarms")
        .set("FOREBAY_STREAM_ACCESS", "telemetry:*");
    let mut gateway = setup.start();
    assert_eq!(
        line(&file, "started", |_| true)["listen"],
        gateway.address.to_string()
    );

    for protocol in Protocol::ALL {
        refused(&gateway, protocol, None);
    }
    let nobody = |transport: &str| {
        line(&file, "handshake-refused", |line| {
            line["protocol"] == transport && line["reason"] == "no_certificate"
        })
    };
    assert_eq!(
        (&nobody("tcp")["address"], &nobody("quic")["serial"]),
        (&"127.0.0.1".into(), &Value::Null)
    );

    let (good, stolen) = (gateway.device("good"), gateway.device("urn:plant/stolen"));
    let live = Client::open(Protocol::H2, &gateway, &stolen);
    assert_eq!(live.send(&Ask::post("1")).status, 204);
    assert_eq!(
        Client::open(Protocol::H3, &gateway, &good)
            .send(&Ask::post("1").to("/v1/streams/alarms"))
            .status,
        403
    );
    let forbidden = line(&file, "forbidden", |_| true);
    assert_eq!(
        [
            &forbidden["device"],
            &forbidden["code"],
            &forbidden["protocol"]
        ],
        ["good", "stream-forbidden", "h3"]
    );

    gateway.pki.revoke(&[&stolen]);
    assert_eq!(
        line(&file, "revocations-applied", |line| line["revoked"] == 1)["authorities"],
        1
    );
    live.closed();
    let cut = line(&file, "connection-cut", |_| true);
    let serial = hex(&stolen.serial());
    assert_eq!(
        [&cut["device"], &cut["serial"], &cut["protocol"]],
        ["urn:plant/stolen", &serial, "h2"]
    );
    refused(&gateway, Protocol::H1, Some(&stolen));
    let revoked = line(&file, "handshake-refused", |line| {
        line["reason"] == "revoked"
    });
    assert_eq!([&revoked["serial"], &revoked["protocol"]], [&serial, "tcp"]);

    gateway.pki.replace("crl.pem", b"garbage\n\x1b[2J");
    assert_eq!(line(&file, "reload-failed", |_| true)["what"], "crl");
    gateway.terminate();
    assert_eq!(gateway.exit_code(), 0);
    assert_eq!(lines(&file, "stopped")[0]["clean"], true);
    let text = fs::read_to_string(&file).expect("the log");
    assert!(
        !text.replace('\n', "").contains(char::is_control),
        "{text:?}"
    );
}

/// As logrotate does it: the file is moved away, and the gateway told by SIGHUP.
#[test]
fn the_file_can_be_rotated() {
    let folder = tempfile::tempdir().expect("a folder");
    let (setup, file) = audited(folder.path());
    let gateway = setup.start();
    line(&file, "started", |_| true);
    let moved = folder.path().join("audit.log.1");
    fs::rename(&file, &moved).expect("a file");
    gateway.signal(libc::SIGHUP);
    line(&file, "certificate-reloaded", |line| {
        line["names"]
            .as_str()
            .is_some_and(|names| names.contains("localhost"))
    });
    assert_eq!(lines(&moved, "started").len(), 1);
}

#[test]
fn a_file_that_cannot_be_written_is_an_error_at_start() {
    let output = Setup::new()
        .set("FOREBAY_AUDIT_LOG", "/nowhere/audit.log")
        .run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("FOREBAY_AUDIT_LOG"),
        "{said}"
    );
}

/// stdout that nobody reads fills up: events are dropped and counted, and nobody waits.
#[test]
fn a_log_that_nobody_reads_stops_nobody() {
    let setup = Setup::new()
        .without_limits()
        .set("FOREBAY_AUDIT_LOG", "stdout");
    let gateway = setup
        .set("FOREBAY_STREAM_ACCESS", "telemetry:nobody")
        .start();
    let device = gateway.device("plc-1");
    let client = Client::open(Protocol::H1, &gateway, &device);
    assert_eq!(client.send(&Ask::post("1")).status, 403);
    assert_eq!(client.send(&Ask::post("1").to("/none")).status, 404);
}
