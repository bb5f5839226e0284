//! The demands of h2 and h3 on the fields of a request that their libraries do not check.
//!
//! RFC 9113 sections 8.2.1 and 8.3.1, and RFC 9114 sections 4.2 and 4.3.1, which say the same: a
//! request that breaks these rules is malformed. Both adapters ask [`request_head`] before a
//! request costs a token, and [`check_values`] of its trailers. The bounds are those of every
//! protocol: [`HEAD_BYTES_MAX`] and [`HEADER_FIELDS_MAX`].

use http::header::{EXPECT, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Uri};

use super::{HEAD_BYTES_MAX, HEADER_FIELDS_MAX};
use crate::ingest::{HostRule, Refusal, RequestHead};

/// Bytes that a head counts for on the wire beside its text: the frame that it comes in.
const FRAME_WIRE_BYTES: usize = 64;

/// Bytes that each field counts for on the wire beside its text.
const FIELD_WIRE_BYTES: usize = 4;

/// Bytes that each field counts for beside its name and value (RFC 9113 section 10.5.1).
const FIELD_OVERHEAD_BYTES: usize = 32;

/// Bytes that the four pseudo-headers of a request count for beside method, path and authority.
const PSEUDO_BYTES: usize =
    4 * FIELD_OVERHEAD_BYTES + ":method:scheme:path:authority".len() + "https".len();

/// Reads the gateway's part of a head that an HTTP library has parsed; `keeps_properties` as
/// [`RequestHead`] has it.
pub(crate) fn request_head(
    head: &Parts,
    keeps_properties: bool,
) -> Result<RequestHead<'_>, Refusal> {
    check(head)?;
    let authority = head.uri.authority().map(|authority| authority.as_str());
    let (method, path) = (head.method.as_str(), head.uri.path());
    let mut request = RequestHead::new(method, path, authority);
    request.host_rule = HostRule::Same;
    request.keeps_properties = keeps_properties;
    request.query = head.uri.query().unwrap_or_default();
    for (name, value) in &head.headers {
        request.note(name.as_str(), value.as_bytes());
        request.kept_bytes += name.as_str().len() + value.len();
    }
    Ok(request)
}

/// Whether a head may be read.
fn check(head: &Parts) -> Result<(), Refusal> {
    if list_bytes(head) > HEAD_BYTES_MAX || head.headers.len() > HEADER_FIELDS_MAX {
        return Err(Refusal::HeadTooLarge);
    }
    check_target(head)?;
    check_values(&head.headers)
}

/// Checks that no value has blanks at its ends, which a reader would have to cut.
pub(crate) fn check_values(fields: &HeaderMap) -> Result<(), Refusal> {
    if fields.values().all(is_trimmed) {
        Ok(())
    } else {
        Err(Refusal::Malformed(
            "the value of a field begins or ends with a blank",
        ))
    }
}

/// Whether a client sends no body before 100 Continue, which is the only expectation that there is
/// (RFC 9110 section 10.1.1).
pub(crate) fn expects_continue(expectation: &[u8]) -> bool {
    expectation.eq_ignore_ascii_case(b"100-continue")
}

/// Whether the client that sent these fields waits to be asked for the body.
pub(crate) fn waits_to_be_asked(fields: &HeaderMap) -> bool {
    let expect = fields.get(EXPECT);
    expect.is_some_and(|expect| expects_continue(expect.as_bytes()))
}

/// Returns the bytes that a head may have cost on the wire: hardly more than its text, however it
/// was encoded.
pub(crate) fn wire_bytes(head: &Parts) -> usize {
    let target = head.uri.path_and_query();
    let target_bytes = target.map_or(0, |target| target.as_str().len());
    FRAME_WIRE_BYTES + target_bytes + fields_bytes(&head.headers, FIELD_WIRE_BYTES)
}

/// Returns the bytes of all names and values, and so many more for each field.
fn fields_bytes(fields: &HeaderMap, overhead_bytes: usize) -> usize {
    let mut bytes = 0;
    for (name, value) in fields {
        bytes += name.as_str().len() + value.len() + overhead_bytes;
    }
    bytes
}

fn check_target(head: &Parts) -> Result<(), Refusal> {
    if head.uri.path().is_empty() && head.method != Method::CONNECT {
        return Err(Refusal::Malformed("there is no :path"));
    }
    if !has_known_scheme(&head.uri) {
        return Err(Refusal::Malformed("the :scheme is not https"));
    }
    Ok(())
}

/// Whether a request names a scheme of HTTP. A proxy that ends TLS in front of a client's own
/// program says `http`, and means this.
fn has_known_scheme(uri: &Uri) -> bool {
    let is = |scheme: &str, known: &str| scheme.eq_ignore_ascii_case(known);
    uri.scheme_str()
        .is_none_or(|scheme| is(scheme, "https") || is(scheme, "http"))
}

fn is_trimmed(value: &HeaderValue) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let bytes = value.as_bytes();
    !is_blank(bytes.first()) && !is_blank(bytes.last())
}

/// Returns the size of a head as SETTINGS_MAX_HEADER_LIST_SIZE counts it.
fn list_bytes(head: &Parts) -> usize {
    let target = head.uri.path_and_query();
    let target_bytes = target.map_or(0, |target| target.as_str().len());
    let authority = head.uri.authority();
    let authority_bytes = authority.map_or(0, |authority| authority.as_str().len());
    let pseudo_bytes = PSEUDO_BYTES + head.method.as_str().len() + target_bytes + authority_bytes;
    pseudo_bytes + fields_bytes(&head.headers, FIELD_OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn checked(uri: &str, fields: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::post(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn blanks_stand_within_values_only() {
        for good in ["", "a", "a b", "a\tb"] {
            assert!(checked("https://a/", &[("x", good)]).is_ok(), "{good:?}");
        }
        for bad in [" ", "\t", " a", "a ", "\ta", "a\t"] {
            let refused = checked("https://a/", &[("y", "1"), ("x", bad)]);
            assert!(matches!(refused, Err(Refusal::Malformed(_))), "{bad:?}");
        }
    }

    #[test]
    fn schemes_are_those_of_http() {
        for good in ["https://a/", "HTTPS://a/", "http://a/", "/"] {
            assert!(checked(good, &[]).is_ok(), "{good:?}");
        }
        assert!(matches!(
            checked("gopher://a/", &[]),
            Err(Refusal::Malformed(_))
        ));
    }

    #[test]
    fn a_head_has_so_many_bytes_and_fields() {
        let of = |bytes: usize| "x".repeat(bytes);
        assert!(checked("https://a/", &[("x", &of(HEAD_BYTES_MAX - 256))]).is_ok());
        let too_large = checked("https://a/", &[("x", &of(HEAD_BYTES_MAX - 32))]);
        assert!(matches!(too_large, Err(Refusal::HeadTooLarge)));
        assert!(checked("https://a/", &[("x", "1"); HEADER_FIELDS_MAX]).is_ok());
        let too_many = checked("https://a/", &[("x", "1"); HEADER_FIELDS_MAX + 1]);
        assert!(matches!(too_many, Err(Refusal::HeadTooLarge)));
    }
}
