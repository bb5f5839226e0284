//! Revocation, and files that are changed while the gateway runs: who is revoked is out within seconds, on whatever
//! connection, and nobody else notices anything.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::client::Quirks;
use crate::harness::load::Outcome;
use crate::harness::{Ask, Client, Gateway, Load, Protocol, Setup, Via, eventually};
use crate::pki::Identity;

/// From the change of the list to the end of the connections.
const CUT_WITHIN: Duration = Duration::from_secs(5);

const FAILURES: &str = "forebay_tls_reload_failures_total";

/// A gateway with a list of nobody.
fn setup() -> Setup {
    let setup = Setup::new().without_limits();
    let crl = setup.pki.revoke(&[]);
    setup.set("FOREBAY_TLS_CRL", crl.display())
}

fn open(
    protocol: Protocol,
    gateway: &Gateway,
    device: &Identity,
    quirks: Quirks,
) -> Result<Client, String> {
    Client::try_open(Via::Wire, protocol, gateway, Some(device), quirks)
}

/// Returns the error that a client gets instead of a connection.
fn refusal(protocol: Protocol, gateway: &Gateway, device: &Identity) -> String {
    match open(protocol, gateway, device, Quirks::default()) {
        Ok(client) => client.closed().to_lowercase(),
        Err(error) => error.to_lowercase(),
    }
}

fn is_refused_as(protocol: Protocol, said: &str, openssl: &str, alert: u16) -> bool {
    let expected = if protocol == Protocol::H3 {
        format!("close {} ", 0x100 + alert)
    } else {
        openssl.to_owned()
    };
    said.contains(&expected)
}

fn assert_revoked(gateway: &Gateway, device: &Identity) {
    for protocol in Protocol::ALL {
        let said = refusal(protocol, gateway, device);
        assert!(
            is_refused_as(protocol, &said, "certificate revoked", 44),
            "{protocol}: {said}"
        );
    }
}

fn assert_accepted(gateway: &Gateway, device: &Identity) {
    for protocol in Protocol::ALL {
        assert_eq!(
            Client::open(protocol, gateway, device)
                .send(&Ask::post("1"))
                .status,
            204,
            "{protocol}"
        );
    }
}

fn wait_for_log(gateway: &Gateway, text: &str) {
    eventually(text, || gateway.log().contains(text));
}

#[test]
fn a_revoked_device_is_cut_off_and_nobody_else_is() {
    let gateway = setup().start();
    let (good, stolen) = (gateway.device("good"), gateway.device("stolen"));
    let others = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &good));
    let load = Load::start("other", &others, 0);
    let live = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &stolen));
    live.iter()
        .for_each(|client| assert_eq!(client.send(&Ask::post("1")).status, 204));
    let busy = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &stolen));
    let held = busy
        .each_ref()
        .map(|client| client.hold(&Ask::post("be").declaring(6)));
    eventually("three bodies on their way", || {
        gateway.metric("forebay_admission_bytes") >= 3.0 * 1024.0
    });

    let revoked_at = Instant::now();
    gateway.pki.revoke(&[&stolen]);
    // A new connection is refused by then, too; it is let in until the list is read, and may then be cut in mid-request.
    let refusals = || gateway.metric("forebay_tls_handshakes_total{result=\"revoked\"}");
    eventually("a refusal", || {
        let _ = refusal_or_reply(&gateway, &stolen);
        refusals() >= 1.0
    });
    let refused_after = revoked_at.elapsed();
    assert!(
        refused_after < CUT_WITHIN,
        "refused after {refused_after:?}"
    );
    let ended = live.iter().map(|client| (client.protocol, client.closed()));
    // The cut interrupts what is under way, and leaves it without an answer.
    let cut = held
        .into_iter()
        .zip(Protocol::ALL)
        .map(|(held, protocol)| (protocol, held.wait().expect_err("a cut")));
    for (protocol, how) in ended.chain(cut) {
        assert!(
            revoked_at.elapsed() < CUT_WITHIN,
            "{protocol}: {how} after {:?}",
            revoked_at.elapsed()
        );
    }
    println!(
        "a new connection was refused after {refused_after:?}, live ones had ended after {:?}",
        revoked_at.elapsed()
    );
    assert_eq!(live[1].closed(), "goaway 0");
    assert_eq!(live[2].closed(), format!("close {} ", 0x100));
    assert_revoked(&gateway, &stolen);
    eventually("four refusals", || refusals() >= 4.0);

    let before = load.seen(204);
    load.wait_for(204, before + 30);
    let outcomes = load.stop();
    assert!(
        outcomes
            .senders
            .iter()
            .flatten()
            .all(|outcome| *outcome == Outcome::Status(204))
    );
}

