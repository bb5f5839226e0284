//! Routes: the gateway's names, its paths and streams, and the devices that may write them.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use wildmatch::WildMatch;

use super::Refusal;
use super::doors::{Door, FrontDoors};
use super::head::{RequestHead, host_of};
use crate::config::{DoorsConfig, StreamAccess, StreamConfig};
use crate::record::{DeviceId, Headers, StreamIndex};

const DEFAULT_STREAM_PATH: &str = "/v1/telemetry";
const STREAMS_PATH: &str = "/v1/streams/";
const RECORDS_PATH: &str = "/records";

/// The target of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub stream: StreamIndex,
    /// The body is many records.
    pub is_records: bool,
    /// The door that the path belongs to.
    pub(crate) door: Door,
    /// Headers that go on with the record, from the path.
    pub(crate) headers: Headers,
}

impl Target {
    /// Returns a stream that the path itself names.
    fn own(stream: StreamIndex, is_records: bool) -> Self {
        Self {
            stream,
            is_records,
            door: Door::Own,
            headers: Headers::default(),
        }
    }
}

/// The way that a path names, before it is known whether its target is there.
enum Way {
    /// `None` if there is no stream of that name.
    Own(Option<StreamIndex>, bool),
    Through(Door),
}

/// The names under which the gateway may be asked: exact ones, `*.` wildcards for one label, IP
/// addresses.
#[derive(Debug, Default)]
pub struct Authorities {
    any: bool,
    /// Few: they are looked through.
    exact: Vec<String>,
    /// Suffixes of the wildcards, without the `*`: `.example.com`.
    suffixes: Vec<String>,
}

impl Authorities {
    /// Takes DNS names, wildcards (`*.example.com`) and IP addresses; `*` allows every name.
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
        let host = bare(host);
        // Devices mostly write the name as the certificate does.
        if self.names(host) {
            return true;
        }
        let host = normal_host(host);
        let mut suffixes = self.suffixes.iter();
        self.names(&host) || suffixes.any(|suffix| is_one_label_under(&host, suffix))
    }

    fn names(&self, host: &str) -> bool {
        self.exact.iter().any(|name| name == host)
    }
}

/// Returns a host without the brackets of an IPv6 address, and without the dot that ends a full
/// name.
fn bare(host: &str) -> &str {
    let bracketed = host.strip_prefix('[');
    let address = bracketed.and_then(|host| host.strip_suffix(']'));
    let host = address.unwrap_or(host);
    host.strip_suffix('.').unwrap_or(host)
}

/// Returns a host in lower case; an IP address in its canonical form.
fn normal_host(host: &str) -> String {
    host.parse::<IpAddr>()
        .map_or_else(|_| host.to_ascii_lowercase(), |address| address.to_string())
}

fn is_one_label_under(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix)
        .is_some_and(|label| !label.is_empty() && !label.contains('.'))
}

/// Returns the devices that may write the stream.
fn globs(access: &[StreamAccess], stream: &str) -> Vec<WildMatch> {
    let mut globs = Vec::new();
    for entry in access.iter().filter(|entry| entry.stream == stream) {
        globs.extend(entry.devices.iter().map(|glob| WildMatch::new(glob)));
    }
    globs
}

/// The streams by their paths, and who may write them.
pub struct Routes {
    authorities: ArcSwap<Authorities>,
    streams: Vec<Route>,
    doors: FrontDoors,
}

struct Route {
    name: String,
    /// The devices that may write it; `None` is every device.
    devices: Option<Vec<WildMatch>>,
    /// Whether it is closed to every device, whatever else says so.
    is_closed: bool,
}

impl Routes {
    /// Once `access` names any stream, a stream that it does not name is closed to every device.
    pub fn new(
        authorities: Authorities,
        streams: &[StreamConfig],
        access: &[StreamAccess],
    ) -> Self {
        assert!(!streams.is_empty(), "the first stream is the default one");
        let route = |stream: &StreamConfig| Route {
            name: stream.name.clone(),
            devices: (!access.is_empty()).then(|| globs(access, &stream.name)),
            is_closed: false,
        };
        Self {
            authorities: ArcSwap::from_pointee(authorities),
            streams: streams.iter().map(route).collect(),
            doors: FrontDoors::default(),
        }
    }

