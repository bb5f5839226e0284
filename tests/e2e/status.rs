//! The status table of the wire contract, on each protocol. Rate limits and sinks in trouble have tests of their own.

use crate::harness::client::Sent;
use crate::harness::{Ask, Client, Gateway, Protocol, Reply, Setup, Via, eventually};

/// Text that no answer may repeat; it is part of everything that the requests of these tests carry.
const ECHO: &str = "x-marks-the-spot";

/// A gateway with a stream that is not for everybody, and bounds that are quick to reach.
fn gateway() -> Gateway {
    Setup::new()
        .without_limits()
        .set("FOREBAY_STREAMS", "telemetry,alarms")
        .set("FOREBAY_STREAM_ACCESS", "telemetry:*;alarms:plant-*")
        .set("FOREBAY_BODY_BYTES_MAX", "64KiB")
        .set("FOREBAY_DEVICE_BYTE_RATE", "1MiB")
        .set("FOREBAY_DEVICE_BYTE_BURST", "32KiB")
        .set("FOREBAY_BODY_TIMEOUT", "300ms")
        .start()
}

/// A problem as the contract wants it.
pub fn assert_problem(reply: &Reply, status: u16, code: &str) {
    let problem = reply.problem();
    let text = |field: &str| problem[field].as_str().unwrap_or_default();
    assert_eq!((reply.status, text("code")), (status, code), "{reply:?}");
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{reply:?}"
    );
    assert_eq!(text("type"), format!("urn:forebay:problem:{code}"));
    assert_eq!(problem["status"], status);
    assert!(
        !text("title").is_empty() && !text("detail").is_empty(),
        "{problem}"
    );
    let fields: Vec<_> = problem
        .as_object()
        .map(|fields| fields.keys().collect())
        .unwrap_or_default();
    assert_eq!(fields, ["code", "detail", "status", "title", "type"]);
    assert!(
        !String::from_utf8_lossy(&reply.body).contains(ECHO),
        "{problem}"
    );
    assert!(
        reply.headers.iter().all(|(_, value)| !value.contains(ECHO)),
        "{reply:?}"
    );
}

/// RFC 9110 section 9.3.2. On HTTP/1.1 the client of these tests would wait for it.
#[test]
fn the_answer_to_head_has_no_body() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    for protocol in [Protocol::H2, Protocol::H3] {
        let reply = Client::open(protocol, &gateway, &device).send(&Ask::post("1").by("HEAD"));
        assert_eq!(
            (reply.status, &reply.body[..]),
            (405, &b""[..]),
            "{protocol}"
        );
    }
}

#[test]
fn a_reading_is_answered_204_and_nothing_more() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    let alt_svc = format!("h3=\":{}\"; ma=86400", gateway.address.port());
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        for ask in [
            Ask::post("1"),
            Ask::post("2").undeclared(),
            Ask::post("3").to("/v1/streams/telemetry"),
        ] {
            let reply = client.send(&ask);
            assert_eq!(
                (reply.status, &reply.body[..]),
                (204, &b""[..]),
                "{protocol}"
            );
            let (names, advertised) = match protocol {
                Protocol::H3 => (vec![], None),
                _ => (vec!["alt-svc", "date"], Some(alt_svc.as_str())),
            };
            assert_eq!(reply.header_names(), names, "{protocol}");
            assert_eq!(reply.header("alt-svc"), advertised);
        }
    }
    assert_eq!(gateway.files("telemetry").len(), 9);
    for protocol in Protocol::ALL {
        let series =
            format!("forebay_http_requests_total{{protocol=\"{protocol}\",status=\"204\"}}");
        assert_eq!(gateway.metric(&series), 3.0, "{series}");
    }
}

