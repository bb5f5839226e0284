//! Which names, paths and streams there are, and who may write them.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use wildmatch::WildMatch;

use super::Refusal;
use super::head::{RequestHead, host_of};
use crate::config::{StreamAccess, StreamConfig};
use crate::record::{DeviceId, StreamIndex};

const DEFAULT_STREAM_PATH: &str = "/v1/telemetry";
const STREAMS_PATH: &str = "/v1/streams/";

/// The names under which the gateway may be asked: exact ones, `*.` wildcards for one label, IP addresses.
#[derive(Debug, Default)]
pub struct Authorities {
    any: bool,
    /// Few: they are looked through.
    exact: Vec<String>,
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
                None => authorities.exact.push(name),
            }
        }
        authorities
    }

    fn allow(&self, host: &str) -> bool {
        if self.any {
            return true;
        }
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        // Devices mostly write the name as the certificate does.
        if self.names(host) {
            return true;
        }
        let host = normal_host(host);
        self.names(&host)
            || self
                .suffixes
                .iter()
                .any(|suffix| is_one_label_under(&host, suffix))
    }

    fn names(&self, host: &str) -> bool {
        self.exact.iter().any(|name| name == host)
    }
}

/// Lower case; an IP address in its canonical form.
fn normal_host(host: &str) -> String {
    host.parse::<IpAddr>()
        .map_or_else(|_| host.to_ascii_lowercase(), |address| address.to_string())
}

fn is_one_label_under(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .is_some_and(|label| !label.is_empty() && !label.contains('.'))
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
    pub fn new(
        authorities: Authorities,
        streams: &[StreamConfig],
        access: &[StreamAccess],
    ) -> Self {
        let route = |stream: &StreamConfig| {
            let entries = access.iter().filter(|entry| entry.stream == stream.name);
            let globs = entries
                .flat_map(|entry| &entry.devices)
                .map(|glob| WildMatch::new(glob))
                .collect();
            Route {
                name: stream.name.clone(),
                devices: (!access.is_empty()).then_some(globs),
            }
        };
        let authorities = ArcSwap::from_pointee(authorities);
        Self {
            authorities,
            streams: streams.iter().map(route).collect(),
        }
    }

    /// From now on, these are the gateway's names.
    pub fn rename(&self, authorities: Authorities) {
        self.authorities.store(Arc::new(authorities));
    }

    /// The stream that the request is for: authority, path, method and access, in this order.
    pub fn resolve(
        &self,
        head: &RequestHead<'_>,
        device: &DeviceId,
    ) -> Result<StreamIndex, Refusal> {
        if !self.authorities.load().allow(host_of(head.authority()?)?) {
            return Err(Refusal::Misdirected);
        }
        let stream = self.find(head.path)?;
        if head.method != "POST" {
            return Err(Refusal::MethodNotAllowed);
        }
        stream
            .filter(|stream| self.streams[stream.get()].allows(device))
            .ok_or(Refusal::StreamForbidden)
    }

    /// `Ok(None)` for a path that could lead to a stream, if there were one of that name.
    fn find(&self, path: &str) -> Result<Option<StreamIndex>, Refusal> {
        if path == DEFAULT_STREAM_PATH {
            return Ok(Some(StreamIndex(0)));
        }
        let name = path
            .strip_prefix(STREAMS_PATH)
            .filter(|name| !name.is_empty() && !name.contains('/'));
        let name = name.ok_or(Refusal::NotFound)?;
        let index = self.streams.iter().position(|route| route.name == name);
        Ok(index.map(|index| StreamIndex(index as u16)))
    }
}

impl Route {
    fn allows(&self, device: &DeviceId) -> bool {
        self.devices
            .as_ref()
            .is_none_or(|globs| globs.iter().any(|glob| glob.matches(device.as_str())))
    }
}
