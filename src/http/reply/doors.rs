//! Answers as the front doors have them: other words for the same verdicts.
//!
//! [`Visit`] has the facts of a request that its answer depends on. The answer of
//! [`super::refused`] is kept but for the body, its type and, if a platform's clients would go
//! wrong by it, the status.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{CERTIFICATE_EXPIRES, Problem};
use crate::ingest::doors::{Acceptance, Complaint, Door, Encoding};
use crate::ingest::{Admitted, Refusal, RequestHead};
use crate::protobuf;
use crate::record::{RecordId, Timestamp};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// The facts of a request that its answer depends on.
#[derive(Debug, Default)]
pub(crate) struct Visit {
    door: Door,
    /// The encoding that the request has, or that its answer has where that is no known one.
    encoding: Encoding,
    /// The name of its record, where the answer tells it and the request came so far.
    record: Option<RecordId>,
}

impl Visit {
    pub(crate) fn new(door: Door, head: &RequestHead<'_>) -> Self {
        Self {
            door,
            encoding: head.encoding().unwrap_or_default(),
            record: None,
        }
    }

    /// Returns a visit by this door, of which nothing else is known.
    pub(crate) fn through(door: Door) -> Self {
        Self {
            door,
            ..Self::default()
        }
    }

    /// Whether the answer is like those of the service's own paths.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        self.door.manner().accepts_with == Acceptance::NoContent
    }

    /// Names the record of a request that has been admitted, where its answer tells the name.
    #[inline]
    pub(crate) fn note(&mut self, admitted: &mut Admitted<'_>) {
        if self.door.manner().accepts_with == Acceptance::Message {
            self.record = Some(admitted.record_id().clone());
        }
    }

    /// Returns the verdict on a request, as its door sees it: an empty body may be no fault there.
    #[inline]
    pub(crate) fn verdict(&self, taken: Result<(), Refusal>) -> Result<(), Refusal> {
        match taken {
            Err(Refusal::EmptyBody) if self.door.manner().takes_empty => Ok(()),
            taken => taken,
        }
    }

    /// Returns the answer to a request that was taken. `at` is when it came.
    pub(crate) fn accepted(&self, expires: Option<HeaderValue>, at: Timestamp) -> Response<Bytes> {
        let (kind, body) = match (self.door.manner().accepts_with, self.encoding) {
            (Acceptance::NoContent, _) => return super::accepted(expires),
            (Acceptance::Message, _) => (JSON, self.message("OK", at)),
            (Acceptance::EmptyMessage, Encoding::Protobuf) => (PROTOBUF, Bytes::new()),
            (Acceptance::EmptyMessage, Encoding::Json) => (JSON, Bytes::from_static(b"{}")),
        };
        let mut response = Response::default();
        speak(&mut response, kind, body);
        debug_assert_eq!(response.status(), StatusCode::OK);
        if let Some(expires) = expires {
            response.headers_mut().insert(CERTIFICATE_EXPIRES, expires);
        }
        response
    }

    /// Returns the answer to a request that was refused. `at` is when it came.
    #[cold]
    pub(crate) fn refused(
        &self,
        refusal: &Refusal,
        problem: &Problem,
        at: Timestamp,
    ) -> Response<Bytes> {
        let mut response = super::refused(refusal, problem);
        let text = || format!("{}: {}", problem.code, problem.detail);
        match self.door.manner().refuses_with {
            Complaint::Problem => {}
            Complaint::Message => speak(&mut response, JSON, self.message(&text(), at)),
            Complaint::Status => {
                *response.status_mut() = otlp_status(problem.status);
                self.tell_status(&mut response, &text());
            }
        }
        response
    }

    /// Tells of the fault as a `google.rpc.Status`, in the encoding of the request.
    fn tell_status(&self, response: &mut Response<Bytes>, message: &str) {
        let code = rpc_code(response.status());
        match self.encoding {
            Encoding::Protobuf => speak(response, PROTOBUF, encode_status(code, message)),
            Encoding::Json => {
                let status = json!({ "code": code, "message": message });
                speak(response, JSON, to_bytes(&status));
            }
        }
    }

    /// Returns a message in the form of AWS IoT Core. A request whose record has no name has been
    /// refused, and is given one for those who look for it.
    fn message(&self, message: &str, at: Timestamp) -> Bytes {
        let named = self.record.clone();
        let id = named.unwrap_or_else(|| RecordId::new(at));
        let mut buffer = [0; 36];
        to_bytes(&json!({ "message": message, "traceId": id.as_str(&mut buffer) }))
    }
}

fn to_bytes(value: &Value) -> Bytes {
    value.to_string().into()
}

fn speak(response: &mut Response<Bytes>, kind: HeaderValue, body: Bytes) {
    response.headers_mut().insert(CONTENT_TYPE, kind);
    *response.body_mut() = body;
}

/// Returns the status that says the same to a client of OTLP, which sends again after 429, 502, 503
/// or 504, and after nothing else (<https://opentelemetry.io/docs/specs/otlp/#failures-1>): a
/// record that its stream refuses for good is bad data there.
fn otlp_status(status: StatusCode) -> StatusCode {
    match status {
        StatusCode::BAD_GATEWAY => StatusCode::BAD_REQUEST,
        status => status,
    }
}

/// Returns the code of gRPC that a status stands for
/// (<https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto>).
fn rpc_code(status: StatusCode) -> u8 {
    match status.as_u16() {
        403 => 7,        // PERMISSION_DENIED
        404 | 405 => 12, // UNIMPLEMENTED
        408 | 504 => 4,  // DEADLINE_EXCEEDED
        429 => 8,        // RESOURCE_EXHAUSTED
        503 => 14,       // UNAVAILABLE
        _ => 3,          // INVALID_ARGUMENT
    }
}

/// Encodes a `google.rpc.Status` in protobuf: field 1 is the code, field 2 the message. Nothing is
/// said in its details.
fn encode_status(code: u8, message: &str) -> Bytes {
    let mut status = Vec::new();
    protobuf::put_number(&mut status, 1, code.into());
    protobuf::put_bytes(&mut status, 2, message.as_bytes());
    status.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::doors::Signal;

    #[test]
    fn a_status_is_as_protobuf_has_it() {
        let status = encode_status(14, "draining");
        assert_eq!(&status[..], b"\x08\x0e\x12\x08draining");
        let long = encode_status(3, &"x".repeat(300));
        assert_eq!(&long[..5], b"\x08\x03\x12\xac\x02");
        assert_eq!(long.len(), 305);
    }

    /// Clients of OTLP send again by status: a record that can never pass must not look as if it
    /// could.
    #[test]
    fn otlp_tells_to_send_again_what_may_pass_and_nothing_else() {
        for refusal in super::super::every::every_refusal() {
            let problem = super::super::problem(&refusal);
            let visit = Visit::through(Door::Otlp(Signal::Logs));
            let status = visit.refused(&refusal, &problem, Timestamp(0)).status();
            let sends_again = matches!(status.as_u16(), 429 | 502 | 503 | 504);
            let may_pass = matches!(problem.status.as_u16(), 429 | 503 | 504);
            assert_eq!(sends_again, may_pass, "{}", problem.code);
        }
    }
}
