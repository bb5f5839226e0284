//! What a request's head says: which stream it is for, how long its body is, what it calls itself.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Version};
use wildmatch::WildMatch;

use super::Refusal;
use crate::config::{StreamAccess, StreamConfig};
use crate::record::{DeviceId, RecordId, StreamIndex};

const DEFAULT_STREAM_PATH: &str = "/v1/telemetry";
const STREAMS_PATH: &str = "/v1/streams/";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The names under which the gateway may be asked: exact ones, `*.` wildcards for one label, IP addresses.
#[derive(Debug, Default)]
pub struct Authorities {
    any: bool,
    exact: HashSet<String>,
    /// What follows `*` in a wildcard: `.example.com`.
    suffixes: Vec<String>,
}

impl Authorities {
    /// DNS names, wildcards (`*.example.com`) and IP addresses; `*` allows every name.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut authorities = Self::default();
        for name in names {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix('*') {
                Some("") => authorities.any = true,
                Some(suffix) => authorities.suffixes.push(suffix.to_owned()),
                None => drop(authorities.exact.insert(name)),
            }
        }
        authorities
    }

    fn allow(&self, host: &str) -> bool {
        if self.any {
            return true;
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        // Devices mostly write the name as the certificate does.
        if self.exact.contains(host) {
            return true;
        }
        let host = normal_host(host);
        self.exact.contains(&host) || self.suffixes.iter().any(|suffix| is_one_label_under(&host, suffix))
    }
}

/// Lower case; an IP address in its canonical form.
fn normal_host(host: &str) -> String {
    host.parse::<IpAddr>().map_or_else(|_| host.to_ascii_lowercase(), |address| address.to_string())
}

fn is_one_label_under(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|label| !label.is_empty() && !label.contains('.'))
}

/// Which path leads to which stream, and who may go there.
pub struct Routes {
    authorities: ArcSwap<Authorities>,
    streams: Vec<Route>,
}

struct Route {
    name: String,
    /// `None`: every device.
    devices: Option<Vec<WildMatch>>,
}

impl Routes {
    /// Once `access` names any stream, a stream that it does not name is open to nobody.
    pub fn new(authorities: Authorities, streams: &[StreamConfig], access: &[StreamAccess]) -> Self {
        let route = |stream: &StreamConfig| {
            let entries = access.iter().filter(|entry| entry.stream == stream.name);
            let globs = entries.flat_map(|entry| &entry.devices).map(|glob| WildMatch::new(glob)).collect();
            Route { name: stream.name.clone(), devices: (!access.is_empty()).then_some(globs) }
        };
        let authorities = ArcSwap::from_pointee(authorities);
        Self { authorities, streams: streams.iter().map(route).collect() }
    }

    /// From now on, these are the gateway's names.
    pub fn rename(&self, authorities: Authorities) {
        self.authorities.store(Arc::new(authorities));
    }

    /// The stream that the request is for: authority, path, method and access, in this order.
    pub fn resolve(&self, head: &Parts, device: &DeviceId) -> Result<StreamIndex, Refusal> {
        let authority = authority(head)?;
        if !authority.is_some_and(|authority| self.authorities.load().allow(authority.host())) {
            return Err(Refusal::Misdirected);
        }
        let stream = self.find(head.uri.path())?;
        if head.method != Method::POST {
            return Err(Refusal::MethodNotAllowed);
        }
        stream.filter(|stream| self.streams[stream.get()].allows(device)).ok_or(Refusal::StreamForbidden)
    }

    /// `Ok(None)` for a path that could lead to a stream, if there were one of that name.
    fn find(&self, path: &str) -> Result<Option<StreamIndex>, Refusal> {
        if path == DEFAULT_STREAM_PATH {
            return Ok(Some(StreamIndex(0)));
        }
        let name = path.strip_prefix(STREAMS_PATH).filter(|name| !name.is_empty() && !name.contains('/'));
        let name = name.ok_or(Refusal::NotFound)?;
        let index = self.streams.iter().position(|route| route.name == name);
        Ok(index.map(|index| StreamIndex(index as u16)))
    }
}

impl Route {
    fn allows(&self, device: &DeviceId) -> bool {
        self.devices.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.matches(device.as_str())))
    }
}

/// The one authority that the request names. HTTP/1.1 must name one (RFC 9112 section 3.2); where `:authority` and
/// `Host` are both there, they must agree (RFC 9113 section 8.3.1).
fn authority(head: &Parts) -> Result<Option<Authority>, Refusal> {
    const BAD_HOST: Refusal = Refusal::Malformed("the Host header is missing, repeated or not a host");
    let mut hosts = head.headers.get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() {
        return Err(BAD_HOST);
    }
    let host = host.map(|host| Authority::try_from(host.as_bytes())).transpose().map_err(|_| BAD_HOST)?;
    match (head.uri.authority(), host) {
        (Some(authority), Some(host)) if head.version > Version::HTTP_11 && *authority != host => Err(BAD_HOST),
        (Some(authority), _) => Ok(Some(authority.clone())),
        (None, Some(host)) => Ok(Some(host)),
        (None, None) => Err(BAD_HOST),
    }
}

/// What the rest of the head says.
#[derive(Debug)]
pub struct Head {
    /// From `Content-Length`.
    pub declared_bytes: Option<usize>,
    pub content_type: Option<Arc<str>>,
    pub idempotency_key: Option<RecordId>,
}

impl Head {
    /// Encoding, idempotency key and length, in this order.
    pub fn parse(head: &Parts, body_bytes_max: usize) -> Result<Self, Refusal> {
        let headers = &head.headers;
        if headers.get_all(CONTENT_ENCODING).iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Refusal::UnsupportedEncoding);
        }
        let idempotency_key = idempotency_key(headers)?;
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(Arc::from);
        let declared_bytes = declared_bytes(headers)?;
        match declared_bytes {
            Some(0) => Err(Refusal::EmptyBody),
            Some(bytes) if bytes > body_bytes_max => Err(Refusal::BodyTooLarge),
            _ => Ok(Self { declared_bytes, content_type, idempotency_key }),
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<RecordId>, Refusal> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match (RecordId::from_key(value.as_bytes()), values.next()) {
        (Some(id), None) => Ok(Some(id)),
        _ => Err(Refusal::InvalidIdempotencyKey),
    }
}

/// A length that does not fit is as good as too large; one that is not a number is malformed.
fn declared_bytes(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    const BAD_LENGTH: Refusal = Refusal::Malformed("Content-Length is not one decimal number");
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().map_err(|_| BAD_LENGTH)?;
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || values.any(|other| other != value) {
        return Err(BAD_LENGTH);
    }
    Ok(Some(digits.parse().unwrap_or(usize::MAX)))
}
