//! The operator's view of requests: the access log, and the devices that send most.

use serde_json::Value;

use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};

fn send(gateway: &Gateway, protocol: Protocol, device: &str, times: usize, ask: &Ask) {
    let client = Client::open(protocol, gateway, &gateway.device(device));
    (0..times).for_each(|_| drop(client.send(ask)));
}

#[test]
fn a_share_of_requests_has_a_line_each_in_the_access_log() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = |share: &str| {
        let file = folder.path().join(share);
        let setup = Setup::new()
            .set("FOREBAY_ACCESS_LOG", file.display())
            .set("FOREBAY_ACCESS_LOG_SAMPLE", share);
        let mut gateway = setup.set("FOREBAY_WORKERS", 1).start();
        for protocol in Protocol::ALL {
            send(
                &gateway,
                protocol,
                "plc-1",
                7,
                &Ask::post("secret").with("x-secret", "secret"),
            );
            send(
                &gateway,
                protocol,
                "plc-2",
                1,
                &Ask::post("1").to("/secret"),
            );
        }
        gateway.terminate();
        assert_eq!(gateway.exit_code(), 0);
        let text = std::fs::read_to_string(file).expect("a log");
        assert!(!text.contains("secret"), "{text}");
        text.lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
            .collect::<Vec<_>>()
    };
    let all = log("1");
    let count = |field: &str, value: Value| all.iter().filter(|line| line[field] == value).count();
    assert_eq!((all.len(), count("event", "request".into())), (24, 24));
    assert_eq!(
        (count("status", 204.into()), count("device", "plc-1".into())),
        (21, 21)
    );
    assert_eq!(
        (
            count("code", "not-found".into()),
            count("protocol", "h3".into())
        ),
        (3, 8),
        "{all:?}"
    );
    assert!(
        all.iter()
            .all(|line| line["address"] == "127.0.0.1" && line["duration_seconds"].is_f64()),
        "{all:?}"
    );
    assert_eq!(log("0.25").len(), 6);
}

#[test]
fn the_devices_that_send_most_are_told_and_those_refused_most() {
    let gateway = Setup::new()
        .set("FOREBAY_DEVICE_RATE", "0.001")
        .set("FOREBAY_DEVICE_BURST", 40)
        .start();
    for protocol in Protocol::ALL {
        send(&gateway, protocol, "busy", 20, &Ask::post("1"));
        send(&gateway, protocol, "quiet", 3, &Ask::post("1"));
    }
    let report = || serde_json::from_str::<Value>(&gateway.admin("/debug/top").1).expect("JSON");
    let told = |kind: &str, place: usize| {
        let report = report();
        let row = &report[kind][place];
        (
            row["device"].as_str().unwrap_or_default().to_owned(),
            row["requests_min"].as_u64().unwrap_or_default(),
        )
    };
    // Connections that have ended say so when their tasks are dropped.
    eventually("the busiest", || {
        told("busiest", 0) == ("busy".into(), 40) && told("busiest", 1) == ("quiet".into(), 9)
    });
    assert_eq!(
        (
            told("refused", 0),
            report()["refused"].as_array().map(Vec::len)
        ),
        (("busy".into(), 20), Some(1))
    );
}
