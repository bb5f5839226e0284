//! A token bucket on one atomic: GCRA, the generic cell rate algorithm (ITU-T I.371).
//!
//! A [`Bucket`] holds its theoretical arrival time, the instant from which it is full again. Taking
//! tokens moves that instant into the future, at most as far as a whole burst takes to refill.
//! [`Rule`] holds the shape, worked out once; `limits` and its table call both. Time is an
//! argument: nothing here reads a clock.
//!
//! Units: instants in nanoseconds since the process epoch, costs in tokens (requests, or bytes). A
//! take is one compare-and-swap; a refused one changes nothing and says when it would pass. A
//! bucket grants at most its burst and its rate times the time that passed; rounding adds less than
//! one token to that, once and not with time.

use std::time::Duration;

use super::sync::{AtomicU64, Ordering};
use crate::config::Quota;

/// An instant, in nanoseconds since the process epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

/// The value of a bucket that its table has let go of; no instant reaches it.
const EVICTED: u64 = u64::MAX;

/// The longest time to fill a bucket, 146 years: instants stay far from overflow. A slower rate is
/// raised to it.
const FILL_NS_MAX: f64 = (1_u64 << 62) as f64;

/// The shape of a bucket, worked out from its quota once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rule {
    /// Nanoseconds in which one token refills; 0 when the limit is off.
    ns_per_token: f64,
    /// The same, rounded up: most takes are of one token.
    token_ns: u64,
    /// Nanoseconds by which the bucket's instant may lie ahead of now.
    tolerance_ns: u64,
    burst: u64,
}

/// Shortfall of a bucket that refused, and the figures for a reply's `RateLimit`
/// (draft-ietf-httpapi-ratelimit-headers).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortfall {
    /// Time until the same take would pass, or until the bucket is full where the take exceeds the
    /// burst and never passes.
    pub retry_after: Duration,
    /// `q`: tokens that a full bucket holds.
    pub burst: u64,
    /// `w`: seconds to fill the bucket, rounded up, at least 1.
    pub window_seconds: u64,
    /// `r`: tokens left, fewer than were asked for.
    pub remaining: u64,
}

impl Shortfall {
    /// `t` and `Retry-After`: whole seconds until the same take would pass, rounded up, at least 1.
    pub(crate) fn reset_seconds(&self) -> u64 {
        (self.retry_after.as_nanos().div_ceil(1_000_000_000) as u64).max(1)
    }
}

/// The bucket's table has let go of it: look the key up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted;

impl Rule {
    const OFF: Self = Self {
        ns_per_token: 0.0,
        token_ns: 0,
        tolerance_ns: 0,
        burst: 0,
    };

    /// A rate of 0 switches the limit off, whatever the burst.
    pub fn new(quota: Quota) -> Self {
        if quota.rate.is_nan() || quota.rate <= 0.0 {
            return Self::OFF;
        }
        let burst = quota.burst as f64;
        let ns_per_token = (1e9 / quota.rate).min(FILL_NS_MAX / burst);
        // Each take is charged up to 1 ns too much. The slack gives that back to a bucket drained
        // token by token; being less than a token, it lets no one more than the burst through at
        // once.
        let slack_ns = burst.min(ns_per_token - 1.0).max(1.0);
        Self {
            ns_per_token,
            token_ns: ns_per_token.ceil() as u64,
            tolerance_ns: (burst * ns_per_token + slack_ns) as u64,
            burst: quota.burst,
        }
    }

    pub fn is_off(&self) -> bool {
        self.ns_per_token == 0.0
    }

    /// Tokens that a full bucket holds; `None` when the limit is off.
    pub fn burst(&self) -> Option<u64> {
        (!self.is_off()).then_some(self.burst)
    }

    /// The time in which one token refills.
    pub(crate) fn token_time(&self) -> Duration {
        Duration::from_nanos(self.token_ns)
    }

    /// Whether a take of `cost` can never pass, however long one waits.
    pub fn exceeds_burst(&self, cost: u64) -> bool {
        !self.is_off() && cost > self.burst
    }

    /// The bucket's next instant, when `cost` passes.
    fn charge(&self, full_at: u64, cost: u64, now: Nanos) -> Result<u64, Shortfall> {
        let cost_ns = match cost {
            1 => self.token_ns,
            _ => (cost as f64 * self.ns_per_token).ceil() as u64,
        };
        let next = full_at.max(now.0).saturating_add(cost_ns);
        let latest = now.0.saturating_add(self.tolerance_ns).min(EVICTED - 1);
        if self.exceeds_burst(cost) {
            return Err(self.shortfall(full_at, now, full_at.saturating_sub(now.0)));
        }
        if next > latest {
            Err(self.shortfall(full_at, now, next - latest))
        } else {
            Ok(next)
        }
    }

    #[cold]
    fn shortfall(&self, full_at: u64, now: Nanos, wait_ns: u64) -> Shortfall {
        let latest = now.0.saturating_add(self.tolerance_ns);
        let left_ns = latest.saturating_sub(full_at.max(now.0));
        let fill_seconds = self.burst as f64 * self.ns_per_token / 1e9;
        Shortfall {
            retry_after: Duration::from_nanos(wait_ns),
            burst: self.burst,
            window_seconds: (fill_seconds.ceil() as u64).max(1),
            remaining: ((left_ns as f64 / self.ns_per_token) as u64).min(self.burst),
        }
    }
}

/// A bucket: the instant from which it is full.
#[derive(Debug)]
pub struct Bucket(AtomicU64);

impl Bucket {
    /// A bucket that is full from `instant` on.
    pub fn full_from(instant: Nanos) -> Self {
        Self(AtomicU64::new(instant.0))
    }

    /// Takes `cost` tokens, or none and says why.
    ///
    /// Relaxed ordering: the bucket is one word and guards no other memory.
    #[inline]
    pub fn take(
        &self,
        rule: &Rule,
        cost: u64,
        now: Nanos,
    ) -> Result<Result<(), Shortfall>, Evicted> {
        if rule.is_off() || cost == 0 {
            return Ok(Ok(()));
        }
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            if full_at == EVICTED {
                return Err(Evicted);
            }
            let next = match rule.charge(full_at, cost, now) {
                Ok(next) => next,
                Err(refusal) => return Ok(Err(refusal)),
            };
            debug_assert!(next < EVICTED, "no instant reaches it");
            match self
                .0
                .compare_exchange_weak(full_at, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return Ok(Ok(())),
                Err(seen) => full_at = seen,
            }
        }
    }

    /// Lets go of a full bucket and gives the value that [`Bucket::restore`] takes; a bucket that
    /// is not full, or was taken from meanwhile, is left alone and gives the instant from which it
    /// is full. Under the table's lock only.
    pub fn evict(&self, now: Nanos) -> Result<Nanos, Nanos> {
        let full_at = self.0.load(Ordering::Relaxed);
        if full_at > now.0 {
            return Err(Nanos(full_at));
        }
        let swapped =
            self.0
                .compare_exchange(full_at, EVICTED, Ordering::Relaxed, Ordering::Relaxed);
        swapped.map(Nanos).map_err(Nanos)
    }

    /// Undoes [`Bucket::evict`]. Under the table's lock, held since: nobody else writes to an
    /// evicted bucket.
    pub fn restore(&self, full_at: Nanos) {
        debug_assert_eq!(
            self.0.load(Ordering::Relaxed),
            EVICTED,
            "`evict` came first"
        );
        self.0.store(full_at.0, Ordering::Relaxed);
    }
}
