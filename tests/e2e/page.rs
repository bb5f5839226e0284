//! The live page as the real program serves it: its files, who may ask for them, and its stream. What it looks like in a
//! browser is asked in tests/deploy/test_page.py.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use crate::harness::client::Quirks;
use crate::harness::{Ask, Client, Gateway, PATIENCE, Protocol, Setup, Via, eventually};

/// As the gateway has it.
const WATCHERS_MAX: usize = 16;

/// The whole answer to a request under this name.
fn ask(gateway: &Gateway, host: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(gateway.admin).expect("it accepts");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer
}

/// Somebody who watches, and has room for so little that the gateway must wait for it.
struct Watcher(BufReader<TcpStream>);

impl Watcher {
    fn open(gateway: &Gateway) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(1).expect("the least");
        let admin: SocketAddr = gateway.admin;
        socket.connect(&admin.into()).expect("it accepts");
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let asks = format!("GET /live HTTP/1.1\r\nhost: {admin}\r\n\r\n");
        stream.write_all(asks.as_bytes()).expect("it reads");
        Self(BufReader::new(stream))
    }

    /// The status of the answer.
    fn status(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("it answers");
        line
    }

    fn frame(&mut self) -> Value {
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).expect("it goes on");
            assert!(read > 0, "it goes on");
            if let Some(json) = line.strip_prefix("data: ") {
                return serde_json::from_str(json).expect("a JSON object");
            }
        }
    }
}

#[test]
fn the_page_is_answered_to_addresses_and_localhost_only() {
    let gateway = Setup::new().start();
    let admin = gateway.admin.to_string();
    for path in ["/", "/page.js", "/page.css", "/debug/settings"] {
        for host in [admin.as_str(), "localhost"] {
            let answer = ask(&gateway, host, path);
            assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
            let policy = "\r\nContent-Security-Policy: default-src 'self'\r\n";
            assert!(
                path == "/debug/settings" || answer.contains(policy),
                "{answer}"
            );
        }
        let answer = ask(&gateway, "rebound.example", path);
        assert!(answer.starts_with("HTTP/1.1 421 "), "{path}: {answer}");
    }
    assert!(ask(&gateway, "rebound.example", "/live").starts_with("HTTP/1.1 421 "));
    for path in ["/livez", "/servez", "/readyz", "/metrics"] {
        let answer = ask(&gateway, "gateway.example", path);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }
}

/// Readings over each protocol, one that is refused, and a handshake that fails: the stream has the numbers of `/metrics`,
/// the devices, and the event, also without an audit log.
#[test]
fn the_stream_says_what_metrics_say() {
    let gateway = Setup::new().start();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-7"));
        assert_eq!(client.send(&Ask::post("{}")).status, 204, "{protocol}");
        assert_eq!(client.send(&Ask::post("")).status, 400, "{protocol}");
    }
    let stranger = gateway.pki.stranger();
    let refused = Client::try_open(
        Via::Wire,
        Protocol::H2,
        &gateway,
        Some(&stranger),
        Quirks::default(),
    );
    drop(refused);
    eventually("all have gone", || {
        gateway.metric("forebay_tls_handshakes_total{result=\"unknown_issuer\"}") == 1.0
            && gateway.metric("forebay_http_connections{protocol=\"h3\"}") == 0.0
    });
    let mut watcher = Watcher::open(&gateway);
    assert_eq!(watcher.status(), "HTTP/1.1 200 OK\r\n");
    watcher.frame();
    let (frame, metrics) = (watcher.frame(), gateway.admin("/metrics").1);
    let told = frame["metrics"].as_object().expect("series");
    let mut same = 0;
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let value: f64 = value.parse().expect("a number");
        let told = told.get(series).and_then(Value::as_f64).unwrap_or(0.0);
        // Figures that move by themselves may have moved since.
        assert!(
            told == value || series.starts_with("process_"),
            "{line}: {told}"
        );
        same += usize::from(told == value && value != 0.0);
    }
    assert!(same > 30, "only {same} series are told");
    assert_eq!(frame["state"]["ready"], true, "{frame}");
    assert_eq!(frame["top"]["busiest"][0]["device"], "plc-7", "{frame}");
    assert_eq!(frame["top"]["refused"][0]["device"], "plc-7", "{frame}");
    let events = frame["events"].as_array().expect("events");
    let has = |event: &str| events.iter().find(|told| told["event"] == event);
    assert!(has("started").is_some(), "{frame}");
    let refused = has("handshake-refused").expect("its event");
    assert_eq!(refused["reason"], "unknown_issuer", "{frame}");
}

/// As many as may watch and take nothing: one more is refused, probes and Prometheus are answered all the while, and those
/// who take nothing lose their places in the end.
#[test]
fn watchers_that_take_nothing_lose_their_places() {
    let gateway = Setup::new().start();
    let mut slow: Vec<_> = (0..WATCHERS_MAX).map(|_| Watcher::open(&gateway)).collect();
    for watcher in &mut slow {
        assert_eq!(watcher.status(), "HTTP/1.1 200 OK\r\n");
    }
    let crowded = ask(&gateway, "localhost", "/live");
    assert!(crowded.starts_with("HTTP/1.1 503 "), "{crowded}");
    assert!(
        crowded.contains("16 watch the live page already"),
        "{crowded}"
    );
    let shed = "forebay_admin_watchers_shed_total{why=\"slow\"}";
    eventually("they are cut off", || {
        assert_eq!(gateway.admin("/livez").0, 200);
        gateway.metric(shed) == WATCHERS_MAX as f64
    });
    let mut watcher = Watcher::open(&gateway);
    assert_eq!(watcher.status(), "HTTP/1.1 200 OK\r\n");
    watcher.frame();
    assert_eq!(gateway.metric("forebay_admin_watchers"), 1.0);
}