/// The promise holds for the list of a large fleet as well, and what it takes to read one is given back.
#[test]
fn a_list_of_a_million_is_in_force_in_time() {
    const ENTRIES: u32 = 1_000_000;
    /// A million numbers of 16 bytes have 16 MB.
    const GROWTH_BYTES_MAX: u64 = 32 << 20;
    // Otherwise the allocator gives back what was freed when it has something else to do.
    let gateway = setup().set("MIMALLOC_PURGE_DELAY", "0").start();
    let (good, stolen) = (gateway.device("good"), gateway.device("stolen"));
    let live = [&good, &stolen].map(|device| Client::open(Protocol::H2, &gateway, device));
    live.iter()
        .for_each(|client| assert_eq!(client.send(&Ask::post("1")).status, 204));
    let before = gateway.memory("VmRSS");
    gateway.pki.revoke_many(&[&stolen], ENTRIES);
    let revoked_at = Instant::now();
    live[1].closed();
    let after = revoked_at.elapsed();
    assert!(after < CUT_WITHIN, "{after:?}");
    assert_revoked(&gateway, &stolen);
    assert_accepted(&gateway, &good);
    assert_eq!(live[0].send(&Ask::post("1")).status, 204);
    let grown = || gateway.memory("VmRSS").saturating_sub(before);
    eventually("memory that is given back", || {
        eprintln!("GROWN {}", grown() >> 20);
        grown() < GROWTH_BYTES_MAX
    });
    let most = gateway.memory("VmHWM").saturating_sub(before);
    println!(
        "cut after {after:?}; grown by {} MiB, by {} MiB while reading",
        grown() >> 20,
        most >> 20
    );
}

/// rustls does not ask the verifier about a resumed session.
#[test]
fn a_revoked_device_resumes_no_session() {
    let gateway = setup().start();
    let stolen = gateway.device("stolen");
    let ways = [
        (Protocol::H1, Some("1.2")),
        (Protocol::H2, Some("1.2")),
        (Protocol::H1, None),
        (Protocol::H2, None),
        (Protocol::H3, None),
    ];
    let first = ways.map(|(protocol, tls_max)| {
        let client = open(
            protocol,
            &gateway,
            &stolen,
            Quirks {
                tls_max,
                ..Quirks::default()
            },
        )
        .expect("a connection");
        assert_eq!(client.send(&Ask::post("1")).status, 204);
        client
    });
    let resume = |client: &Client, tls_max| {
        let quirks = Quirks {
            tls_max,
            resumes: Some(client.session()),
            ..Quirks::default()
        };
        let resumed = open(client.protocol, &gateway, &stolen, quirks).expect("a connection");
        assert!(resumed.is_resumed, "{} {tls_max:?}", client.protocol);
        resumed
    };
    for (client, (_, tls_max)) in first.iter().zip(ways) {
        assert_eq!(resume(client, tls_max).send(&Ask::post("1")).status, 204);
    }
    let revoked_at = Instant::now();
    gateway.pki.revoke(&[&stolen]);
    wait_for_log(&gateway, "CRLs reloaded");
    println!(
        "in force for resumed sessions after {:?}",
        revoked_at.elapsed()
    );
    assert!(revoked_at.elapsed() < CUT_WITHIN);
    for (client, (protocol, tls_max)) in first.iter().zip(ways) {
        let resumed = resume(client, tls_max);
        let reply = resumed.send(&Ask::post("1"));
        let code = reply.problem()["code"].clone();
        assert_eq!(
            (reply.status, code.as_str()),
            (403, Some("certificate-revoked")),
            "{protocol} {tls_max:?}"
        );
        let answered_at = Instant::now();
        resumed.closed();
        assert!(answered_at.elapsed() < CUT_WITHIN);
        // One that says nothing is not kept either.
        resume(client, tls_max).closed();
    }
    assert_eq!(gateway.files("telemetry").len(), 2 * ways.len());
}