    /// Closes a stream to all devices.
    pub(crate) fn closing(mut self, stream: StreamIndex) -> Self {
        self.streams[stream.get()].is_closed = true;
        self
    }

    /// Opens front doors; `streams` are those that [`Self::new`] was given.
    pub(crate) fn with_doors(mut self, config: &DoorsConfig, streams: &[StreamConfig]) -> Self {
        assert_eq!(streams.len(), self.streams.len(), "they are the same");
        self.doors = FrontDoors::new(config, streams);
        self
    }

    /// Returns the door that a path belongs to.
    #[inline]
    pub(crate) fn door_of(&self, path: &str) -> Door {
        self.doors.of_path(path)
    }

    /// Whether heads keep the properties that a front door reads.
    #[inline]
    pub(crate) fn keep_properties(&self) -> bool {
        self.doors.keep_properties()
    }

    /// Replaces the gateway's names.
    pub fn rename(&self, authorities: Authorities) {
        self.authorities.store(Arc::new(authorities));
    }

    /// Finds the stream that the request is for: authority, path, method and access, in this order.
    /// `own_streams` are those that the device may write, if it has streams of its own.
    pub fn resolve(
        &self,
        head: &RequestHead<'_>,
        device: &DeviceId,
        own_streams: Option<&[Box<str>]>,
    ) -> Result<Target, Refusal> {
        if !self.authorities.load().allow(host_of(head.authority()?)?) {
            return Err(Refusal::Misdirected);
        }
        let way = self.find(head.path)?;
        if head.method != "POST" {
            return Err(Refusal::MethodNotAllowed);
        }
        let target = match way {
            Way::Own(stream, is_records) => {
                Target::own(stream.ok_or(Refusal::StreamForbidden)?, is_records)
            }
            Way::Through(door) => self.through(door, head.path, device)?,
        };
        if self.streams[target.stream.get()].allows(device, own_streams) {
            Ok(target)
        } else {
            Err(Refusal::StreamForbidden)
        }
    }

    /// Returns the target of a path through a front door.
    fn through(&self, door: Door, path: &str, device: &DeviceId) -> Result<Target, Refusal> {
        let (stream, headers) = self.doors.lead(door, path, device)?;
        Ok(Target {
            door,
            headers,
            ..Target::own(stream, false)
        })
    }

    /// Finds the way that a path leads: to a stream by its name, or through a front door.
    #[inline]
    fn find(&self, path: &str) -> Result<Way, Refusal> {
        match self.find_own(path) {
            Some(way) => Ok(way),
            None => Ok(Way::Through(self.doors.find(path)?)),
        }
    }

    fn find_own(&self, path: &str) -> Option<Way> {
        if path == DEFAULT_STREAM_PATH {
            return Some(Way::Own(Some(StreamIndex(0)), false));
        }
        match path.strip_suffix(RECORDS_PATH) {
            Some(DEFAULT_STREAM_PATH) => Some(Way::Own(Some(StreamIndex(0)), true)),
            // A stream may have the name `records`.
            Some(path) if path.len() >= STREAMS_PATH.len() => self.find_named(path, true),
            _ => self.find_named(path, false),
        }
    }

    fn find_named(&self, path: &str, is_records: bool) -> Option<Way> {
        let name = path
            .strip_prefix(STREAMS_PATH)
            .filter(|name| !name.is_empty() && !name.contains('/'))?;
        let index = self.streams.iter().position(|route| route.name == name);
        debug_assert!(index.is_none_or(|index| index <= usize::from(u16::MAX)));
        let stream = index.map(|index| StreamIndex(index as u16));
        Some(Way::Own(stream, is_records))
    }
}

impl Route {
    #[inline]
    fn allows(&self, device: &DeviceId, own_streams: Option<&[Box<str>]>) -> bool {
        if self.is_closed {
            return false;
        }
        if let Some(streams) = own_streams {
            return streams.iter().any(|name| **name == *self.name);
        }
        self.devices
            .as_ref()
            .is_none_or(|globs| globs.iter().any(|glob| glob.matches(device.as_str())))
    }
}
