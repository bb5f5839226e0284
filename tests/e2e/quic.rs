//! QUIC on several workers: each packet finds the worker that has its connection, also from another address.

use std::collections::HashSet;
use std::fs;

use crate::harness::client::Quirks;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, Via};

const CONNECTIONS: usize = 32;

fn gateway() -> Gateway {
    Setup::new()
        .without_limits()
        .set("FOREBAY_WORKERS", 4)
        .start()
}

fn open_many(gateway: &Gateway) -> Vec<Client> {
    let device = gateway.device("plc-1");
    (0..CONNECTIONS)
        .map(|_| Client::open(Protocol::H3, gateway, &device))
        .collect()
}

fn post_all(clients: &[Client], body: &[u8]) {
    let sent: Vec<_> = clients
        .iter()
        .map(|client| client.begin(&Ask::post(body)))
        .collect();
    for sent in sent {
        assert_eq!(sent.wait().expect("an answer").status, 204);
    }
}

#[test]
fn many_connections_work_on_many_workers() {
    let gateway = gateway();
    let clients = open_many(&gateway);
    post_all(&clients, b"1");
    post_all(&clients, &[b'x'; 100_000]);
    assert_eq!(
        gateway.metric("forebay_http_connections{protocol=\"h3\"}"),
        CONNECTIONS as f64
    );
    assert_eq!(gateway.files("telemetry").len(), 2 * CONNECTIONS);
}

/// The kernel would send the packets of three in four of these connections to another worker, if it went by addresses.
#[test]
fn a_connection_survives_a_change_of_address() {
    let gateway = gateway();
    let clients = open_many(&gateway);
    post_all(&clients, b"1");
    clients.iter().for_each(Client::move_away);
    post_all(&clients, b"2");
    assert_eq!(
        gateway.metric("forebay_tls_handshakes_total{result=\"accepted\"}"),
        CONNECTIONS as f64
    );
    assert_eq!(gateway.files("telemetry").len(), 2 * CONNECTIONS);
}

#[test]
fn a_body_survives_a_change_of_address() {
    let gateway = gateway();
    let clients = open_many(&gateway);
    let body = vec![b'x'; 100_000];
    let (begin, rest) = body.split_at(50_000);
    let sent: Vec<_> = clients
        .iter()
        .map(|client| client.hold(&Ask::post(begin).declaring(body.len())))
        .collect();
    clients.iter().for_each(Client::move_away);
    for sent in sent {
        sent.release(rest);
        assert_eq!(sent.wait().expect("an answer").status, 204);
    }
    let lines = gateway.files("telemetry");
    assert!(lines.len() == CONNECTIONS && lines.iter().all(|line| line.payload() == body));
}

/// Switched off, it is neither served nor advertised.
/// Whether one of the gateway's files is a UDP socket, as the kernel lists them.
fn has_udp(gateway: &Gateway) -> bool {
    let process = format!("/proc/{}", gateway.id());
    let listed = ["udp", "udp6"]
        .map(|table| fs::read_to_string(format!("{process}/net/{table}")).expect("it runs"))
        .concat();
    let inodes: HashSet<_> = listed
        .lines()
        .filter_map(|line| line.split_whitespace().nth(9))
        .collect();
    let files = fs::read_dir(format!("{process}/fd")).expect("it runs");
    files
        .filter_map(|file| fs::read_link(file.expect("a file").path()).ok())
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[").map(str::to_owned))
        .any(|inode| inodes.contains(inode.trim_end_matches(']')))
}

#[test]
fn http3_can_be_switched_off() {
    assert!(has_udp(&gateway()), "by default");
    let gateway = Setup::new().set("FOREBAY_HTTP3", "false").start();
    let device = gateway.device("plc-1");
    for protocol in [Protocol::H1, Protocol::H2] {
        let reply = Client::open(protocol, &gateway, &device).send(&Ask::post("1"));
        assert_eq!((reply.status, reply.header("alt-svc")), (204, None));
    }
    assert!(!has_udp(&gateway));
    let quirks = Quirks::default();
    assert!(
        Client::try_open(Via::CurlCffi, Protocol::H3, &gateway, Some(&device), quirks)
            .and_then(|client| client.try_send(&Ask::post("1")))
            .is_err()
    );
}
