//! The operator's view: configurations that are wrong, streams, and the admin address.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::harness::{Ask, Client, Protocol, Setup};
use crate::tools::tools;

/// The exit code, and what it says, of a gateway that must not start.
fn complaint(setup: &Setup) -> (i32, String) {
    let output = setup.run(&["serve"]);
    (
        output.status.code().expect("an exit code"),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn an_unknown_variable_is_an_error_that_names_the_nearest() {
    let (code, said) = complaint(&Setup::new().set("FOREBAY_BATCH_LINGRE", "5ms"));
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("FOREBAY_BATCH_LINGRE") && said.contains("FOREBAY_BATCH_LINGER?"),
        "{said}"
    );
}

#[test]
fn every_fault_is_named_at_once() {
    let faults = [
        ("FOREBAY_ACK_TIMEOUT", "10"),
        ("FOREBAY_BODY_BYTES_MAX", "11MiB"),
        ("FOREBAY_DEVICE_BURST", "0"),
        ("FOREBAY_HTTP3", "maybe"),
        ("FOREBAY_LISTEN", "everywhere"),
        ("FOREBAY_SINK", "paper"),
        ("FOREBAY_STREAM_ACCESS", "alarms:*"),
        ("FOREBAY_TLS_MIN_VERSION", "1.1"),
    ];
    let setup = faults
        .iter()
        .fold(Setup::new(), |setup, (name, value)| setup.set(name, value));
    let (code, said) = complaint(&setup.unset("FOREBAY_TLS_KEY"));
    assert_eq!(code, 2, "{said}");
    let names = faults
        .iter()
        .map(|(name, _)| *name)
        .chain(["FOREBAY_TLS_KEY"]);
    for name in names {
        assert!(
            said.lines().any(|line| line.starts_with(name)),
            "{name} is not in:\n{said}"
        );
    }
}

#[test]
fn a_flag_wins_over_the_environment() {
    let setup = Setup::new().set("FOREBAY_BATCH_LINGER", "7ms");
    let output = setup.run(&["check", "--batch-linger", "9ms"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("FOREBAY_BATCH_LINGER=9ms # flag"),
        "{said}"
    );
    let output = setup.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("FOREBAY_BATCH_LINGER=7ms # environment"),
        "{said}"
    );
}

#[test]
fn files_that_are_not_there_or_not_theirs_are_named() {
    let (code, said) = complaint(&Setup::new().set("FOREBAY_TLS_CERT", "/nowhere/server.pem"));
    assert!(
        code == 1 && said.contains("FOREBAY_TLS_CERT") && said.contains("/nowhere/server.pem"),
        "{said}"
    );
    let setup = Setup::new();
    let strange_key = setup
        .pki
        .device("plc-1")
        .key
        .to_str()
        .expect("UTF-8")
        .to_owned();
    let (code, said) = complaint(&setup.set("FOREBAY_TLS_KEY", strange_key));
    assert!(code == 1 && said.contains("FOREBAY_TLS_KEY"), "{said}");
}

#[test]
fn a_port_in_use_is_an_error() {
    let gateway = Setup::new().start();
    let (code, said) = complaint(&Setup::new().set("FOREBAY_LISTEN", gateway.address));
    assert!(code == 1 && said.contains("FOREBAY_LISTEN"), "{said}");
    let (code, said) = complaint(&Setup::new().set("FOREBAY_ADMIN_LISTEN", gateway.admin));
    assert!(code == 1 && said.contains("FOREBAY_ADMIN_LISTEN"), "{said}");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let (code, said) =
        complaint(&Setup::new().set("FOREBAY_LISTEN", udp.local_addr().expect("its address")));
    assert!(code == 1 && said.contains("FOREBAY_LISTEN"), "{said}");
}

#[test]
fn streams_lead_to_their_folders() {
    let gateway = Setup::new()
        .set("FOREBAY_STREAMS", "telemetry,alarms=plant-alarms,closed")
        .set(
            "FOREBAY_STREAM_ACCESS",
            "telemetry:plc-?;alarms:plc-1,plc-2",
        )
        .start();
    let status = |device: &str, path: &str| {
        Client::open(Protocol::H2, &gateway, &gateway.device(device))
            .send(&Ask::post("1").to(path))
            .status
    };
    assert_eq!(status("plc-1", "/v1/telemetry"), 204);
    assert_eq!(status("plc-1", "/v1/streams/alarms"), 204);
    assert_eq!(status("plc-3", "/v1/streams/alarms"), 403);
    assert_eq!(status("plc-10", "/v1/telemetry"), 403);
    assert_eq!(status("plc-1", "/v1/streams/plant-alarms"), 403);
    assert_eq!(status("plc-1", "/v1/streams/closed"), 403);
    assert_eq!(
        (
            gateway.files("telemetry").len(),
            gateway.files("alarms").len()
        ),
        (1, 1)
    );
}

#[test]
fn further_authorities_are_allowed() {
    let gateway = Setup::new()
        .set("FOREBAY_AUTHORITIES", "ingest.example.com")
        .start();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        for authority in [
            "ingest.example.com",
            "INGEST.example.com:8443",
            "localhost",
            "127.0.0.1:1",
        ] {
            assert_eq!(
                client.send(&Ask::post("1").at(authority)).status,
                204,
                "{protocol} {authority}"
            );
        }
        assert_eq!(
            client.send(&Ask::post("1").at("example.com")).status,
            421,
            "{protocol}"
        );
    }
}

/// Under the load of every protocol and of some refusals, the metrics are what Prometheus wants.
#[test]
fn the_admin_address_answers_and_promtool_is_content() {
    let gateway = Setup::new().start();
    assert_eq!(gateway.admin("/livez").0, 200);
    assert_eq!(gateway.admin("/readyz"), (200, "ready\n".to_owned()));
    assert_eq!(gateway.admin("/servez"), (200, "serving\n".to_owned()));
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        assert_eq!(
            [
                client.send(&Ask::post("1")).status,
                client.send(&Ask::post("")).status
            ],
            [204, 400]
        );
    }
    let (status, metrics) = gateway.admin("/metrics");
    assert_eq!(status, 200);
    assert!(!metrics.contains("plc-1"), "no device id is in a label");
    let mut promtool = Command::new(tools().join("bin/promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("`make tools` installs promtool");
    promtool
        .stdin
        .take()
        .expect("piped")
        .write_all(metrics.as_bytes())
        .expect("it reads");
    let output = promtool.wait_with_output().expect("it ends");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}\n{metrics}"
    );
}
