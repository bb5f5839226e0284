//! A device that is refused is seen: each reason is told apart in metric and audit log, with what the certificate says
//! of itself, and what ends is told before it does.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::harness::client::Quirks;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, Via, eventually};
use crate::pki::Identity;

/// Returns the error that a client gets instead of a connection.
fn refusal(protocol: Protocol, gateway: &Gateway, device: &Identity) -> String {
    match Client::try_open(
        Via::Wire,
        protocol,
        gateway,
        Some(device),
        Quirks::default(),
    ) {
        Ok(client) => client.closed().to_lowercase(),
        Err(error) => error.to_lowercase(),
    }
}

fn handshakes(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!(
        "forebay_tls_handshakes_total{{result=\"{result}\"}}"
    ))
}

/// The line of a refused handshake, once it is there.
fn line(log: &Path, transport: &str, reason: &str) -> Value {
    let find = || {
        let text = fs::read_to_string(log).unwrap_or_default();
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let mut lines = whole.map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        lines.find(|line| line["reason"] == reason && line["protocol"] == transport)
    };
    eventually(reason, || find().is_some());
    find().expect("it was there")
}

#[test]
fn a_refused_certificate_is_told_with_its_names_and_dates() {
    let setup = Setup::new();
    let log = setup.path("audit.log");
    let gateway = setup.set("FOREBAY_AUDIT_LOG", log.display()).start();
    let cases = [
        (gateway.pki.expired(), "expired", "certificate expired", 45),
        (
            gateway.pki.not_yet_valid(),
            "not_yet_valid",
            "certificate expired",
            45,
        ),
        (gateway.pki.stranger(), "unknown_issuer", "unknown ca", 48),
    ];
    for (device, reason, openssl, alert) in cases {
        for protocol in Protocol::ALL {
            let said = refusal(protocol, &gateway, &device);
            let expected = match protocol {
                Protocol::H3 => format!("close {} ", 0x100 + alert),
                _ => openssl.to_owned(),
            };
            assert!(said.contains(&expected), "{reason}, {protocol}: {said}");
        }
        eventually(reason, || handshakes(&gateway, reason) == 3.0);
        for transport in ["tcp", "quic"] {
            let line = line(&log, transport, reason);
            let serial: String = device
                .serial()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert_eq!(line["serial"], serial, "{line}");
            for field in ["subject", "issuer", "not_before", "not_after", "at"] {
                assert!(line[field].is_string(), "{field}: {line}");
            }
            let (now, not_before) = (line["at"].as_str(), line["not_before"].as_str());
            assert_eq!(not_before > now, reason == "not_yet_valid", "{line}");
        }
    }
}

/// Nothing is wrong with the device: it is not told to stop, and the operator is told what is.
#[test]
fn a_list_out_of_date_is_told_as_what_it_is() {
    let setup = Setup::new();
    let crl = setup.pki.outdated_crl();
    let log = setup.path("audit.log");
    let setup = setup.set("FOREBAY_TLS_CRL", crl.display());
    let gateway = setup.set("FOREBAY_AUDIT_LOG", log.display()).start();
    assert!(
        gateway.log().contains("is past its end: renew it"),
        "{}",
        gateway.log()
    );
    let due = gateway.metric("forebay_tls_crl_next_update_timestamp_seconds");
    let now = jiff::Timestamp::now().as_second() as f64;
    assert!(due > now - 4000.0 && due < now, "{due}");
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let said = refusal(protocol, &gateway, &device);
        let expected = match protocol {
            Protocol::H3 => format!("close {} ", 0x100 + 49),
            _ => "access denied".to_owned(),
        };
        assert!(said.contains(&expected), "{protocol}: {said}");
    }
    eventually("three refusals", || {
        handshakes(&gateway, "crl_expired") == 3.0
    });
    assert!(line(&log, "tcp", "crl_expired")["subject"].is_string());
    assert!(line(&log, "quic", "crl_expired")["subject"].is_string());

    gateway.pki.revoke(&[]);
    eventually("a list in date", || {
        gateway.metric("forebay_tls_crl_next_update_timestamp_seconds") > now
    });
    let below = gateway.pki.device_below_intermediate("below");
    refusal(Protocol::H1, &gateway, &below);
    eventually("no list", || handshakes(&gateway, "crl_missing") == 1.0);
}

/// The log tells after each reload which files in force are past their end: whoever brings a file reads it.
#[test]
fn a_reload_tells_again_what_has_ended() {
    let setup = Setup::new();
    let crl = setup.pki.outdated_crl();
    let gateway = setup.set("FOREBAY_TLS_CRL", crl.display()).start();
    let told = || gateway.log().matches("is past its end: renew it").count();
    assert_eq!(told(), 1, "{}", gateway.log());
    gateway.signal(libc::SIGHUP);
    eventually("the same again", || told() == 2);
}

#[test]
fn plain_http_is_answered_in_clear() {
    let gateway = Setup::new().start();
    for request in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /v1/telemetry HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(gateway.address).expect("it listens");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("it answers, and closes");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(
            head.contains(&format!("content-length: {}\r\n", body.len())),
            "{answer}"
        );
        let problem: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(problem["code"], "tls-required");
    }
    eventually("both", || handshakes(&gateway, "plain_http") == 2.0);
    assert_eq!(handshakes(&gateway, "protocol"), 0.0);
}

#[test]
fn a_client_that_does_not_trust_the_server_is_told_apart() {
    let gateway = Setup::new().start();
    let device = gateway.device("plc-1");
    let other = gateway.pki.other("another root");
    let url = format!("https://localhost:{}/v1/telemetry", gateway.address.port());
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--noproxy", "*", "--cacert"])
        .arg(other.ca());
    curl.arg("--cert")
        .arg(&device.cert)
        .arg("--key")
        .arg(&device.key);
    let output = curl.args(["-d", "1", &url]).output().expect("curl runs");
    assert!(!output.status.success());
    eventually("a refusal", || {
        handshakes(&gateway, "server_untrusted") == 1.0
    });
}

/// A counter alone would heal while the file is still bad, and the next start fail.
#[test]
fn a_file_that_cannot_be_used_is_told_until_it_can() {
    let gateway = Setup::new().start();
    let series = "forebay_tls_reload_ok{what=\"client_ca\"}";
    assert_eq!(gateway.metric(series), 1.0);
    let good = fs::read(gateway.pki.ca()).expect("a file");
    gateway.pki.replace("ca.pem", b"garbage");
    eventually("a failure", || gateway.metric(series) == 0.0);
    gateway.signal(libc::SIGHUP);
    eventually("another failure", || {
        gateway.metric("forebay_tls_reload_failures_total{what=\"client_ca\"}") >= 2.0
    });
    assert_eq!(gateway.metric(series), 0.0);
    gateway.pki.replace("ca.pem", &good);
    eventually("a good file", || gateway.metric(series) == 1.0);
}

#[test]
fn each_refusal_is_counted_by_its_code() {
    let gateway = Setup::new().start();
    let device = gateway.device("plc-1");
    for (count, protocol) in [
        (1.0, Protocol::H1),
        (2.0, Protocol::H2),
        (3.0, Protocol::H3),
    ] {
        let client = Client::open(protocol, &gateway, &device);
        assert_eq!(client.send(&Ask::post("1").to("/nowhere")).status, 404);
        let series = "forebay_http_refusals_total{code=\"not-found\"}";
        eventually(series, || gateway.metric(series) == count);
    }
}
