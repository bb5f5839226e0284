//! The caller: the device of a connection, its limits, and its standing.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use super::{ContentTypes, Refusal};
use crate::devices::{Devices, Settings, Verdict};
use crate::identity::{Credential, Device, IdentityError};
use crate::limits::{AddressLimits, DeviceLimits, Limits, TableFull};
use crate::record::{DeviceMemory, Timestamp};

/// The other end of a connection; made once, borrowed by each of its requests.
pub struct Caller {
    pub device: Result<KnownDevice, IdentityError>,
    /// The right by which it speaks for its device.
    pub credential: Credential,
    pub standing: Cell<Standing>,
    /// The edition of the devices file by which it was judged.
    pub edition: Cell<u64>,
    pub content_types: ContentTypes,
    /// Address that the connection came from.
    pub address: IpAddr,
    pub address_limits: AddressLimits,
    /// The decoded bytes of the body that was accepted last, until they are counted.
    pub accepted_bytes: Cell<u64>,
}

/// Whether a connection may go on. Once it has fallen, nothing is taken any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Good,
    /// A certificate of its chain has been revoked, or no authority vouches for it any more.
    Revoked,
    /// The devices file does not name its certificate as it did.
    Unpinned,
    /// The devices file denies its device.
    Denied,
}

/// A device with a usable id.
pub struct KnownDevice {
    pub device: Device,
    /// `Err` when the table of buckets was full when the device connected.
    pub limits: Result<DeviceLimits, TableFull>,
    /// The streams that it may write, where the devices file says so.
    pub streams: RefCell<Option<Arc<[Box<str>]>>>,
    /// The memory that its records hold, on this and its other connections.
    pub memory: DeviceMemory,
}

impl KnownDevice {
    /// Holds the device to its entry of the devices file, and to the environment for settings that
    /// the entry does not have.
    pub(crate) fn hold_to(&self, settings: Settings, limits: &Limits) {
        if let Ok(own) = &self.limits {
            limits.hold_to(&self.device.id, own, &settings);
        }
        self.streams.replace(settings.streams);
    }
}

impl Caller {
    /// Returns the time at which the device's certificate expires, if the device is to be told.
    pub fn expiry_notice(&self, at: Timestamp) -> Option<&HeaderValue> {
        self.device.as_ref().ok()?.device.expiry_notice(at)
    }

    /// Returns the device's id, if the certificate names one.
    pub fn id(&self) -> Option<&str> {
        Some(self.device.as_ref().ok()?.device.id.as_str())
    }

    /// Judges it by the devices file in force, and holds its device to what that says.
    pub(crate) fn judged_by(&self, devices: &Devices, limits: &Limits) -> Standing {
        if self.edition.replace(devices.edition()) == devices.edition() {
            return Standing::Good;
        }
        let known = self.device.as_ref().ok();
        let id = known.map(|known| &known.device.id);
        if !self.credential.is_named(id, devices) {
            return Standing::Unpinned;
        }
        let verdict = id.map(|id| devices.verdict_of(&self.credential.certificate, id.as_str()));
        match (known, verdict) {
            (_, Some(Verdict::Denied)) => Standing::Denied,
            (Some(known), Some(Verdict::Allowed(settings))) => {
                known.hold_to(settings, limits);
                Standing::Good
            }
            // Its requests are refused for want of an id.
            _ => Standing::Good,
        }
    }

    /// Returns the device and its buckets, as long as its certificate is valid.
    pub(super) fn device(&self, at: Timestamp) -> Result<(&KnownDevice, &DeviceLimits), Refusal> {
        let known = match &self.device {
            Ok(known) => known,
            Err(error) => return Err(Refusal::InvalidIdentity(error.clone())),
        };
        match self.standing.get() {
            Standing::Good => {}
            Standing::Revoked | Standing::Unpinned => return Err(Refusal::CertificateRevoked),
            Standing::Denied => return Err(Refusal::DeviceDenied),
        }
        if !known.device.is_valid_at(at) {
            return Err(Refusal::CertificateExpired);
        }
        match &known.limits {
            Ok(limits) => Ok((known, limits)),
            Err(TableFull) => Err(Refusal::DeviceTableFull),
        }
    }
}
