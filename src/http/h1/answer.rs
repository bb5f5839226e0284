//! Answers as HTTP/1.1 writes them. Names of fields are blind to case, but some clients compare
//! bytes: they are written as everybody writes them.

use std::cell::RefCell;
use std::io::Write;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, DATE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::http::date::Second;
use crate::record::Timestamp;

/// The answer that tells the client to send its body.
pub(crate) const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The name that `http::reply` gives this field, as it is written here.
const CERTIFICATE_EXPIRES: &[u8] = b"Forebay-Certificate-Expires: ";

const LINE_END: &[u8] = b"\r\n";

/// The head of a 204, all but its last line end, written once a second for all connections of a
/// worker.
#[derive(Default)]
pub(crate) struct Accepted {
    second: Second,
    without_end: RefCell<Bytes>,
    whole: RefCell<Bytes>,
}

impl Accepted {
    /// Returns the whole answer; tells when the device's certificate expires, if that is near.
    pub(crate) fn bytes(
        &self,
        at: Timestamp,
        expires: Option<&HeaderValue>,
        plain: impl FnOnce() -> Response<Bytes>,
    ) -> Bytes {
        if self.second.has_passed(at) {
            let whole = Bytes::from(encode(&plain(), at, false));
            debug_assert!(whole.ends_with(LINE_END), "a head ends in an empty line");
            *self.without_end.borrow_mut() = whole.slice(..whole.len() - LINE_END.len());
            *self.whole.borrow_mut() = whole;
        }
        match expires {
            None => self.whole.borrow().clone(),
            Some(expires) => notify(&self.without_end.borrow(), expires),
        }
    }
}

fn notify(head: &[u8], expires: &HeaderValue) -> Bytes {
    [
        head,
        CERTIFICATE_EXPIRES,
        expires.as_bytes(),
        LINE_END,
        LINE_END,
    ]
    .concat()
    .into()
}

/// Returns the response's bytes, dated (RFC 9110 section 6.6.1). `omits_body` for the answer to a
/// HEAD request.
pub(crate) fn encode(response: &Response<Bytes>, at: Timestamp, omits_body: bool) -> Vec<u8> {
    let (status, body) = (response.status(), response.body());
    debug_assert!(status != StatusCode::NO_CONTENT || body.is_empty());
    let mut bytes = Vec::with_capacity(512 + body.len());
    write_status(&mut bytes, status);
    for (name, value) in response.headers() {
        write_field(&mut bytes, name, value.as_bytes());
    }
    if status != StatusCode::NO_CONTENT {
        let length = body.len().to_string();
        write_field(&mut bytes, &CONTENT_LENGTH, length.as_bytes());
    }
    write_field(&mut bytes, &DATE, at.http_date().as_bytes());
    bytes.extend_from_slice(LINE_END);
    if !omits_body {
        bytes.extend_from_slice(body);
    }
    bytes
}

fn write_status(bytes: &mut Vec<u8>, status: StatusCode) {
    let reason = status.canonical_reason().unwrap_or_default();
    // Writing to memory does not fail.
    let _ = write!(bytes, "HTTP/1.1 {} {reason}\r\n", status.as_u16());
}

fn write_field(bytes: &mut Vec<u8>, name: &HeaderName, value: &[u8]) {
    bytes.extend_from_slice(title_case(name.as_str()).as_bytes());
    bytes.extend_from_slice(b": ");
    bytes.extend_from_slice(value);
    bytes.extend_from_slice(LINE_END);
}

/// Returns a lower-case name as it is usually written.
fn title_case(name: &str) -> String {
    debug_assert!(!name.bytes().any(|byte| byte.is_ascii_uppercase()));
    let mut titled = String::with_capacity(name.len());
    for word in name.split_inclusive('-') {
        match word {
            "ratelimit" => titled.push_str("RateLimit"),
            "ratelimit-" => titled.push_str("RateLimit-"),
            _ => {
                let (first, rest) = word.split_at(1);
                titled.push_str(&first.to_ascii_uppercase());
                titled.push_str(rest);
            }
        }
    }
    titled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::reply;

    const NOON: Timestamp = Timestamp(1_767_268_800_000);

    #[test]
    fn a_204_has_no_length_and_is_written_anew_each_second() {
        let accepted = Accepted::default();
        let response = || {
            Response::builder()
                .status(204)
                .header("x", "1")
                .body(Bytes::new())
                .unwrap()
        };
        let text = |at| String::from_utf8(accepted.bytes(at, None, response).to_vec()).unwrap();
        let expected =
            "HTTP/1.1 204 No Content\r\nX: 1\r\nDate: Thu, 01 Jan 2026 12:00:00 GMT\r\n\r\n";
        assert_eq!(text(NOON), expected);
        assert_eq!(text(Timestamp(NOON.0 + 999)), expected);
        assert_eq!(
            text(Timestamp(NOON.0 + 1000)),
            expected.replace("12:00:00", "12:00:01")
        );
        let noticed = accepted.bytes(NOON, Some(&HeaderValue::from_static("soon")), response);
        let head = &expected[..expected.len() - 2];
        let name = title_case(reply::CERTIFICATE_EXPIRES.as_str());
        assert_eq!(format!("{name}: ").as_bytes(), CERTIFICATE_EXPIRES);
        assert_eq!(
            noticed,
            format!("{head}Forebay-Certificate-Expires: soon\r\n\r\n")
        );
    }

    #[test]
    fn a_body_has_its_length_and_head_has_no_body() {
        let mut response = Response::new(Bytes::from_static(b"{}"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        let head = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nDate: Thu, 01 Jan 2026 12:00:00 GMT\r\n\r\n";
        assert_eq!(
            encode(&response, NOON, false),
            format!("{head}{{}}").into_bytes()
        );
        assert_eq!(encode(&response, NOON, true), head.as_bytes());
    }
}
