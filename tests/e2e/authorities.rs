//! Whom an authority vouches for, and for how long: what its lists speak for, what its name constraints hold it to, and
//! what becomes of its devices when it is taken out of the bundle.

use std::fs;

use crate::harness::client::Quirks;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, Via, eventually};
use crate::pki::{Identity, List};

const FIRST: &str = "http://crl.example.com/1.crl";
const SECOND: &str = "http://crl.example.com/2.crl";

/// The status of a reading, or what the client is told in place of a connection.
fn post(protocol: Protocol, gateway: &Gateway, device: &Identity) -> Result<u16, String> {
    let opened = Client::try_open(
        Via::Wire,
        protocol,
        gateway,
        Some(device),
        Quirks::default(),
    );
    let client = opened.map_err(|said| said.to_lowercase())?;
    client
        .try_send(&Ask::post("1"))
        .map(|reply| reply.status)
        .map_err(|said| said.to_lowercase())
}

/// On h3 a client says the alert's number.
fn assert_refused(gateway: &Gateway, device: &Identity, openssl: &str, alert: u16) {
    for protocol in Protocol::ALL {
        let opened = Client::try_open(
            Via::Wire,
            protocol,
            gateway,
            Some(device),
            Quirks::default(),
        );
        let said = opened.map_or_else(|error| error, |client| client.closed());
        let said = said.to_lowercase();
        let expected = match protocol {
            Protocol::H3 => format!("close {} ", 0x100 + alert),
            Protocol::H1 | Protocol::H2 => openssl.to_owned(),
        };
        assert!(said.contains(&expected), "{protocol}: {said}");
    }
}

fn assert_accepted(gateway: &Gateway, device: &Identity) {
    for protocol in Protocol::ALL {
        assert_eq!(post(protocol, gateway, device), Ok(204), "{protocol}");
    }
}

/// As AWS Private CA and EJBCA cut the list of an authority.
#[test]
fn a_list_speaks_for_its_partition_only() {
    let setup = Setup::new();
    let (first, second) = (
        setup.pki.device_at("first", FIRST),
        setup.pki.device_at("second", SECOND),
    );
    let nowhere = setup.pki.device("nowhere");
    let list_of = |point, users_only| List {
        point: Some(point),
        users_only,
        ..List::default()
    };
    let crl = setup.pki.list("crl.pem", &list_of(FIRST, false));
    let gateway = setup.set("FOREBAY_TLS_CRL", crl.display()).start();
    assert_accepted(&gateway, &first);
    // Nobody knows whether they are revoked: their lists are not here.
    assert_refused(&gateway, &second, "access denied", 49);
    assert_refused(&gateway, &nowhere, "access denied", 49);

    let one = fs::read(&crl).expect("a file");
    let revoked = [&second];
    let other = List {
        revoked: &revoked,
        ..list_of(SECOND, false)
    };
    let two = fs::read(gateway.pki.list("other.pem", &other)).expect("a file");
    gateway.pki.replace("crl.pem", &[one, two].concat());
    eventually("the second list", || {
        gateway.log().contains("CRLs reloaded")
    });
    assert_accepted(&gateway, &first);
    assert_refused(&gateway, &second, "certificate revoked", 44);
    assert_refused(&gateway, &nowhere, "access denied", 49);
}

#[test]
fn a_list_of_devices_alone_speaks_for_devices() {
    let setup = Setup::new();
    let (device, stolen) = (
        setup.pki.device_at("device", FIRST),
        setup.pki.device_at("stolen", FIRST),
    );
    let list = List {
        revoked: &[&stolen],
        point: Some(FIRST),
        users_only: true,
        ..List::default()
    };
    let crl = setup.pki.list("crl.pem", &list);
    let gateway = setup.set("FOREBAY_TLS_CRL", crl.display()).start();
    assert_accepted(&gateway, &device);
    assert_refused(&gateway, &stolen, "certificate revoked", 44);
}

