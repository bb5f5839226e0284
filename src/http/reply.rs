//! The answers to refusals: one table for all protocols.
//!
//! Problems are `application/problem+json` (RFC 9457). No answer carries anything that the client
//! sent.

pub(crate) mod doors;
mod every;
pub(crate) mod openapi;
mod wait;

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::admission::Shed;
use crate::config::ContentEncodings;
use crate::ingest::{IDEMPOTENCY_KEY_CHARS_MAX, RECORDS_KEY_CHARS_MAX, Refusal, Verdicts};
use crate::record::RECORD_ID_CHARS_MAX;
use wait::{rate_limit_fields, wait};

pub(crate) const CERTIFICATE_EXPIRES: HeaderName =
    HeaderName::from_static("forebay-certificate-expires");
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The refusal of a request, as its client is told.
pub(crate) struct Problem {
    pub status: StatusCode,
    /// Its name in problems, metrics and logs.
    pub code: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
}

/// Returns the refusal that a request is answered by: if not all of its records are safe, that of
/// the worst.
fn answering(refusal: &Refusal) -> &Refusal {
    match refusal {
        Refusal::Records(verdicts) => verdicts.worst(),
        refusal => refusal,
    }
}

/// Returns `204 No Content`: the reading is safe. Tells when the device's certificate expires, if
/// that is near.
pub(crate) fn accepted(expires: Option<HeaderValue>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    if let Some(expires) = expires {
        response.headers_mut().insert(CERTIFICATE_EXPIRES, expires);
    }
    response
}

/// Returns `100 Continue`, for a client that waits to be asked for its body.
pub(crate) fn go_on() -> Response<()> {
    let mut go_on = Response::new(());
    *go_on.status_mut() = StatusCode::CONTINUE;
    go_on
}

/// Returns the answer to a request that was refused.
#[cold]
pub(crate) fn refused(refusal: &Refusal, problem: &Problem) -> Response<Bytes> {
    debug_assert!(problem.status.is_client_error() || problem.status.is_server_error());
    let mut response = Response::new(body(problem, refusal));
    *response.status_mut() = problem.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, PROBLEM_JSON);
    if let Some(wait) = wait(refusal) {
        headers.insert(RETRY_AFTER, wait);
    }
    if let Refusal::RateLimited(refused) = refusal {
        headers.extend(rate_limit_fields(refused));
    }
    match refusal {
        Refusal::MethodNotAllowed => {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        Refusal::UnsupportedEncoding(accepted) => {
            let accepted = HeaderValue::from_static(names(*accepted));
            headers.insert(ACCEPT_ENCODING, accepted);
        }
        _ => {}
    }
    response
}

/// Returns the codings that are accepted, as `Accept-Encoding` has them.
fn names(accepted: ContentEncodings) -> &'static str {
    match (accepted.gzip, accepted.zstd) {
        (true, true) => "gzip, zstd",
        (true, false) => "gzip",
        (false, true) => "zstd",
        (false, false) => "identity",
    }
}

/// Returns the body of an answer. If not all records of a request are safe, it tells of each.
fn body(problem: &Problem, refusal: &Refusal) -> Bytes {
    let mut members = problem.to_json();
    if let Refusal::Records(verdicts) = refusal {
        members["records"] = records(verdicts);
    }
    members.to_string().into()
}

/// Returns the outcomes of a request's records.
fn records(verdicts: &Verdicts) -> Value {
    let mut rejected = Vec::with_capacity(verdicts.rejected.len());
    for (index, refusal) in &verdicts.rejected {
        rejected.push(json!({ "index": index, "code": problem(refusal).code }));
    }
    json!({
        "accepted": verdicts.accepted,
        "retry": verdicts.retry,
        "rejected": rejected,
    })
}

/// Whether the connection is of no further use: its certificate or its device is at fault, or it
/// has no buckets.
pub(crate) fn ends_connection(refusal: &Refusal) -> bool {
    use Refusal::*;
    matches!(
        refusal,
        InvalidIdentity(_)
            | CertificateRevoked
            | DeviceDenied
            | CertificateExpired
            | DeviceTableFull
    )
}

/// Whether later bytes of an h1 connection can no longer be told from the rest of this request.
pub(crate) fn leaves_h1_unframed(refusal: &Refusal) -> bool {
    use Refusal::*;
    matches!(
        refusal,
        BodyTimeout | BodyTooLarge | HeadTooLarge | Malformed(_)
    )
}

