//! Handshakes that no honest library makes: with somebody else's certificate, without proof of the key, without the
//! messages that would show either, of old versions, and with early data.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustls::{ClientConnection, HandshakeKind, StreamOwned};
use serde_json::Value;

use crate::harness::raw::{server_name, tls};
use crate::harness::{Ask, Client, Protocol, Setup, Siege};
use crate::pki::Identity;
use crate::tools::tools;

/// Returns the outcomes of the cases of `tests/clients/attack_tls.py`.
fn attack(siege: &Siege, device: &Identity) -> Value {
    let other = siege.gateway.device("other");
    let output = Command::new(tools().join("venv/bin/python"))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/attack_tls.py"))
        .arg(siege.gateway.address.port().to_string())
        .args([&device.cert, &device.key, &other.key])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("make tools");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn a_certificate_is_worth_nothing_without_its_key() {
    let setup = Setup::new();
    let device = setup.pki.device("newcomer");
    assert_worthless_without_its_key(setup, &device);
}

/// A fingerprint is no secret: whoever has seen the certificate has it.
#[test]
fn a_pinned_certificate_is_worth_nothing_without_its_key() {
    let setup = Setup::new();
    let device = setup.pki.self_made("newcomer");
    let file = setup.path("devices");
    let pin = format!("pin {} as=newcomer\n", device.fingerprint());
    std::fs::write(&file, pin).expect("a file");
    let setup = setup.set("FOREBAY_DEVICES_FILE", file.display());
    assert_worthless_without_its_key(setup, &device);
}

fn assert_worthless_without_its_key(setup: Setup, device: &Identity) {
    const UNEXPECTED_MESSAGE: &str = "alert 10";
    const DECRYPT_ERROR: &str = "alert 51";
    const CERTIFICATE_REQUIRED: &str = "alert 116";
    let siege = Siege::begin(setup);
    let outcomes = attack(&siege, device);
    let outcome = |case: &str| {
        outcomes[case]
            .as_str()
            .unwrap_or_else(|| panic!("{case} is not in {outcomes}"))
    };
    for version in ["1.2", "1.3"] {
        for (case, expected) in [
            ("honest", "204"),
            ("records of a byte", "204"),
            ("another's certificate", DECRYPT_ERROR),
            ("no certificate", CERTIFICATE_REQUIRED),
            ("no proof", UNEXPECTED_MESSAGE),
            ("neither", UNEXPECTED_MESSAGE),
        ] {
            assert_eq!(
                outcome(&format!("{version}, {case}")),
                expected,
                "{version}, {case}"
            );
        }
    }
    assert_eq!(
        outcome("1.3, compressed certificate"),
        UNEXPECTED_MESSAGE,
        "what nobody has asked for"
    );
    for case in [
        "1.1",
        "1.2, no forward secrecy",
        "1.2, CBC",
        "overlong record",
        "SSLv2",
    ] {
        assert!(
            outcome(case).starts_with("alert "),
            "{case}: {}",
            outcome(case)
        );
    }
    assert_eq!(
        siege
            .gateway
            .metric("forebay_tls_handshakes_total{result=\"resumed\"}"),
        0.0
    );
    siege.end();
}

/// Early data is refused: anybody who has seen it could send it again.
#[test]
fn no_session_may_send_early_data() {
    let gateway = Setup::new().start();
    let device = gateway.device("plc-1");
    let mut config = Arc::unwrap_or_clone(tls(&gateway, Some(&device), "http/1.1"));
    config.enable_early_data = true;
    let config = Arc::new(config);
    let post = || {
        let mut client = ClientConnection::new(config.clone(), server_name()).expect("a client");
        assert!(client.early_data().is_none(), "the ticket allows it");
        let mut stream = StreamOwned::new(
            client,
            TcpStream::connect(gateway.address).expect("it listens"),
        );
        let request =
            b"POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1";
        stream.write_all(request).expect("it listens");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 204");
        stream.conn.handshake_kind()
    };
    assert_eq!(post(), Some(HandshakeKind::Full));
    assert_eq!(post(), Some(HandshakeKind::Resumed), "it has a ticket");
    let quic = Client::open(Protocol::H3, &gateway, &device);
    assert_eq!(quic.send(&Ask::post("1")).status, 204);
    assert_eq!(quic.told()["early_data"], 0);
}
