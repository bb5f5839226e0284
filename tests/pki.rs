//! `forebay pki`, by the real program, judged by OpenSSL and by the room that reads device ids.

#[path = "support/program.rs"]
mod program;

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use forebay::internals::config::IdSource;
use forebay::internals::identity::Identity;
use forebay::internals::pki::{Authority, Days, Folder as PkiFolder};
use forebay::internals::record::DeviceId;
use program::Folder;
use proptest::prelude::*;
use x509_parser::pem::parse_x509_pem;

const VERIFY: &str = "openssl verify -x509_strict -CAfile my/ca.pem";

/// A folder with an authority in `my`.
fn authority() -> Folder {
    let folder = Folder::new();
    folder.succeed("forebay pki init --dir my");
    folder
}

fn der(pem: &[u8]) -> Vec<u8> {
    parse_x509_pem(pem).expect("PEM").1.contents
}

/// The id that the gateway reads by default.
fn id_in(file: &Path) -> String {
    let identity = Identity::new(vec![IdSource::SanUri, IdSource::SanDns, IdSource::Cn]);
    let pem = std::fs::read(file).expect("a certificate");
    identity
        .device(&der(&pem))
        .expect("an id")
        .id
        .as_str()
        .to_owned()
}

fn serial(folder: &Folder, certificate: &str) -> String {
    let line = folder.succeed(&format!("openssl x509 -noout -serial -in {certificate}"));
    line.trim()
        .strip_prefix("serial=")
        .expect("a serial number")
        .to_owned()
}

fn crl(folder: &Folder) -> String {
    folder.succeed("openssl crl -noout -text -CAfile my/ca.pem -in my/crl.pem")
}

/// Nothing of a file that cannot be read is said: it is a key.
#[test]
fn the_authoritys_key_is_not_shown_when_it_cannot_be_read() {
    let folder = authority();
    let key = String::from_utf8(folder.read("my/ca.key")).expect("PEM");
    let lines: Vec<&str> = key.lines().collect();
    for (says, damaged) in [
        ("no line breaks", key.replace('\n', "")),
        ("no line breaks", key.replace('\n', "\\n")),
        ("not PEM", key.replace("KEY-----", "KEY")),
        (
            "not PEM",
            key.replacen("-----BEGIN PRIVATE KEY-----", "", 1),
        ),
        ("not PEM", key.replace("END PRIVATE", "END EC PRIVATE")),
        ("byte order mark", format!("\u{feff}{key}")),
        ("is damaged", key.replace(&lines[1][..8], "AAAAAAAA")),
    ] {
        std::fs::write(folder.path("my/ca.key"), &damaged).expect("a file");
        let said = folder.fail("forebay pki device --dir my plc-7", 1);
        assert!(
            said.contains("my/ca.key") && said.contains(says),
            "{says}: {said}"
        );
        for line in &lines[1..lines.len() - 1] {
            let mut parts = line.as_bytes().chunks_exact(8);
            let is_hidden = |part| !said.contains(str::from_utf8(part).expect("base64"));
            assert!(parts.all(is_hidden), "{said}");
        }
    }
}

#[test]
fn openssl_accepts_servers_as_servers_and_devices_as_devices() {
    let folder = authority();
    folder.succeed("forebay pki server --dir my --name localhost --name 127.0.0.1 --name ::1 --name *.example.com");
    folder.succeed("forebay pki device --dir my plc-7");
    for name in [
        "-verify_hostname localhost",
        "-verify_hostname a.example.com",
        "-verify_ip 127.0.0.1",
        "-verify_ip ::1",
    ] {
        folder.succeed(&format!("{VERIFY} -purpose sslserver {name} my/server.pem"));
    }
    folder.fail(
        &format!("{VERIFY} -purpose sslserver -verify_hostname other.org my/server.pem"),
        2,
    );
    folder.succeed(&format!("{VERIFY} -purpose sslclient my/devices/plc-7.pem"));
    folder.fail(&format!("{VERIFY} -purpose sslclient my/server.pem"), 2);
    folder.fail(
        &format!("{VERIFY} -purpose sslserver my/devices/plc-7.pem"),
        2,
    );
}

