//! Rate limits: whose bucket is empty, what the refused one is told, and that one device is one device on all protocols.

use std::time::Instant;

use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Ask, Client, Gateway, Protocol, Reply, Setup};
use crate::status::{assert_problem, assert_retry_after};

/// Tokens come back so slowly that no test sees one.
const HARDLY_EVER: &str = "0.001";

/// A refusal by this bucket of so many tokens.
fn assert_limited(reply: &Reply, scope: &str, burst: u64) {
    assert_problem(reply, 429, "rate-limited");
    let seconds: u64 = reply
        .header("retry-after")
        .and_then(|seconds| seconds.parse().ok())
        .expect("Retry-After");
    assert_eq!(
        reply.header("ratelimit"),
        Some(&*format!("\"{scope}\";r=0;t={seconds}")),
        "{reply:?}"
    );
    let policy = reply.header("ratelimit-policy").expect("RateLimit-Policy");
    assert!(
        policy.starts_with(&format!("\"{scope}\";q={burst};w=")),
        "{policy}"
    );
}

fn refused(gateway: &Gateway, scope: &str) -> f64 {
    gateway.metric(&format!(
        "forebay_limits_refused_total{{scope=\"{scope}\"}}"
    ))
}

#[test]
fn a_device_has_one_bucket_on_all_protocols_and_it_is_nobody_elses() {
    let gateway = Setup::new()
        .set("FOREBAY_DEVICE_RATE", HARDLY_EVER)
        .set("FOREBAY_DEVICE_BURST", 5)
        .start();
    let (device, other) = (gateway.device("plc-1"), gateway.device("plc-2"));
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    let statuses =
        [0, 1, 2, 0, 1].map(|client: usize| clients[client].send(&Ask::post("1")).status);
    assert_eq!(statuses, [204; 5]);
    for client in &clients {
        assert_limited(&client.send(&Ask::post("1")), "device", 5);
        // 429 comes before 421, and before 404.
        let wrong = Ask::post("1").at("example.com").to("/none");
        assert_limited(&client.send(&wrong), "device", 5);
    }
    for protocol in Protocol::ALL {
        assert_eq!(
            Client::open(protocol, &gateway, &other)
                .send(&Ask::post("1"))
                .status,
            204
        );
        // A further connection is not a further bucket.
        assert_eq!(
            Client::open(protocol, &gateway, &device)
                .send(&Ask::post("1"))
                .status,
            429
        );
    }
    assert_eq!(refused(&gateway, "device"), 9.0);
    assert_eq!(gateway.files("telemetry").len(), 8);
}

#[test]
fn body_bytes_have_a_bucket_of_their_own() {
    let gateway = Setup::new()
        .set("FOREBAY_DEVICE_RATE", 0)
        .set("FOREBAY_DEVICE_BYTE_RATE", "1B")
        .set("FOREBAY_DEVICE_BYTE_BURST", "10KiB")
        .start();
    let body = vec![b'x'; 9 << 10];
    for protocol in Protocol::ALL {
        let device = gateway.device(&format!("plc-{protocol}"));
        assert_eq!(
            Client::open(protocol, &gateway, &device)
                .send(&Ask::post(&body[..]))
                .status,
            204
        );
        for ask in [Ask::post(&body[..]), Ask::post(&body[..]).undeclared()] {
            let reply = Client::open(protocol, &gateway, &device).send(&ask);
            assert_problem(&reply, 429, "rate-limited");
            assert!(
                reply
                    .header("ratelimit")
                    .expect("RateLimit")
                    .starts_with("\"device-bytes\";r="),
                "{reply:?}"
            );
            assert!(
                reply
                    .header("ratelimit-policy")
                    .expect("a policy")
                    .starts_with("\"device-bytes\";q=10240;w=")
            );
            assert!(reply.header("retry-after").is_some());
        }
        // A body that could never pass is 413, and a request that is wrong otherwise is not asked for its bytes.
        let client = Client::open(protocol, &gateway, &device);
        assert_eq!(
            client
                .hold(&Ask::post("").declaring(11 << 10))
                .wait()
                .expect("an answer")
                .status,
            413
        );
        let client = Client::open(protocol, &gateway, &device);
        assert_eq!(
            client
                .send(&Ask::post(&body[..]).with("content-encoding", "br"))
                .status,
            415
        );
    }
    assert_eq!(refused(&gateway, "device-bytes"), 6.0);
    assert_eq!(gateway.files("telemetry").len(), 3);
}

#[test]
fn a_source_address_has_a_bucket_for_all_its_devices() {
    let gateway = Setup::new()
        .set("FOREBAY_ADDRESS_RATE", HARDLY_EVER)
        .set("FOREBAY_ADDRESS_BURST", 3)
        .start();
    let send = |protocol: Protocol| {
        let device = gateway.device(&format!("plc-{protocol}"));
        Client::open(protocol, &gateway, &device).send(&Ask::post("1"))
    };
    assert_eq!(
        Protocol::ALL.map(|protocol| send(protocol).status),
        [204; 3]
    );
    Protocol::ALL
        .iter()
        .for_each(|protocol| assert_limited(&send(*protocol), "address", 3));
    assert_eq!(refused(&gateway, "address"), 3.0);
}