#[test]
fn an_authority_that_is_taken_out_takes_its_connections_along() {
    let setup = Setup::new().without_limits();
    let other = setup.pki.other("other");
    let [own_ca, other_ca] = [setup.pki.ca(), other.ca()].map(|ca| fs::read(ca).expect("a file"));
    let both = [&own_ca[..], &other_ca].concat();
    let authorities = setup.pki.replace("clients.pem", &both);
    let gateway = setup
        .set("FOREBAY_TLS_CLIENT_CA", authorities.display())
        .start();
    let (stays, goes) = (gateway.device("stays"), other.device("goes"));
    let open = |device| {
        Protocol::ALL.map(|protocol| {
            let client = Client::open(protocol, &gateway, device);
            assert_eq!(client.send(&Ask::post("1")).status, 204, "{protocol}");
            client
        })
    };
    let (staying, going) = (open(&stays), open(&goes));
    let sessions = going.each_ref().map(|client| client.session());
    // One that says nothing is not kept either.
    let silent = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &goes));

    // The same authorities in another order are the same.
    let turned = [&other_ca[..], &own_ca].concat();
    gateway.pki.replace("clients.pem", &turned);
    eventually("a reload", || gateway.log().contains("CRLs reloaded"));
    for client in staying.iter().chain(&going) {
        assert_eq!(client.send(&Ask::post("1")).status, 204);
    }

    gateway.pki.replace("clients.pem", &own_ca);
    for client in going.iter().chain(&silent) {
        client.closed();
    }
    assert_refused(&gateway, &goes, "unknown ca", 48);
    for (protocol, session) in Protocol::ALL.into_iter().zip(sessions) {
        let quirks = Quirks {
            resumes: Some(session),
            ..Quirks::default()
        };
        let opened = Client::try_open(Via::Wire, protocol, &gateway, Some(&goes), quirks);
        let sent = opened.and_then(|client| {
            assert!(!client.is_resumed, "{protocol}");
            client.try_send(&Ask::post("1"))
        });
        assert!(sent.is_err(), "{protocol}");
    }
    for client in &staying {
        assert_eq!(client.send(&Ask::post("1")).status, 204);
    }
    assert_accepted(&gateway, &stays);
}

#[test]
fn a_list_that_expires_ends_no_live_connection() {
    let setup = Setup::new();
    let crl = setup.pki.revoke(&[]);
    let gateway = setup.set("FOREBAY_TLS_CRL", crl.display()).start();
    let device = gateway.device("plc-1");
    let live = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    gateway.pki.outdated_crl();
    eventually("a reload", || gateway.log().contains("CRLs reloaded"));
    assert_refused(&gateway, &device, "access denied", 49);
    for client in &live {
        assert_eq!(client.send(&Ask::post("1")).status, 204);
    }
}

/// An intermediate that is held to DNS names behaves as docs/security.md says.
#[test]
fn an_authority_that_is_held_to_dns_names_may_issue_any_other_name() {
    const DOMAIN: &str = "plant.example";
    let gateway = Setup::new().start();
    for (source, name) in [
        ("san-uri", "urn:other:press"),
        ("cn", "press.other.example"),
    ] {
        let device = gateway.pki.device_below_constrained(DOMAIN, source, name);
        assert_accepted(&gateway, &device);
        let lines = gateway.files("telemetry");
        let named = lines.iter().filter(|line| line.text("device") == name);
        assert_eq!(named.count(), Protocol::ALL.len());
    }

    let gateway = Setup::new().set("FOREBAY_DEVICE_ID", "san-dns").start();
    let below = |source, name| gateway.pki.device_below_constrained(DOMAIN, source, name);
    assert_accepted(&gateway, &below("san-dns", "press.plant.example"));
    let outside = below("san-dns", "press.other.example");
    let (by_uri, by_name) = (below("san-uri", "urn:other:press"), below("cn", "press"));
    for protocol in Protocol::ALL {
        let refused = post(protocol, &gateway, &outside);
        assert!(refused.is_err(), "{protocol}: {refused:?}");
        for device in [&by_uri, &by_name] {
            assert_eq!(post(protocol, &gateway, device), Ok(403), "{protocol}");
        }
    }
}

#[test]
fn a_certificate_that_names_no_usage_is_let_in() {
    let gateway = Setup::new().start();
    assert_accepted(&gateway, &gateway.pki.without_usage("plc-1"));
    assert_refused(
        &gateway,
        &gateway.pki.wrong_usage(),
        "unsupported certificate",
        43,
    );
}
