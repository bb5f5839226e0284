//! Reading PEM and DER files, and noticing that they have changed.
//!
//! Each file holds what its variable is for, and nothing beside that is passed over: an authority among the CRLs would be
//! missed where it belongs. One file may hold the server's certificates and its key, and be named twice. An error names
//! the file and the line, and has nothing of what stands there.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::durable::warn_of_other_readers;
use crate::pem::{self, Kind, Section};

pub(crate) const CERT: &str = "FOREBAY_TLS_CERT";
pub(crate) const KEY: &str = "FOREBAY_TLS_KEY";
pub(crate) const CLIENT_CA: &str = "FOREBAY_TLS_CLIENT_CA";
pub(crate) const CRL: &str = "FOREBAY_TLS_CRL";

/// A file that has another one has been replaced or written: device, inode, bytes, and the times of the last change of
/// its content and of its own, in seconds and nanoseconds.
pub(crate) type Stamp = (u64, u64, u64, [i64; 4]);

/// `None` for a file that is not there.
pub(crate) fn stamp(file: &PathBuf) -> Option<Stamp> {
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

/// A certificate or a CRL of a file, and where its section begins: `None` for a file that is DER.
pub(crate) struct Found {
    pub der: Vec<u8>,
    line: Option<usize>,
}

impl Found {
    /// What is wrong with it, and where.
    pub(crate) fn fault(&self, reason: &str) -> String {
        match self.line {
            Some(line) => format!("line {line}: {reason}"),
            None => reason.to_owned(),
        }
    }
}

/// The server's certificate chain, at least one certificate.
pub(crate) fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = read(CERT, file, Kind::Certificate, Kind::is_key)?;
    Ok(found.into_iter().map(|found| found.der.into()).collect())
}

/// All authorities, at least one.
pub(crate) fn read_authorities(file: &Path) -> Result<Vec<Found>, TlsError> {
    read(CLIENT_CA, file, Kind::Certificate, |_| false)
}

/// The server's one key.
pub(crate) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    warn_of_other_readers(KEY, file);
    let failed = |reason: String| failed(KEY, file, reason);
    let is_beside = |kind| matches!(kind, Kind::Certificate | Kind::EcParameters);
    let bytes = read_bytes(file).map_err(failed)?;
    let mut keys = pick(&bytes, "a private key", Kind::is_key, is_beside).map_err(failed)?;
    let key = keys.swap_remove(0);
    if let Some(other) = keys.first() {
        return Err(failed(format!(
            "line {}: there is more than one private key: leave the one that belongs to the certificate",
            other.line
        )));
    }
    Ok(match key.kind {
        Kind::Pkcs1Key => PrivateKeyDer::Pkcs1(key.der.into()),
        Kind::Sec1Key => PrivateKeyDer::Sec1(key.der.into()),
        _ => PrivateKeyDer::Pkcs8(key.der.into()),
    })
}

/// PEM or DER, by what the file looks like.
pub(crate) fn read_crls(file: &Path) -> Result<Vec<Found>, TlsError> {
    let bytes = read_bytes(file).map_err(|reason| failed(CRL, file, reason))?;
    if pem::is_der(&bytes) {
        return Ok(vec![Found {
            der: bytes,
            line: None,
        }]);
    }
    find(&bytes, Kind::Crl, |_| false).map_err(|reason| failed(CRL, file, reason))
}

fn read(
    variable: &'static str,
    file: &Path,
    kind: Kind,
    is_beside: impl Fn(Kind) -> bool,
) -> Result<Vec<Found>, TlsError> {
    let found = read_bytes(file).and_then(|bytes| find(&bytes, kind, is_beside));
    found.map_err(|reason| failed(variable, file, reason))
}

fn find(bytes: &[u8], kind: Kind, is_beside: impl Fn(Kind) -> bool) -> Result<Vec<Found>, String> {
    let sections = pick(bytes, kind.name(), |found| found == kind, is_beside)?;
    let found = sections.into_iter().map(|section| Found {
        der: section.der,
        line: Some(section.line),
    });
    Ok(found.collect())
}

/// The sections that are wanted, at least one. Others are an error, but for those that may stand beside them.
fn pick(
    bytes: &[u8],
    what: &str,
    is_wanted: impl Fn(Kind) -> bool,
    is_beside: impl Fn(Kind) -> bool,
) -> Result<Vec<Section>, String> {
    if pem::is_der(bytes) {
        return Err(format!(
            "it is DER, not PEM, and {what} in PEM is looked for: `openssl` writes that with -outform pem"
        ));
    }
    let mut sections = pem::sections(bytes).map_err(|error| error.to_string())?;
    for Section { kind, line, .. } in &sections {
        if !is_wanted(*kind) && !is_beside(*kind) {
            return Err(format!(
                "line {line}: it is {}, and {what} is looked for: take it out",
                kind.name()
            ));
        }
    }
    sections.retain(|section| is_wanted(section.kind));
    if sections.is_empty() {
        return Err(format!("it is not PEM that holds {what}"));
    }
    Ok(sections)
}

fn read_bytes(file: &Path) -> Result<Vec<u8>, String> {
    let limit = pem::FILE_BYTES_MAX as u64 + 1;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|opened| {
        // As large as it is: a buffer that doubles would be three times a long list.
        let file_bytes = opened.metadata()?.len().min(limit);
        bytes.reserve_exact(file_bytes as usize + 1);
        opened.take(limit).read_to_end(&mut bytes)
    });
    match read {
        Err(error) => Err(error.to_string()),
        Ok(read) if read > pem::FILE_BYTES_MAX => Err(format!(
            "it has more than {} MiB",
            pem::FILE_BYTES_MAX >> 20
        )),
        Ok(_) => Ok(bytes),
    }
}

pub(crate) fn failed(variable: &'static str, file: &Path, reason: String) -> TlsError {
    TlsError::File {
        variable,
        file: file.to_owned(),
        reason,
    }
}
