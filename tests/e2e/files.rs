//! Files of TLS as templates, editors and `cat` make them: everything in them is read, or the error names file and line
//! and shows nothing of what stands there.

use std::fs;
use std::path::Path;

use crate::harness::client::Quirks;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, Via, eventually};
use crate::pki::{Identity, List};

const FAILURES: &str = "forebay_tls_reload_failures_total";

/// A key file that nobody can read, and what is wrong with it.
fn damaged_keys(key: &str) -> Vec<(&'static str, String)> {
    let body: String = key.lines().filter(|line| !line.starts_with("--")).collect();
    vec![
        ("no line breaks", key.replace('\n', "")),
        ("no line breaks", key.replace('\n', " ")),
        ("no line breaks", key.replace('\n', "\\n")),
        (
            "no line breaks",
            format!("\"{}\"", key.replace('\n', "\\n")),
        ),
        ("a byte order mark", format!("\u{feff}{key}")),
        ("not PEM", key.replacen("KEY-----", "KEY", 1)),
        ("not PEM", key.replacen("-----BEGIN", "----BEGIN", 1)),
        ("not PEM", key.replace("-----END", "END")),
        ("not PEM", format!("key: {key}")),
        ("not PEM", body.clone()),
        ("not PEM", key.replace(&body[10..20], "\u{e4}\u{e4}")),
        (
            "encrypted",
            key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY"),
        ),
        (
            "encrypted",
            key.replacen("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\n\n", 1),
        ),
    ]
}

/// Nothing of the key is in what was said.
fn assert_hides(said: &str, key: &str) {
    for line in key.lines().filter(|line| !line.starts_with("--")) {
        for part in line.as_bytes().chunks_exact(8) {
            let part = str::from_utf8(part).expect("base64");
            assert!(!said.contains(part), "{part} of the key is in: {said}");
        }
    }
}