/// Beside the other one: a gateway that serves modems which know no ECDSA has both.
#[test]
fn a_server_may_have_an_rsa_key_too() {
    let folder = authority();
    folder.succeed("forebay pki server --dir my --name localhost");
    let said = folder.succeed("forebay pki server --dir my --name localhost --key rsa2048");
    assert_eq!(said.trim(), "my/server-rsa.pem, my/server-rsa.key");
    folder.succeed(&format!(
        "{VERIFY} -purpose sslserver -verify_hostname localhost my/server-rsa.pem"
    ));
    let text = folder.succeed("openssl x509 -noout -text -in my/server-rsa.pem");
    assert!(text.contains("Public-Key: (2048 bit)"), "{text}");
    folder.fail(
        "forebay pki server --dir my --name localhost --key rsa1024",
        2,
    );
}

#[test]
fn an_authority_signs_certificates_and_crls_only() {
    let folder = authority();
    let text = folder.succeed("openssl x509 -noout -text -in my/ca.pem");
    assert!(
        text.contains("X509v3 Basic Constraints: critical\n                CA:TRUE, pathlen:0"),
        "{text}"
    );
    assert!(
        text.contains("X509v3 Key Usage: critical\n                Certificate Sign, CRL Sign"),
        "{text}"
    );
    folder.succeed("forebay pki init --dir named --name Plant");
    assert!(
        folder
            .succeed("openssl x509 -noout -subject -in named/ca.pem")
            .contains("CN = Plant")
    );
}

#[test]
fn revocation_adds_to_the_list_and_openssl_refuses() {
    let folder = authority();
    folder.succeed("forebay pki device --dir my a b c");
    let verify = |id: &str| format!("{VERIFY} -crl_check -CRLfile my/crl.pem my/devices/{id}.pem");
    for id in ["a", "b", "c"] {
        folder.succeed(&verify(id));
    }
    folder.succeed("forebay pki revoke --dir my a");
    let serials = [
        serial(&folder, "my/devices/a.pem"),
        serial(&folder, "my/devices/b.pem"),
    ];
    folder.succeed(&format!(
        "forebay pki revoke --dir my --serial {} --days 7",
        serials[1].to_lowercase()
    ));
    folder.succeed("forebay pki revoke --dir my a b");
    for id in ["a", "b"] {
        assert!(folder.fail(&verify(id), 2).contains("certificate revoked"));
    }
    folder.succeed(&verify("c"));
    folder.succeed("forebay pki crl --dir my");
    let crl = crl(&folder);
    assert!(
        crl.contains("verify OK") && crl.contains("CRL Number: \n                5"),
        "{crl}"
    );
    assert_eq!(crl.matches("Serial Number: ").count(), 2, "{crl}");
    assert!(
        serials
            .iter()
            .all(|serial| crl.contains(&format!("Serial Number: {serial}"))),
        "{crl}"
    );
}

#[test]
fn revocations_at_the_same_time_are_all_kept() {
    let folder = authority();
    std::thread::scope(|scope| {
        for number in 1..=16 {
            let folder = &folder;
            scope.spawn(move || {
                folder.succeed(&format!("forebay pki revoke --dir my --serial {number:x}"))
            });
        }
    });
    let crl = crl(&folder);
    assert_eq!(crl.matches("Serial Number: ").count(), 16, "{crl}");
    assert!(crl.contains("CRL Number: \n                17"), "{crl}");
}

#[test]
fn nothing_is_overwritten() {
    let folder = authority();
    let commands = [
        "pki init --dir my",
        "pki server --dir my --name localhost",
        "pki device --dir my plc-7",
    ];
    for command in &commands[1..] {
        folder.succeed(&format!("forebay {command}"));
    }
    let before = folder.files();
    for (command, file) in
        commands
            .iter()
            .zip(["my/ca.pem", "my/server.pem", "my/devices/plc-7.pem"])
    {
        let says = folder.fail(&format!("forebay {command}"), 1);
        assert!(
            says.contains(&format!("{file} exists already")) && says.contains("move it away"),
            "{says}"
        );
    }
    assert!(before == folder.files(), "a file has changed");
}

#[test]
fn a_key_alone_is_not_overwritten_either() {
    let folder = authority();
    for (file, command) in [
        ("my/server.key", "server --dir my --name a"),
        ("other/ca.key", "init --dir other"),
    ] {
        std::fs::create_dir_all(folder.path("other")).expect("a folder");
        std::fs::write(folder.path(file), "precious").expect("a file");
        let says = folder.fail(&format!("forebay pki {command}"), 1);
        assert!(says.contains(&format!("{file} exists already")), "{says}");
        assert_eq!(folder.read(file), b"precious");
    }
    assert!(!folder.path("my/server.pem").exists() && !folder.path("other/ca.pem").exists());
}

