//! An event as it is written: CloudEvents 1.0 in structured JSON (the JSON event format of the
//! CNCF's specification).
//!
//! Written member by member into one buffer: a fleet that comes back all at once has two events a
//! connection. No value needs to be escaped. Ids and replicas have alphabets of their own, and the
//! rest are words, numbers, dates and addresses.

use std::fmt::{Display, Write};
use std::net::IpAddr;
use std::time::Duration;

use super::usage::{Counts, Usage};
use crate::record::{DeviceId, RecordId, Timestamp};
use crate::words::{Disconnect, Protocol, Scope};

/// Octets of a serial number that are told: it has 20 at most (RFC 5280 section 4.1.2.2), but one
/// that nobody has verified may say anything.
const SERIAL_OCTETS_MAX: usize = 64;

/// A connection that begins, as it is told.
pub(crate) struct Opening<'a> {
    pub device: &'a DeviceId,
    pub protocol: Protocol,
    pub address: IpAddr,
    /// The session is that of an earlier connection.
    pub is_resumed: bool,
    /// The serial number's content octets in DER.
    pub serial: &'a [u8],
    pub not_after: Timestamp,
}

impl Opening<'_> {
    fn write(&self, data: &mut Members) {
        data.text("protocol", self.protocol.label());
        data.text("address", self.address.to_canonical());
        data.bare("resumed", self.is_resumed);
        data.text("certificate_serial", Serial(self.serial));
        data.text("certificate_not_after", self.not_after.rfc3339());
    }
}

/// An event of the fleet, with its data.
pub(super) enum Event<'a> {
    Connected(&'a Opening<'a>),
    Disconnected {
        protocol: Protocol,
        reason: Disconnect,
        lasted: Duration,
        counts: Counts,
    },
    Refused {
        reason: &'static str,
        serial: &'a [u8],
    },
    Limited {
        scope: Scope,
        refused: u32,
    },
    CertificateExpires {
        not_after: Timestamp,
    },
    Usage(&'a Usage),
}

impl Event<'_> {
    /// The last part of its type.
    fn kind(&self) -> &'static str {
        match self {
            Self::Connected(_) => "connected",
            Self::Disconnected { .. } => "disconnected",
            Self::Refused { .. } => "refused",
            Self::Limited { .. } => "limited",
            Self::CertificateExpires { .. } => "certificate-expires",
            Self::Usage(_) => "usage",
        }
    }

    fn write(&self, data: &mut Members) {
        match self {
            Self::Connected(opening) => opening.write(data),
            Self::Disconnected {
                protocol,
                reason,
                lasted,
                counts,
            } => {
                data.text("protocol", protocol.label());
                data.text("reason", reason.label());
                data.bare("seconds", format_args!("{:.3}", lasted.as_secs_f64()));
                data.counts(counts);
            }
            Self::Refused { reason, serial } => {
                data.text("reason", reason);
                data.text("certificate_serial", Serial(serial));
            }
            Self::Limited { scope, refused } => {
                data.text("scope", scope.label());
                data.bare("refused", refused);
            }
            Self::CertificateExpires { not_after } => {
                data.text("not_after", not_after.rfc3339());
            }
            Self::Usage(usage) => {
                data.text("from", usage.from.rfc3339_millis());
                data.text("to", usage.to.rfc3339_millis());
                data.counts(&usage.counts);
            }
        }
    }
}

/// The attributes that every event has.
pub(super) struct Envelope<'a> {
    pub id: &'a RecordId,
    pub source: &'a str,
    /// The device; `None` where none is known.
    pub subject: Option<&'a str>,
    pub at: Timestamp,
}

impl Envelope<'_> {
    /// The event's JSON.
    pub(super) fn enclose(&self, event: &Event<'_>) -> String {
        let mut members = Members::open();
        members.text("specversion", "1.0");
        members.text("id", self.id.as_str(&mut [0; 36]));
        members.text("source", self.source);
        members.text("type", format_args!("forebay.device.{}", event.kind()));
        if let Some(subject) = self.subject {
            members.text("subject", subject);
        }
        members.text("time", self.at.rfc3339_millis());
        members.text("datacontenttype", "application/json");
        let mut data = Members::open();
        event.write(&mut data);
        members.bare("data", data.close());
        members.close()
    }
}

/// The members of a JSON object, as they are written.
struct Members(String);

impl Members {
    fn open() -> Self {
        let mut text = String::with_capacity(384);
        text.push('{');
        Self(text)
    }

