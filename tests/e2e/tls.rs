//! Handshakes, taken and refused. A client sees the alert of a refusal, with its number; on TLS 1.3 and QUIC it comes after
//! the client's own part is done, so a client learns of it by its next read.

use crate::harness::client::Quirks;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, Via, eventually};
use crate::pki::Identity;

/// Returns the error of a client that gets no connection. It sends no request: an answer to one would be lost to the reset
/// that it causes.
fn refusal(
    protocol: Protocol,
    gateway: &Gateway,
    device: Option<&Identity>,
    quirks: Quirks,
) -> String {
    match Client::try_open(Via::Wire, protocol, gateway, device, quirks) {
        Ok(client) => client.closed(),
        Err(error) => error,
    }
}

/// As OpenSSL, and as QUIC (RFC 9001 section 4.8: 0x100 and the alert's number), name the alert.
fn assert_alert(protocol: Protocol, said: &str, openssl: &str, alert: u16) {
    let expected = match protocol {
        Protocol::H3 => format!("close {} ", 0x100 + alert),
        _ => openssl.to_owned(),
    };
    assert!(
        said.to_lowercase().contains(&expected),
        "{protocol}: {said}, not {expected}"
    );
}

#[test]
fn who_has_no_good_certificate_does_not_get_in() {
    let gateway = Setup::new().start();
    let (expired, wrong_usage, stranger) = (
        gateway.pki.expired(),
        gateway.pki.wrong_usage(),
        gateway.pki.stranger(),
    );
    let cases = [
        (None, "certificate required", 116, "no_certificate"),
        (Some(&expired), "certificate expired", 45, "expired"),
        (
            Some(&wrong_usage),
            "unsupported certificate",
            43,
            "bad_certificate",
        ),
        (Some(&stranger), "unknown ca", 48, "unknown_issuer"),
    ];
    for (device, openssl, alert, result) in cases {
        for protocol in Protocol::ALL {
            let said = refusal(protocol, &gateway, device, Quirks::default());
            assert_alert(protocol, &said, openssl, alert);
        }
        let series = format!("forebay_tls_handshakes_total{{result=\"{result}\"}}");
        eventually(&series, || gateway.metric(&series) == 3.0);
    }
    assert_eq!(
        gateway.metric("forebay_tls_handshakes_total{result=\"accepted\"}"),
        0.0
    );
    for protocol in Protocol::ALL {
        assert_eq!(
            gateway.metric(&format!(
                "forebay_http_connections{{protocol=\"{protocol}\"}}"
            )),
            0.0
        );
    }
}

/// TLS 1.2 asks for the certificate in the middle of the handshake: the alert is its answer.
#[test]
fn tls_1_2_refuses_by_the_same_rules() {
    let gateway = Setup::new().start();
    let quirks = Quirks {
        tls_max: Some("1.2"),
        ..Quirks::default()
    };
    for protocol in [Protocol::H1, Protocol::H2] {
        for device in [
            None,
            Some(&gateway.pki.expired()),
            Some(&gateway.pki.stranger()),
        ] {
            refusal(protocol, &gateway, device, quirks);
        }
        let device = gateway.device("plc-1");
        let client = Client::try_open(Via::Wire, protocol, &gateway, Some(&device), quirks)
            .expect("a connection");
        assert_eq!(client.send(&Ask::post("1")).status, 204, "{protocol}");
    }
    assert_eq!(
        gateway.metric("forebay_tls_handshakes_total{result=\"accepted\"}"),
        2.0
    );
}

#[test]
fn the_least_tls_version_can_be_raised() {
    let gateway = Setup::new().set("FOREBAY_TLS_MIN_VERSION", "1.3").start();
    let device = gateway.device("plc-1");
    let quirks = Quirks {
        tls_max: Some("1.2"),
        ..Quirks::default()
    };
    let said = refusal(Protocol::H1, &gateway, Some(&device), quirks);
    assert!(said.contains("protocol version"), "{said}");
    assert_eq!(
        Client::open(Protocol::H1, &gateway, &device)
            .send(&Ask::post("1"))
            .status,
        204
    );
}

#[test]
fn a_chain_with_an_intermediate_authority_is_accepted() {
    let gateway = Setup::new().start();
    let device = gateway.pki.device_below_intermediate("plc-1");
    for protocol in Protocol::ALL {
        assert_eq!(
            Client::open(protocol, &gateway, &device)
                .send(&Ask::post("1"))
                .status,
            204,
            "{protocol}"
        );
    }
    let devices: Vec<_> = gateway
        .files("telemetry")
        .iter()
        .map(|line| line.text("device").to_owned())
        .collect();
    assert_eq!(devices, ["plc-1"; 3]);
}

/// Nothing is sniffed: a client that offers no protocol speaks HTTP/1.1.
#[test]
fn without_alpn_it_is_h1() {
    let gateway = Setup::new().start();
    let quirks = Quirks {
        no_alpn: true,
        ..Quirks::default()
    };
    let client = Client::try_open(
        Via::Wire,
        Protocol::H1,
        &gateway,
        Some(&gateway.device("plc-1")),
        quirks,
    );
    assert_eq!(
        client.expect("a connection").send(&Ask::post("1")).status,
        204
    );
    assert_eq!(
        gateway.metric("forebay_http_requests_total{protocol=\"h1\",status=\"204\"}"),
        1.0
    );
}

/// The id is the certificate's, whatever a header claims.
#[test]
fn the_device_is_who_its_certificate_says() {
    let gateway = Setup::new().start();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let ask = Ask::post("1")
            .with("x-device-id", "plc-2")
            .with("x-forwarded-client-cert", "URI=plc-2");
        assert_eq!(
            Client::open(protocol, &gateway, &device).send(&ask).status,
            204
        );
    }
    assert!(
        gateway
            .files("telemetry")
            .iter()
            .all(|line| line.text("device") == "plc-1")
    );
}
