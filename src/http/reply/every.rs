//! One of each refusal: for the contract and for the tests of what is written about it.
//!
//! A refusal that is new does not compile until it has its place here, so no list that is made from this one misses it.

use std::time::Duration;

use crate::identity::IdentityError;
use crate::ingest::Refusal;
use crate::limits::{self, Refused};
use crate::words::Scope;

/// The refusal after this one. A new one does not compile until it has its place here.
fn after(refusal: Option<&Refusal>) -> Option<Refusal> {
    use Refusal::*;
    Some(match refusal {
        None => Malformed("the body is shorter than declared"),
        Some(Malformed(_)) => HeadTooLarge,
        Some(HeadTooLarge) => EmptyBody,
        Some(EmptyBody) => InvalidIdempotencyKey,
        Some(InvalidIdempotencyKey) => InvalidIdentity(IdentityError::Missing),
        Some(InvalidIdentity(_)) => CertificateRevoked,
        Some(CertificateRevoked) => CertificateExpired,
        Some(CertificateExpired) => StreamForbidden,
        Some(StreamForbidden) => NotFound,
        Some(NotFound) => MethodNotAllowed,
        Some(MethodNotAllowed) => BodyTimeout,
        Some(BodyTimeout) => BodyTooLarge,
        Some(BodyTooLarge) => UnsupportedEncoding,
        Some(UnsupportedEncoding) => Misdirected,
        Some(Misdirected) => RateLimited(empty_bucket()),
        Some(RateLimited(_)) => SinkRefused("the record is too large".into()),
        Some(SinkRefused(_)) => Shed(crate::admission::Shed::MemoryBudget),
        Some(Shed(crate::admission::Shed::MemoryBudget)) => {
            Shed(crate::admission::Shed::DeviceShare)
        }
        Some(Shed(crate::admission::Shed::DeviceShare)) => SinkUnavailable,
        Some(SinkUnavailable) => Shed(crate::admission::Shed::SinkAway),
        Some(Shed(crate::admission::Shed::SinkAway)) => Shed(crate::admission::Shed::Draining),
        Some(Shed(crate::admission::Shed::Draining)) => DeviceTableFull,
        Some(DeviceTableFull) => GatewayRateLimited(Duration::from_secs(1)),
        Some(GatewayRateLimited(_)) => AckTimeout,
        Some(AckTimeout) => return None,
    })
}

/// A device of which one request in 5 s is taken, and 3 at once, has sent its fourth.
pub(crate) fn empty_bucket() -> Refused {
    let retry_after = Duration::from_millis(4_001);
    let refusal = limits::Refusal {
        retry_after,
        burst: 3,
        window_seconds: 15,
        remaining: 0,
    };
    Refused {
        scope: Scope::Device,
        refusal,
    }
}

/// One of each, in the order of the table.
pub(crate) fn every_refusal() -> impl Iterator<Item = Refusal> {
    std::iter::successors(after(None), |refusal| after(Some(refusal)))
}
