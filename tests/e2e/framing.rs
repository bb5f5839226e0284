//! The end of an HTTP/1.1 request, in bytes that two readers could read in two ways: one request is one record or one refusal,
//! and nothing that follows is taken for another request.

use crate::harness::raw::{Raw, block_on, tls};
use crate::harness::{Client, Gateway, Protocol, Reply, Setup};
use crate::status::assert_problem;

/// Request hidden in a body; it must never arrive.
const HIDDEN: &str =
    "POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 6\r\n\r\nhidden";

fn gateway() -> Gateway {
    Setup::new().without_limits().start()
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\n{fields}\r\n{body}")
}

fn open(gateway: &Gateway) -> Client {
    Client::open(Protocol::H1, gateway, &gateway.device("plc-1"))
}

fn ask(client: &Client, bytes: impl AsRef<[u8]>) -> Reply {
    client.raw(bytes.as_ref()).expect("an answer")
}

fn stored(gateway: &Gateway) -> Vec<Vec<u8>> {
    gateway
        .files("telemetry")
        .iter()
        .map(|line| line.payload().to_vec())
        .collect()
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_and_hides_nothing() {
    let gateway = gateway();
    let heads = [
        post("content-length: 6\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding: chunked\r\ncontent-length: 6\r\n", "0\r\n\r\n"),
        post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding : chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding:\x0bchunked\r\n", "0\r\n\r\n"),
        post("x: 1\r\n transfer-encoding: chunked\r\n", "0\r\n\r\n"),
        post("content-length: 1\r\ncontent-length: 1\r\n", "1"),
        post("content-length: 1\r\ncontent-length: 200\r\n", "1"),
        post("content-length: 1, 1\r\n", "1"),
        post("content-length: +1\r\n", "1"),
        post("content-length: -1\r\n", "1"),
        post("content-length: 0x1\r\n", "1"),
        post("content-length: 1\nx: 1\r\n", "1"),
        post("content-length: 1\r\nx: 1\n", "1"),
        post("content-length: 1\rx: 1\r\n", "1"),
        post("transfer-encoding: chunked\r\n", "1\n1\r\n0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", "+1\r\n1\r\n0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", "1 \r\n1\r\n0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", "1\r\n12\r\n0\r\n\r\n"),
        post("transfer-encoding: chunked\r\n", "10000000000000001\r\n1\r\n0\r\n\r\n"),
        "POST /v1/telemetry HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".into(),
        "POST /v1/telemetry HTTP/1.1\nhost: localhost\ncontent-length: 1\n\n1".into(),
        "POST  /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1".into(),
        "POST /v1/telemetry\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1".into(),
    ];
    for head in heads {
        let client = open(&gateway);
        let reply = ask(&client, format!("{head}{HIDDEN}"));
        assert_problem(&reply, 400, "malformed-request");
        assert_eq!(reply.header("connection"), Some("close"), "{head:?}");
        assert_eq!(client.closed(), "end after 0 bytes", "{head:?}");
    }
    assert_eq!(stored(&gateway), Vec::<Vec<u8>>::new());
}

/// Many small stacks send chunks, and a connection for each reading is what costs them most.
#[test]
fn after_plain_chunks_the_connection_goes_on() {
    let gateway = gateway();
    let client = open(&gateway);
    let chunked = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{body}"
        )
    };
    let requests = [
        chunked("/v1/telemetry", "3\r\nabc\r\n0002\r\nde\r\n0\r\n\r\n"),
        chunked("/none", "3\r\nabc\r\n0\r\n\r\n"),
        chunked("/v1/telemetry", "0\r\n\r\n"),
        chunked("/v1/telemetry", "1\r\nf\r\n00\r\n\r\n"),
        post("content-length: 1\r\n", "1"),
    ]
    .concat();
    let replies = [requests.as_str(), "", "", "", ""].map(|bytes| ask(&client, bytes));
    assert_eq!(
        replies.each_ref().map(|reply| reply.status),
        [204, 404, 400, 204, 204]
    );
    let closes = |reply: &Reply| reply.header("connection").is_some();
    assert!(!replies.iter().any(closes), "{replies:?}");
    let stored = stored(&gateway);
    assert_eq!(stored, [&b"abcde"[..], b"f", b"1"]);
    let last = "POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n1\r\n2\r\n0\r\n\r\n";
    assert_eq!(ask(&client, last).header("connection"), Some("close"));
    assert_eq!(client.closed(), "end after 0 bytes");
}