#[test]
fn an_authority_that_is_revoked_vouches_for_nobody() {
    let setup = setup();
    let sent = setup.pki.device_below_intermediate("below-unknown");
    let (intermediate, device) = setup.pki.with_known_intermediate("below-known");
    let dir = intermediate.cert.parent().expect("a folder");
    let crls = format!(
        "{},{}",
        dir.join("crl.pem").display(),
        dir.join("intermediate.crl").display()
    );
    let gateway = setup.set("FOREBAY_TLS_CRL", crls).start();
    assert_accepted(&gateway, &device);
    let live = Client::open(Protocol::H2, &gateway, &device);
    assert_eq!(live.send(&Ask::post("1")).status, 204);
    // Both intermediates bear one name: the known one's list is not about the other, but nobody could tell.
    assert_accepted(&gateway, &sent);
    gateway.pki.revoke(&[&intermediate]);
    live.closed();
    assert_revoked(&gateway, &device);
    assert_accepted(&gateway, &gateway.device("beside"));
}

/// A device that brings its intermediate authority along, which the root has revoked.
#[test]
fn the_whole_chain_is_asked_about() {
    let setup = setup().set("FOREBAY_TLS_CRL_STRICT", false);
    let device = setup.pki.device_below_intermediate("below");
    let gateway = setup.start();
    assert_accepted(&gateway, &device);
    let live = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    live.iter()
        .for_each(|client| assert_eq!(client.send(&Ask::post("1")).status, 204));
    gateway.pki.revoke(&[&device.issuer()]);
    live.iter().for_each(|client| drop(client.closed()));
    assert_revoked(&gateway, &device);
}

#[test]
fn who_has_no_list_or_an_old_one_is_refused_unless_told_otherwise() {
    let setup = setup();
    setup.pki.outdated_crl();
    let gateway = setup.start();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let said = refusal(protocol, &gateway, &device);
        assert!(
            is_refused_as(protocol, &said, "access denied", 49),
            "{protocol}: {said}"
        );
    }
    gateway.pki.revoke(&[]);
    wait_for_log(&gateway, "CRLs reloaded");
    assert_accepted(&gateway, &device);
    let below = gateway.pki.device_below_intermediate("below");
    let said = refusal(Protocol::H1, &gateway, &below);
    assert!(
        said.contains("access denied"),
        "its issuer has no list: {said}"
    );

    let setup = self::setup().set("FOREBAY_TLS_CRL_STRICT", false);
    setup.pki.outdated_crl();
    let gateway = setup.start();
    assert_accepted(&gateway, &gateway.device("plc-1"));
    assert_accepted(&gateway, &gateway.pki.device_below_intermediate("below"));
}

#[test]
fn a_list_that_cannot_be_used_leaves_the_last_good_one_in_force() {
    let gateway = setup().start();
    let (good, stolen) = (gateway.device("good"), gateway.device("stolen"));
    let live = Client::open(Protocol::H2, &gateway, &good);
    gateway.pki.revoke(&[&stolen]);
    wait_for_log(&gateway, "CRLs reloaded");
    let series = format!("{FAILURES}{{what=\"crl\"}}");
    let strangers = ["stranger", "root"]
        .map(|name| fs::read(gateway.pki.other(name).revoke(&[])).expect("a file"));
    let [unknown_issuer, forged] = &strangers;
    for (count, bad) in [
        (1.0, &b"garbage"[..]),
        (2.0, &[0x30, 0x80]),
        (3.0, unknown_issuer),
        (4.0, forged),
    ] {
        gateway.pki.replace("crl.pem", bad);
        eventually("a failure", || gateway.metric(&series) == count);
        assert_revoked(&gateway, &stolen);
    }
    fs::remove_file(gateway.pki.ca().with_file_name("crl.pem")).expect("the list was there");
    eventually("a failure", || gateway.metric(&series) == 5.0);
    assert_revoked(&gateway, &stolen);
    assert_eq!(live.send(&Ask::post("1")).status, 204);
    gateway.pki.revoke(&[]);
    eventually("the good list", || {
        refusal_or_reply(&gateway, &stolen) == Ok(204)
    });
}

fn refusal_or_reply(gateway: &Gateway, device: &Identity) -> Result<u16, String> {
    let client = open(Protocol::H1, gateway, device, Quirks::default())?;
    Ok(client.try_send(&Ask::post("1"))?.status)
}

