//! The head of an HTTP/1.1 request, and its meaning for the bytes that follow (RFC 9112).
//!
//! A request whose end two readers could see in different places is refused: a line that ends in a
//! bare LF, folded fields, both kinds of length, a length that is not one decimal number. Limits:
//! [`HEAD_BYTES_MAX`] and [`HEADER_FIELDS_MAX`].

use std::mem::MaybeUninit;

use httparse::{Header, Request, Status};

use crate::http::fields::expects_continue;
use crate::http::{HEAD_BYTES_MAX, HEADER_FIELDS_MAX};
use crate::ingest::{Field, HostRule, Refusal, RequestHead, length};

/// The way in which the body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A body of so many bytes; 0 if there is none.
    Length(u64),
    Chunked,
}

/// A head and its meaning for its connection.
#[derive(Debug)]
pub struct Parsed<'a> {
    pub head: RequestHead<'a>,
    pub framing: Framing,
    /// Another request may follow, where the body ends as it should.
    pub keeps_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// Returns the head's end in `bytes`, of which the first `seen` have been searched before. `None`
/// if more is to come.
pub fn end(bytes: &[u8], seen: usize) -> Result<Option<usize>, Refusal> {
    debug_assert!(seen <= bytes.len(), "what was seen is still there");
    for line_end in memchr::memchr_iter(b'\n', &bytes[seen..]).map(|at| seen + at) {
        match &bytes[..line_end] {
            [.., b'\r', b'\n', b'\r'] => return Ok(Some(line_end + 1)),
            [.., b'\r'] => {}
            _ => {
                return Err(Refusal::Malformed(
                    "a line of the head does not end in CR LF",
                ));
            }
        }
    }
    if bytes.len() > HEAD_BYTES_MAX {
        Err(Refusal::HeadTooLarge)
    } else {
        Ok(None)
    }
}

/// Parses a whole head, up to its empty line; `keeps_properties` as [`RequestHead`] has it.
pub fn parse(head: &[u8], keeps_properties: bool) -> Result<Parsed<'_>, Refusal> {
    if head.len() > HEAD_BYTES_MAX {
        return Err(Refusal::HeadTooLarge);
    }
    let mut fields = [const { MaybeUninit::uninit() }; HEADER_FIELDS_MAX];
    let mut request = Request::new(&mut []);
    match request.parse_with_uninit_headers(head, &mut fields) {
        Ok(Status::Complete(bytes)) if bytes == head.len() => interpret(&request, keeps_properties),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::HeadTooLarge),
        _ => Err(Refusal::Malformed("the head is not one of HTTP/1.1")),
    }
}

/// Returns the path in the first line of bytes that are no head; empty if it cannot be read.
#[cold]
pub(crate) fn path_of(bytes: &[u8]) -> &str {
    let mut request = Request::new(&mut []);
    // Whatever else is wrong, the line has been read by then.
    let _ = request.parse(bytes);
    let (_, target) = split_target(request.path.unwrap_or_default());
    split_query(target).0
}

/// Reads the parts of a well-formed head that the gateway and the connection need.
fn interpret<'a>(request: &Request<'_, 'a>, keeps_properties: bool) -> Result<Parsed<'a>, Refusal> {
    let is_1_1 = request.version == Some(1);
    let (authority, target) = split_target(request.path.unwrap_or_default());
    let (path, query) = split_query(target);
    let mut head = RequestHead::new(request.method.unwrap_or_default(), path, authority);
    head.keeps_properties = keeps_properties;
    head.query = query;
    if is_1_1 {
        head.host_rule = HostRule::Required;
    }
    let mut connection = ConnectionFields {
        keeps_alive: is_1_1,
        ..ConnectionFields::default()
    };
    for field in request.headers.iter() {
        head.note(field.name, field.value);
        connection.note(field);
    }
    Ok(Parsed {
        framing: framing(connection.transfer_encoding, head.content_length(), is_1_1)?,
        head,
        keeps_alive: connection.keeps_alive,
        expects_continue: connection.expects_continue && is_1_1,
    })
}