/// The gateway's own bucket is not the device's fault: 503, and no rate-limit fields.
#[test]
fn the_gateways_own_bucket_is_503() {
    let gateway = Setup::new()
        .set("FOREBAY_GATEWAY_RATE", HARDLY_EVER)
        .set("FOREBAY_GATEWAY_BURST", 3)
        .start();
    let device = gateway.device("plc-1");
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    assert_eq!(
        clients
            .each_ref()
            .map(|client| client.send(&Ask::post("1")).status),
        [204; 3]
    );
    for client in &clients {
        let reply = client.send(&Ask::post("1"));
        assert_problem(&reply, 503, "gateway-rate-limited");
        let wait: u64 = reply
            .header("retry-after")
            .and_then(|seconds| seconds.parse().ok())
            .expect("Retry-After");
        assert!(
            wait > 900,
            "a token comes back after a thousand seconds, not after {wait}"
        );
        assert_eq!(
            (reply.header("ratelimit"), reply.header("ratelimit-policy")),
            (None, None)
        );
    }
    assert_eq!(refused(&gateway, "gateway"), 3.0);
}

/// A rate class is a device's own rate, by its name.
#[test]
fn a_class_of_devices_has_a_rate_of_its_own() {
    let classes = format!("meter-*={HARDLY_EVER}/1;gw-*=0/1");
    let gateway = Setup::new().set("FOREBAY_DEVICE_CLASSES", classes).start();
    let statuses = |id: &str| {
        let client = Client::open(Protocol::H2, &gateway, &gateway.device(id));
        [(); 3].map(|()| client.send(&Ask::post("1")).status)
    };
    assert_eq!(statuses("meter-1"), [204, 429, 429]);
    assert_eq!(statuses("gw-1"), [204; 3]);
    assert_eq!(statuses("plc-1"), [204; 3]);
}

/// A table that is full of buckets in use has no place for a further device.
#[test]
fn more_devices_than_the_gateway_holds_are_503() {
    let gateway = Setup::new()
        .set("FOREBAY_DEVICES_MAX", 1)
        .set("FOREBAY_DEVICE_RATE", HARDLY_EVER)
        .start();
    let first = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    assert_eq!(first.send(&Ask::post("1")).status, 204);
    let second = gateway.device("plc-2");
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &second);
        let reply = client.send(&Ask::post("1"));
        assert_problem(&reply, 503, "device-table-full");
        assert_retry_after(&reply);
        client.closed();
    }
    assert_eq!(first.send(&Ask::post("1")).status, 204);
}

/// New connections of one address: those that come too often do not get a handshake.
#[test]
fn handshakes_have_a_bucket() {
    let gateway = Setup::new()
        .set("FOREBAY_HANDSHAKE_RATE", HARDLY_EVER)
        .set("FOREBAY_HANDSHAKE_BURST", 3)
        .start();
    let device = gateway.device("plc-1");
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    for protocol in Protocol::ALL {
        let quirks = crate::harness::client::Quirks::default();
        let via = crate::harness::Via::Wire;
        assert!(
            Client::try_open(via, protocol, &gateway, Some(&device), quirks).is_err(),
            "{protocol}"
        );
    }
    assert_eq!(
        clients
            .each_ref()
            .map(|client| client.send(&Ask::post("1")).status),
        [204; 3]
    );
    assert_eq!(refused(&gateway, "handshake"), 3.0);
    assert_eq!(
        gateway.metric("forebay_tls_handshakes_total{result=\"rate_limited\"}"),
        3.0
    );
}

/// Twenty times as many devices as there are buckets: a bucket that is forgotten has been full, so that its device comes
/// back to no more tokens than it had. (A table of a thousand under twenty thousand is asked in `src/limits/tests.rs`.)
#[test]
fn a_device_gains_no_token_when_its_bucket_is_forgotten() {
    const BUCKETS: usize = 100;
    const DEVICES: usize = 2000;
    const BURST: usize = 2;
    const RATE: f64 = 20.0;
    const REQUESTS: usize = 6;
    let setup = Setup::new()
        .set("FOREBAY_DEVICES_MAX", BUCKETS)
        .set("FOREBAY_HANDSHAKE_RATE", 0);
    let gateway = setup
        .set("FOREBAY_DEVICE_RATE", RATE)
        .set("FOREBAY_DEVICE_BURST", BURST)
        .start();
    let request = b"POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1";
    let accepted_of_a_visit = async |tls| {
        let mut raw = Raw::open(gateway.address, tls).await.expect("a connection");
        let mut accepted = 0;
        for _ in 0..REQUESTS {
            raw.send(request).await.expect("it listens");
            let answer = raw.receive().await;
            match &answer[..12] {
                b"HTTP/1.1 204" => accepted += 1,
                b"HTTP/1.1 429" => {}
                b"HTTP/1.1 503" => break,
                other => panic!("{}", String::from_utf8_lossy(other)),
            }
        }
        accepted
    };
    let fleet: Vec<_> = (0..DEVICES)
        .map(|number| gateway.device(&format!("plc-{number}")))
        .collect();
    let mut seen = vec![None; DEVICES];
    block_on(async {
        for _ in 0..2 {
            for (device, seen) in fleet.iter().zip(&mut seen) {
                let (since, accepted) = seen.unwrap_or((Instant::now(), 0));
                let accepted =
                    accepted + accepted_of_a_visit(tls(&gateway, Some(device), "http/1.1")).await;
                let tokens = BURST as f64 + RATE * since.elapsed().as_secs_f64();
                assert!(
                    accepted as f64 <= tokens,
                    "{accepted} accepted, {tokens} tokens"
                );
                *seen = Some((since, accepted));
            }
        }
    });
    let served = seen
        .iter()
        .flatten()
        .filter(|(_, accepted)| *accepted > 0)
        .count();
    assert!(
        served > 2 * BUCKETS,
        "only {served} were served: nobody was forgotten"
    );
    assert!(gateway.metric("forebay_limits_devices") <= BUCKETS as f64);
}
