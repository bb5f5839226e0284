//! The door of OpenTelemetry.

use serde_json::json;

use super::{assert_refused, doors, last};
use crate::encoded::gzip;
use crate::harness::{Ask, Client, Protocol, Reply};
use crate::status::assert_problem;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// Bytes that nobody needs to understand.
const BODY: &[u8] = b"\x0a\x05\x12\x03\xff\x00\x0a";

fn export(body: &[u8], kind: &str) -> Ask {
    Ask::post(body).to("/v1/traces").with("content-type", kind)
}

/// The answer is an empty message in the encoding of its request.
fn assert_taken(reply: &Reply, kind: &str) {
    assert_eq!(reply.status, 200, "{reply:?}");
    let kind = if kind.starts_with(JSON) { JSON } else { kind };
    assert_eq!(reply.header("content-type"), Some(kind), "{reply:?}");
    let expected: &[u8] = if kind == JSON { b"{}" } else { b"" };
    assert_eq!(reply.body, expected);
}

#[test]
fn what_is_exported_arrives_byte_for_byte() {
    let gateway = doors().without_limits().start();
    let text = br#"{"resourceSpans": [ ]}"#;
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        for (path, signal) in [("/v1/traces", "traces"), ("/v1/metrics", "metrics")] {
            for (kind, encoding, body) in [
                (PROTOBUF, "otlp_proto", BODY),
                (JSON, "otlp_json", &text[..]),
                ("application/json; charset=utf-8", "otlp_json", &text[..]),
            ] {
                let plain = export(body, kind).to(path);
                let packed = export(&gzip(body), kind).to(path);
                for ask in [
                    plain.clone(),
                    plain.undeclared(),
                    packed.with("content-encoding", "gzip"),
                ] {
                    assert_taken(&client.send(&ask), kind);
                    let lines = gateway.files(signal);
                    let line = lines.last().expect("a record");
                    let expected = match encoding {
                        "otlp_json" => br#"{"resourceSpans":[]}"#,
                        _ => body,
                    };
                    assert_eq!(line.payload(), expected, "{protocol} {path}");
                    let record = last(&gateway, signal);
                    assert_eq!(record["content_type"], kind);
                    let headers = json!({ "otlp-signal": signal, "otlp-encoding": encoding });
                    assert_eq!(record["headers"], headers);
                }
            }
        }
    }
    assert!(
        gateway
            .file_text("traces")
            .contains("\"payload\":{\"resourceSpans\": [ ]}")
    );
}

/// An export of nothing is a message of no bytes: nothing has to be kept.
#[test]
fn an_empty_message_is_sound_and_no_record() {
    let gateway = doors().without_limits().start();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        for kind in [PROTOBUF, JSON] {
            let empty = export(b"", kind);
            assert_taken(&client.send(&empty), kind);
            assert_taken(&client.send(&empty.clone().undeclared()), kind);
            let packed = export(&gzip(b""), kind).with("content-encoding", "gzip");
            assert_taken(&client.send(&packed), kind);
        }
        // The connection goes on with what has bytes.
        assert_taken(&client.send(&export(BODY, PROTOBUF)), PROTOBUF);
        assert_problem(&client.send(&Ask::post("")), 400, "empty-body");
    }
    assert_eq!(gateway.files("traces").len(), 3);
}

#[test]
fn what_is_no_export_is_refused_as_a_status() {
    let gateway = doors().without_limits().start();
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &gateway.device("plc-1"));
        let told = |ask: &Ask, status, code| {
            assert_refused("otlp", &client.send(ask), status, code);
        };
        told(&export(BODY, PROTOBUF).to("/v1/logs"), 404, "not-found");
        told(&export(BODY, "text/plain"), 415, "unsupported-media-type");
        told(
            &Ask::post(BODY).to("/v1/traces"),
            415,
            "unsupported-media-type",
        );
        let foreign = "application/json; charset=\u{e4}";
        told(&export(b"{}", foreign), 415, "unsupported-media-type");
        let both = export(BODY, "text/plain").with("content-encoding", "br");
        told(&both, 415, "unsupported-encoding");
        told(&export(b"", "text/plain"), 415, "unsupported-media-type");
        let reply = client.send(&export(b"{}", JSON).with("content-encoding", "gzip"));
        assert_eq!(reply.header("content-type"), Some(JSON), "{reply:?}");
        let status = reply.problem();
        assert_eq!((reply.status, &status["code"]), (400, &json!(3)));
        let message = status["message"].as_str().unwrap_or_default();
        assert!(message.starts_with("malformed-encoding: "), "{status}");
        // Beside its paths there is nothing of this door.
        let below = export(BODY, PROTOBUF).to("/v1/traces/records");
        assert_problem(&client.send(&below), 404, "not-found");
    }
    assert_eq!(gateway.files("traces").len(), 0);
}
