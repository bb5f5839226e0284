//! The folder of an authority: which file is where, and how they are written.
//!
//! A file is new, or it is an error; keys have mode 0600 from their first byte on. A device's file
//! is named after its id, with `+` for `/` and `=` for `:`, which no id contains: different ids
//! have different files, all of them here.

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::{KeyKind, PkiError};
use crate::pem::{self, Kind};
use crate::record::DeviceId;

/// The folder in which an authority's files are.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    pub fn dir(&self) -> &Path {
        &self.0
    }

    pub fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    pub fn ca_key(&self) -> PathBuf {
        self.0.join("ca.key")
    }

    pub fn crl(&self) -> PathBuf {
        self.0.join("crl.pem")
    }

    pub(crate) fn server(&self, kind: KeyKind) -> PathBuf {
        self.0.join(match kind {
            KeyKind::P256 => "server.pem",
            KeyKind::Rsa2048 => "server-rsa.pem",
        })
    }

    pub(crate) fn server_key(&self, kind: KeyKind) -> PathBuf {
        self.server(kind).with_extension("key")
    }

    pub fn devices(&self) -> PathBuf {
        self.0.join("devices")
    }

    pub fn device(&self, id: &DeviceId) -> PathBuf {
        self.devices().join(format!("{}.pem", file_name(id)))
    }

    pub fn device_key(&self, id: &DeviceId) -> PathBuf {
        self.devices().join(format!("{}.key", file_name(id)))
    }

    /// Makes the folder, and the one for devices in it.
    pub(super) fn make(&self) -> Result<(), PkiError> {
        fs::create_dir_all(self.devices()).map_err(failed(&self.devices()))
    }

    /// An error where one of the files exists.
    pub(super) fn must_be_free(
        &self,
        files: impl IntoIterator<Item = PathBuf>,
    ) -> Result<(), PkiError> {
        for file in files {
            if file.symlink_metadata().is_ok() {
                return Err(PkiError::Exists(file));
            }
        }
        Ok(())
    }
}

/// An error unless the file exists: it the error says what to do.
pub(crate) fn must_exist(file: &Path, remedy: impl Fn() -> String) -> Result<(), PkiError> {
    if file.exists() {
        Ok(())
    } else {
        Err(PkiError::Missing {
            file: file.to_owned(),
            remedy: remedy(),
        })
    }
}

fn file_name(id: &DeviceId) -> String {
    id.as_str().replace('/', "+").replace(':', "=")
}

pub(crate) fn write_key(file: &Path, pem: &str) -> Result<(), PkiError> {
    write_new(file, pem, 0o600)
}

pub(crate) fn write_public(file: &Path, pem: &str) -> Result<(), PkiError> {
    write_new(file, pem, 0o644)
}

fn write_new(file: &Path, pem: &str, mode: u32) -> Result<(), PkiError> {
    let mut options = OpenOptions::new();
    let opened = options.write(true).create_new(true).mode(mode).open(file);
    let mut opened = match opened {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(PkiError::Exists(file.to_owned()));
        }
        opened => opened.map_err(failed(file))?,
    };
    opened.write_all(pem.as_bytes()).map_err(|error| {
        // Half a file would stand in the way of the next try; if it stays, that one says so.
        let _ = fs::remove_file(file);
        failed(file)(error)
    })
}

/// Puts a whole new file in the place of the old one; who reads it sees one or the other.
pub(crate) fn replace(file: &Path, pem: &str) -> Result<(), PkiError> {
    let new = file.with_extension("pem.new");
    let write = || {
        let mut opened = File::create(&new)?;
        opened.write_all(pem.as_bytes())?;
        opened.sync_all()?;
        fs::rename(&new, file)
    };
    write().map_err(failed(file))
}

/// Keeps others out until the file is closed; waits for them.
pub(crate) fn lock(file: &Path) -> Result<File, PkiError> {
    let lock = || {
        let file = File::open(file)?;
        file.lock()?;
        Ok(file)
    };
    lock().map_err(failed(file))
}

/// The first certificate of the file.
pub(crate) fn read_certificate(file: &Path) -> Result<Vec<u8>, PkiError> {
    read_pem(file, |kind| kind == Kind::Certificate, "a certificate")
}

/// The first CRL of the file.
pub(crate) fn read_crl(file: &Path) -> Result<Vec<u8>, PkiError> {
    read_pem(file, |kind| kind == Kind::Crl, "a CRL")
}

/// Reads a certificate in DER that came from a file.
pub(crate) fn parse_certificate<'a>(
    file: &Path,
    der: &'a [u8],
) -> Result<X509Certificate<'a>, PkiError> {
    let parsed = X509Certificate::from_der(der);
    let (_, certificate) =
        parsed.map_err(|_| unreadable(file, "it is not a certificate, or is damaged"))?;
    Ok(certificate)
}

/// The first section of the file that is wanted, in DER. An error shows nothing of the file: it may
/// be a key.
pub(crate) fn read_pem(
    file: &Path,
    is_wanted: impl Fn(Kind) -> bool,
    what: &str,
) -> Result<Vec<u8>, PkiError> {
    let bytes = fs::read(file).map_err(failed(file))?;
    let sections = pem::sections(&bytes).map_err(|error| unreadable(file, error))?;
    let mut wanted = sections.into_iter().filter(|found| is_wanted(found.kind));
    let first = wanted.next();
    let none = || unreadable(file, format_args!("it is not PEM that holds {what}"));
    Ok(first.ok_or_else(none)?.der)
}

pub(crate) fn unreadable(file: &Path, reason: impl Display) -> PkiError {
    PkiError::Unreadable {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

fn failed(file: &Path) -> impl FnOnce(io::Error) -> PkiError {
    let file = file.to_owned();
    move |error| PkiError::File { file, error }
}
