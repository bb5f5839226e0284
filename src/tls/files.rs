//! Reading PEM and DER files, and noticing that they have changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

use super::TlsError;
use crate::durable::warn_of_other_readers;

pub const CERT: &str = "FOREBAY_TLS_CERT";
pub const KEY: &str = "FOREBAY_TLS_KEY";
pub const CLIENT_CA: &str = "FOREBAY_TLS_CLIENT_CA";
pub const CRL: &str = "FOREBAY_TLS_CRL";

/// A file that has another one has been replaced or written: device, inode, bytes, and the times of the last change of
/// its content and of its own, in seconds and nanoseconds.
pub type Stamp = (u64, u64, u64, [i64; 4]);

/// `None` for a file that is not there.
pub fn stamp(file: &PathBuf) -> Option<Stamp> {
    let data = std::fs::metadata(file).ok()?;
    Some((
        data.dev(),
        data.ino(),
        data.len(),
        [
            data.mtime(),
            data.mtime_nsec(),
            data.ctime(),
            data.ctime_nsec(),
        ],
    ))
}

/// All certificates of the file, at least one.
pub fn read_certificates(
    variable: &'static str,
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    read_pem(variable, file, "a certificate")
}

pub fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let failed = |error| failed(KEY, file, explain(error, "a private key"));
    warn_of_other_readers(KEY, file);
    PrivateKeyDer::from_pem_file(file).map_err(failed)
}

/// PEM or DER, by what the file looks like.
pub fn read_crls(file: &Path) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let bytes = std::fs::read(file).map_err(|error| failed(CRL, file, error.to_string()))?;
    if bytes.first() == Some(&0x30) {
        Ok(vec![bytes.into()])
    } else {
        parse_pem(CRL, file, "a CRL", &bytes)
    }
}

/// All sections of the kind, at least one.
fn read_pem<T: PemObject>(
    variable: &'static str,
    file: &Path,
    what: &str,
) -> Result<Vec<T>, TlsError> {
    let bytes = std::fs::read(file).map_err(|error| failed(variable, file, error.to_string()))?;
    parse_pem(variable, file, what, &bytes)
}

fn parse_pem<T: PemObject>(
    variable: &'static str,
    file: &Path,
    what: &str,
    pem: &[u8],
) -> Result<Vec<T>, TlsError> {
    let failed = |reason| failed(variable, file, reason);
    let objects = T::pem_slice_iter(pem).collect::<Result<Vec<T>, _>>();
    let objects = objects.map_err(|error| failed(explain(error, what)))?;
    if objects.is_empty() {
        Err(failed(format!("it does not hold {what} in PEM")))
    } else {
        Ok(objects)
    }
}

pub fn failed(variable: &'static str, file: &Path, reason: String) -> TlsError {
    TlsError::File {
        variable,
        file: file.to_owned(),
        reason,
    }
}

fn explain(error: pem::Error, what: &str) -> String {
    match error {
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => format!("it does not hold {what} in PEM"),
        error => format!("it is not PEM: {error}"),
    }
}