/// Each refusal that follows from the request alone, on a connection that goes on.
#[test]
fn each_fault_of_a_request_has_its_answer() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    let x = ECHO;
    let cases = [
        (Ask::post(""), 400, "empty-body"),
        (
            Ask::post(x).with("idempotency-key", &format!("two words {x}")),
            400,
            "invalid-idempotency-key",
        ),
        (
            Ask::post(x).with("idempotency-key", &x.repeat(5)),
            400,
            "invalid-idempotency-key",
        ),
        (
            Ask::post(x)
                .with("idempotency-key", "a")
                .with("idempotency-key", "a"),
            400,
            "invalid-idempotency-key",
        ),
        (
            Ask::post(x).to(&format!("/v1/streams/{x}")),
            403,
            "stream-forbidden",
        ),
        (
            Ask::post(x).to("/v1/streams/alarms"),
            403,
            "stream-forbidden",
        ),
        (Ask::post(x).to(&format!("/{x}")), 404, "not-found"),
        (Ask::post(x).to("/v1/telemetry/"), 404, "not-found"),
        (Ask::post(x).to("/v1/streams/"), 404, "not-found"),
        (Ask::post(x).by("PUT"), 405, "method-not-allowed"),
        (Ask::post(x).by("GET"), 405, "method-not-allowed"),
        (
            Ask::post(x).with("content-encoding", "deflate"),
            415,
            "unsupported-encoding",
        ),
        (
            Ask::post(x).with("content-encoding", x),
            415,
            "unsupported-encoding",
        ),
        (
            Ask::post(x).at(&format!("{x}.example.com")),
            421,
            "misdirected",
        ),
    ];
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        for (ask, status, code) in &cases {
            let reply = client.send(ask);
            assert_problem(&reply, *status, code);
            assert_eq!(
                reply.header("allow"),
                (*status == 405).then_some("POST"),
                "{protocol}"
            );
            assert_eq!(reply.header("alt-svc").is_some(), protocol != Protocol::H3);
        }
        assert_eq!(
            client.send(&Ask::post("still here")).status,
            204,
            "{protocol}"
        );
    }
    assert_eq!(gateway.files("telemetry").len(), 3);
}

/// Nobody learns from an answer which streams there are.
#[test]
fn unknown_and_forbidden_streams_are_the_same_to_a_device() {
    let gateway = gateway();
    let (plant, other) = (gateway.device("plant-1"), gateway.device("plc-1"));
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &other);
        let unknown = client.send(&Ask::post("1").to("/v1/streams/none"));
        let forbidden = client.send(&Ask::post("1").to("/v1/streams/alarms"));
        let without_date = |reply: Reply| (reply.status, reply.body, reply.headers.len());
        assert_eq!(without_date(unknown), without_date(forbidden));
        let allowed =
            Client::open(protocol, &gateway, &plant).send(&Ask::post("1").to("/v1/streams/alarms"));
        assert_eq!(allowed.status, 204);
    }
    assert_eq!(
        (
            gateway.files("telemetry").len(),
            gateway.files("alarms").len()
        ),
        (0, 3)
    );
}

#[test]
fn a_malformed_request_is_refused() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    for protocol in [Protocol::H2, Protocol::H3] {
        let client = Client::open(protocol, &gateway, &device);
        match client.try_send(&Ask::post("1").with("host", &format!("{ECHO}.example.com"))) {
            Ok(reply) => assert_problem(&reply, 400, "malformed-request"),
            Err(error) => assert!(
                protocol == Protocol::H3 && error.contains("stream reset 270"),
                "{error}"
            ),
        }
    }
    for no_host in [
        &format!("{ECHO}: 1"),
        "host: localhost:none",
        "host: [::1]:none",
    ] {
        let head =
            format!("POST /v1/telemetry HTTP/1.1\r\n{no_host}\r\ncontent-length: 1\r\n\r\n1");
        let client = Client::open(Protocol::H1, &gateway, &device);
        assert_problem(
            &client.raw(head.as_bytes()).expect("an answer"),
            400,
            "malformed-request",
        );
        client.closed();
    }
    let client = Client::open(Protocol::H1, &gateway, &device);
    let reply = client
        .raw(format!("POST /{ECHO} HTTP/9.9\r\n\r\n").as_bytes())
        .expect("an answer");
    assert_problem(&reply, 400, "malformed-request");
    client.closed();
    assert_eq!(gateway.files("telemetry").len(), 0);
}

/// A body that is shorter or longer than declared is no reading. Where the codec finds out, it ends the stream.
#[test]
fn a_body_of_another_length_than_declared_is_refused() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    for (protocol, length) in [
        (Protocol::H2, "2"),
        (Protocol::H2, "4"),
        (Protocol::H3, "2"),
        (Protocol::H3, "4"),
    ] {
        let client = Client::open(protocol, &gateway, &device);
        match client.try_send(&Ask::post("abc").declaring(length)) {
            Ok(reply) => assert_problem(&reply, 400, "malformed-request"),
            Err(error) => assert!(
                error.starts_with("ConnectionError"),
                "{protocol} {length}: {error}"
            ),
        }
    }
    assert_eq!(gateway.files("telemetry").len(), 0);
}

