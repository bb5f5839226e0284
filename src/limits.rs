//! Limits: how much a device, a source address and the whole gateway may send.
//!
//! `accept` asks for the buckets of an address, and for a handshake; `ingest` takes a request from
//! device, address and gateway in that order, and the body's bytes from the device. [`Limits`] is
//! shared by all workers. A connection looks its buckets up once ([`Limits::device`],
//! [`Limits::address`]); a take is then a compare-and-swap.
//!
//! Invariant: a bucket that refuses loses nothing; those asked before it keep what they took;
//! nothing is refunded.
//! Units: tokens are requests, connections or body bytes; time is [`Nanos`] of the caller's
//! [`Clock`].
//! Limits: `devices_max` devices and [`ADDRESSES_MAX`] addresses are remembered at once.
//! Failure: [`Denied::Refused`] names the bucket and when to come back; [`Denied::TableFull`] means
//! that nobody else's bucket can be forgotten to make room for this one.

use std::cell::Cell;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;
use wildmatch::WildMatch;

use crate::config::LimitsConfig;
use crate::devices::Settings;
use crate::record::DeviceId;
use crate::sync::{self, Arc};
use crate::words::Scope;

pub use table::TableFull;
use table::{Handle, NotTaken, Table, Which};
pub use token_bucket::Nanos;
pub(crate) use token_bucket::Shortfall;
use token_bucket::{Bucket, Rule};

mod table;
#[cfg(test)]
mod tests;
pub(crate) mod token_bucket;

/// Source addresses remembered at once, some 5 MiB. A full bucket is forgotten for a newcomer, so
/// this bounds the addresses that have sent something within the time that their buckets take to
/// refill.
pub(crate) const ADDRESSES_MAX: usize = 65_536;

/// The clock that gives [`Nanos`], counted from its making. Copies agree; share one in the process.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    pub fn new() -> Self {
        Self(now())
    }

    pub fn now(&self) -> Nanos {
        self.at(now())
    }

    /// An instant that the caller has read already, as [`Nanos`].
    pub fn at(&self, instant: Instant) -> Nanos {
        Nanos(instant.saturating_duration_since(self.0).as_nanos() as u64)
    }
}

/// Reads the clock that timers go by, which a test may hold.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// A bucket had too few tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit of the {} is reached", scope.label())]
pub struct Refused {
    pub(crate) scope: Scope,
    pub(crate) shortfall: Shortfall,
}

impl Refused {
    /// Time until the same request would pass.
    pub(crate) fn retry_after(&self) -> Duration {
        self.shortfall.retry_after
    }

    /// The value of `RateLimit-Policy`: `"device";q=100;w=2`.
    pub(crate) fn rate_limit_policy(&self) -> String {
        let Shortfall {
            burst,
            window_seconds,
            ..
        } = self.shortfall;
        format!("\"{}\";q={burst};w={window_seconds}", self.scope.label())
    }

    /// The value of `RateLimit`: `"device";r=0;t=1`.
    pub(crate) fn rate_limit(&self) -> String {
        format!(
            "\"{}\";r={};t={}",
            self.scope.label(),
            self.shortfall.remaining,
            self.shortfall.reset_seconds()
        )
    }
}

/// Why a request, its bytes or a connection may not pass now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The bucket was forgotten while it was full, and there is no room for it now.
    #[error(transparent)]
    TableFull(#[from] TableFull),
}

impl Denied {
    /// Says whose bucket it was.
    fn at(scope: Scope) -> impl Fn(NotTaken) -> Self {
        move |not_taken| match not_taken {
            NotTaken::Short(shortfall) => Self::Refused(Refused { scope, shortfall }),
            NotTaken::TableFull => Self::TableFull(TableFull),
        }
    }
}

/// All buckets of the gateway.
pub struct Limits {
    devices: Arc<Table>,
    addresses: Arc<Table>,
    gateway: CachePadded<Bucket>,
    device_requests: Rule,
    device_bytes: Rule,
    device_classes: Vec<(WildMatch, Rule)>,
    address_requests: Rule,
    address_handshakes: Rule,
    gateway_requests: Rule,
}

impl Limits {
    pub fn new(config: &LimitsConfig) -> Self {
        let classes = config.device_classes.iter();
        Self {
            devices: Arc::new(Table::new(config.devices_max)),
            addresses: Arc::new(Table::new(ADDRESSES_MAX)),
            gateway: CachePadded::new(Bucket::full_from(Nanos(0))),
            device_requests: Rule::new(config.device_requests),
            device_bytes: Rule::new(config.device_bytes),
            device_classes: classes
                .map(|class| (WildMatch::new(&class.devices), Rule::new(class.requests)))
                .collect(),
            address_requests: Rule::new(config.address_requests),
            address_handshakes: Rule::new(config.address_handshakes),
            gateway_requests: Rule::new(config.gateway_requests),
        }
    }

    /// The buckets of an authenticated device, once per connection; its rate class is settled here.
    pub fn device(&self, device: &DeviceId, now: Nanos) -> Result<DeviceLimits, TableFull> {
        let buckets = self.devices.handle(device.as_str(), now)?;
        Ok(DeviceLimits {
            buckets,
            requests: Cell::new(self.class_of(device)),
            bytes: Cell::new(self.device_bytes),
        })
    }