#[test]
fn keys_are_for_their_owner_whatever_the_umask() {
    let folder = Folder::new();
    let script = r#"umask 0 && "$0" pki init --dir my && "$0" pki server --dir my --name a && "$0" pki device --dir my b"#;
    let status = folder
        .command("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_forebay")])
        .status();
    assert!(status.expect("sh runs").success());
    let files = folder.files();
    let keys: Vec<_> = files
        .iter()
        .filter(|(path, _)| path.extension().is_some_and(|ending| ending == "key"))
        .collect();
    assert_eq!(keys.len(), 3);
    for (path, _) in keys {
        let mode = path.metadata().expect("a key").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
}

#[test]
fn a_fleet_grows_and_its_devices_keep_their_certificates() {
    let folder = authority();
    assert!(
        folder
            .succeed("forebay pki fleet --dir my --count 50")
            .contains("50 certificates and keys in my/devices")
    );
    let before = folder.files();
    let grown = folder.succeed("forebay pki fleet --dir my --count 60");
    assert!(
        grown.contains("10 certificates") && grown.contains("50 were there before"),
        "{grown}"
    );
    let after = folder.files();
    assert!(
        before.iter().all(|file| after.contains(file)),
        "a file has changed"
    );
    let serials: HashSet<String> = (1..=60)
        .map(|number| {
            let file = format!("my/devices/device-{number:06}.pem");
            assert_eq!(id_in(&folder.path(&file)), format!("device-{number:06}"));
            serial(&folder, &file)
        })
        .collect();
    assert_eq!(serials.len(), 60);
    folder.succeed(&format!(
        "{VERIFY} -purpose sslclient my/devices/device-000001.pem my/devices/device-000060.pem"
    ));
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_can() {
    let folder = authority();
    let long = "x".repeat(129);
    let before = folder.files();
    for (command, code, says) in [
        (
            "device --dir my *",
            2,
            "1 to 128 characters of A-Za-z0-9._:/@-",
        ),
        (
            &*format!("device --dir my {long}"),
            2,
            "1 to 128 characters",
        ),
        (
            "fleet --dir my --count 3 --prefix *",
            1,
            "1 to 128 characters",
        ),
        ("fleet --dir my --count 0", 2, "0 is not in 1..=1000000"),
        ("device --dir my a --days 0", 2, "0 is not in 1..=36500"),
        (
            "server --dir my --name under*score",
            2,
            "a DNS name, like ingest.example.com",
        ),
        ("server --dir my", 2, "--name"),
        ("revoke --dir my", 2, "--serial"),
        ("revoke --dir my --serial 0", 2, "1 to 20 bytes in hex"),
        ("revoke --dir my --serial +1", 2, "1 to 20 bytes in hex"),
        (
            "revoke --dir my nobody",
            1,
            "my/devices/nobody.pem does not exist",
        ),
        (
            "device --dir nowhere a",
            1,
            "`forebay pki init --dir nowhere`",
        ),
    ] {
        let printed = folder.fail(&format!("forebay pki {command}"), code);
        assert!(printed.contains(says), "{command}: {printed}");
    }
    assert!(before == folder.files(), "something was made");
}

#[test]
fn an_authority_made_by_openssl_can_sign() {
    for key in ["ec -pkeyopt ec_paramgen_curve:P-384", "rsa:2048"] {
        let folder = Folder::new();
        std::fs::create_dir(folder.path("my")).expect("a folder");
        folder.succeed(&format!(
            "openssl req -x509 -newkey {key} -nodes -subj /O=Plant/CN=Devices -days 10 -keyout my/ca.key -out my/ca.pem"
        ));
        folder.succeed("forebay pki device --dir my plc-7 plc-8");
        assert!(
            folder
                .fail("forebay pki revoke --dir my plc-8", 1)
                .contains("`forebay pki crl --dir my`")
        );
        folder.succeed("forebay pki crl --dir my");
        folder.succeed("forebay pki revoke --dir my plc-8");
        let verify =
            "openssl verify -CAfile my/ca.pem -crl_check -CRLfile my/crl.pem -purpose sslclient";
        folder.succeed(&format!("{verify} my/devices/plc-7.pem"));
        folder.fail(&format!("{verify} my/devices/plc-8.pem"), 2);
        let end = |file| folder.succeed(&format!("openssl x509 -noout -enddate -in {file}"));
        assert_eq!(
            end("my/ca.pem"),
            end("my/devices/plc-7.pem"),
            "it would outlive its authority"
        );
    }
}

/// Whoever reads while it is renewed finds a whole certificate, and the key is its own all the time.
#[test]
fn a_servers_certificate_is_renewed_in_one_step_for_its_key_and_names() {
    let folder = authority();
    folder.succeed(
        "forebay pki server --dir my --name localhost --name ::1 --name *.example.com --days 1",
    );
    let show =
        |what: &str| folder.succeed(&format!("openssl x509 -in my/server.pem -noout {what}"));
    let (names, key) = (show("-ext subjectAltName"), show("-pubkey"));
    let mut serials = HashSet::from([show("-serial")]);
    let is_over = AtomicBool::new(false);
    let file = folder.path("my/server.pem");
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0_u32;
            while !is_over.load(Ordering::Relaxed) || looks == 0 {
                der(&std::fs::read(&file).expect("it is there"));
                looks += 1;
            }
        });
        for _ in 0..8 {
            let said = folder.succeed("forebay pki server --dir my --renew");
            assert_eq!(said, "my/server.pem\n");
            assert!(serials.insert(show("-serial")), "it is another one");
        }
        is_over.store(true, Ordering::Relaxed);
        reader.join().expect("every look was at a whole file");
    });
    assert_eq!((show("-ext subjectAltName"), show("-pubkey")), (names, key));
    folder.succeed("openssl x509 -in my/server.pem -noout -checkend 31000000");
    folder.succeed(&format!(
        "{VERIFY} -purpose sslserver -verify_ip ::1 my/server.pem"
    ));
    folder.succeed("forebay pki server --dir my --renew --name other.example");
    assert!(show("-ext subjectAltName").contains("DNS:other.example"));
    assert!(!show("-ext subjectAltName").contains("localhost"));
    assert!(!folder.path("my/server.pem.new").exists());
}

