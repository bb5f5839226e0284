//! A record as one line of JSON.
//!
//! The file sink renders with it, and `forebay spool dump`. A line holds `device` where the record
//! is one's, `received_at`
//! (RFC 3339, UTC, milliseconds), `content_type` when sent, `record_id`, `traceparent` when sent,
//! `schema_violation` where a rule has tagged it, `headers`, an object, where it has further ones,
//! and `payload`: the body's own bytes when they are one JSON value that any reader of the line can
//! take, else `payload_base64` (standard alphabet, padded). Duplicate keys and long numbers stay as
//! they were sent: nothing is parsed and printed again.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::value::RawValue;

use crate::record::{Headers, Record, SCHEMA_VIOLATION};

/// Deeper JSON goes to `payload_base64`: serde_json's readers stop at 128, and the line is one
/// level of its own.
const DEPTH_MAX: usize = 100;

/// Appends the record's line, its line break included.
pub(crate) fn render(record: &Record, lines: &mut Vec<u8>) {
    let mut id = [0; 36];
    let before_time: &[u8] = match record.key() {
        Some(device) => {
            push_text(lines, b"{\"device\":", device);
            b",\"received_at\":"
        }
        None => b"{\"received_at\":",
    };
    push_text(lines, before_time, &record.received_at.rfc3339_millis());
    if let Some(content_type) = &record.content_type {
        push_text(lines, b",\"content_type\":", content_type);
    }
    push_text(lines, b",\"record_id\":", record.id.as_str(&mut id));
    if let Some(trace) = &record.trace {
        push_text(lines, b",\"traceparent\":", trace.as_str());
    }
    push_headers(lines, &record.headers);
    push_payload(lines, &record.payload);
    lines.extend_from_slice(b"}\n");
}

fn push_headers(lines: &mut Vec<u8>, headers: &Headers) {
    let mut is_first = true;
    for (name, value) in headers.iter() {
        if name == SCHEMA_VIOLATION {
            push_text(lines, b",\"schema_violation\":", value);
        }
    }
    for (name, value) in headers.iter() {
        if name == SCHEMA_VIOLATION {
            continue;
        }
        let before: &[u8] = if is_first { b",\"headers\":{" } else { b"," };
        push_text(lines, before, name);
        push_text(lines, b":", value);
        is_first = false;
    }
    if !is_first {
        lines.push(b'}');
    }
}

fn push_payload(lines: &mut Vec<u8>, payload: &[u8]) {
    if let Some(json) = plain_json(payload) {
        lines.extend_from_slice(b",\"payload\":");
        lines.extend_from_slice(json.as_bytes());
    } else {
        push_text(lines, b",\"payload_base64\":", &STANDARD.encode(payload));
    }
}

fn push_text(lines: &mut Vec<u8>, key: &[u8], value: &str) {
    lines.extend_from_slice(key);
    // Cannot fail: a string is JSON, and a Vec takes every write.
    serde_json::to_writer(lines, value).expect("a string is written to memory");
}

/// Returns the body's text when it is exactly one JSON value on one line that every reader agrees
/// upon.
fn plain_json(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    let value: &RawValue = serde_json::from_str(text).ok()?;
    let alone = value.get().len() == text.len();
    let one_line = !text.contains(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']);
    (alone && one_line && is_tame(text)).then_some(text)
}

/// Whether valid JSON is neither too deep, nor has half a surrogate pair or a number beyond every
/// double.
fn is_tame(json: &str) -> bool {
    let bytes = json.as_bytes();
    let mut at = 0;
    let mut depth = 0usize;
    while let Some(byte) = bytes.get(at) {
        let end = match byte {
            b'"' => string_end(bytes, at + 1),
            b'-' | b'0'..=b'9' => number_end(json, at),
            _ => Some(at + 1),
        };
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        let Some(end) = end.filter(|_| depth <= DEPTH_MAX) else {
            return false;
        };
        debug_assert!(end > at, "each step goes on");
        at = end;
    }
    true
}

/// Finds where the number that begins at `start` is over; `None` when no double is as large.
fn number_end(json: &str, start: usize) -> Option<usize> {
    let is_part = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    let digits = json.as_bytes()[start..]
        .iter()
        .take_while(|byte| is_part(byte));
    let end = start + digits.count();
    let number: f64 = json[start..end].parse().ok()?;
    number.is_finite().then_some(end)
}

/// Finds where the string whose text begins at `at` is over; `None` when half a surrogate pair is
/// in it.
fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' if bytes.get(at + 1) == Some(&b'u') => match utf16_unit(bytes, at)? {
                0xd800..0xdc00 => (0xdc00..0xe000)
                    .contains(&utf16_unit(bytes, at + 6)?)
                    .then_some(12)?,
                0xdc00..0xe000 => return None,
                _ => 6,
            },
            b'\\' => 2,
            _ => 1,
        };
    }
}

