//! Device certificates, made in memory: P-256, each with its own key, signed by the authority that
//! the server trusts.
//!
//! Workers make a fleet's before the run, on all threads; devices whose certificate changes make
//! one themselves. The device's name stands as a DNS name and as the common name: the gateway reads
//! its id from either. Nothing is written to disk. A certificate or key of the authority that
//! cannot be read is an error that names it.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::payload::device_name;

const VALIDITY: Duration = Duration::from_secs(24 * 3600);

/// Clocks differ.
const BACKDATED: Duration = Duration::from_secs(3600);

/// A certificate and its key, in DER.
#[derive(Debug)]
pub struct DeviceCertificate {
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

/// Who signs devices.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    since_epoch: Duration,
}

impl Authority {
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let text =
            |path: &Path| std::fs::read_to_string(path).with_context(|| path.display().to_string());
        let signer = KeyPair::from_pem(&text(key)?).with_context(|| key.display().to_string())?;
        let issuer = Issuer::from_ca_cert_pem(&text(certificate)?, signer);
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        Ok(Self {
            issuer: issuer.with_context(|| certificate.display().to_string())?,
            since_epoch,
        })
    }

    pub fn device(&self, device: u32) -> Result<DeviceCertificate> {
        let key = KeyPair::generate()?;
        let certificate = self
            .params(&device_name(device))?
            .signed_by(&key, &self.issuer)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(DeviceCertificate {
            certificate: certificate.der().clone(),
            key: key.into(),
        })
    }

    /// The certificates of all of them, in their order, made on so many threads.
    pub fn fleet(&self, devices: &[u32], threads: usize) -> Result<Vec<DeviceCertificate>> {
        const PORTION: usize = 64;
        let portions: Vec<&[u32]> = devices.chunks(PORTION).collect();
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Vec<DeviceCertificate>)>> {
            let mut made = Vec::new();
            loop {
                let portion = next.fetch_add(1, Ordering::Relaxed);
                let Some(devices) = portions.get(portion) else {
                    return Ok(made);
                };
                made.push((
                    portion,
                    devices
                        .iter()
                        .map(|device| self.device(*device))
                        .collect::<Result<_>>()?,
                ));
            }
        };
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("panicked"))))
                .collect()
        });
        let mut made: Vec<_> = made
            .into_iter()
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        made.sort_by_key(|(portion, _)| *portion);
        Ok(made
            .into_iter()
            .flat_map(|(_, certificates)| certificates)
            .collect())
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