/// The fields that concern the connection alone.
#[derive(Default)]
struct ConnectionFields<'a> {
    transfer_encoding: Field<'a>,
    keeps_alive: bool,
    expects_continue: bool,
}

impl<'a> ConnectionFields<'a> {
    fn note(&mut self, field: &Header<'a>) {
        match field.name.len() {
            6 if field.name.eq_ignore_ascii_case("expect") => {
                self.expects_continue = expects_continue(field.value);
            }
            10 if field.name.eq_ignore_ascii_case("connection") => {
                self.keeps_alive &= !has_close(field.value);
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                self.transfer_encoding.note(field.value)
            }
            _ => {}
        }
    }
}

/// Whether `close` is among the options of a Connection field.
fn has_close(options: &[u8]) -> bool {
    let mut options = options.split(|byte| *byte == b',');
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Returns the authority, if the target is an absolute URI (RFC 9112 section 3.2.2), and the path
/// with its query.
fn split_target(target: &str) -> (Option<&str>, &str) {
    if target.starts_with('/') {
        return (None, target);
    }
    let Some((_, rest)) = target.split_once("://") else {
        return (None, target);
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (Some(authority), path)
}

/// Returns the path and the query, which is empty if there is none. A fragment, which no request
/// has, is left out.
fn split_query(target: &str) -> (&str, &str) {
    let Some(end) = memchr::memchr2(b'?', b'#', target.as_bytes()) else {
        return (target, "");
    };
    let (path, rest) = target.split_at(end);
    let query = rest.strip_prefix('?').unwrap_or_default();
    let fragment = memchr::memchr(b'#', query.as_bytes());
    (path, &query[..fragment.unwrap_or(query.len())])
}

/// Returns the framing of the body, unless two readers could disagree on it (RFC 9112 section 6.3).
fn framing(
    transfer_encoding: Field<'_>,
    content_length: Field<'_>,
    is_1_1: bool,
) -> Result<Framing, Refusal> {
    match (transfer_encoding, content_length) {
        (Field::Absent, Field::Absent) => Ok(Framing::Length(0)),
        (Field::Absent, Field::Once(digits)) => length(digits).map(Framing::Length),
        (Field::Absent, Field::Repeated(_)) => {
            Err(Refusal::Malformed("there is more than one Content-Length"))
        }
        (Field::Once(coding), Field::Absent)
            if is_1_1 && coding.eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(Framing::Chunked)
        }
        _ => Err(Refusal::Malformed(
            "Transfer-Encoding is not just chunked, or there is a Content-Length too",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &[u8]) -> Result<Parsed<'_>, Refusal> {
        super::parse(head, false)
    }

    fn head(lines: &str) -> Vec<u8> {
        format!("POST /v1/telemetry HTTP/1.1\r\nhost: a\r\n{lines}\r\n").into_bytes()
    }

    fn is_malformed(lines: &str) -> bool {
        let head = head(lines);
        matches!(
            end(&head, 0).and_then(|_| parse(&head)),
            Err(Refusal::Malformed(_))
        )
    }

    #[test]
    fn the_end_is_found_however_the_head_arrives() {
        let head = head("content-length: 3\r\n");
        let bytes = [&head[..], b"abc\r\n\r\n"].concat();
        for seen in 0..head.len() {
            assert_eq!(end(&bytes[..seen], 0).unwrap(), None, "{seen}");
            assert_eq!(end(&bytes, seen).unwrap(), Some(head.len()), "{seen}");
        }
    }

    #[test]
    fn lengths_tell_the_framing() {
        let framing = |lines: &str| parse(&head(lines)).unwrap().framing;
        assert_eq!(framing(""), Framing::Length(0));
        assert_eq!(framing("Content-Length: 344\r\n"), Framing::Length(344));
        assert_eq!(
            framing("content-length: 99999999999999999999\r\n"),
            Framing::Length(u64::MAX)
        );
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Framing::Chunked);
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for lines in [
            "content-length: 3\r\ncontent-length: 3\r\n",
            "content-length: 3, 3\r\n",
            "content-length: +3\r\n",
            "content-length: 0x3\r\n",
            "content-length:\r\n",
            "content-length: 3\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "transfer-encoding: gzip, chunked\r\n",
            "transfer-encoding: chunked, identity\r\n",
            "transfer-encoding: identity\r\n",
            "transfer-encoding : chunked\r\n",
            "transfer-encoding: xchunked\r\n",
            "content-length: 3\nx: 1\r\n",
            "x: 1\r\n content-length: 3\r\n",
            "x: 1\rcontent-length: 3\r\n",
            " content-length: 3\r\n",
            "x\0: 1\r\n",
        ] {
            assert!(is_malformed(lines), "{lines:?}");
        }
        assert!(matches!(
            parse(b"POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"),
            Err(Refusal::Malformed(_))
        ));
    }

    #[test]
    fn a_connection_goes_on_only_where_all_is_clear() {
        let keeps_alive = |head: &[u8]| parse(head).unwrap().keeps_alive;
        assert!(keeps_alive(&head("content-length: 1\r\n")));
        assert!(keeps_alive(&head("connection: keep-alive\r\n")));
        assert!(!keeps_alive(&head("connection: x, Close\r\n")));
        assert!(keeps_alive(&head("transfer-encoding: chunked\r\n")));
        assert!(!keeps_alive(
            b"POST / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n"
        ));
    }

    #[test]
    fn targets_are_split() {
        let split = |target| {
            let (authority, target) = split_target(target);
            (authority, split_query(target))
        };
        assert_eq!(
            split("/v1/telemetry?a=/b"),
            (None, ("/v1/telemetry", "a=/b"))
        );
        assert_eq!(split("https://a:1/v1/x?y"), (Some("a:1"), ("/v1/x", "y")));
        assert_eq!(split("https://a"), (Some("a"), ("", "")));
        assert_eq!(split("/x://y"), (None, ("/x://y", "")));
        assert_eq!(split("/x?a=1?b#c?d"), (None, ("/x", "a=1?b")));
        assert_eq!(split("/x#c?d"), (None, ("/x", "")));
        assert_eq!(split("*"), (None, ("*", "")));
    }

    #[test]
    fn the_path_of_what_is_no_head_is_known_by_its_first_line() {
        for bytes in [
            "POST /topics/a?qos=1 HTTP/1.1\r\nx: 1",
            "POST /topics/a HTTP/1.1\nx",
            "POST https://a/topics/a HTTP/1.1\r\nno field\r\n\r\n",
        ] {
            assert_eq!(path_of(bytes.as_bytes()), "/topics/a", "{bytes}");
        }
        for bytes in [
            "",
            "POST /topics/a",
            "POST\r\n",
            "\0 /topics/a HTTP/1.1\r\n",
        ] {
            assert_eq!(path_of(bytes.as_bytes()), "", "{bytes}");
        }
    }

    #[test]
    fn a_head_has_so_many_bytes_and_fields() {
        let too_long = head(&format!("x: {}\r\n", "x".repeat(HEAD_BYTES_MAX)));
        assert!(matches!(parse(&too_long), Err(Refusal::HeadTooLarge)));
        assert!(matches!(
            end(&too_long[..too_long.len() - 4], 0),
            Err(Refusal::HeadTooLarge)
        ));
        assert!(parse(&head(&"x: 1\r\n".repeat(HEADER_FIELDS_MAX - 1))).is_ok());
        assert!(matches!(
            parse(&head(&"x: 1\r\n".repeat(HEADER_FIELDS_MAX))),
            Err(Refusal::HeadTooLarge)
        ));
    }
}
