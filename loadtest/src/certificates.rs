//! Device certificates, made in memory: P-256, each with its own key, signed by the authority that
//! the server trusts.
//!
//! Workers make a fleet's before the run, on all threads; devices whose certificate changes make
//! one themselves. The device's name stands as a DNS name and as the common name: the gateway reads
//! its id from either. Nothing is written to disk. A certificate or key of the authority that
//! cannot be read is an error that names it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::payload::device_name;

const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Certificates are valid from this long before they were made: clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// Devices that a thread takes at a time.
const PORTION_DEVICES: usize = 64;

/// Devices that wait for their certificates.
struct Portions<'a> {
    all: Vec<&'a [u32]>,
    next: AtomicUsize,
}

impl<'a> Portions<'a> {
    fn take(&self) -> Option<(usize, &'a [u32])> {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        Some((place, *self.all.get(place)?))
    }
}

/// The certificates of one portion.
struct Made {
    place: usize,
    certificates: Vec<DeviceCertificate>,
}

/// A certificate and its key, in DER.
#[derive(Debug)]
pub(crate) struct DeviceCertificate {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl Clone for DeviceCertificate {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
        }
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| file.display().to_string())
}

/// The authority that signs devices.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    since_epoch: Duration,
}

impl Authority {
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let signer = KeyPair::from_pem(&read(key)?);
        let signer = signer.with_context(|| key.display().to_string())?;
        let issuer = Issuer::from_ca_cert_pem(&read(certificate)?, signer);
        Ok(Self {
            issuer: issuer.with_context(|| certificate.display().to_string())?,
            since_epoch: SystemTime::now().duration_since(UNIX_EPOCH)?,
        })
    }

    /// Makes the certificate of a device.
    pub(crate) fn device(&self, device: u32) -> Result<DeviceCertificate> {
        let key = KeyPair::generate()?;
        let params = self.params(&device_name(device))?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(DeviceCertificate {
            certificate: certificate.der().clone(),
            key: key.into(),
        })
    }

    /// Makes the certificates of all devices, in their order, on so many threads.
    pub(crate) fn fleet(&self, devices: &[u32], threads: usize) -> Result<Vec<DeviceCertificate>> {
        let portions = Portions {
            all: devices.chunks(PORTION_DEVICES).collect(),
            next: AtomicUsize::new(0),
        };
        let mut made = self.on_threads(&portions, threads)?;
        made.sort_by_key(|portion| portion.place);
        let mut certificates = Vec::with_capacity(devices.len());
        for portion in made {
            certificates.extend(portion.certificates);
        }
        assert_eq!(certificates.len(), devices.len(), "one for each device");
        Ok(certificates)
    }

    /// Makes them on so many threads; the order is any, an error is the first one.
    fn on_threads(&self, portions: &Portions, threads: usize) -> Result<Vec<Made>> {
        let work = || self.work(portions);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let mut made = Vec::new();
            for thread in threads {
                let panicked = |_| Err(anyhow!("a thread that makes certificates panicked"));
                made.extend(thread.join().unwrap_or_else(panicked)?);
            }
            Ok(made)
        })
    }

    /// Makes one portion after the other, until none is left.
    fn work(&self, portions: &Portions) -> Result<Vec<Made>> {
        let mut made = Vec::new();
        while let Some((place, devices)) = portions.take() {
            let certificates = devices.iter().map(|device| self.device(*device));
            made.push(Made {
                place,
                certificates: certificates.collect::<Result<_>>()?,
            });
        }
        Ok(made)
    }

    fn params(&self, name: &str) -> Result<CertificateParams> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, name);
        let now = date_time_ymd(1970, 1, 1) + self.since_epoch;
        params.not_before = now - BACKDATED;
        params.not_after = now + VALIDITY;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_device_has_a_key_and_a_name_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("ca.pem"), folder.path().join("ca.key"));
        let signer = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        std::fs::write(&certificate, params.self_signed(&signer).unwrap().pem()).unwrap();
        std::fs::write(&key, signer.serialize_pem()).unwrap();

        let devices: Vec<u32> = (100..300).collect();
        let fleet = Authority::read(&certificate, &key)
            .unwrap()
            .fleet(&devices, 3)
            .unwrap();
        let keys: HashSet<_> = fleet
            .iter()
            .map(|device| device.key.secret_der().to_vec())
            .collect();
        assert_eq!(keys.len(), devices.len());
        for (device, made) in devices.iter().zip(&fleet) {
            let name = device_name(*device);
            assert!(
                made.certificate
                    .windows(name.len())
                    .any(|bytes| bytes == name.as_bytes()),
                "{name}"
            );
        }
        assert!(Authority::read(&key, &key).is_err());
    }
}