    /// Adds a member whose value is JSON as it stands.
    fn bare(&mut self, name: &str, value: impl Display) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        // Writing to memory does not fail.
        let _ = write!(self.0, "\"{name}\":{value}");
    }

    /// Adds a member that is a text in which nothing is to be escaped.
    fn text(&mut self, name: &str, value: impl Display) {
        let before = self.0.len();
        self.bare(name, format_args!("\"{value}\""));
        debug_assert!(!self.0[before..].contains(['\\', '\n']), "{name}");
    }

    fn counts(&mut self, counts: &Counts) {
        self.bare("accepted", counts.accepted);
        self.bare("refused", counts.refused);
        self.bare("bytes", counts.bytes);
    }

    fn close(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A serial number by the content octets of its DER: lower-case hex without leading zeros.
struct Serial<'a>(&'a [u8]);

impl Display for Serial<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let zeros = self.0.iter().take_while(|octet| **octet == 0).count();
        let octets = &self.0[zeros..];
        let Some((first, rest)) = octets.split_first() else {
            return f.write_str("0");
        };
        write!(f, "{first:x}")?;
        for octet in rest.iter().take(SERIAL_OCTETS_MAX - 1) {
            write!(f, "{octet:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn enclosed(event: &Event<'_>, subject: Option<&str>) -> Value {
        let id = RecordId::new(Timestamp(0));
        let envelope = Envelope {
            id: &id,
            source: "/forebay/gw-1",
            subject,
            at: Timestamp(1_795_425_300_123),
        };
        let mut value: Value = serde_json::from_str(&envelope.enclose(event)).unwrap();
        assert_eq!(value["id"], id.as_str(&mut [0; 36]));
        value.as_object_mut().unwrap().remove("id");
        value
    }

    #[test]
    fn an_event_is_a_cloud_event() {
        let opening = Opening {
            device: &DeviceId::parse("urn:plant/7").unwrap(),
            protocol: Protocol::H3,
            address: "::ffff:192.0.2.7".parse().unwrap(),
            is_resumed: true,
            serial: &[0, 0x0a, 0x0b],
            not_after: Timestamp(1_795_425_300_000),
        };
        let expected = json!({
            "specversion": "1.0",
            "source": "/forebay/gw-1",
            "type": "forebay.device.connected",
            "subject": "urn:plant/7",
            "time": "2026-11-23T09:15:00.123Z",
            "datacontenttype": "application/json",
            "data": {
                "protocol": "h3",
                "address": "192.0.2.7",
                "resumed": true,
                "certificate_serial": "a0b",
                "certificate_not_after": "2026-11-23T09:15:00Z",
            },
        });
        assert_eq!(
            enclosed(&Event::Connected(&opening), Some("urn:plant/7")),
            expected
        );
    }

    #[test]
    fn an_event_of_no_device_has_no_subject() {
        let event = Event::Refused {
            reason: "unknown_issuer",
            serial: &[0],
        };
        let value = enclosed(&event, None);
        assert_eq!(value.get("subject"), None);
        let data = json!({ "reason": "unknown_issuer", "certificate_serial": "0" });
        assert_eq!(value["data"], data);
    }

    #[test]
    fn counts_and_times_are_numbers_and_dates() {
        let counts = Counts {
            accepted: 3,
            refused: 1,
            bytes: 40,
        };
        let event = Event::Disconnected {
            protocol: Protocol::H1,
            reason: Disconnect::Idle,
            lasted: Duration::from_millis(1500),
            counts,
        };
        let data = json!({
            "protocol": "h1", "reason": "idle", "seconds": 1.5,
            "accepted": 3, "refused": 1, "bytes": 40,
        });
        assert_eq!(enclosed(&event, Some("a"))["data"], data);
        let usage = Usage {
            from: Timestamp(0),
            to: Timestamp(1),
            counts,
        };
        let data = json!({
            "from": "1970-01-01T00:00:00.000Z", "to": "1970-01-01T00:00:00.001Z",
            "accepted": 3, "refused": 1, "bytes": 40,
        });
        assert_eq!(enclosed(&Event::Usage(&usage), Some("a"))["data"], data);
    }

    /// A certificate that nobody has signed may hold a serial number of any length.
    #[test]
    fn a_serial_number_is_cut() {
        let long = Serial(&[0xff; 4000]).to_string();
        assert_eq!(long, "ff".repeat(SERIAL_OCTETS_MAX));
    }
}
