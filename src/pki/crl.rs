//! Revocation: reading the CRL, and signing the next one.
//!
//! Serial numbers are unsigned and without leading zeros, as `openssl x509 -serial` shows them.

use std::path::{Path, PathBuf};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use x509_parser::asn1_rs::FromDer;
use x509_parser::num_bigint::BigUint;
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::time::ASN1Time;

use super::profile::BACKDATED;
use super::{Authority, Days, Folder, KeyKind, PkiError, files};
use crate::record::DeviceId;

/// A serial number has 20 bytes at most (RFC 5280, 4.1.2.2).
const SERIAL_BITS_MAX: u64 = 160;

/// The number of a certificate within its authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Serial(BigUint);

impl Serial {
    /// Hex digits, also with colons between them.
    pub(crate) fn parse(text: &str) -> Result<Self, PkiError> {
        let number = serial_number(&text.replace(':', ""));
        match number {
            Some(number) => Ok(Self(number)),
            None => Err(PkiError::NotASerial(text.to_owned())),
        }
    }

    /// The serial number of a device's certificate.
    pub(crate) fn of_device(folder: &Folder, id: &DeviceId) -> Result<Self, PkiError> {
        let file = folder.device(id);
        let remedy =
            || "no device of this id was made here; `--serial` revokes by serial number".to_owned();
        files::must_exist(&file, remedy)?;
        let der = files::read_certificate(&file)?;
        let certificate = files::parse_certificate(&file, &der)?;
        Ok(Self(certificate.serial.clone()))
    }
}

fn serial_number(digits: &str) -> Option<BigUint> {
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let number = BigUint::parse_bytes(digits.as_bytes(), 16)?;
    let fits = (1..=SERIAL_BITS_MAX).contains(&number.bits());
    fits.then_some(number)
}

/// Content of a CRL.
struct CrlContent {
    number: BigUint,
    /// The certificates that are revoked, and since when.
    revoked: Vec<(Serial, ASN1Time)>,
}

impl Authority {
    /// Signs the next CRL with what this one lists, or a first, empty one. How many certificates it
    /// lists.
    pub(crate) fn renew_crl(&self, days: Days) -> Result<usize, PkiError> {
        if self.folder.crl().exists() {
            return self.revoke([], days);
        }
        files::write_public(&self.folder.crl(), &self.empty_crl(days)?).map(|()| 0)
    }

    /// Signs the next CRL with these added, for `days` from now. How many certificates it lists.
    pub(crate) fn revoke(
        &self,
        serials: impl IntoIterator<Item = Serial>,
        days: Days,
    ) -> Result<usize, PkiError> {
        // Two at once would each drop what the other has added.
        let _lock = files::lock(&self.folder.ca_key())?;
        let mut crl = self.read_crl()?;
        for serial in serials {
            if !crl.revoked.iter().any(|(revoked, _)| *revoked == serial) {
                crl.revoked.push((serial, ASN1Time::now()));
            }
        }
        crl.number += 1_u32;
        files::replace(&self.folder.crl(), &self.sign(&crl, days)?)?;
        Ok(crl.revoked.len())
    }

    pub(super) fn empty_crl(&self, days: Days) -> Result<String, PkiError> {
        let first = CrlContent {
            number: BigUint::from(1_u32),
            revoked: Vec::new(),
        };
        self.sign(&first, days)
    }

    fn read_crl(&self) -> Result<CrlContent, PkiError> {
        let file = self.folder.crl();
        let dir = self.folder.dir().display();
        files::must_exist(&file, || {
            format!("`forebay pki crl --dir {dir}` makes a first one, which lists nothing")
        })?;
        let der = files::read_crl(&file)?;
        let crl = CertificateRevocationList::from_der(&der);
        let damaged = |_| files::unreadable(&file, "it is not a CRL, or is damaged");
        let (_, crl) = crl.map_err(damaged)?;
        let mut revoked = Vec::new();
        for entry in crl.iter_revoked_certificates() {
            let serial = Serial(entry.user_certificate.clone());
            revoked.push((serial, entry.revocation_date));
        }
        Ok(CrlContent {
            number: crl.crl_number().cloned().unwrap_or_default(),
            revoked,
        })
    }

    fn sign(&self, crl: &CrlContent, days: Days) -> Result<String, PkiError> {
        let now = ASN1Time::now().to_datetime();
        let entry = |(serial, revoked_at): &(Serial, ASN1Time)| RevokedCertParams {
            serial_number: number(&serial.0),
            revocation_time: revoked_at.to_datetime(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now - BACKDATED,
            next_update: now + days.duration(),
            crl_number: number(&crl.number),
            issuing_distribution_point: None,
            revoked_certs: crl.revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::PreSpecified(self.key_id.clone()),
        };
        Ok(params.signed_by(&self.issuer)?.pem()?)
    }
}

impl Folder {
    /// An error unless the server's certificate and the CRL are still valid.
    pub(crate) fn must_be_current(&self) -> Result<(), PkiError> {
        let dir = self.dir().display();
        let server = self.server(KeyKind::P256);
        let remedy = format!("run `forebay pki server --dir {dir} --renew`");
        must_be_ahead(server_until(&server)?, server, remedy)?;
        let remedy = format!("run `forebay pki crl --dir {dir}`");
        must_be_ahead(crl_until(&self.crl())?, self.crl(), remedy)
    }
}

/// The end of a certificate; `None` for one that cannot be read: the gateway says so.
fn server_until(file: &Path) -> Result<Option<ASN1Time>, PkiError> {
    let der = files::read_certificate(file)?;
    let certificate = files::parse_certificate(file, &der).ok();
    Ok(certificate.map(|certificate| certificate.validity().not_after))
}

/// When the next list is due; `None` for a list that cannot be read, or has no end.
fn crl_until(file: &Path) -> Result<Option<ASN1Time>, PkiError> {
    let der = files::read_crl(file)?;
    let crl = CertificateRevocationList::from_der(&der).ok();
    Ok(crl.and_then(|(_, crl)| crl.next_update()))
}

fn must_be_ahead(until: Option<ASN1Time>, file: PathBuf, remedy: String) -> Result<(), PkiError> {
    match until {
        Some(until) if until < ASN1Time::now() => Err(PkiError::Expired { file, remedy }),
        _ => Ok(()),
    }
}

fn number(number: &BigUint) -> SerialNumber {
    SerialNumber::from(number.to_bytes_be())
}