#[test]
fn a_certificate_without_a_usable_id_is_403_and_the_end_of_the_connection() {
    let gateway = gateway();
    let spaces = gateway
        .pki
        .device_with_uris("ugly", &[&format!("{ECHO} 7")]);
    let two = gateway
        .pki
        .device_with_uris("ambiguous", &["plc-1", "plc-2"]);
    let none = gateway.pki.device_with_uris("none", &[]);
    for protocol in Protocol::ALL {
        for device in [&spaces, &two, &none] {
            let client = Client::open(protocol, &gateway, device);
            assert_problem(&client.send(&Ask::post("1")), 403, "invalid-identity");
            client.closed();
        }
    }
    assert_eq!(gateway.files("telemetry").len(), 0);
}

#[test]
fn a_certificate_that_expires_ends_its_connections() {
    let gateway = gateway();
    let device = gateway.pki.expiring("plc-1", 5);
    let clients = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, &device));
    for client in clients {
        let mut last = client.send(&Ask::post("1"));
        eventually("the end of the certificate", || {
            assert!(last.status == 204 || last.status == 403, "{last:?}");
            last = if last.status == 204 {
                client.send(&Ask::post("1"))
            } else {
                last.clone()
            };
            last.status == 403
        });
        assert_problem(&last, 403, "certificate-expired");
        client.closed();
    }
}

#[test]
fn a_body_that_does_not_come_is_408() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        for ask in [Ask::post(ECHO).declaring(100), Ask::post(ECHO).undeclared()] {
            let client = Client::open(protocol, &gateway, &device);
            let reply = client.hold(&ask).wait().expect("an answer");
            assert_problem(&reply, 408, "body-timeout");
            if protocol == Protocol::H1 {
                assert_eq!(reply.header("connection"), Some("close"));
                client.closed();
            }
        }
    }
    assert_eq!(gateway.files("telemetry").len(), 0);
}

/// Declared, the head alone is enough for the answer; undeclared, the bytes that arrive.
#[test]
fn a_body_that_is_too_large_is_413() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    let too_large = vec![b'x'; (64 << 10) + 1];
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        let unread = client
            .hold(&Ask::post("").declaring(too_large.len()))
            .wait()
            .expect("an answer");
        assert_problem(&unread, 413, "body-too-large");
        // More than the bucket ever holds: waiting would not help.
        let client = Client::open(protocol, &gateway, &device);
        let reply = client
            .hold(&Ask::post("").declaring((32 << 10) + 1))
            .wait()
            .expect("an answer");
        assert_problem(&reply, 413, "body-too-large");
    }
    let gateway = Setup::new()
        .without_limits()
        .set("FOREBAY_BODY_BYTES_MAX", "64KiB")
        .start();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        assert_problem(
            &client.send(&Ask::post(&too_large[..]).undeclared()),
            413,
            "body-too-large",
        );
        let client = Client::open(protocol, &gateway, &device);
        assert_eq!(
            client.send(&Ask::post(&too_large[1..]).undeclared()).status,
            204
        );
    }
    assert_eq!(gateway.files("telemetry").len(), 3);
}

/// A head beyond 16 KiB; h3 may end the stream or the connection instead.
#[test]
fn a_head_that_is_too_large_is_431() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        match client.try_send(&Ask::post("1").with("x-large", &"x".repeat(17 << 10))) {
            Ok(reply) => assert_eq!(reply.status, 431, "{protocol}"),
            Err(error) => assert_eq!(protocol, Protocol::H3, "{error}"),
        }
        let fits = Client::open(protocol, &gateway, &device)
            .send(&Ask::post("1").with("x-fits", &"x".repeat(8 << 10)));
        assert_eq!(fits.status, 204, "{protocol}");
    }
    assert_eq!(gateway.files("telemetry").len(), 3);
}

