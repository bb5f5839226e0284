//! The door of Azure IoT Hub: device-to-cloud messages by HTTPS, as
//! <https://learn.microsoft.com/rest/api/iothub/device/send-device-event> has it, and properties as
//! <https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct> does.
//!
//! The id in the path is checked, never believed: the device is the certificate's. Fields
//! `iothub-messageid` and `iothub-contenttype` are the record's id and content type, all others
//! that begin with `iothub-` go on as its headers, in lower case, and so does `dt-subject`, which
//! Azure's own clients send without that beginning. There are as many as a head may have; the bytes
//! of many count as body.

use super::{Extras, parameter};
use crate::ingest::{Refusal, RequestHead, visible};
use crate::record::{DeviceId, Headers, RecordId};
use crate::topic;

const PATH: &str = "/devices/";
const PATH_END: &str = "/messages/events";

const PROPERTY: &str = "iothub-";
const MESSAGE_ID: &str = "iothub-messageid";
const SUBJECT: &str = "dt-subject";
const CONTENT_TYPE: &str = "iothub-contenttype";

/// Whether a field of this name is a property of the message, on a path of this door.
#[inline]
pub(crate) fn is_property(name: &str, path: &str) -> bool {
    let begin = name.get(..PROPERTY.len()).unwrap_or_default();
    let is_property = begin.eq_ignore_ascii_case(PROPERTY) || name.eq_ignore_ascii_case(SUBJECT);
    is_property && id_of(path).is_some()
}

/// Returns the device id in a path, as it stands there.
pub(super) fn id_of(path: &str) -> Option<&str> {
    path.strip_prefix(PATH)?.strip_suffix(PATH_END)
}

/// Whether the path names this device, percent-encoded or not.
pub(super) fn is_of(path: &str, device: &DeviceId) -> bool {
    let Some(id) = id_of(path) else { return false };
    id == device.as_str() || topic::decode(id).is_some_and(|id| id == device.as_str())
}

/// Reads the properties of the message. The version is asked for and not looked at, as this message
/// has been the same in all of them.
pub(super) fn read<'a>(
    head: &RequestHead<'a>,
    headers: &mut Headers,
) -> Result<Extras<'a>, Refusal> {
    check_version(head.query)?;
    let mut extras = Extras::default();
    for (name, value) in head.properties() {
        take(name, value, &mut extras, headers)?;
    }
    Ok(extras)
}

fn check_version(query: &str) -> Result<(), Refusal> {
    match parameter(query, "api-version")? {
        None | Some("") => Err(Refusal::Malformed("the query has no api-version")),
        Some(_) => Ok(()),
    }
}

/// Takes a property to where it belongs.
fn take<'a>(
    name: &str,
    value: &'a [u8],
    extras: &mut Extras<'a>,
    headers: &mut Headers,
) -> Result<(), Refusal> {
    if name.eq_ignore_ascii_case(MESSAGE_ID) {
        let is_first = extras.id.is_none();
        let id = RecordId::from_key(value).filter(|_| is_first);
        extras.id = Some(id.ok_or(Refusal::InvalidIdempotencyKey)?);
    } else if name.eq_ignore_ascii_case(CONTENT_TYPE) {
        visible(value).ok_or(NOT_VISIBLE)?;
        if extras.content_type.replace(value).is_some() {
            return Err(TWO_TYPES);
        }
    } else {
        let value = visible(value).ok_or(NOT_VISIBLE)?;
        headers.add(&name.to_ascii_lowercase(), value);
    }
    Ok(())
}

const NOT_VISIBLE: Refusal =
    Refusal::Malformed("a property has other characters than visible ASCII");

const TWO_TYPES: Refusal = Refusal::Malformed("there is more than one iothub-contenttype");