impl Problem {
    /// Returns the body of the answer (RFC 9457).
    fn to_json(&self) -> Value {
        json!({
            "type": format!("urn:forebay:problem:{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        })
    }
}

/// Returns the problem of a refusal, by the table of the wire contract.
pub(crate) fn problem(refusal: &Refusal) -> Problem {
    use Refusal::*;
    let (status, code, title, detail): (_, _, _, Cow<'static, str>) = match answering(refusal) {
        Malformed(what) => (
            400,
            "malformed-request",
            "Malformed request",
            (*what).into(),
        ),
        HeadTooLarge => (
            431,
            "head-too-large",
            "Head too large",
            "The request's head has more bytes or fields than the gateway reads.".into(),
        ),
        EmptyBody => (
            400,
            "empty-body",
            "Empty body",
            "A reading has at least one byte.".into(),
        ),
        InvalidIdempotencyKey => (
            400,
            "invalid-idempotency-key",
            "Invalid Idempotency-Key",
            format!(
                "Send one Idempotency-Key of 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters, or none; with many \
                 readings of 1 to {RECORDS_KEY_CHARS_MAX}, in iothub-messageid of 1 to {RECORD_ID_CHARS_MAX}."
            )
            .into(),
        ),
        InvalidIdentity(error) => (
            403,
            "invalid-identity",
            "No usable device id",
            error.to_string().into(),
        ),
        CertificateRevoked => (
            403,
            "certificate-revoked",
            "Certificate revoked",
            "The device certificate, or one that vouches for it, has been revoked.".into(),
        ),
        DeviceDenied => (
            403,
            "device-denied",
            "Device denied",
            "This device may not send readings: its operator has shut it out.".into(),
        ),
        CertificateExpired => (
            403,
            "certificate-expired",
            "Certificate expired",
            "The device certificate is not valid now: renew it and connect again.".into(),
        ),
        StreamForbidden => (
            403,
            "stream-forbidden",
            "Stream forbidden",
            "There is no such stream, or this device may not write it.".into(),
        ),
        NotFound => (
            404,
            "not-found",
            "Not found",
            "Post readings to /v1/telemetry or /v1/streams/{stream}, many in one request to /records below it."
                .into(),
        ),
        MethodNotAllowed => (
            405,
            "method-not-allowed",
            "Method not allowed",
            "Readings are posted.".into(),
        ),
        BodyTimeout => (
            408,
            "body-timeout",
            "Body too slow",
            "The body did not arrive in time.".into(),
        ),
        BodyTooLarge => (
            413,
            "body-too-large",
            "Body too large",
            "The body is larger than the gateway takes from this device.".into(),
        ),
        MalformedEncoding => (
            400,
            "malformed-encoding",
            "Malformed encoding",
            "The body is damaged, ends early, goes on after its end, or has a window over 8 MiB.".into(),
        ),
        MalformedRecords => (
            400,
            "malformed-records",
            "Malformed records",
            "The body cannot be cut into readings to its end; nothing of it is taken.".into(),
        ),
        TooManyRecords => (
            413,
            "too-many-records",
            "Too many readings",
            "One request has more readings than the gateway takes from this device at once.".into(),
        ),
        RecordTooLarge => (
            413,
            "record-too-large",
            "Reading too large",
            "A reading among others, or as the stream's rules have edited it, is larger than the gateway takes.".into(),
        ),
        UnsupportedEncoding(accepted) => (
            415,
            "unsupported-encoding",
            "Content encoding not supported",
            format!("Send the body without Content-Encoding, or in one of: {}.", names(*accepted)).into(),
        ),
        UnsupportedMediaType => (
            415,
            "unsupported-media-type",
            "Content type not supported",
            "Send many readings as application/x-ndjson, application/json or application/vnd.forebay.records, OTLP as \
             application/x-protobuf or application/json."
                .into(),
        ),
        Records(_) => unreachable!("the refusal that answers is that of a record"),
        Misdirected => (
            421,
            "misdirected",
            "Misdirected request",
            "The authority is none of this gateway's names.".into(),
        ),
        NotJson => (
            400,
            "not-json",
            "Not JSON",
            "The stream takes one JSON value a reading, without duplicate keys, 64 levels deep at most.".into(),
        ),
        SchemaViolation(place) => (
            400,
            "schema-violation",
            "Against the stream's schema",
            place.to_string().into(),
        ),
        DeviceMismatch => (
            403,
            "device-mismatch",
            "Another device's reading",
            "The reading, or the path that it was posted to, names another device than the certificate.".into(),
        ),
        RateLimited(refused) => (
            429,
            "rate-limited",
            "Too many requests",
            refused.to_string().into(),
        ),
        SinkRefused(reason) => (
            502,
            "sink-refused",
            "The stream refused the reading",
            format!("The stream's reason: {reason}.").into(),
        ),
        Shed(self::Shed::MemoryBudget) => (
            503,
            "overloaded",
            "Overloaded",
            "The gateway holds as many readings as it can.".into(),
        ),
        Shed(self::Shed::DeviceShare) => (
            503,
            "device-overloaded",
            "Too much of one device",
            "The gateway holds as many of this device's readings as it can.".into(),
        ),
        Shed(self::Shed::SinkAway) | SinkUnavailable => (
            503,
            "sink-unavailable",
            "Stream unavailable",
            "The stream cannot take readings now.".into(),
        ),
        Shed(self::Shed::Draining) => (
            503,
            "draining",
            "Draining",
            "This gateway is going away.".into(),
        ),
        DeviceTableFull => (
            503,
            "device-table-full",
            "Too many devices",
            "The gateway serves as many devices as it can.".into(),
        ),
        GatewayRateLimited(_) => (
            503,
            "gateway-rate-limited",
            "Overloaded",
            "The gateway takes no more requests now.".into(),
        ),
        AckTimeout => (
            504,
            "ack-timeout",
            "No word from the stream",
            "The stream did not answer in time: the reading may or may not be stored.".into(),
        ),
    };
    Problem {
        status: StatusCode::from_u16(status).expect("the table has statuses only"),
        code,
        title,
        detail,
    }
}

#[cfg(test)]
mod tests;
