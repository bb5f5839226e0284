//! The door of AWS IoT Core: publishing by HTTPS, as
//! <https://docs.aws.amazon.com/iot/latest/developerguide/http.html> has it, with its answers as
//! <https://docs.aws.amazon.com/iot/latest/apireference/API_iotdata_Publish.html> tells of them.
//!
//! A topic never becomes the name of a stream by itself: a filter names the stream, the topic goes
//! on as a header. Either quality of service is durable.

use super::{Extras, parameter};
use crate::ingest::{Refusal, RequestHead};
use crate::record::{Headers, StreamIndex};
use crate::topic::{self, Filter};

/// Prefix of the paths of topics.
pub(super) const PATH: &str = "/topics/";

/// The largest payload, in bytes: 128 KB, by
/// <https://docs.aws.amazon.com/general/latest/gr/iot-core.html#message-broker-limits>.
pub(super) const BODY_BYTES_MAX: usize = 128 << 10;

/// The header that has the topic.
const TOPIC: &str = "topic";

/// Returns the stream of the topic that the path names: that of the first filter that matches it.
pub(super) fn lead(
    filters: &[(Filter, StreamIndex)],
    path: &str,
) -> Result<(StreamIndex, Headers), Refusal> {
    let path = path.strip_prefix(PATH).unwrap_or_default();
    let topic = topic::name_of(path).ok_or(Refusal::Malformed(
        "the path does not name a topic: UTF-8, percent-encoded once, without +, # or NUL",
    ))?;
    let route = filters.iter().find(|(filter, _)| filter.matches(&topic));
    let (_, stream) = route.ok_or(Refusal::StreamForbidden)?;
    let mut headers = Headers::default();
    headers.add(TOPIC, &topic);
    Ok((*stream, headers))
}

/// Checks that the quality of service is one that HTTPS has; it is 0 unless given.
pub(super) fn read<'a>(head: &RequestHead<'a>) -> Result<Extras<'a>, Refusal> {
    match parameter(head.query, "qos")? {
        None | Some("0" | "1") => Ok(Extras::default()),
        Some(_) => Err(Refusal::Malformed("qos is neither 0 nor 1")),
    }
}