/// One body holds the budget while another asks for it.
#[test]
fn more_than_the_memory_budget_is_503() {
    let gateway = Setup::new()
        .without_limits()
        .set("FOREBAY_BODY_BYTES_MAX", "64KiB")
        .set("FOREBAY_MEMORY_MAX", "72KiB")
        .start();
    let (greedy, other) = (gateway.device("plc-1"), gateway.device("plc-2"));
    let body = vec![b'x'; 60 << 10];
    for protocol in Protocol::ALL {
        let holder = Client::open(protocol, &gateway, &greedy);
        let (last, most) = body.split_last().expect("a body");
        let held: Sent = holder.hold(&Ask::post(most).declaring(body.len()));
        eventually("the reservation", || {
            gateway.metric("forebay_admission_bytes") > body.len() as f64
        });
        let reply = Client::open(protocol, &gateway, &other).send(&Ask::post(&body[..]));
        assert_problem(&reply, 503, "overloaded");
        assert_retry_after(&reply);
        held.release(&[*last]);
        assert_eq!(held.wait().expect("an answer").status, 204, "{protocol}");
        eventually("the budget's return", || {
            gateway.metric("forebay_admission_bytes") == 0.0
        });
    }
    assert_eq!(gateway.files("telemetry").len(), 3);
}

/// A time to come back in, not too far off.
pub fn assert_retry_after(reply: &Reply) {
    let seconds: u64 = reply
        .header("retry-after")
        .and_then(|value| value.parse().ok())
        .expect("Retry-After");
    assert!((1..=10).contains(&seconds), "{seconds}");
}

/// In this order, on every protocol: of two faults, the earlier one is answered.
#[test]
fn the_first_fault_in_the_order_of_checks_is_answered() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    let wrong_host = |ask: Ask| ask.at("example.com");
    let cases = [
        (wrong_host(Ask::post("1").to("/none")), 421),
        (Ask::post("1").to("/none").by("PUT"), 404),
        (Ask::post("1").to("/v1/streams/alarms").by("PUT"), 405),
        (
            Ask::post("1")
                .to("/v1/streams/alarms")
                .with("content-encoding", "br"),
            403,
        ),
        (Ask::post("").with("content-encoding", "br"), 415),
        (Ask::post("").with("idempotency-key", ""), 400),
    ];
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        for (ask, status) in &cases {
            assert_eq!(client.send(ask).status, *status, "{protocol} {ask:?}");
        }
    }
    let codec_counts =
        gateway.metric("forebay_http_requests_total{protocol=\"h3\",status=\"421\"}");
    assert_eq!(codec_counts, 1.0);
}

/// The rest of a body that was refused is read, and not taken for a request; the connection goes on.
#[test]
fn a_refusal_does_not_cost_the_connection() {
    let gateway = gateway();
    let device = gateway.device("plc-1");
    let hidden = "POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1";
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        let sent = client.hold(&Ask::post("1").to("/none").declaring(1 + hidden.len()));
        let answers =
            format!("forebay_http_requests_total{{protocol=\"{protocol}\",status=\"404\"}}");
        eventually("the answer", || gateway.metric(&answers) == 1.0);
        sent.release(hidden.as_bytes());
        assert_eq!(sent.wait().expect("an answer").status, 404);
        assert_eq!(client.send(&Ask::post("2")).status, 204, "{protocol}");
    }
    let stored: Vec<_> = gateway
        .files("telemetry")
        .iter()
        .map(|line| line.payload())
        .collect();
    assert_eq!(stored, [b"2"; 3]);
}

/// A client that does not listen before it has sent its body gets the answer all the same: here it is larger than the
/// window of a stream, which many clients wait for. On h3 it may also be larger than what is read on: there the gateway
/// can say that stopping is no error.
#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let gateway = Setup::new()
        .without_limits()
        .set("FOREBAY_BODY_BYTES_MAX", "64KiB")
        .start();
    let device = gateway.device("plc-1");
    let everybody = [Via::Curl, Via::Httpx, Via::CurlCffi]
        .map(|via| [(via, Protocol::H1), (via, Protocol::H2)]);
    let h3 = [[(Via::Wire, Protocol::H3), (Via::CurlCffi, Protocol::H3)]];
    for (via, protocol) in everybody.into_iter().chain(h3).flatten() {
        let sizes: &[usize] = if protocol == Protocol::H3 {
            &[200 << 10, 3 << 20]
        } else {
            &[200 << 10]
        };
        for size in sizes {
            let client = Client::open_via(via, protocol, &gateway, &device);
            let reply = client.try_send(&Ask::post(vec![b'x'; *size]));
            let status = reply.as_ref().map(|reply| reply.status);
            assert_eq!(status, Ok(413), "{via:?} {protocol} {size}: {reply:?}");
        }
    }
}