    /// Holds a device to settings of its own from now on, and to its class where they are silent.
    pub(crate) fn hold_to(&self, device: &DeviceId, limits: &DeviceLimits, settings: &Settings) {
        let requests = match settings.requests {
            Some(quota) => Rule::new(quota),
            None => self.class_of(device),
        };
        limits.requests.set(requests);
        let bytes = settings.bytes.map(Rule::new);
        limits.bytes.set(bytes.unwrap_or(self.device_bytes));
    }

    /// The rule for requests of the first class that the device is in.
    fn class_of(&self, device: &DeviceId) -> Rule {
        for (devices, requests) in &self.device_classes {
            if devices.matches(device.as_str()) {
                return *requests;
            }
        }
        self.device_requests
    }

    /// The buckets of a source address, once per connection. IPv6 addresses share one by their /64,
    /// the least that a site is given.
    pub fn address(&self, address: IpAddr, now: Nanos) -> Result<AddressLimits, TableFull> {
        let buckets = self.addresses.handle(network_of(address), now)?;
        Ok(AddressLimits {
            buckets,
            handshakes: self.address_handshakes,
            requests: self.address_requests,
        })
    }

    /// Takes a request from the whole gateway.
    #[inline]
    pub fn take_gateway(&self, now: Nanos) -> Result<(), Denied> {
        let taken = self.gateway.take(&self.gateway_requests, 1, now);
        debug_assert!(
            taken.is_ok(),
            "only a table evicts, and this bucket is in none"
        );
        let taken = taken.unwrap_or(Ok(()));
        taken.map_err(|shortfall| Denied::at(Scope::Gateway)(NotTaken::Short(shortfall)))
    }

    /// Takes a request from the device, its address and the gateway, in that order, up to the first
    /// that refuses.
    pub(crate) fn take_request(
        &self,
        device: &DeviceLimits,
        address: &AddressLimits,
        now: Nanos,
    ) -> Result<(), Denied> {
        device.take_request(now)?;
        address.take_request(now)?;
        self.take_gateway(now)
    }

    /// Devices remembered now, for `forebay_limits_devices`. Takes the table's lock.
    pub fn devices_len(&self) -> usize {
        self.devices.len()
    }
}

/// An address as buckets know it. No IPv4-mapped address is a /64 with its low half zero, so the
/// two never meet.
pub(crate) fn network_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() & !u128::from(u64::MAX),
    }
}

/// The buckets of a device, as one of its connections holds them: a connection is its worker's own,
/// and what it is held to may change.
pub struct DeviceLimits {
    buckets: Handle,
    requests: Cell<Rule>,
    bytes: Cell<Rule>,
}

impl DeviceLimits {
    /// Takes one request.
    pub fn take_request(&self, now: Nanos) -> Result<(), Denied> {
        self.buckets
            .take(Which::First, &self.requests.get(), 1, now)
            .map_err(Denied::at(Scope::Device))
    }

    /// Takes the records of a request beyond the first, which its head has paid for: all or none.
    pub(crate) fn take_further(&self, now: Nanos, further: u64) -> Result<(), Denied> {
        debug_assert!(
            !self.requests.get().exceeds_burst(further),
            "more is never taken"
        );
        let taken = self
            .buckets
            .take(Which::First, &self.requests.get(), further, now);
        taken.map_err(|mut not_taken| {
            if let NotTaken::Short(shortfall) = &mut not_taken {
                // The same request pays for its head again.
                shortfall.retry_after += self.requests.get().token_time();
            }
            Denied::at(Scope::Device)(not_taken)
        })
    }

    /// Requests that pass at once at most; `None` where there is no limit.
    pub(crate) fn requests_burst(&self) -> Option<u64> {
        self.requests.get().burst()
    }

    /// Bytes that pass at once at most; `None` where there is no limit.
    pub(crate) fn bytes_burst(&self) -> Option<u64> {
        self.bytes.get().burst()
    }

    /// Takes `bytes` of a body.
    pub(crate) fn take_bytes(&self, now: Nanos, bytes: u64) -> Result<(), Denied> {
        self.buckets
            .take(Which::Second, &self.bytes.get(), bytes, now)
            .map_err(Denied::at(Scope::DeviceBytes))
    }

    /// Counts a refusal of the device, whichever bucket it was. Gives how many there were since the
    /// last notice, this one included, where it is time for another: at most one a minute.
    pub(crate) fn note_refusal(&self, now: Nanos) -> Option<u32> {
        self.buckets.note_refusal(now)
    }

    /// Whether a body of so many bytes can never pass: 413, not 429.
    pub fn bytes_exceed_burst(&self, bytes: u64) -> bool {
        self.bytes.get().exceeds_burst(bytes)
    }
}

/// The buckets of a source address, as one of its connections holds them.
pub struct AddressLimits {
    buckets: Handle,
    handshakes: Rule,
    requests: Rule,
}

impl AddressLimits {
    /// Takes one new connection.
    pub(crate) fn take_handshake(&self, now: Nanos) -> Result<(), Denied> {
        self.buckets
            .take(Which::First, &self.handshakes, 1, now)
            .map_err(Denied::at(Scope::Handshake))
    }

    /// Takes one request.
    pub(crate) fn take_request(&self, now: Nanos) -> Result<(), Denied> {
        self.buckets
            .take(Which::Second, &self.requests, 1, now)
            .map_err(Denied::at(Scope::Address))
    }
}