/// Chunks with more in them than data are understood; but whoever framed them may have meant something else.
#[test]
fn after_odd_chunks_the_connection_ends() {
    let gateway = gateway();
    let odd = [
        ("/v1/telemetry", "1;name=\"value\"\r\n1\r\n0\r\n\r\n", 204),
        ("/v1/telemetry", "1\r\n1\r\n0;last\r\n\r\n", 204),
        ("/v1/telemetry", "1\r\n1\r\n0\r\nx-trailer: 1\r\n\r\n", 204),
        ("/none", "1;x\r\n1\r\n0\r\n\r\n", 404),
    ];
    for (path, body, status) in odd {
        let client = open(&gateway);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        assert_eq!(
            ask(&client, head + body + HIDDEN).status,
            status,
            "{body:?}"
        );
        assert_eq!(client.closed(), "end after 0 bytes", "{body:?}");
    }
    assert_eq!(stored(&gateway), [b"1"; 3]);
}

#[test]
fn after_odd_chunks_the_answer_says_so() {
    let gateway = gateway();
    let client = open(&gateway);
    let body = "3;name=\"value\"\r\nabc\r\n2\r\nde\r\n0\r\nx-trailer: 1\r\n\r\n";
    let reply = ask(
        &client,
        post("transfer-encoding: chunked\r\n", body) + HIDDEN,
    );
    assert_eq!(
        (reply.status, reply.header("connection")),
        (204, Some("close"))
    );
    assert_eq!(client.closed(), "end after 0 bytes");
    assert_eq!(stored(&gateway), [b"abcde"]);
}

#[test]
fn requests_that_are_sent_ahead_are_answered_in_their_order() {
    let gateway = gateway();
    let client = open(&gateway);
    let missing = "POST /none HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n2";
    let requests = [
        &post("content-length: 1\r\n", "1"),
        missing,
        "\r\n",
        &post("content-length: 1\r\n", "3"),
    ]
    .concat();
    let statuses = [requests.as_str(), "", ""].map(|bytes| ask(&client, bytes).status);
    assert_eq!(statuses, [204, 404, 204]);
    assert_eq!(stored(&gateway), [b"1", b"3"]);
}

#[test]
fn the_forms_of_a_request_that_are_legal_are_taken() {
    let gateway = gateway();
    let client = open(&gateway);
    let absolute = "POST https://localhost/v1/telemetry?a=b HTTP/1.1\r\nhost: other\r\ncontent-length: 1\r\n\r\n1";
    let shouted = "POST /v1/telemetry HTTP/1.1\r\nHOST: LOCALHOST\r\nCONTENT-LENGTH: 1\r\n\r\n2";
    assert_eq!(
        [absolute, shouted].map(|bytes| ask(&client, bytes).status),
        [204, 204]
    );
    let old = "POST /v1/telemetry HTTP/1.0\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n3";
    let reply = ask(&client, old);
    assert_eq!(
        (reply.status, reply.header("connection")),
        (204, Some("close"))
    );
    client.closed();
    assert_eq!(stored(&gateway), [b"1", b"2", b"3"]);
}

/// RFC 9112 section 3.2: HTTP/1.1 has a Host, whatever the target says; HTTP/1.0 need not have one.
#[test]
fn an_absolute_target_is_no_host() {
    let gateway = gateway();
    let target = "POST https://localhost/v1/telemetry";
    let bad = ["", "host: \r\n", "host: a b\r\n", "host: a\r\nhost: a\r\n"];
    for host in bad {
        let client = open(&gateway);
        let request = format!("{target} HTTP/1.1\r\n{host}content-length: 1\r\n\r\n1{HIDDEN}");
        assert_problem(&ask(&client, request), 400, "malformed-request");
        assert_eq!(client.closed(), "end after 0 bytes", "{host:?}");
    }
    let client = open(&gateway);
    let old = ask(
        &client,
        format!("{target} HTTP/1.0\r\ncontent-length: 1\r\n\r\n1"),
    );
    assert_eq!(old.status, 204);
    assert_eq!(stored(&gateway), [b"1"]);
}

