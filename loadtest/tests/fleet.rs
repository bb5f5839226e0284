//! The real programs: a fleet against a gateway with the file sink, and the audit of what the gateway wrote.
//!
//! The gateway is `FOREBAY_BIN`, or `forebay` beside this crate's own program in the target folder, which `cargo test`
//! and `cargo build` at the root make.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway with the file sink in a folder of its own; killed when dropped.
struct Gateway {
    process: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Gateway {
    fn start() -> Self {
        Self::with(&[])
    }

    /// One with further settings.
    fn with(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dir.path().join(name);
        for arguments in [
            "pki init --dir pki",
            "pki server --dir pki --name 127.0.0.1",
        ] {
            let made = forebay(dir.path())
                .args(arguments.split(' '))
                .output()
                .expect("forebay runs");
            assert!(
                made.status.success(),
                "{}",
                String::from_utf8_lossy(&made.stderr)
            );
        }
        let mut command = forebay(dir.path());
        command
            .arg("serve")
            .env("FOREBAY_LISTEN", "127.0.0.1:0")
            .env("FOREBAY_ADMIN_LISTEN", "127.0.0.1:0")
            .env("FOREBAY_TLS_CERT", path("pki/server.pem"))
            .env("FOREBAY_TLS_KEY", path("pki/server.key"))
            .env("FOREBAY_TLS_CLIENT_CA", path("pki/ca.pem"))
            .env("FOREBAY_FILE_DIR", path("data"))
            .env("FOREBAY_HANDSHAKE_RATE", "0")
            .env("FOREBAY_DEVICE_RATE", "0")
            .env("FOREBAY_LOG_FORMAT", "json")
            .envs(settings.iter().copied());
        let mut process = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("forebay starts");
        let (listening, listens) = sync_channel(1);
        let log = BufReader::new(process.stderr.take().expect("piped"));
        std::thread::spawn(move || follow(log, &listening));
        let address = listens.recv_timeout(PATIENCE).expect("it listens");
        Self {
            process,
            address,
            dir,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the load generator in the gateway's folder.
    fn loadtest(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
        command
            .args(line.split(' '))
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .expect("it runs")
    }

    fn fleet(&self, options: &str) -> Value {
        let url = format!("https://{}", self.address);
        let authority = "--ca-cert pki/ca.pem --ca-key pki/ca.key";
        let files = "--ledger ledger --report report.json --html report.html";
        let output = self.loadtest(&format!("fleet {url} {authority} {files} {options}"));
        assert!(output.status.success(), "{}", text(&output));
        serde_json::from_slice(&fs::read(self.path("report.json")).expect("a report"))
            .expect("JSON")
    }

    /// The exit code, and the findings.
    fn audit(&self) -> (Option<i32>, Value) {
        let tell = "--report audit.json --fleet report.json --html report.html";
        let output = self.loadtest(&format!("audit --ledger ledger --files data {tell}"));
        let findings =
            fs::read(self.path("audit.json")).unwrap_or_else(|_| panic!("{}", text(&output)));
        (
            output.status.code(),
            serde_json::from_slice(&findings).expect("JSON"),
        )
    }

    /// Has it drain, and waits for its end.
    fn stop(&mut self) {
        let pid = self.process.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(told.expect("kill runs").success());
        assert!(self.process.wait().expect("it ends").success());
    }

    /// The exit code of the audit of events, and the findings.
    fn audit_events(&self) -> (Option<i32>, Value) {
        let line = "events --visits visits --files data/fleet-events --report events.json";
        let output = self.loadtest(line);
        let findings =
            fs::read(self.path("events.json")).unwrap_or_else(|_| panic!("{}", text(&output)));
        let findings = serde_json::from_slice(&findings).expect("JSON");
        (output.status.code(), findings)
    }

    /// The one file of lines of the readings' stream.
    fn sink_file(&self) -> PathBuf {
        self.file_of("telemetry")
    }

    fn file_of(&self, stream: &str) -> PathBuf {
        let files = fs::read_dir(self.path("data").join(stream)).expect("the stream's folder");
        files
            .map(|file| file.expect("an entry").path())
            .max_by_key(|file| fs::metadata(file).map_or(0, |data| data.len()))
            .expect("a file")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn forebay(dir: &Path) -> Command {
    let beside = Path::new(env!("CARGO_BIN_EXE_loadtest")).with_file_name("forebay");
    let program = std::env::var_os("FOREBAY_BIN").map_or(beside, PathBuf::from);
    assert!(
        program.exists(),
        "{} is not there: cargo build, or set FOREBAY_BIN",
        program.display()
    );
    let mut command = Command::new(program);
    command.env_clear().current_dir(dir).stdin(Stdio::null());
    command
}

/// Tells the address, and keeps the pipe empty.
fn follow(log: impl BufRead, listening: &SyncSender<SocketAddr>) {
    for line in log.lines().map_while(Result::ok) {
        let event: Value = serde_json::from_str(&line).unwrap_or_default();
        if event["message"] == "listening" {
            let address = event["listen"]
                .as_str()
                .and_then(|address| address.parse().ok());
            let _ = listening.try_send(address.expect("an address"));
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// Each reading of a request is in the ledger, and is looked for by itself.
#[test]
fn every_reading_of_a_request_is_found_once() {
    for encoding in ["gzip", "zstd"] {
        let gateway = Gateway::start();
        let options = format!(
            "--devices 12 --interval 500ms --duration 2s --records 20 --encoding {encoding}"
        );
        let report = gateway.fleet(&options);
        let requests = report["total"]["requests"].as_u64().expect("a number");
        assert_eq!(
            report["total"]["statuses"],
            serde_json::json!({"204": requests})
        );
        let (code, findings) = gateway.audit();
        assert_eq!(
            (
                code,
                findings["safe"].as_u64(),
                findings["records"].as_u64()
            ),
            (Some(0), Some(20 * requests), Some(20 * requests)),
            "{findings}"
        );
    }
}

#[test]
fn every_204_of_a_mixed_fleet_is_found_once_and_a_changed_sink_is_noticed() {
    let gateway = Gateway::start();
    let report = gateway.fleet("--devices 201 --interval 500ms --duration 3s --processes 2");
    let total = &report["total"];
    let requests = total["requests"].as_u64().expect("a number");
    assert!(requests > 600, "{total}");
    assert_eq!(total["statuses"], serde_json::json!({"204": requests}));
    assert_eq!(
        (
            &report["setup"]["connections"],
            &report["setup"]["connections_failed"]
        ),
        (&201.into(), &0.into())
    );
    let page = || fs::read_to_string(gateway.path("report.html")).expect("a page");
    assert!(page().contains("Not audited") && page().contains("</svg>"));
    let spoken = report["protocols"].as_object().expect("protocols");
    let apart = spoken.values().map(|one| one["requests"].as_u64());
    assert_eq!(apart.flatten().sum::<u64>(), requests, "{spoken:?}");
    assert_eq!(spoken.len(), 3, "{spoken:?}");

    let (code, findings) = gateway.audit();
    assert_eq!(
        (code, &findings["good"], findings["safe"].as_u64()),
        (Some(0), &true.into(), Some(requests)),
        "{findings}"
    );
    assert_eq!(findings["records"].as_u64(), Some(requests));
    assert!(
        !page().contains("Not audited") && page().contains(&format!("all {requests} readings"))
    );

    let file = gateway.sink_file();
    let whole = fs::read_to_string(&file).expect("lines");
    let lines: Vec<&str> = whole.lines().collect();
    let without_one = lines[1..].join("\n");
    let with_one_changed = whole.replacen("\"temperature_c\":", "\"temperature_k\":", 1);
    let with_one_twice = format!("{whole}{}\n", lines[0]);
    for (fault, changed) in [
        ("lost", without_one),
        ("corrupted", with_one_changed),
        ("duplicated", with_one_twice),
    ] {
        fs::write(&file, changed).expect("the file");
        let (code, findings) = gateway.audit();
        assert_eq!(
            (code, findings["faults"][fault].as_u64()),
            (Some(1), Some(1)),
            "{fault}: {findings}"
        );
        assert!(page().contains(">Not good</p>") && page().contains(&format!("1 {fault}")));
    }
    fs::write(&file, whole).expect("the file");
    assert_eq!(gateway.audit().0, Some(0));
}

#[test]
fn a_server_that_stands_still_shows_in_the_latencies() {
    let gateway = Gateway::start();
    let pid = gateway.process.id();
    // Stopped for two seconds of four: what was intended meanwhile waits, and says so.
    let hooks = ["--at", "1s=kill -STOP ", "--at", "3s=kill -CONT "];
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.current_dir(gateway.dir.path()).stdin(Stdio::null());
    command.args([
        "fleet",
        &format!("https://{}", gateway.address),
        "--ca-cert",
        "pki/ca.pem",
        "--ca-key",
        "pki/ca.key",
    ]);
    command.args(
        "--devices 60 --interval 200ms --duration 4s --report report.json --ledger ledger"
            .split(' '),
    );
    for hook in hooks.chunks(2) {
        command.args([hook[0], &format!("{}{pid}", hook[1])]);
    }
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output));
    let report: Value =
        serde_json::from_slice(&fs::read(gateway.path("report.json")).expect("a report"))
            .expect("JSON");
    let total = &report["total"];
    // Half of all were intended in the pause, and half of those waited for more than a second. A closed loop would have
    // one slow request a device, one in twenty: its 90th percentile would not know of the pause.
    let p90_us = total["latency_us"]["p90"].as_u64().expect("a number");
    assert!(p90_us > 1_000_000, "{total}");
    assert!(total["behind"].as_u64() > Some(300), "{total}");
    assert_eq!(report["events"].as_array().map(Vec::len), Some(2));
    let (code, findings) = gateway.audit();
    assert_eq!(code, Some(0), "{findings}");
}

#[test]
fn devices_come_back_after_a_storm_and_with_new_certificates() {
    let gateway = Gateway::start();
    for scenario in [
        "reconnect-storm",
        "certificate-churn --resume",
        "ramp --reconnect",
    ] {
        let report = gateway.fleet(&format!(
            "--devices 60 --interval 500ms --duration 3s --scenario {scenario}"
        ));
        let total = &report["total"];
        assert!(
            total["handshakes"].as_u64() >= Some(60),
            "{scenario}: {total}"
        );
        assert_eq!(
            total["statuses"],
            serde_json::json!({"204": total["requests"]}),
            "{scenario}"
        );
        assert_eq!(gateway.audit().0, Some(0), "{scenario}");
    }
}

/// Devices that reconnect, flood and vanish: each connection is told to begin and to end, and usage adds up. What a gateway
/// would have got wrong is found.
#[test]
fn what_is_told_of_a_restless_fleet_is_what_the_fleet_remembers() {
    let mut gateway = Gateway::with(&[
        ("FOREBAY_STREAMS", "telemetry,fleet-events"),
        ("FOREBAY_EVENTS_STREAM", "fleet-events"),
        ("FOREBAY_USAGE_INTERVAL", "1s"),
        ("FOREBAY_IDLE_TIMEOUT", "1s"),
        ("FOREBAY_DEVICE_RATE", "5"),
        ("FOREBAY_DEVICE_BURST", "10"),
    ]);
    let load = "--devices 300 --interval 500ms --duration 5s --scenario restless";
    let report = gateway.fleet(&format!("{load} --visits visits"));
    let statuses = report["total"]["statuses"].as_object().expect("statuses");
    let has = |status: &str| statuses.get(status).and_then(Value::as_u64) > Some(0);
    assert!(
        has("204") && has("429") && has("unanswered"),
        "{statuses:?}"
    );
    gateway.stop();
    let (code, findings) = gateway.audit_events();
    assert_eq!(
        (code, &findings["good"]),
        (Some(0), &true.into()),
        "{findings}"
    );
    let count = |kind: &str| findings["events"][kind].as_u64().expect("a count");
    assert!(
        count("connected") > 1000 && count("limited") >= 3,
        "{findings}"
    );
    assert!(count("usage") > count("connected"), "{findings}");

    let file = gateway.file_of("fleet-events");
    let whole = fs::read_to_string(&file).expect("lines");
    let of = |kind: &str| {
        let kind = format!("\"forebay.device.{kind}\"");
        let line = whole.lines().find(|line| line.contains(&kind));
        format!("{}\n", line.expect("such an event"))
    };
    let (begins, ends, usage) = (of("connected"), of("disconnected"), of("usage"));
    for (fault, changed) in [
        ("unpaired", whole.replacen(&begins, "", 1)),
        ("unpaired", whole.replacen(&ends, "", 1)),
        ("usage", whole.replacen(&usage, "", 1)),
        ("repeated", format!("{whole}{usage}")),
        (
            "requests",
            whole.replace(&ends, &ends.replace("\"accepted\":", "\"accepted\":9")),
        ),
    ] {
        fs::write(&file, changed).expect("the file");
        let (code, findings) = gateway.audit_events();
        let found = findings["faults"][fault].as_u64();
        assert!(code == Some(1) && found > Some(0), "{fault}: {findings}");
    }
}

#[test]
fn a_gateway_that_is_killed_costs_answers_and_no_204_is_lost() {
    let gateway = Gateway::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadtest"));
    command.current_dir(gateway.dir.path()).stdin(Stdio::null());
    let url = format!("https://{}", gateway.address);
    command.args([
        "fleet",
        &url,
        "--ca-cert",
        "pki/ca.pem",
        "--ca-key",
        "pki/ca.key",
        "--at",
    ]);
    command.arg(format!("1s=kill -KILL {}", gateway.process.id()));
    let load = "--devices 40 --protocol mix --interval 100ms --duration 2s --timeout 1s";
    command.args(format!("{load} --ledger ledger --report report.json").split(' '));
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output));
    let report = fs::read(gateway.path("report.json")).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let statuses = &report["total"]["statuses"];
    assert!(
        statuses["204"].as_u64() > Some(0) && statuses["unsent"].as_u64() > Some(0),
        "{statuses}"
    );
    let (code, findings) = gateway.audit();
    assert_eq!(code, Some(0), "{findings}");
}

#[test]
fn a_server_that_is_not_there_is_an_error_at_once() {
    let gateway = Gateway::start();
    let nobody = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a port");
    let line = format!(
        "fleet https://{nobody} --ca-cert pki/ca.pem --ca-key pki/ca.key --protocol h1 --devices 1000"
    );
    let output = gateway.loadtest(&line);
    assert!(
        !output.status.success() && text(&output).contains("no connection to"),
        "{}",
        text(&output)
    );
}

#[test]
fn burn_counts_requests_and_handshakes() {
    let gateway = Gateway::start();
    let pid = gateway.process.id();
    let server = format!(
        "https://{} --ca-cert pki/ca.pem --ca-key pki/ca.key --pid {pid} --json",
        gateway.address
    );
    for (protocol, loops) in [
        ("h1", "--connections 4 --requests 100"),
        ("h2", "--connections 2 --streams 8 --requests 100"),
        ("h3", "--connections 2 --streams 8 --requests 100"),
        ("h1", "--connections 2 --requests 20 --reconnect full"),
        ("h1", "--connections 2 --requests 20 --reconnect resumed"),
        ("h3", "--connections 2 --requests 20 --reconnect full"),
    ] {
        let output = gateway.loadtest(&format!(
            "burn {server} --protocol {protocol} --duration 30s {loops}"
        ));
        let result: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
        let requests: u64 = if loops.contains("100") { 100 } else { 20 };
        assert_eq!(
            (result["requests"].as_u64(), result["failed"].as_u64()),
            (Some(requests), Some(0)),
            "{protocol} {loops}"
        );
    }
    let output = gateway.loadtest(&format!("burn {server} --protocol h1 --idle 50"));
    let result: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    assert_eq!(result["connections_open"], 50);
    assert!(
        result["server_bytes_per_connection"].as_u64() > Some(1000),
        "{result}"
    );
}
