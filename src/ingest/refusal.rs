//! The reason why a reading was not taken. `http::reply` turns each into its answer, in one table.

use std::sync::Arc;
use std::time::Duration;

use super::Verdicts;
use crate::admission::Shed;
use crate::config::ContentEncodings;
use crate::identity::IdentityError;
use crate::limits::{Denied, Refused};
use crate::record::Reason;
use crate::rules::Fault;
use crate::words::Scope;

/// Every way in which a request ends without a 204.
#[derive(Clone, Debug)]
pub enum Refusal {
    Malformed(&'static str),
    /// The head has too many bytes or fields.
    HeadTooLarge,
    EmptyBody,
    InvalidIdempotencyKey,
    InvalidIdentity(IdentityError),
    CertificateRevoked,
    /// The devices file denies the device.
    DeviceDenied,
    CertificateExpired,
    StreamForbidden,
    NotFound,
    MethodNotAllowed,
    BodyTimeout,
    BodyTooLarge,
    /// The body comes in another coding than these.
    UnsupportedEncoding(ContentEncodings),
    /// The body is damaged, ends early, or goes on after its end.
    MalformedEncoding,
    /// A body of this type cannot be cut into records, or its door takes no such type.
    UnsupportedMediaType,
    /// The body cannot be cut to its end.
    MalformedRecords,
    TooManyRecords,
    /// A record among others, or one that the stream's rules have edited, is larger than a reading
    /// may be.
    RecordTooLarge,
    /// Not all records of the request are safe.
    Records(Box<Verdicts>),
    Misdirected,
    /// The stream takes JSON only.
    NotJson,
    /// Place of the keyword in the stream's schema that the record does not satisfy.
    SchemaViolation(Arc<str>),
    /// The record, or the path that it was posted to, says that it is another device's.
    DeviceMismatch,
    /// A device's or an address's bucket is empty.
    RateLimited(Refused),
    /// The gateway's own bucket is empty.
    GatewayRateLimited(Duration),
    DeviceTableFull,
    Shed(Shed),
    /// The stream refused the record for good.
    SinkRefused(Reason),
    /// The stream did not take the record, and does not have it.
    SinkUnavailable,
    /// Whether the stream has the record is unknown.
    AckTimeout,
}

impl Refusal {
    /// Returns the bucket that was empty, if one was.
    pub(crate) fn limit(&self) -> Option<Scope> {
        match self {
            Self::RateLimited(refused) => Some(refused.scope),
            Self::GatewayRateLimited(_) => Some(Scope::Gateway),
            _ => None,
        }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Refused(refused) if refused.scope == Scope::Gateway => {
                Self::GatewayRateLimited(refused.retry_after())
            }
            Denied::Refused(refused) => Self::RateLimited(refused),
            Denied::TableFull(_) => Self::DeviceTableFull,
        }
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::NotJson => Self::NotJson,
            Fault::SchemaViolation(place) => Self::SchemaViolation(place),
            Fault::DeviceMismatch => Self::DeviceMismatch,
            Fault::RecordTooLarge => Self::RecordTooLarge,
        }
    }
}

impl From<Shed> for Refusal {
    fn from(shed: Shed) -> Self {
        Self::Shed(shed)
    }
}