#[test]
fn garbage_at_start_is_an_error() {
    let setup = setup();
    setup.pki.replace("crl.pem", b"garbage");
    let output = setup.run(&["serve"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("FOREBAY_TLS_CRL"),
        "{said}"
    );
}

/// In its place at once, or first the certificate and then the key: a pair that does not match is not used.
#[test]
fn the_servers_certificate_is_replaced_while_connections_live() {
    let gateway = Setup::new().start();
    let device = gateway.device("plc-1");
    let live = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    let new_name = Quirks {
        host: Some("new.localhost"),
        ..Quirks::default()
    };
    assert!(
        open(Protocol::H1, &gateway, &device, new_name).is_err(),
        "the old certificate has another name"
    );
    let renewed = gateway.pki.renewed_server("new.localhost");
    gateway
        .pki
        .replace("server.pem", &fs::read(&renewed.cert).expect("a file"));
    eventually("a failure", || {
        gateway.metric(&format!("{FAILURES}{{what=\"certificate\"}}")) == 1.0
    });
    assert_accepted(&gateway, &device);
    gateway
        .pki
        .replace("server.key", &fs::read(&renewed.key).expect("a file"));
    wait_for_log(&gateway, "server certificate reloaded");
    for protocol in Protocol::ALL {
        let client = open(protocol, &gateway, &device, new_name).expect("the new certificate");
        assert_eq!(
            client.send(&Ask::post("1")).status,
            204,
            "{protocol}: the authority follows the certificate"
        );
    }
    live.iter()
        .for_each(|client| assert_eq!(client.send(&Ask::post("1")).status, 204));
}

#[test]
fn no_session_is_resumed_across_a_change_of_authorities() {
    let setup = Setup::new();
    let authorities = setup
        .pki
        .replace("clients.pem", &fs::read(setup.pki.ca()).expect("a file"));
    let gateway = setup
        .set("FOREBAY_TLS_CLIENT_CA", authorities.display())
        .start();
    let (device, other) = (gateway.device("plc-1"), gateway.pki.other("other root"));
    let live = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    live.iter()
        .for_each(|client| assert_eq!(client.send(&Ask::post("1")).status, 204));
    let resume = |client: &Client| {
        let quirks = Quirks {
            resumes: Some(client.session()),
            ..Quirks::default()
        };
        open(client.protocol, &gateway, &device, quirks)
    };
    live.iter()
        .for_each(|client| assert!(resume(client).expect("a connection").is_resumed));
    gateway
        .pki
        .replace("clients.pem", &fs::read(other.ca()).expect("a file"));
    wait_for_log(&gateway, "CRLs reloaded");
    for client in &live {
        // Not resumed, the device has to show its certificate, and nobody knows its authority any more.
        let closed = |resumed: Client| {
            assert!(!resumed.is_resumed, "{}", client.protocol);
            resumed.closed()
        };
        let said = resume(client)
            .map_or_else(|error| error, closed)
            .to_lowercase();
        assert!(
            is_refused_as(client.protocol, &said, "unknown ca", 48),
            "{}: {said}",
            client.protocol
        );
        client.closed();
    }
    assert_accepted(&gateway, &other.device("plc-2"));
}

/// A second's look is not waited for; connections live on.
#[test]
fn sighup_reads_the_files_at_once() {
    let gateway = setup().start();
    let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
    gateway.signal(libc::SIGHUP);
    wait_for_log(&gateway, "server certificate reloaded");
    wait_for_log(&gateway, "CRLs reloaded");
    assert_eq!(client.send(&Ask::post("1")).status, 204);
}

#[test]
fn a_device_is_told_that_its_certificate_expires() {
    const DAY: u64 = 86_400;
    const COUNTER: &str = "forebay_identity_certificates_expiring_total";
    let gateway = Setup::new().set("FOREBAY_EXPIRY_NOTICE", "20d").start();
    let (soon, later) = (
        gateway.pki.expiring("soon", 19 * DAY),
        gateway.pki.expiring("later", 21 * DAY),
    );
    for (count, protocol) in (1..).zip(Protocol::ALL) {
        let client = Client::open(protocol, &gateway, &soon);
        for _ in 0..2 {
            let reply = client.send(&Ask::post("1"));
            let expires = reply
                .header("forebay-certificate-expires")
                .expect("a notice");
            let expires = httpdate::parse_http_date(expires).expect("an HTTP-date");
            let left = expires
                .duration_since(std::time::SystemTime::now())
                .expect("it is to come")
                .as_secs();
            assert!(
                (18 * DAY..=19 * DAY).contains(&left),
                "{protocol}: {left} s"
            );
        }
        let refused = client.send(&Ask::post("1").to("/"));
        assert_eq!(
            refused.header("forebay-certificate-expires"),
            None,
            "{protocol}"
        );
        assert_eq!(gateway.metric(COUNTER), f64::from(count), "{protocol}");
        let reply = Client::open(protocol, &gateway, &later).send(&Ask::post("1"));
        assert_eq!(
            reply.header("forebay-certificate-expires"),
            None,
            "{protocol}"
        );
    }
    assert_eq!(gateway.metric(COUNTER), 3.0);
}
