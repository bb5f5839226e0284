//! Front doors: the same service behind the addresses of other platforms.
//!
//! Fleets that post to AWS IoT Core or Azure IoT Hub, and clients of OTLP, ask for other paths and
//! look for other answers. [`Door::manner`] is the one table of how they differ from the service's
//! own paths, which are a door like any other; `http::reply` writes the answers that it names.
//! [`Routes`](super::Routes) asks [`FrontDoors`] for the target of a path, `head` asks a door for
//! [its own fields](Door::read) of a request. There is no second way for a record: checks, their
//! order and their costs stand in [`Ingest`](super::Ingest) alone. A door that is shut has no
//! paths.

mod iot_core;
mod iot_hub;
mod otlp;

use super::{Refusal, RequestHead};
use crate::config::{DoorsConfig, OtlpStreams, StreamConfig, TopicRoute};
use crate::record::{DeviceId, HEADERS_BYTES_MAX, Headers, RecordId, StreamIndex};
use crate::topic::Filter;
pub(crate) use iot_hub::is_property;
pub(crate) use otlp::{Encoding, Signal};

/// The address under which a request asks for the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Door {
    /// The paths that are Forebay's own.
    #[default]
    Own,
    /// `POST /topics/{topic}`, as AWS IoT Core has it.
    IotCore,
    /// `POST /devices/{id}/messages/events`, as Azure IoT Hub has it.
    IotHub,
    /// `POST /v1/logs`, `/v1/metrics`, `/v1/traces`, as OTLP has it.
    Otlp(Signal),
}

/// The ways in which a door's requests differ from those of the others.
#[derive(Debug)]
pub(crate) struct Manner {
    /// Bytes of the largest body, where the door has a bound of its own that is lower.
    pub body_bytes_max: usize,
    /// A body without a byte is a sound request, and no record.
    pub takes_empty: bool,
    pub accepts_with: Acceptance,
    pub refuses_with: Complaint,
}

/// The answer to a request whose record is safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// 204.
    NoContent,
    /// 200 and `{"message":"OK","traceId":…}`.
    Message,
    /// 200 and an empty message of the request's encoding.
    EmptyMessage,
}

/// The answer to a refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Complaint {
    /// A problem (RFC 9457).
    Problem,
    /// `{"message":…,"traceId":…}`.
    Message,
    /// A `google.rpc.Status` of the request's encoding.
    Status,
}

const OWN: Manner = Manner {
    body_bytes_max: usize::MAX,
    takes_empty: false,
    accepts_with: Acceptance::NoContent,
    refuses_with: Complaint::Problem,
};

const IOT_CORE: Manner = Manner {
    body_bytes_max: iot_core::BODY_BYTES_MAX,
    accepts_with: Acceptance::Message,
    refuses_with: Complaint::Message,
    ..OWN
};

const OTLP: Manner = Manner {
    takes_empty: true,
    accepts_with: Acceptance::EmptyMessage,
    refuses_with: Complaint::Status,
    ..OWN
};

/// Bytes of headers that a record may have beside a body of the largest size: the rest of them
/// counts as body. Sinks leave room for so many and some more.
const HEADERS_BYTES_FREE: usize = 2048;

const _: () = assert!(HEADERS_BYTES_FREE < HEADERS_BYTES_MAX);

/// The fields of a request that its door alone has.
#[derive(Debug, Default)]
pub(crate) struct Extras<'a> {
    /// The record's name, where the door has a field for it.
    pub id: Option<RecordId>,
    /// The record's content type, where the door has a field for it.
    pub content_type: Option<&'a [u8]>,
}

impl Door {
    pub(crate) fn manner(self) -> &'static Manner {
        match self {
            Self::Own | Self::IotHub => &OWN,
            Self::IotCore => &IOT_CORE,
            Self::Otlp(_) => &OTLP,
        }
    }

    /// Bytes of the largest body beside these headers, of `bytes_max` that the gateway takes.
    pub(crate) fn body_bytes_max(self, headers: &Headers, bytes_max: usize) -> usize {
        let beyond = headers.bytes().saturating_sub(HEADERS_BYTES_FREE);
        let bytes_max = bytes_max.saturating_sub(beyond);
        bytes_max.min(self.manner().body_bytes_max)
    }

    /// Reads the fields that the door alone has, and adds those that go on as headers of the
    /// record.
    pub(crate) fn read<'a>(
        self,
        head: &RequestHead<'a>,
        headers: &mut Headers,
    ) -> Result<Extras<'a>, Refusal> {
        match self {
            Self::Own => Ok(Extras::default()),
            Self::IotCore => iot_core::read(head),
            Self::IotHub => iot_hub::read(head, headers),
            Self::Otlp(signal) => otlp::read(signal, head, headers),
        }
    }
}

