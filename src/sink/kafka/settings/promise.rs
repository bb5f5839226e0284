//! Values of properties with which a 204 would mean less than that the reading is safe, in order,
//! within a bounded time.
//!
//! Some clusters have no idempotent producers. Then a retry may write twice, which at-least-once
//! allows; but with several requests in flight it would also overtake.

use std::time::Duration;

use super::super::properties::Property;
use super::{SinkError, SinkOptions, message_bytes_needed};

/// Partitioners whose partition is a function of the key, which is never empty.
const PARTITIONERS: [&str; 6] = [
    "murmur2_random",
    "murmur2",
    "consistent_random",
    "consistent",
    "fnv1a_random",
    "fnv1a",
];

/// The promise's demands on the properties.
pub(super) struct Promise<'a> {
    pub options: &'a SinkOptions,
    pub is_idempotent: bool,
}

impl Promise<'_> {
    /// Refuses a value that would break the promise.
    pub(super) fn check(&self, property: &Property) -> Result<(), SinkError> {
        let fault = None
            .or_else(|| self.order_fault(property))
            .or_else(|| self.bound_fault(property))
            .or_else(|| not_to_be_set(property).map(Into::into));
        fault.map_or(Ok(()), |why: String| Err(property.fault(&why)))
    }

    /// Says why a value would lose readings, or the order of a device.
    fn order_fault(&self, property: &Property) -> Option<String> {
        let why = match property.canonical() {
            "request.required.acks" if !property.is_one_of(&["all", "-1"]) => {
                "must be all: with fewer acks a 204 would not mean that the reading is safe"
            }
            "partitioner" if !property.is_one_of(&PARTITIONERS) => {
                let known = PARTITIONERS.join(", ");
                return Some(format!(
                    "must be one of {known}: only a partition that follows from the key keeps a device's order"
                ));
            }
            "queuing.strategy" if !property.is_one_of(&["fifo"]) => {
                "must be fifo: otherwise later records of a device overtake earlier ones"
            }
            "max.in.flight.requests.per.connection"
                if !self.is_idempotent && property.value != "1" =>
            {
                "must be 1 without idempotence: a retry would overtake later records of its device"
            }
            _ => return None,
        };
        Some(why.to_owned())
    }

    /// Says why a value would make a record wait for too long, or leave no room for it.
    fn bound_fault(&self, property: &Property) -> Option<String> {
        let value = &property.value;
        let message_bytes = message_bytes_needed(self.options);
        let message_kbytes = message_bytes.div_ceil(1024);
        match property.canonical() {
            "message.timeout.ms" if value.trim() == "0" => {
                Some("must not be 0: no wait is without a bound".to_owned())
            }
            "queue.buffering.max.ms" if outlasts(value, self.options.ack_timeout) => Some(
                "must be less than FOREBAY_ACK_TIMEOUT: no reading would be acknowledged in time"
                    .to_owned(),
            ),
            "message.max.bytes" if is_below(value, message_bytes) => {
                Some(self.too_few(message_bytes))
            }
            "queue.buffering.max.kbytes" if is_below(value, message_kbytes) => {
                Some(self.too_few(message_kbytes))
            }
            _ => None,
        }
    }

    fn too_few(&self, least: usize) -> String {
        let body_bytes = self.options.body_bytes_max;
        format!(
            "is too few for a body of FOREBAY_BODY_BYTES_MAX={body_bytes}B and its overhead: leave it unset, or set \
             at least {least}"
        )
    }
}

/// Says why a property, or this value of it, has no place here at all.
fn not_to_be_set(property: &Property) -> Option<&'static str> {
    match property.canonical() {
        "transactional.id" => Some("must not be set: Forebay does not write in transactions"),
        "delivery.report.only.error" => {
            Some("must not be set: Forebay needs every report for its acks")
        }
        "log.level" => {
            Some("must not be set: FOREBAY_LOG and FOREBAY_KAFKA_DEBUG choose what is logged")
        }
        "api.version.request" if property.is_off() => {
            Some("must not be off: records would lose their headers and their time")
        }
        "test.mock.num.brokers" | "test.mock.broker.rtt" => {
            Some("must not be set: a mock cluster keeps nothing")
        }
        _ => None,
    }
}

/// Whether so many milliseconds are no less than this time.
fn outlasts(millis: &str, time: Duration) -> bool {
    let millis = millis.trim().parse::<f64>();
    millis.is_ok_and(|millis| millis >= time.as_secs_f64() * 1000.0)
}

fn is_below(value: &str, least: usize) -> bool {
    value.parse().is_ok_and(|given: usize| given < least)
}
