//! The operator's questions to a gateway that starts or runs: its version, whether its configuration is sound, and its log.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;

use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};

/// Joins both outputs of a command.
fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Kafka at an address where somebody accepts, and never answers.
fn silent_broker(setup: Setup) -> (Setup, TcpListener) {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("an address");
    let setup = setup.set("FOREBAY_SINK", "kafka").unset("FOREBAY_FILE_DIR");
    let setup = setup.set("FOREBAY_KAFKA_BOOTSTRAP_SERVERS", address);
    (setup, silent)
}

fn put_filter(gateway: &Gateway, filter: &str) -> String {
    let mut stream = TcpStream::connect(gateway.admin).expect("it accepts");
    write!(
        stream,
        "PUT /debug/log?{filter} HTTP/1.1\r\nhost: localhost\r\n\r\n"
    )
    .expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

#[test]
fn a_gateway_listens_before_its_sink_has_answered() {
    let (setup, _silent) = silent_broker(Setup::new());
    let gateway = setup.start_unready();
    let away = "the sink is away";
    eventually(away, || gateway.log().contains(away));
    let log = gateway.log();
    let (listening, away) = (log.find("\"listening\""), log.find(away));
    assert!(listening.is_some() && listening < away, "{log}");
    assert_eq!(gateway.admin("/servez").0, 200);
    assert_eq!(gateway.admin("/readyz").0, 503);
    let client = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    assert_eq!(client.send(&Ask::post("1")).status, 503);
}

#[test]
fn a_spool_takes_readings_before_the_sink_has_answered() {
    let (setup, _silent) = silent_broker(Setup::new());
    let gateway = setup.with_spool("overflow").start();
    assert!(
        !gateway.log().contains("the sink is away"),
        "{}",
        gateway.log()
    );
    let client = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    assert_eq!(client.send(&Ask::post("1")).status, 204);
}

#[test]
fn the_log_tells_of_a_start_what_an_operator_asks() {
    let setup = Setup::new().with_spool("overflow");
    let gateway = setup
        .set("FOREBAY_STREAMS", "telemetry,alarms=plant")
        .start();
    eventually("a line", || gateway.log().contains("after_seconds"));
    let log = gateway.log();
    for told in [
        concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\""),
        "\"features\":\"",
        "\"sink\":\"file\"",
        "\"ack\":\"durable\"",
        "telemetry,alarms=plant",
        "\"certificate_until\":\"",
        "\"list_until\":\"no list\"",
        "the spool is open",
        "\"device_requests\":\"50/100\"",
        "\"ready\"",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
}

#[test]
fn the_settings_in_force_are_told_and_no_secret_is() {
    let gateway = Setup::new()
        .set("FOREBAY_KAFKA_SASL_PASSWORD", "hunter2")
        .start();
    let (status, settings) = gateway.admin("/debug/settings");
    assert_eq!(status, 200);
    assert!(
        settings.contains("\nFOREBAY_WORKERS=2 # environment\n"),
        "{settings}"
    );
    assert!(
        settings.contains("FOREBAY_KAFKA_SASL_PASSWORD=(redacted)"),
        "{settings}"
    );
    assert!(!settings.contains("hunter2"), "{settings}");
}

#[test]
fn the_filter_of_the_log_changes_while_the_gateway_runs() {
    let gateway = Setup::new().set("FOREBAY_LOG", "info").start();
    assert_eq!(gateway.admin("/debug/log"), (200, "info\n".into()));
    let answer = put_filter(&gateway, "warn,forebay=debug");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(
        gateway.admin("/debug/log"),
        (200, "warn,forebay=debug\n".into())
    );
    let answer = put_filter(&gateway, "nonsense");
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("is no level"),
        "{answer}"
    );
    assert!(put_filter(&gateway, "error").starts_with("HTTP/1.1 200 "));
    gateway.signal(libc::SIGHUP);
    gateway.pki.replace("ca.pem", b"garbage");
    eventually("an error", || gateway.log().contains("cannot be used"));
    assert!(
        !gateway.log().contains("certificate reloaded"),
        "{}",
        gateway.log()
    );
}