/// Everything that the gateway says in answer to this, on a connection that chose this protocol.
fn exchange(gateway: &Gateway, protocol: &str, request: &str) -> String {
    let tls = tls(gateway, Some(&gateway.device("plc-1")), protocol);
    let said = block_on(async {
        let mut raw = Raw::open(gateway.address, tls).await.expect("it connects");
        raw.send(request.as_bytes()).await.expect("it listens");
        raw.receive_all().await
    });
    String::from_utf8(said).expect("ASCII")
}

/// A client that knows no more than HTTP/1.0 may say so in its handshake.
#[test]
fn http_1_0_is_a_protocol_of_alpn() {
    let gateway = gateway();
    let request = "POST /v1/telemetry HTTP/1.0\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1";
    let said = exchange(&gateway, "http/1.0", request);
    assert!(said.starts_with("HTTP/1.1 204 No Content\r\n"), "{said}");
    assert_eq!(stored(&gateway), [b"1"]);
}

/// Names are blind to case, but not every client knows: they are spelled as everybody spells them.
#[test]
fn field_names_are_in_title_case() {
    let gateway = Setup::new()
        .set("FOREBAY_DEVICE_RATE", "0.00001")
        .set("FOREBAY_DEVICE_BURST", 1)
        .start();
    let requests = post("content-length: 1\r\n", "1").repeat(2)
        + "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let said = exchange(&gateway, "http/1.1", &requests);
    let heads: Vec<_> = said.split("HTTP/1.1 ").skip(1).collect();
    let names = |answer: &str| -> Vec<String> {
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        let fields = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        fields.map(|(name, _)| name.to_owned()).collect()
    };
    assert_eq!(names(heads[0]), ["Alt-Svc", "Date"]);
    let mut limited = names(heads[1]);
    limited.sort();
    let all = [
        "Alt-Svc",
        "Content-Length",
        "Content-Type",
        "Date",
        "RateLimit",
        "RateLimit-Policy",
        "Retry-After",
    ];
    assert_eq!(limited, all);
    assert!(names(heads[2]).contains(&"Connection".to_owned()), "{said}");
}

/// The client waits to be told to send its body.
#[test]
fn a_body_that_is_to_be_asked_for_is_asked_for() {
    let gateway = gateway();
    let client = open(&gateway);
    let go_on = ask(
        &client,
        post("expect: 100-continue\r\ncontent-length: 1\r\n", ""),
    );
    assert_eq!((go_on.status, go_on.headers), (100, vec![]));
    assert_eq!(ask(&client, "1").status, 204);
    // Nobody can tell whether what follows a refusal is the body or another request.
    let refused = ask(
        &client,
        "POST /none HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 6\r\n\r\n",
    );
    assert_eq!(
        (refused.status, refused.header("connection")),
        (404, Some("close"))
    );
    client.closed();
    assert_eq!(stored(&gateway), [b"1"]);
}

/// The answer to HEAD has the length of a body, and none.
#[test]
fn head_has_no_body() {
    let gateway = gateway();
    let client = open(&gateway);
    let asked = "HEAD /v1/telemetry HTTP/1.1\r\nhost: localhost\r\n\r\n";
    // The client waits for the body that is announced: what it reads is the next answer.
    let reply = ask(
        &client,
        format!("{asked}{}", post("content-length: 1\r\n", "1").repeat(4)),
    );
    assert_eq!(reply.status, 405);
    assert!(
        reply.body.starts_with(b"HTTP/1.1 204 No Content\r\n"),
        "{:?}",
        String::from_utf8_lossy(&reply.body)
    );
}

/// A head that begins and does not end is cut after the header time-out, however slowly it goes on.
#[test]
fn a_head_that_does_not_end_is_cut() {
    let gateway = Setup::new()
        .without_limits()
        .set("FOREBAY_HEADER_TIMEOUT", "300ms")
        .start();
    let client = open(&gateway);
    assert!(
        client
            .raw(b"POST /v1/telemetry HTTP/1.1\r\nhost: local")
            .is_err()
    );
}