fn said_at_start(setup: &Setup) -> String {
    let output = setup.run(&["serve"]);
    assert!(!output.status.success(), "it must not start");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_key_that_cannot_be_read_is_not_shown() {
    let setup = Setup::new();
    let audit = setup.path("audit.log");
    let setup = setup.set("FOREBAY_AUDIT_LOG", audit.display());
    let key = fs::read_to_string(&setup.pki.server.key).expect("a file");
    let damaged = damaged_keys(&key);
    for (fault, file) in &damaged {
        setup.pki.replace("server.key", file.as_bytes());
        let said = said_at_start(&setup);
        assert_hides(&said, &key);
        let names_it = said.contains("FOREBAY_TLS_KEY") && said.contains("server.key");
        assert!(names_it && said.contains(fault), "{fault}: {said}");
    }
    setup.pki.replace("server.key", key.as_bytes());
    let gateway = setup.start();
    let series = format!("{FAILURES}{{what=\"certificate\"}}");
    for (count, (fault, file)) in (1..).zip(&damaged) {
        gateway.pki.replace("server.key", file.as_bytes());
        gateway.signal(libc::SIGHUP);
        eventually("a failure", || gateway.metric(&series) >= f64::from(count));
        let audited = || fs::read_to_string(&audit).unwrap_or_default();
        eventually("an audit line", || audited().contains(fault));
        eventually("a log line", || gateway.log().contains(fault));
        assert_hides(&audited(), &key);
        assert_hides(&gateway.log(), &key);
    }
}

/// A template that puts the file's content into the variable, in the place of its name.
#[test]
fn a_key_in_the_place_of_its_file_is_not_shown() {
    let setup = Setup::new();
    let key = fs::read_to_string(&setup.pki.server.key).expect("a file");
    let spool_key = "0123456789abcdef".repeat(4);
    let setup = setup
        .set("FOREBAY_TLS_KEY", &key)
        .set("FOREBAY_SPOOL_DIR", "spool")
        .set("FOREBAY_SPOOL_KEY_FILE", &spool_key);
    for command in ["serve", "check"] {
        let output = setup.run(&[command]);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_hides(&said, &key);
        assert_hides(&said, &spool_key);
        assert!(!output.status.success(), "{said}");
        for variable in ["FOREBAY_TLS_KEY", "FOREBAY_SPOOL_KEY_FILE"] {
            assert!(said.contains(variable), "{variable}: {said}");
        }
    }
}

fn status(protocol: Protocol, gateway: &Gateway, device: &Identity) -> Result<u16, String> {
    let opened = Client::try_open(
        Via::Wire,
        protocol,
        gateway,
        Some(device),
        Quirks::default(),
    );
    Ok(opened?.try_send(&Ask::post("1"))?.status)
}

fn read(file: impl AsRef<Path>) -> String {
    fs::read_to_string(file).expect("a file")
}

/// `cat a.pem b.pem` where a.pem does not end with a line break.
#[test]
fn what_is_joined_without_a_line_break_is_all_read() {
    let setup = Setup::new();
    let server = setup.pki.server_below_intermediate();
    let chain = read(&server.cert).replace("-----\n-----", "----------");
    fs::write(&server.cert, chain).expect("a file");
    let other = setup.pki.other("other");
    let authorities = read(setup.pki.ca()).trim_end().to_owned() + &read(other.ca());
    let authorities = setup.pki.replace("both.pem", authorities.as_bytes());
    let stolen = setup.pki.device("stolen");
    let lists = [setup.pki.revoke(&[]), other.revoke(&[])].map(read);
    let of_stolen = read(setup.pki.list(
        "second.pem",
        &List {
            revoked: &[&stolen],
            ..List::default()
        },
    ));
    let lists = format!("{}{}{of_stolen}", lists[0].trim_end(), lists[1].trim_end());
    let lists = setup.pki.replace("lists.pem", lists.as_bytes());
    let gateway = setup
        .set("FOREBAY_TLS_CERT", server.cert.display())
        .set("FOREBAY_TLS_KEY", server.key.display())
        .set("FOREBAY_TLS_CLIENT_CA", authorities.display())
        .set("FOREBAY_TLS_CRL", lists.display())
        .set("FOREBAY_TLS_CRL_STRICT", false)
        .start();
    for protocol in Protocol::ALL {
        for device in [gateway.device("good"), other.device("others")] {
            assert_eq!(status(protocol, &gateway, &device), Ok(204), "{protocol}");
        }
        let refused = status(protocol, &gateway, &stolen);
        assert!(refused.is_err(), "{protocol}: {refused:?}");
    }
}

#[test]
fn what_is_not_read_is_an_error_with_its_line() {
    let setup = Setup::new();
    let crl = setup.pki.revoke(&[]);
    let setup = setup.set("FOREBAY_TLS_CRL", crl.display());
    let files = ["ca.pem", "crl.pem", "server.pem", "server.key"];
    let dir = setup.pki.ca().parent().expect("a folder").to_owned();
    let [ca, crl, cert, key] = files.map(|file| read(dir.join(file)));
    let line = |file: &str| file.lines().count() + 1;
    let trusted = ca.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
    for (file, content, at, says) in [
        ("ca.pem", format!("{ca}{trusted}"), line(&ca), "TRUSTED"),
        ("ca.pem", format!("{ca}{crl}"), line(&ca), "a CRL"),
        ("ca.pem", format!("{ca}{key}"), line(&ca), "a private key"),
        ("ca.pem", format!("\u{feff}{ca}"), 1, "byte order mark"),
        ("ca.pem", format!("{ca}> {ca}"), line(&ca), "not PEM"),
        ("ca.pem", format!("{ca}{}", &ca[..100]), line(&ca), "END"),
        ("crl.pem", format!("{crl}{ca}"), line(&crl), "a certificate"),
        (
            "server.key",
            format!("{key}{key}"),
            line(&key),
            "more than one",
        ),
        ("server.pem", format!("{cert}{crl}"), line(&cert), "a CRL"),
    ] {
        let good = read(dir.join(file));
        setup.pki.replace(file, content.as_bytes());
        let said = said_at_start(&setup);
        let place = format!("{file}: line {at}: ");
        assert!(
            said.contains(&place) && said.contains(says),
            "{place}{says}: {said}"
        );
        setup.pki.replace(file, good.as_bytes());
    }
    // One file may have both, and a key its curve beside it.
    let curve = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
    let ca_as_of_old = ca.replace("CERTIFICATE", "X509 CERTIFICATE");
    let clients = setup
        .pki
        .replace("clients.pem", format!(" \t{ca_as_of_old}").as_bytes());
    setup
        .pki
        .replace("server.key", format!("{curve}{cert}{key}").as_bytes());
    setup
        .pki
        .replace("server.pem", format!("{key}{cert}").as_bytes());
    let gateway = setup
        .set("FOREBAY_TLS_CLIENT_CA", clients.display())
        .start();
    let device = gateway.device("plc-1");
    assert_eq!(status(Protocol::H2, &gateway, &device), Ok(204));
}

#[test]
fn an_older_list_does_not_take_the_place_of_a_newer_one() {
    let setup = Setup::new();
    let stolen = setup.pki.device("stolen");
    let of_stolen = [&stolen];
    let newer = List {
        revoked: &of_stolen,
        number: 300,
        ..List::default()
    };
    let crl = setup.pki.list("crl.pem", &newer);
    let gateway = setup.set("FOREBAY_TLS_CRL", crl.display()).start();
    let series = format!("{FAILURES}{{what=\"crl\"}}");
    let older = List {
        number: 299,
        ..List::default()
    };
    let made_before = List {
        number: 300,
        made_seconds: -9000,
        ..List::default()
    };
    let from_the_future = List {
        number: 301,
        made_seconds: 1800,
        ..List::default()
    };
    for (count, list, says) in [
        (1.0, &older, "older than the list in force"),
        (2.0, &made_before, "older than the list in force"),
        (3.0, &from_the_future, "from the future"),
    ] {
        gateway.pki.list("crl.pem", list);
        eventually(says, || gateway.metric(&series) == count);
        eventually(says, || gateway.log().contains(says));
        for protocol in Protocol::ALL {
            let refused = status(protocol, &gateway, &stolen);
            assert!(refused.is_err(), "{says}, {protocol}: {refused:?}");
        }
    }
    let next = List {
        number: 301,
        made_seconds: 120,
        ..List::default()
    };
    gateway.pki.list("crl.pem", &next);
    eventually("the next list, by a clock that is a little ahead", || {
        status(Protocol::H1, &gateway, &stolen) == Ok(204)
    });
}

#[test]
fn a_list_from_the_future_is_an_error_at_start() {
    let setup = Setup::new();
    let list = List {
        made_seconds: 1800,
        ..List::default()
    };
    let crl = setup.pki.list("crl.pem", &list);
    let setup = setup.set("FOREBAY_TLS_CRL", crl.display());
    let said = said_at_start(&setup);
    assert!(
        said.contains("crl.pem") && said.contains("from the future"),
        "{said}"
    );
}