#[test]
fn only_what_is_there_can_be_renewed() {
    let folder = authority();
    let said = folder.fail("forebay pki server --dir my --renew", 1);
    assert!(
        said.contains(
            "my/server.pem does not exist: `forebay pki server --dir my --name NAME` makes one"
        ),
        "{said}"
    );
    folder.succeed("forebay pki server --dir my --name localhost --key rsa2048");
    folder.succeed("forebay pki server --dir my --renew --key rsa2048");
    folder.succeed(&format!("{VERIFY} -purpose sslserver my/server-rsa.pem"));
}

#[test]
fn a_key_of_another_authority_is_found_out() {
    let folder = authority();
    folder.succeed("forebay pki init --dir other");
    std::fs::copy(folder.path("other/ca.key"), folder.path("my/ca.key")).expect("a copy");
    assert!(
        folder
            .fail("forebay pki device --dir my a", 1)
            .contains("my/ca.key: it is not the key of ca.pem")
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever its form: a URI, a DNS name, neither, too long for a common name.
    #[test]
    fn an_id_comes_back_as_it_was_given(
        id in prop_oneof!["[A-Za-z0-9._:/@-]{1,128}", "[a-z]{1,4}:[a-z/]{1,70}", "[a-zA-Z0-9.-]{1,70}", "[0-9.]{1,16}", "[.:/@_-]{1,4}"]
    ) {
        let folder = Folder::new();
        let days = Days::new(1).expect("a day");
        let pki = PkiFolder::new(folder.path("my"));
        let id = DeviceId::parse(&id).expect("an id");
        let authority = Authority::init(pki.clone(), None, days, days).expect("an authority");
        authority.issue_device(&id, days).expect("a certificate");
        prop_assert_eq!(id_in(&pki.device(&id)), id.as_str());
    }

    #[test]
    fn devices_have_files_of_their_own(a in "[a:/.]{1,3}", b in "[a:/.]{1,3}") {
        let pki = PkiFolder::new("my");
        let [first, second] = [&a, &b].map(|id| DeviceId::parse(id).expect("an id"));
        let files = [pki.device(&first), pki.device_key(&first), pki.device(&second), pki.device_key(&second)];
        prop_assert!(files.iter().all(|file| file.parent() == Some(Path::new("my/devices"))), "{:?}", files);
        let different: HashSet<_> = files.into_iter().collect();
        prop_assert_eq!(different.len(), if a == b { 2 } else { 4 });
    }
}
