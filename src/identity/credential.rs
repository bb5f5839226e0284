//! By which right a connection speaks for its device: a chain that ends with an authority, or a pin
//! of the devices file.

use super::{IdentityError, Link, Signed, chain, timestamp};
use crate::devices::{Devices, Fingerprint};
use crate::record::{DeviceId, Timestamp};

/// Credential that a connection has shown; it is checked again for as long as the connection lives.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The fingerprint of the leaf.
    pub certificate: Fingerprint,
    pub vouched: Vouched,
}

/// Voucher of a leaf.
#[derive(Clone, Debug)]
pub enum Vouched {
    /// Chain of certificates that the lists are asked about, from the leaf up.
    Chain(Vec<Link>),
    /// A pin of the devices file.
    Pin(Box<Pinned>),
}

/// A pinned certificate.
#[derive(Clone, Debug)]
pub struct Pinned {
    pub(crate) link: Link,
    not_before: Timestamp,
    not_after: Timestamp,
    /// The certificate: who has signed it is asked when a list names it.
    der: Box<[u8]>,
}

impl Credential {
    /// Whether the devices file says of the certificate what it said when its connection began:
    /// that it stands for this device, or nothing.
    pub(crate) fn is_named(&self, device: Option<&DeviceId>, devices: &Devices) -> bool {
        match (&self.vouched, devices.pin(&self.certificate)) {
            (_, Some(pin)) => device.is_some_and(|device| device.as_str() == pin.id),
            (Vouched::Chain(_), None) => true,
            (Vouched::Pin(_), None) => false,
        }
    }

    /// The leaf's serial number; `None` where nobody asks about it.
    pub(crate) fn serial(&self) -> Option<&[u8]> {
        let leaf = match &self.vouched {
            Vouched::Chain(links) => links.first()?,
            Vouched::Pin(pinned) => &pinned.link,
        };
        Some(&leaf.serial)
    }
}

impl Pinned {
    pub(crate) fn read(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = chain::parse(der)?;
        let validity = certificate.validity();
        Ok(Self {
            link: chain::link(&certificate),
            not_before: timestamp(validity.not_before),
            not_after: timestamp(validity.not_after),
            der: der.into(),
        })
    }

    /// Whether the first second of its validity has begun.
    pub(crate) fn has_begun(&self, now: Timestamp) -> bool {
        self.not_before <= now
    }

    /// Whether the last second of its validity is over.
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        now.0 - now.0 % 1000 > self.not_after.0
    }

    /// The certificate as its issuer has signed it.
    pub(crate) fn signed(&self) -> Result<Signed<'_>, IdentityError> {
        Signed::read(&self.der)
    }
}