/// The doors that are open, and where they lead to.
#[derive(Debug, Default)]
pub(crate) struct FrontDoors {
    /// Empty where the door is shut.
    topics: Vec<(Filter, StreamIndex)>,
    iot_hub: bool,
    /// `None` where the door is shut; a stream for each signal that has one.
    signals: Option<[Option<StreamIndex>; Signal::COUNT]>,
}

impl FrontDoors {
    pub(crate) fn new(config: &DoorsConfig, streams: &[StreamConfig]) -> Self {
        let open = config.open;
        let topics = match open.iot_core {
            true => routes(&config.topics, streams),
            false => Vec::new(),
        };
        assert_eq!(open.iot_core, !topics.is_empty(), "a door leads somewhere");
        let signals = open.otlp.then(|| signals(&config.otlp_streams, streams));
        Self {
            topics,
            iot_hub: open.iot_hub,
            signals,
        }
    }

    /// Whether a door is open that reads properties.
    pub(crate) fn keep_properties(&self) -> bool {
        self.iot_hub
    }

    /// Returns the door that a path belongs to.
    pub(crate) fn of_path(&self, path: &str) -> Door {
        if !self.topics.is_empty() && path.starts_with(iot_core::PATH) {
            return Door::IotCore;
        }
        if self.iot_hub && iot_hub::id_of(path).is_some() {
            return Door::IotHub;
        }
        let signal = self.signals.and_then(|_| Signal::of_path(path));
        signal.map_or(Door::Own, Door::Otlp)
    }

    /// Returns the door that a path leads through; a signal without a stream leads nowhere.
    pub(crate) fn find(&self, path: &str) -> Result<Door, Refusal> {
        match self.of_path(path) {
            Door::Own => Err(Refusal::NotFound),
            Door::Otlp(signal) if self.stream_of(signal).is_none() => Err(Refusal::NotFound),
            door => Ok(door),
        }
    }

    /// Returns the stream behind a door, and the headers that say where it was asked for.
    pub(crate) fn lead(
        &self,
        door: Door,
        path: &str,
        device: &DeviceId,
    ) -> Result<(StreamIndex, Headers), Refusal> {
        match door {
            Door::Own => unreachable!("its paths name their streams"),
            Door::IotCore => iot_core::lead(&self.topics, path),
            Door::IotHub if iot_hub::is_of(path, device) => {
                Ok((StreamIndex(0), Headers::default()))
            }
            Door::IotHub => Err(Refusal::DeviceMismatch),
            Door::Otlp(signal) => {
                let stream = self.stream_of(signal).ok_or(Refusal::NotFound)?;
                Ok((stream, Headers::default()))
            }
        }
    }

    fn stream_of(&self, signal: Signal) -> Option<StreamIndex> {
        self.signals?[signal as usize]
    }
}

fn routes(topics: &[TopicRoute], streams: &[StreamConfig]) -> Vec<(Filter, StreamIndex)> {
    let mut routes = Vec::with_capacity(topics.len());
    for TopicRoute { filter, stream } in topics {
        routes.push((filter.clone(), index_of(stream, streams)));
    }
    routes
}

/// Returns the stream of each signal, in the order of [`Signal`].
fn signals(named: &OtlpStreams, streams: &[StreamConfig]) -> [Option<StreamIndex>; Signal::COUNT] {
    let named = [&named.logs, &named.metrics, &named.traces];
    named.map(|name| Some(index_of(name.as_ref()?, streams)))
}

fn index_of(name: &str, streams: &[StreamConfig]) -> StreamIndex {
    let place = streams.iter().position(|stream| stream.name == name);
    let place = place.expect("the configuration names streams that there are");
    StreamIndex(u16::try_from(place).expect("streams are few"))
}

/// Returns the value of a parameter of a query, as it was sent; there is one at most.
fn parameter<'a>(query: &'a str, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut found = None;
    for parameter in query.split('&') {
        let (known, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if known == name && found.replace(value).is_some() {
            return Err(Refusal::Malformed("the query has a parameter twice"));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
