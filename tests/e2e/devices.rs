//! The devices file: who is denied is out within seconds, on whatever connection; who is pinned is in, whoever signed its
//! certificate; and nobody else notices anything.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;

use crate::audit::lines;
use crate::harness::client::Quirks;
use crate::harness::load::Outcome;
use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Ask, Client, Gateway, Load, Protocol, Reply, Setup, Via, eventually};
use crate::pki::Identity;

/// From the change of the file to the end of the connections.
const CUT_WITHIN: Duration = Duration::from_secs(5);

const DENIED: &str = "forebay_identity_devices_denied_total";
const FAILURES: &str = "forebay_tls_reload_failures_total{what=\"devices\"}";

/// Each protocol, with every version of TLS that it has.
const WAYS: [(Protocol, Option<&str>); 5] = [
    (Protocol::H1, Some("1.2")),
    (Protocol::H2, Some("1.2")),
    (Protocol::H1, None),
    (Protocol::H2, None),
    (Protocol::H3, None),
];

/// A gateway's setup with a devices file of this text.
fn setup(text: &str) -> (Setup, DevicesFile) {
    let setup = Setup::new().without_limits();
    let file = DevicesFile(setup.path("devices"));
    file.write(text);
    let audit = setup.path("audit.log");
    let setup = setup
        .set("FOREBAY_DEVICES_FILE", file.0.display())
        .set("FOREBAY_AUDIT_LOG", audit.display());
    (setup, file)
}

struct DevicesFile(PathBuf);

impl DevicesFile {
    /// Puts another file in its place.
    fn write(&self, text: &str) {
        let new = self.0.with_extension("new");
        fs::write(&new, text).expect("a file");
        fs::rename(&new, &self.0).expect("a file");
    }

    /// The same, until it is in force; asserts that this does not take too long.
    fn change(&self, gateway: &Gateway, text: &str) {
        let reloads = || lines(&gateway.path("audit.log"), "devices-reloaded").len();
        let before = reloads();
        self.write(text);
        let written_at = Instant::now();
        eventually("the file in force", || reloads() > before);
        assert!(written_at.elapsed() < CUT_WITHIN);
    }
}

fn open(
    protocol: Protocol,
    gateway: &Gateway,
    device: &Identity,
    quirks: Quirks,
) -> Result<Client, String> {
    Client::try_open(Via::Wire, protocol, gateway, Some(device), quirks)
}

fn quirks(tls_max: Option<&'static str>, resumes: Option<&Client>) -> Quirks {
    Quirks {
        tls_max,
        resumes: resumes.map(Client::session),
        ..Quirks::default()
    }
}

fn post(gateway: &Gateway, protocol: Protocol, device: &Identity) -> Reply {
    Client::open(protocol, gateway, device).send(&Ask::post("1"))
}

fn code(reply: &Reply) -> (u16, String) {
    let code = reply.problem()["code"].clone();
    (reply.status, code.as_str().unwrap_or_default().to_owned())
}

fn assert_denied(gateway: &Gateway, device: &Identity) {
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, gateway, device);
        let reply = client.send(&Ask::post("1"));
        assert_eq!(code(&reply), (403, "device-denied".into()), "{protocol}");
        client.closed();
    }
}

/// Asserts that a client whose certificate nobody vouches for gets `unknown_ca`.
fn assert_unknown(gateway: &Gateway, device: &Identity) {
    for (protocol, tls_max) in WAYS {
        let said = match open(protocol, gateway, device, quirks(tls_max, None)) {
            Ok(client) => client.closed(),
            Err(error) => error,
        };
        let expected = match protocol {
            Protocol::H3 => "close 304 ", // 0x100 + unknown_ca
            _ => "unknown ca",
        };
        let said = said.to_lowercase();
        assert!(said.contains(expected), "{protocol} {tls_max:?}: {said}");
    }
}

