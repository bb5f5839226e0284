//! One of each refusal: for the contract and for the tests of what is written about it.
//!
//! A refusal that is new does not compile until it has its place here, so no list that is made from
//! this one misses it.

use std::time::Duration;

use crate::admission::Shed as Why;
use crate::config::ContentEncodings;
use crate::identity::IdentityError;
use crate::ingest::{Refusal, Verdicts};
use crate::limits::{Refused, Shortfall};
use crate::words::Scope;

/// The refusal after this one, in the order of the table. A new one does not compile until it has
/// its place here.
fn after(refusal: Option<&Refusal>) -> Option<Refusal> {
    use Refusal::*;
    Some(match refusal {
        None => Malformed("the body is shorter than declared"),
        Some(Malformed(_)) => HeadTooLarge,
        Some(HeadTooLarge) => EmptyBody,
        Some(EmptyBody) => MalformedEncoding,
        Some(MalformedEncoding) => MalformedRecords,
        Some(MalformedRecords) => InvalidIdempotencyKey,
        Some(InvalidIdempotencyKey) => InvalidIdentity(IdentityError::Missing),
        Some(InvalidIdentity(_)) => CertificateRevoked,
        Some(CertificateRevoked) => DeviceDenied,
        Some(DeviceDenied) => CertificateExpired,
        Some(CertificateExpired) => StreamForbidden,
        Some(StreamForbidden) => NotFound,
        Some(NotFound) => MethodNotAllowed,
        Some(MethodNotAllowed) => BodyTimeout,
        Some(BodyTimeout) => BodyTooLarge,
        Some(BodyTooLarge) => TooManyRecords,
        Some(TooManyRecords) => RecordTooLarge,
        Some(RecordTooLarge) => UnsupportedEncoding(ContentEncodings {
            gzip: true,
            zstd: true,
        }),
        Some(UnsupportedEncoding(_)) => UnsupportedMediaType,
        Some(UnsupportedMediaType) => Misdirected,
        Some(Misdirected) => NotJson,
        Some(NotJson) => SchemaViolation("/properties/temp/type".into()),
        Some(SchemaViolation(_)) => DeviceMismatch,
        Some(DeviceMismatch) => RateLimited(empty_bucket()),
        Some(RateLimited(_)) => SinkRefused("the record is too large".into()),
        Some(SinkRefused(_)) => Shed(Why::MemoryBudget),
        Some(Shed(Why::MemoryBudget)) => Shed(Why::DeviceShare),
        Some(Shed(Why::DeviceShare)) => SinkUnavailable,
        Some(SinkUnavailable) => Shed(Why::SinkAway),
        Some(Shed(Why::SinkAway)) => Shed(Why::Draining),
        Some(Shed(Why::Draining)) => DeviceTableFull,
        Some(DeviceTableFull) => GatewayRateLimited(Duration::from_secs(1)),
        Some(GatewayRateLimited(_)) => AckTimeout,
        Some(AckTimeout) => Records(verdicts()),
        Some(Records(_)) => return None,
    })
}

/// Returns the outcomes of four records: two are safe, one may be sent again, one never.
fn verdicts() -> Box<Verdicts> {
    let mut verdicts = Verdicts::default();
    verdicts.note(Ok(()));
    verdicts.note(Err(Refusal::SinkUnavailable));
    verdicts.note(Err(Refusal::RecordTooLarge));
    verdicts.note(Ok(()));
    Box::new(verdicts)
}

/// The bucket of a device of which one request in 5 s is taken, and 3 at once, when it has sent its
/// fourth.
pub(crate) fn empty_bucket() -> Refused {
    let retry_after = Duration::from_millis(4_001);
    let shortfall = Shortfall {
        retry_after,
        burst: 3,
        window_seconds: 15,
        remaining: 0,
    };
    Refused {
        scope: Scope::Device,
        shortfall,
    }
}

/// One refusal of each kind, in the order of the table.
pub(crate) fn every_refusal() -> impl Iterator<Item = Refusal> {
    std::iter::successors(after(None), |refusal| after(Some(refusal)))
}
