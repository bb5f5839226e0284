//! The door of OpenTelemetry: OTLP/HTTP, as
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp> has it (1.10.0).
//!
//! A body is not interpreted: it is one record, byte for byte as it was before it was compressed.
//! Its headers say signal and encoding, the latter by the name that the OpenTelemetry Collector's
//! Kafka receiver has for it.

use super::Extras;
use crate::ingest::{Field, Refusal, RequestHead, visible};
use crate::record::Headers;

/// The headers that name a record's signal and its encoding.
const SIGNAL: &str = "otlp-signal";
const ENCODING: &str = "otlp-encoding";

/// The signal of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Logs,
    Metrics,
    Traces,
}

impl Signal {
    pub(super) const COUNT: usize = 3;

    pub(super) fn of_path(path: &str) -> Option<Self> {
        match path {
            "/v1/logs" => Some(Self::Logs),
            "/v1/metrics" => Some(Self::Metrics),
            "/v1/traces" => Some(Self::Traces),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::Traces => "traces",
        }
    }
}

const _: () = assert!(Signal::Traces as usize + 1 == Signal::COUNT);

/// The encoding of a body, and of the answer to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Encoding {
    #[default]
    Protobuf,
    Json,
}

impl Encoding {
    /// Returns the encoding that a content type names. Parameters make no difference, if they can go
    /// on with the record.
    fn of(content_type: Field<'_>) -> Option<Self> {
        let Field::Once(value) = content_type else {
            return None;
        };
        let mut parts = visible(value)?.split(';');
        let name = parts.next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case("application/x-protobuf") {
            Some(Self::Protobuf)
        } else if name.eq_ignore_ascii_case("application/json") {
            Some(Self::Json)
        } else {
            None
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Protobuf => "otlp_proto",
            Self::Json => "otlp_json",
        }
    }
}

impl RequestHead<'_> {
    /// Returns the encoding of OTLP that its content type names.
    pub(crate) fn encoding(&self) -> Option<Encoding> {
        Encoding::of(self.content_type)
    }
}

/// Takes OTLP only, by its content type.
pub(super) fn read<'a>(
    signal: Signal,
    head: &RequestHead<'a>,
    headers: &mut Headers,
) -> Result<Extras<'a>, Refusal> {
    let encoding = head.encoding().ok_or(Refusal::UnsupportedMediaType)?;
    headers.add(SIGNAL, signal.name());
    headers.add(ENCODING, encoding.name());
    Ok(Extras::default())
}