#[test]
fn a_denied_device_is_cut_off_and_nobody_else_is() {
    let (setup, file) = setup("# nobody is denied\n");
    let gateway = setup.start();
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

    let denied_at = Instant::now();
    file.write("deny stolen # since Monday\n");
    let ended = live.iter().map(|client| (client.protocol, client.closed()));
    // The cut interrupts what is under way, and leaves it without an answer.
    let cut = held
        .into_iter()
        .zip(Protocol::ALL)
        .map(|(held, protocol)| (protocol, held.wait().expect_err("a cut")));
    for (protocol, how) in ended.chain(cut) {
        let after = denied_at.elapsed();
        assert!(after < CUT_WITHIN, "{protocol}: {how} after {after:?}");
    }
    println!("live connections had ended after {:?}", denied_at.elapsed());
    let audit = gateway.path("audit.log");
    let cuts = lines(&audit, "device-cut");
    assert_eq!(cuts.len(), 6, "{cuts:?}");
    assert!(
        cuts.iter()
            .all(|line| line["device"] == "stolen" && line["reason"] == "denied"),
        "{cuts:?}"
    );
    assert_eq!(gateway.metric(DENIED), 0.0, "a cut is no knock");
    assert_denied(&gateway, &stolen);
    eventually("three knocks", || gateway.metric(DENIED) == 3.0);
    eventually("three lines", || lines(&audit, "device-denied").len() == 3);
    assert_eq!(lines(&audit, "device-denied")[0]["device"], "stolen");
    assert_eq!(lines(&audit, "device-cut").len(), 6, "a knock is no cut");

    // One that says nothing is not kept either, and nobody is told why.
    let silent = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &stolen));
    silent.iter().for_each(|client| drop(client.closed()));
    assert_eq!(gateway.metric(DENIED), 3.0);

    file.change(&gateway, "allow stolen\n");
    for protocol in Protocol::ALL {
        assert_eq!(post(&gateway, protocol, &stolen).status, 204);
    }
    let before = load.seen(204);
    load.wait_for(204, before + 30);
    let outcomes = load.stop();
    let is_accepted = |outcome: &Outcome| *outcome == Outcome::Status(204);
    assert!(outcomes.senders.iter().flatten().all(is_accepted));
}

/// A connection that asks while it is being cut is told why.
#[test]
fn a_denied_device_is_told_so_in_mid_stream() {
    let (setup, file) = setup("");
    let gateway = setup.start();
    let stolen = gateway.device("stolen");
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &stolen));
    let load = Load::start("stolen", &clients, 0);
    load.wait_for(204, 30);
    file.write("deny stolen\n");
    let open = |protocol: Protocol| {
        gateway.metric(&format!(
            "forebay_http_connections{{protocol=\"{protocol}\"}}"
        ))
    };
    eventually("the end of the connections", || {
        Protocol::ALL.map(open) == [0.0; 3]
    });
    for sent in load.stop().senders {
        let accepted = sent
            .iter()
            .take_while(|outcome| **outcome == Outcome::Status(204))
            .count();
        let rest = &sent[accepted..];
        let is_refusal =
            |outcome: &Outcome| matches!(outcome, Outcome::Status(403) | Outcome::Broken(_));
        assert!(rest.iter().all(is_refusal), "{rest:?}");
    }
}

#[test]
fn a_list_of_those_who_may_speak_shuts_everybody_else_out() {
    let text = "allow plant-* streams=alarms\nallow press-7\ndefault deny\n";
    let (setup, file) = setup(text);
    let gateway = setup
        .set("FOREBAY_STREAMS", "telemetry,alarms")
        .set("FOREBAY_STREAM_ACCESS", "telemetry:*")
        .start();
    let [plant, press, other] = ["plant-1", "press-7", "other"].map(|id| gateway.device(id));
    let alarms = Ask::post("1").to("/v1/streams/alarms");
    for protocol in Protocol::ALL {
        let plant = Client::open(protocol, &gateway, &plant);
        assert_eq!(plant.send(&alarms).status, 204);
        let forbidden = plant.send(&Ask::post("1"));
        assert_eq!(code(&forbidden), (403, "stream-forbidden".into()));
        // The environment gives what the line leaves out.
        let press = Client::open(protocol, &gateway, &press);
        assert_eq!(press.send(&Ask::post("1")).status, 204);
        assert_eq!(press.send(&alarms).status, 403);
    }
    assert_denied(&gateway, &other);

    // The device is told on the connection that it has.
    let live = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &plant));
    live.iter()
        .for_each(|client| assert_eq!(client.send(&alarms).status, 204));
    file.change(&gateway, "allow plant-* streams=telemetry\ndefault deny\n");
    for client in &live {
        eventually("the other stream", || {
            client.send(&Ask::post("1")).status == 204
        });
        assert_eq!(client.send(&alarms).status, 403);
    }
    assert_denied(&gateway, &press);
}

