//! Reading PEM and DER files.
//!
//! Each file holds what its variable is for, and nothing beside that is passed over: an authority
//! among the CRLs would be missed where it belongs. One file may hold the server's certificates and
//! its key, and be named twice. An error names the file and the line, and has nothing of what
//! stands there.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::TlsError;
use crate::durable::warn_of_other_readers;
use crate::pem::{self, Kind, Section};

pub(crate) const CERT: &str = "FOREBAY_TLS_CERT";
pub(crate) const KEY: &str = "FOREBAY_TLS_KEY";
pub(crate) const CLIENT_CA: &str = "FOREBAY_TLS_CLIENT_CA";
pub(crate) const CRL: &str = "FOREBAY_TLS_CRL";

/// A certificate or a CRL of a file.
pub(crate) struct Found {
    pub der: Vec<u8>,
    /// Line at which its section begins; `None` for a file that is DER.
    line: Option<usize>,
}

impl Found {
    /// Says what is wrong with it, and in which file and line.
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

/// Reads all authorities of a bundle, at least one.
pub(crate) fn read_authorities(file: &Path) -> Result<Vec<Found>, TlsError> {
    read(CLIENT_CA, file, Kind::Certificate, |_| false)
}

/// The server's one key.
pub(crate) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    warn_of_other_readers(KEY, file);
    let bytes = read_bytes(file);
    let key = bytes.and_then(|bytes| only_key(&bytes));
    key.map_err(|reason| failed(KEY, file, reason))
}

fn only_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let is_beside = |kind| matches!(kind, Kind::Certificate | Kind::EcParameters);
    let mut keys = pick(bytes, "a private key", Kind::is_key, is_beside)?;
    if let Some(second) = keys.get(1) {
        return Err(format!(
            "line {}: there is more than one private key: leave the one that belongs to the certificate",
            second.line
        ));
    }
    let key = keys.remove(0);
    Ok(match key.kind {
        Kind::Pkcs1Key => PrivateKeyDer::Pkcs1(key.der.into()),
        Kind::Sec1Key => PrivateKeyDer::Sec1(key.der.into()),
        _ => PrivateKeyDer::Pkcs8(key.der.into()),
    })
}

/// The lists of a file, which is PEM or DER, by what it looks like.
pub(crate) fn read_crls(file: &Path) -> Result<Vec<Found>, TlsError> {
    let bytes = read_bytes(file);
    let lists = bytes.and_then(crls);
    lists.map_err(|reason| failed(CRL, file, reason))
}

fn crls(bytes: Vec<u8>) -> Result<Vec<Found>, String> {
    if !pem::is_der(&bytes) {
        return find(&bytes, Kind::Crl, |_| false);
    }
    let list = Found {
        der: bytes,
        line: None,
    };
    Ok(vec![list])
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

/// The sections that are wanted, at least one. Others are an error, unless they may stand beside
/// them.
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
    let is_out_of_place = |section: &&Section| !is_wanted(section.kind) && !is_beside(section.kind);
    if let Some(Section { kind, line, .. }) = sections.iter().find(is_out_of_place) {
        return Err(format!(
            "line {line}: it is {}, and {what} is looked for: take it out",
            kind.name()
        ));
    }
    sections.retain(|section| is_wanted(section.kind));
    if sections.is_empty() {
        return Err(format!("it is not PEM that holds {what}"));
    }
    Ok(sections)
}

fn read_bytes(file: &Path) -> Result<Vec<u8>, String> {
    let limit = pem::FILE_BYTES_MAX + 1;
    let bytes = read_start(file, limit).map_err(|error| error.to_string())?;
    if bytes.len() == limit {
        let limit_mib = pem::FILE_BYTES_MAX >> 20;
        return Err(format!("it has more than {limit_mib} MiB"));
    }
    Ok(bytes)
}

/// The first bytes of a file, `limit` at most.
fn read_start(file: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let opened = fs::File::open(file)?;
    let file_bytes = opened.metadata()?.len().min(limit as u64);
    // As large as it is: a buffer that doubles would be three times a long list.
    let mut bytes = Vec::with_capacity(file_bytes as usize + 1);
    opened.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn failed(variable: &'static str, file: &Path, reason: String) -> TlsError {
    TlsError::File {
        variable,
        file: file.to_owned(),
        reason,
    }
}