/// Reads the code unit of the escape `\uXXXX` at `at`.
fn utf16_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::record::Timestamp;
    use crate::sink::file::tests::record;

    fn line(body: &[u8]) -> String {
        let mut lines = Vec::new();
        render(&record("urn:plant/7", body), &mut lines);
        String::from_utf8(lines).unwrap()
    }

    #[test]
    fn a_line_has_the_promised_fields_in_their_order() {
        let mut record = record("plc-7", b"{\"a\": 1}");
        record.received_at = Timestamp(1_795_425_300_123);
        record.content_type = Some("text/\"x\"".into());
        let mut lines = Vec::new();
        render(&record, &mut lines);
        let id = record.id.as_str(&mut [0; 36]).to_owned();
        let expected = format!(
            "{{\"device\":\"plc-7\",\"received_at\":\"2026-11-23T09:15:00.123Z\",\"content_type\":\"text/\\\"x\\\"\",\
             \"record_id\":\"{id}\",\"payload\":{{\"a\": 1}}}}\n"
        );
        assert_eq!(String::from_utf8(lines).unwrap(), expected);
    }

    #[test]
    fn further_headers_are_an_object_and_a_violation_is_a_member() {
        let mut record = record("plc-7", b"1");
        let mut rest = |name: &str, value: &str| {
            record.headers.add(name, value);
            let mut lines = Vec::new();
            render(&record, &mut lines);
            let line = String::from_utf8(lines).unwrap();
            let (_, rest) = line.split_once("\",\"record_id\":").unwrap();
            rest.split_once(',').unwrap().1.to_owned()
        };
        let violation = "\"schema_violation\":\"/type\",\"payload\":1}\n";
        assert_eq!(rest("schema-violation", "/type"), violation);
        rest("topic", "a/\"b\"");
        assert_eq!(
            rest("iothub-app-x", "y"),
            "\"schema_violation\":\"/type\",\"headers\":{\"topic\":\"a/\\\"b\\\"\",\"iothub-app-x\":\"y\"},\"payload\":1}\n"
        );
    }

    #[test]
    fn json_is_kept_as_it_was_sent() {
        let bodies = [
            r#"{"a":1,"a":2}"#,
            "123456789012345678901234567890.10",
            r#" {"b" :[ ]}"#.trim(),
            r#""\ud83d\ude00 \\ud800 \u00e9""#,
            "null",
            "-0.0E+2",
            "\"ü\"",
        ];
        for body in bodies {
            assert!(
                line(body.as_bytes()).ends_with(&format!(",\"payload\":{body}}}\n")),
                "{body}"
            );
        }
    }

    #[test]
    fn anything_doubtful_is_kept_in_base64() {
        let deep = "[".repeat(DEPTH_MAX + 1) + &"]".repeat(DEPTH_MAX + 1);
        let bodies = [
            &b"{\"a\":\n1}"[..],
            b"1\r",
            b"{} ",
            b" {}",
            b"\xef\xbb\xbf{}",
            b"\xff",
            b"\"\\ud800\"",
            b"\"\\ud83d\\u0041\"",
            b"\"\\udc00\"",
            b"[1e999]",
            "\"\u{2028}\"".as_bytes(),
            b"1,\"device\":\"other\"",
            b"{}{}",
            b"NaN",
            b"hello",
            b"",
            deep.as_bytes(),
        ];
        for body in bodies {
            let line: Value = serde_json::from_str(&line(body)).unwrap();
            assert_eq!(
                line["payload_base64"],
                STANDARD.encode(body),
                "{:?}",
                String::from_utf8_lossy(body)
            );
            assert_eq!(line.get("payload"), None);
        }
    }

    proptest! {
        #[test]
        fn any_body_is_one_line_that_gives_it_back(body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            r#"[\[\]{}":,\\ud8c01e9. a-]{0,30}"#.prop_map(String::into_bytes),
            "\"(\\\\u[d0][89cf]00|\\\\\\\\|x){0,4}\"".prop_map(String::into_bytes),
        ]) {
            let line = line(&body);
            prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
            let fields: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(&fields["device"], "urn:plant/7");
            match fields.get("payload_base64") {
                Some(text) => prop_assert_eq!(STANDARD.decode(text.as_str().unwrap()).unwrap(), body),
                None => {
                    let text = line.split_once(",\"payload\":").unwrap().1.strip_suffix("}\n").unwrap();
                    prop_assert_eq!(text.as_bytes(), body);
                }
            }
        }
    }
}