#[test]
fn rates_of_a_line_hold_in_the_place_of_classes_also_on_live_connections() {
    let slow = "allow meter-1 rate=0.01/2 bytes=1B/100B\n";
    let (setup, file) = setup(slow);
    let gateway = setup
        .set("FOREBAY_DEVICE_CLASSES", "meter-*=0.01/5")
        .start();
    let sent = |client: &Client, bytes: usize| code(&client.send(&Ask::post("1".repeat(bytes)))).1;
    for protocol in Protocol::ALL {
        // A new device each time, so that its buckets are full.
        let id = format!("meter-{protocol}");
        file.change(&gateway, &slow.replace("meter-1", &id));
        let device = gateway.device(&id);
        let client = Client::open(protocol, &gateway, &device);
        assert_eq!(sent(&client, 1), "");
        assert_eq!(sent(&client, 1), "");
        assert_eq!(sent(&client, 1), "rate-limited");
        file.change(&gateway, "# as the environment says\n");
        // Three of the class's five are left.
        eventually("the class", || sent(&client, 101).is_empty());
        assert_eq!(sent(&client, 1), "");
        assert_eq!(sent(&client, 1), "");
        assert_eq!(sent(&client, 1), "rate-limited");
        file.change(&gateway, &format!("allow {id} rate=0/0\n"));
        eventually("no limit", || sent(&client, 1).is_empty());
        for _ in 0..10 {
            assert_eq!(sent(&client, 1), "");
        }
        file.change(&gateway, &format!("allow {id} rate=0/0 bytes=1B/100B\n"));
        let other = Client::open(protocol, &gateway, &device);
        assert_eq!(sent(&other, 101), "body-too-large");
    }
}

#[test]
fn a_pinned_certificate_is_its_device_whoever_signed_it() {
    let (setup, file) = setup("");
    let pki = setup.pki.clone();
    let machine = pki.self_made("machine");
    let foreign = pki.other("another root").device("their-name");
    let own = pki.device("own-name");
    let expired = pki.self_made_expired("expired");
    let pins = [
        (&machine, "press-7"),
        (&foreign, "press-8"),
        (&own, "press-9"),
        (&expired, "press-0"),
    ];
    let pins = pins.map(|(device, id)| format!("pin {} as={id}\n", device.fingerprint()));
    file.write(&(pins.concat() + "allow press-8 streams=telemetry\n"));
    let gateway = setup.start();
    for device in [&machine, &foreign, &own] {
        for (protocol, tls_max) in WAYS {
            let client = open(protocol, &gateway, device, quirks(tls_max, None));
            let client = client.expect("a connection");
            assert_eq!(client.send(&Ask::post("1")).status, 204, "{protocol}");
        }
    }
    let written = gateway.files("telemetry");
    for id in ["press-7", "press-8", "press-9"] {
        let of_device = written.iter().filter(|line| line.text("device") == id);
        assert_eq!(of_device.count(), WAYS.len(), "{id}");
    }
    // The certificate is pinned, not its key, nor its authority.
    assert_unknown(&gateway, &machine.twin());
    assert_unknown(
        &gateway,
        &gateway.pki.other("another root").device("their-name"),
    );
    for (protocol, tls_max) in WAYS {
        let refused = match open(protocol, &gateway, &expired, quirks(tls_max, None)) {
            Ok(client) => client.closed(),
            Err(error) => error,
        };
        let expected = match protocol {
            Protocol::H3 => "close 301 ", // 0x100 + certificate_expired
            _ => "expired",
        };
        assert!(refused.to_lowercase().contains(expected), "{refused}");
    }
    // A pin is no permission.
    file.change(&gateway, &(pins.concat() + "deny press-*\n"));
    assert_denied(&gateway, &machine);
    // A device without a pin goes by the name in its certificate.
    file.change(&gateway, "");
    assert_unknown(&gateway, &machine);
    assert_eq!(post(&gateway, Protocol::H2, &own).status, 204);
    let last = gateway.files("telemetry");
    assert_eq!(last.last().expect("a line").text("device"), "own-name");
}

/// Notes of how many authorities a client is told, and sends no certificate.
#[derive(Debug)]
struct Told(AtomicUsize);

