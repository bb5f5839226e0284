//! The time at which a client may come back, and the fields that tell of its buckets.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::answering;
use crate::ingest::Refusal;
use crate::jitter;
use crate::limits::Refused;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// A shed client comes back after 1 to this many seconds, so that a fleet does not come back as
/// one.
const RETRY_AFTER_SECONDS_MAX: u64 = 5;

const _: () = assert!(RETRY_AFTER_SECONDS_MAX > 0 && 256 >= RETRY_AFTER_SECONDS_MAX);

/// Returns the time at which the client may come back, if that helps.
pub(super) fn wait(refusal: &Refusal) -> Option<HeaderValue> {
    match answering(refusal) {
        Refusal::RateLimited(refused) => Some(refused.shortfall.reset_seconds().into()),
        Refusal::GatewayRateLimited(wait) => Some(retry_after(*wait)),
        Refusal::Shed(_) | Refusal::DeviceTableFull | Refusal::SinkUnavailable => {
            Some(retry_after(Duration::ZERO))
        }
        _ => None,
    }
}

/// Returns the fields that tell of the bucket that refused.
pub(super) fn rate_limit_fields(
    refused: &Refused,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
    let fields = [
        (RATE_LIMIT_POLICY, refused.rate_limit_policy()),
        (RATE_LIMIT, refused.rate_limit()),
    ];
    fields.into_iter().map(|(name, value)| {
        let value = HeaderValue::try_from(value);
        (
            name,
            value.expect("names of buckets and numbers are visible ASCII"),
        )
    })
}

/// Returns at least `wait`, in whole seconds, with jitter.
fn retry_after(wait: Duration) -> HeaderValue {
    let spread = jitter::full(Duration::from_secs(RETRY_AFTER_SECONDS_MAX));
    HeaderValue::from(wait.as_secs() + 1 + spread.as_secs())
}
