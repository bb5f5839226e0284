//! Revocation: reading the CRL, and signing the next one.
//!
//! Serial numbers are unsigned and without leading zeros, as `openssl x509 -serial` shows them.

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
        let digits = text.replace(':', "");
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = BigUint::parse_bytes(digits.as_bytes(), 16).filter(|_| is_hex);
        let fits = |number: &BigUint| (1..=SERIAL_BITS_MAX).contains(&number.bits());
        number
            .filter(fits)
            .map(Self)
            .ok_or_else(|| PkiError::NotASerial(text.to_owned()))
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

/// What a CRL says.
struct Crl {
    number: BigUint,
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
        self.sign(
            &Crl {
                number: BigUint::from(1_u32),
                revoked: Vec::new(),
            },
            days,
        )
    }

    fn read_crl(&self) -> Result<Crl, PkiError> {
        let file = self.folder.crl();
        let dir = self.folder.dir().display();
        files::must_exist(&file, || {
            format!("`forebay pki crl --dir {dir}` makes a first one, which lists nothing")
        })?;
        let der = files::read_crl(&file)?;
        let (_, crl) = CertificateRevocationList::from_der(&der)
            .map_err(|_| files::unreadable(&file, "it is not a CRL, or is damaged"))?;
        let revoked = crl.iter_revoked_certificates();
        Ok(Crl {
            number: crl.crl_number().cloned().unwrap_or_default(),
            revoked: revoked
                .map(|entry| {
                    (
                        Serial(entry.user_certificate.clone()),
                        entry.revocation_date,
                    )
                })
                .collect(),
        })
    }

    fn sign(&self, crl: &Crl, days: Days) -> Result<String, PkiError> {
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
    /// That the server's certificate and the CRL are still valid.
    pub(crate) fn must_be_current(&self) -> Result<(), PkiError> {
        let dir = self.dir().display();
        let server_file = self.server(KeyKind::P256);
        let server = files::read_certificate(&server_file)?;
        let crl = files::read_crl(&self.crl())?;
        let server_until = files::parse_certificate(&server_file, &server)
            .ok()
            .map(|certificate| certificate.validity().not_after);
        let crl = CertificateRevocationList::from_der(&crl).ok();
        let crl_until = crl.and_then(|(_, crl)| crl.next_update());
        let has_expired =
            |until: Option<ASN1Time>| until.is_some_and(|until| until < ASN1Time::now());
        if has_expired(server_until) {
            let remedy = format!("move {dir} away, and a new one is made");
            return Err(PkiError::Expired {
                file: self.server(KeyKind::P256),
                remedy,
            });
        }
        if has_expired(crl_until) {
            return Err(PkiError::Expired {
                file: self.crl(),
                remedy: format!("run `forebay pki crl --dir {dir}`"),
            });
        }
        Ok(())
    }
}

fn number(number: &BigUint) -> SerialNumber {
    SerialNumber::from(number.to_bytes_be())
}