impl ResolvesClientCert for Told {
    fn resolve(&self, authorities: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(authorities.len(), Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Some clients send no certificate of an authority that is not in the list (Go's, for one).
#[test]
fn clients_are_told_no_authorities_where_certificates_are_pinned() {
    let (setup, file) = setup("");
    let machine = setup.pki.self_made("machine");
    let gateway = setup.start();
    let told = || {
        let told = Arc::new(Told(AtomicUsize::new(usize::MAX)));
        let mut config = Arc::unwrap_or_clone(tls(&gateway, None, "http/1.1"));
        config.client_auth_cert_resolver = told.clone();
        // It is refused, in TLS 1.3 only after its own end of the handshake.
        let _ = block_on(Raw::open(gateway.address, config.into()));
        told.0.load(Ordering::Relaxed)
    };
    assert_eq!(told(), 1);
    file.change(
        &gateway,
        &format!("pin {} as=press-7\n", machine.fingerprint()),
    );
    assert_eq!(told(), 0);
}

/// rustls does not ask the verifier about a resumed session.
#[test]
fn a_device_that_is_denied_or_pinned_no_more_resumes_no_session() {
    let (setup, file) = setup("");
    let pki = setup.pki.clone();
    // Called as the authority of the bundle: only signatures tell them apart.
    let namesake = pki.other("root");
    let [gone, renamed] = ["gone", "renamed"].map(|id| namesake.device(id));
    let denied = pki.device("denied");
    let pin = |device: &Identity, id: &str| format!("pin {} as={id}\n", device.fingerprint());
    file.write(&(pin(&gone, "press-7") + &pin(&renamed, "press-8")));
    let gateway = setup.start();
    let devices = [&gone, &renamed, &denied];
    let first = devices.map(|device| {
        WAYS.map(|(protocol, tls_max)| {
            let client = open(protocol, &gateway, device, quirks(tls_max, None));
            let client = client.expect("a connection");
            assert_eq!(client.send(&Ask::post("1")).status, 204);
            let resumed = open(protocol, &gateway, device, quirks(tls_max, Some(&client)));
            let resumed = resumed.expect("a connection");
            assert!(resumed.is_resumed, "{protocol} {tls_max:?}");
            assert_eq!(resumed.send(&Ask::post("1")).status, 204);
            client
        })
    });
    file.change(&gateway, &(pin(&renamed, "press-9") + "deny denied\n"));
    let [gone_before, renamed_before, denied_before] = &first;
    for (client, (protocol, tls_max)) in gone_before.iter().zip(WAYS) {
        client.closed();
        let said = match open(protocol, &gateway, &gone, quirks(tls_max, Some(client))) {
            Ok(resumed) => {
                assert!(!resumed.is_resumed, "{protocol} {tls_max:?}");
                resumed.closed()
            }
            Err(error) => error,
        };
        let said = said.to_lowercase();
        let is_unknown = said.contains("unknown ca") || said.contains("close 304 ");
        assert!(is_unknown, "{protocol} {tls_max:?}: {said}");
    }
    for (client, (protocol, tls_max)) in renamed_before.iter().zip(WAYS) {
        client.closed();
        let resumed = open(protocol, &gateway, &renamed, quirks(tls_max, Some(client)));
        let resumed = resumed.expect("a connection");
        assert!(!resumed.is_resumed, "{protocol} {tls_max:?}");
        assert_eq!(resumed.send(&Ask::post("1")).status, 204);
    }
    let written = gateway.files("telemetry");
    let renamed = written
        .iter()
        .filter(|line| line.text("device") == "press-9");
    assert_eq!(renamed.count(), WAYS.len());
    for (client, (protocol, tls_max)) in denied_before.iter().zip(WAYS) {
        client.closed();
        let resumed = open(protocol, &gateway, &denied, quirks(tls_max, Some(client)));
        let reply = resumed.expect("a connection").send(&Ask::post("1"));
        assert_eq!(
            code(&reply),
            (403, "device-denied".into()),
            "{protocol} {tls_max:?}"
        );
    }
    let cuts = lines(&gateway.path("audit.log"), "device-cut");
    let unpinned = cuts.iter().filter(|line| line["reason"] == "unpinned");
    // Resumed connections may have been closed by then.
    assert!(unpinned.count() >= 2 * WAYS.len(), "{cuts:?}");
}

/// A list says nothing about a certificate that its authority has not signed, and all about one that it has.
#[test]
fn a_list_of_its_own_authority_revokes_a_pinned_certificate() {
    let (setup, file) = setup("");
    let pki = setup.pki.clone();
    let crl = pki.revoke(&[]);
    let own = pki.device("own");
    let namesake = pki.other("root").with_serial_of(&own, "namesake");
    let machine = pki.self_made("machine");
    let pins = [&own, &namesake, &machine]
        .map(|device| format!("pin {} as=press\n", device.fingerprint()));
    file.write(&pins.concat());
    let gateway = setup.set("FOREBAY_TLS_CRL", crl.display()).start();
    let open_all =
        |device: &Identity| Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, device));
    let [live, others, machines] = [&own, &namesake, &machine].map(open_all);
    for client in live.iter().chain(&others).chain(&machines) {
        assert_eq!(client.send(&Ask::post("1")).status, 204);
    }
    gateway.pki.revoke(&[&own]);
    live.iter().for_each(|client| drop(client.closed()));
    for protocol in Protocol::ALL {
        let said = match open(protocol, &gateway, &own, Quirks::default()) {
            Ok(client) => client.closed(),
            Err(error) => error,
        };
        let said = said.to_lowercase();
        let is_revoked = said.contains("certificate revoked") || said.contains("close 300 ");
        assert!(is_revoked, "{protocol}: {said}");
    }
    // Strictness about lists is for chains: a pin has none.
    for client in others.iter().chain(&machines) {
        assert_eq!(client.send(&Ask::post("1")).status, 204);
    }
    for device in [&namesake, &machine] {
        assert_eq!(post(&gateway, Protocol::H2, device).status, 204);
    }
}

#[test]
fn a_faulty_file_keeps_the_last_good_one_in_force() {
    let (setup, file) = setup("deny stolen\n");
    let gateway = setup.start();
    let stolen = gateway.device("stolen");
    for (failures, text, says) in [
        (
            1.0,
            "allow stolen\nallow stolen\n",
            "line 2: \\\"stolen\\\" stands here again",
        ),
        (
            2.0,
            "allow stolen rat=5/20\n",
            "line 1: \\\"rat=5/20\\\" is no setting",
        ),
    ] {
        file.write(text);
        eventually("a failure", || gateway.metric(FAILURES) == failures);
        eventually(says, || gateway.log().contains(says));
        assert_denied(&gateway, &stolen);
    }
    fs::remove_file(&file.0).expect("a file");
    eventually("a third failure", || gateway.metric(FAILURES) == 3.0);
    assert_denied(&gateway, &stolen);
    // At SIGHUP the file is read at once, whether it has changed or not.
    gateway.signal(libc::SIGHUP);
    eventually("a fourth failure", || gateway.metric(FAILURES) == 4.0);
    file.change(&gateway, "allow stolen\n");
    assert_eq!(post(&gateway, Protocol::H1, &stolen).status, 204);
    let failed = lines(&gateway.path("audit.log"), "reload-failed");
    assert!(
        failed.iter().all(|line| line["what"] == "devices"),
        "{failed:?}"
    );
    assert_eq!(failed.len(), 4);
}

#[test]
fn a_gateway_does_not_start_with_a_faulty_file() {
    let (setup, file) = setup("deny stolen\n\nallow meter-* rate=5\n");
    for (text, says) in [
        (None, "line 3: \"rate=5\" is not rate/burst"),
        (Some("default deny\ndefault deny\n"), "line 2: \"default\""),
    ] {
        text.into_iter().for_each(|text| file.write(text));
        let output = setup.run(&["serve"]);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let file = file.0.display().to_string();
        for part in ["FOREBAY_DEVICES_FILE: ", &*file, says] {
            assert!(said.contains(part), "{part} in {said}");
        }
    }
}

/// The promise holds for the file of a large fleet as well, and what it takes to read one is given back.
#[test]
fn a_file_of_a_million_is_in_force_and_takes_little_memory() {
    const RULES: u32 = 1_000_000;
    const GROWTH_BYTES_MAX: u64 = 150 << 20;
    let (setup, file) = setup("");
    // Otherwise the allocator gives back what was freed when it has something else to do.
    let gateway = setup.set("MIMALLOC_PURGE_DELAY", "0").start();
    let (good, stolen) = (gateway.device("good"), gateway.device("stolen"));
    let live = [&good, &stolen].map(|device| Client::open(Protocol::H2, &gateway, device));
    live.iter()
        .for_each(|client| assert_eq!(client.send(&Ask::post("1")).status, 204));
    let before = gateway.memory("VmRSS");
    let others: String = (0..RULES - 2)
        .map(|number| format!("allow urn:example:plant:machine-{number:08} rate=5/20\n"))
        .collect();
    file.write(&(others + "deny stolen\nallow good\ndefault deny\n"));
    let denied_at = Instant::now();
    live[1].closed();
    let after = denied_at.elapsed();
    assert_denied(&gateway, &stolen);
    assert_denied(&gateway, &gateway.device("other"));
    assert_eq!(live[0].send(&Ask::post("1")).status, 204);
    let some = gateway.device("urn:example:plant:machine-00777777");
    assert_eq!(post(&gateway, Protocol::H3, &some).status, 204);
    let grown = || gateway.memory("VmRSS").saturating_sub(before);
    eventually("memory that is given back", || grown() < GROWTH_BYTES_MAX);
    let most = gateway.memory("VmHWM").saturating_sub(before);
    println!(
        "cut after {after:?}; grown by {} MiB, by {} MiB while reading",
        grown() >> 20,
        most >> 20
    );
    assert!(most < GROWTH_BYTES_MAX, "{most}");
}

/// An operator shuts a device out by one command.
#[test]
fn the_command_line_shuts_a_device_out_and_lets_it_in_again() {
    let text = "# the plant\nallow press-7  streams=alarms  # on trial\nallow press-*\n";
    let (setup, file) = setup(text);
    let setup = setup.set("FOREBAY_STREAMS", "telemetry,alarms");
    let path = file.0.to_str().expect("UTF-8").to_owned();
    let checked = |id: &str| setup.succeed(&["devices", "check", &path, id]);
    assert!(
        checked("press-7")
            .contains("press-7: allow rate=environment bytes=environment streams=alarms (line 2)")
    );
    assert!(checked("press-8").contains("(line 3)"));
    let beside = setup.path("beside");
    fs::write(&beside, "").expect("a file");
    let gateway = setup.start();
    let command = gateway.beside();
    let press = gateway.device("press-7");
    let live = Client::open(Protocol::H2, &gateway, &press);
    let alarm = Ask::post("1").to("/v1/streams/alarms");
    assert_eq!(live.send(&alarm).status, 204);

    let said = command.succeed(&["devices", "deny", "press-7", "--file", &path]);
    assert_eq!(said, format!("press-7 is denied in {path}\n"));
    live.closed();
    assert_denied(&gateway, &press);
    let denied = "# the plant\ndeny  press-7  # was: streams=alarms  # on trial\nallow press-*\n";
    assert_eq!(fs::read_to_string(&path).expect("the file"), denied);
    // Without --file it is the file of the environment.
    let said = command.succeed(&["devices", "deny", "press-7"]);
    assert_eq!(said, format!("press-7 was denied already in {path}\n"));
    command.succeed(&["devices", "allow", "press-7", "--file", &path]);
    assert_eq!(fs::read_to_string(&path).expect("the file"), text);
    eventually("the device", || post_alarm(&gateway, &press, &alarm) == 204);

    for (arguments, exit, says) in [
        (
            vec!["devices", "deny", "press-*", "--file", &path],
            2,
            "is no device id",
        ),
        (
            vec!["devices", "deny", "a", "--file", "/nowhere/devices"],
            1,
            "cannot read /nowhere/devices",
        ),
        (
            vec!["devices", "check", "/nowhere/devices"],
            2,
            "cannot read /nowhere/devices",
        ),
        (vec!["devices", "check", &path, "a b"], 2, "is no device id"),
    ] {
        let output = command.run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(exit), "{said}");
        assert!(said.contains(says), "{says} in {said}");
    }
    fs::write(&path, "deny b\npermit c\n").expect("a file");
    for arguments in [
        vec!["devices", "check", &path],
        vec!["devices", "deny", "a", "--file", &path],
    ] {
        let output = command.run(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("line 2: \"permit\" is none of"), "{said}");
    }
}

fn post_alarm(gateway: &Gateway, device: &Identity, alarm: &Ask) -> u16 {
    Client::open(Protocol::H1, gateway, device)
        .send(alarm)
        .status
}

#[test]
fn processes_that_edit_at_the_same_time_lose_nothing() {
    const PROCESSES: usize = 12;
    let (setup, file) = setup("# all of them\n");
    std::thread::scope(|scope| {
        for number in 0..PROCESSES {
            let setup = &setup;
            scope.spawn(move || setup.succeed(&["devices", "deny", &format!("press-{number}")]));
        }
    });
    let text = fs::read_to_string(&file.0).expect("the file");
    assert_eq!(text.lines().count(), 1 + PROCESSES, "{text}");
}