#[test]
fn check_refuses_what_serve_would_refuse() {
    let kafka = || {
        Setup::new()
            .set("FOREBAY_SINK", "kafka")
            .set("FOREBAY_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    };
    let on_port = |listen: &str, admin: &str| {
        let setup = Setup::new().set("FOREBAY_LISTEN", format!("{listen}:9444"));
        setup.set("FOREBAY_ADMIN_LISTEN", format!("{admin}:9444"))
    };
    let cases = [
        (
            kafka().set("FOREBAY_KAFKA_NO_SUCH", "1"),
            "FOREBAY_KAFKA_NO_SUCH",
        ),
        (
            kafka().set("FOREBAY_KAFKA_LINGER_MS", "soon"),
            "FOREBAY_KAFKA_LINGER_MS",
        ),
        (
            kafka()
                .set("FOREBAY_KAFKA_SSL_CA_LOCATION", "/nowhere")
                .set("FOREBAY_KAFKA_SECURITY_PROTOCOL", "ssl"),
            "/nowhere",
        ),
        (
            on_port("0.0.0.0", "127.0.0.1"),
            "is the address of FOREBAY_LISTEN",
        ),
        (
            on_port("[::]", "127.0.0.1"),
            "is the address of FOREBAY_LISTEN",
        ),
        (
            on_port("[::ffff:127.0.0.1]", "0.0.0.0"),
            "is the address of FOREBAY_LISTEN",
        ),
        (Setup::new().set("FOREBAY_LOG", "nonsense"), "FOREBAY_LOG"),
        (
            Setup::new().set("FOREBAY_ACK_TIMEOUT", "1m30s"),
            "as 90s for 1m30s",
        ),
    ];
    for (setup, expected) in cases {
        let output = setup.run(&["check"]);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(2), "{expected}: {said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
    for setup in [kafka(), on_port("0.0.0.0", "[::1]")] {
        assert_eq!(setup.run(&["check"]).status.code(), Some(0));
    }
}

#[test]
fn check_reads_the_files() {
    let setup = Setup::new().with_spool("overflow");
    let output = setup.run(&["check", "--files"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("# server certificate until "),
        "{}",
        said(&output)
    );
    assert!(!setup.path("spool").exists(), "it changes nothing");

    let other = setup.pki.other("other").server.key.clone();
    let file = setup.path("file");
    std::fs::write(&file, "").expect("a file");
    let key = setup.pki.server.key.display().to_string();
    for (variable, value, expected) in [
        (
            "FOREBAY_TLS_CRL",
            String::new(),
            "past its end: first revocation list",
        ),
        (
            "FOREBAY_TLS_KEY",
            other.display().to_string(),
            "another certificate's",
        ),
        (
            "FOREBAY_SPOOL_DIR",
            file.join("below").display().to_string(),
            "FOREBAY_SPOOL_DIR",
        ),
        ("FOREBAY_SPOOL_KEY_FILE", key, "FOREBAY_SPOOL_KEY_FILE"),
        (
            "FOREBAY_STREAM_RULES",
            "telemetry=/nowhere/rules.toml".into(),
            "FOREBAY_STREAM_RULES: /nowhere/rules.toml",
        ),
        (
            "FOREBAY_AUDIT_LOG",
            "/nowhere/audit.log".into(),
            "FOREBAY_AUDIT_LOG",
        ),
    ] {
        let setup = Setup::new().with_spool("overflow");
        let own =
            (variable == "FOREBAY_TLS_CRL").then(|| setup.pki.outdated_crl().display().to_string());
        let output = setup
            .set(variable, own.unwrap_or(value))
            .run(&["check", "--files"]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "{variable}: {}",
            said(&output)
        );
        assert!(
            said(&output).contains(expected),
            "{variable}: {}",
            said(&output)
        );
    }
}

#[test]
fn check_asks_the_sink() {
    let output = Setup::new().run(&["check", "--connect"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("# stream telemetry: it is there"),
        "{}",
        said(&output)
    );
    let (setup, silent) = silent_broker(Setup::new());
    drop(silent);
    let output = setup.run(&["check", "--connect"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("stream telemetry: "),
        "{}",
        said(&output)
    );
}

#[test]
fn an_address_that_is_not_this_machines_is_told_so() {
    let output = Setup::new()
        .set("FOREBAY_LISTEN", "203.0.113.7:8443")
        .run(&["serve"]);
    assert!(
        said(&output).contains("no address of this machine"),
        "{}",
        said(&output)
    );
}
