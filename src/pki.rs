//! Makes certificates: a certificate authority, and what it signs for servers and devices, one by
//! one or by the thousand; and takes them back.
//!
//! `cli` calls it; the gateway never does. One folder is one authority: `ca.pem`, `ca.key`,
//! `crl.pem`, `server.pem`, `server.key` (`server-rsa.pem`, `server-rsa.key`), and for each device
//! `devices/NAME.pem` and `.key`.
//!
//! Invariant: nothing is overwritten but the CRL and, where that is asked for, the server's
//! certificate; each is replaced as a whole, under a lock. A CRL has the next number and all that
//! the last one listed: the CRL is the list, there is no other. A certificate that is renewed keeps
//! its key, so that the pair fits at every moment, also where only one of two files can be replaced.
//! Keys are P-256, a server's RSA where that is asked for, readable by their owner only. Serial
//! numbers are random. A certificate does not outlive its authority. Bounds: [`FLEET_DEVICES_MAX`];
//! times in whole days. Failure: [`PkiError`], which names the file and says what to do.

mod crl;
mod files;
mod fleet;
mod profile;

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use x509_parser::time::ASN1Time;

use crate::pem::Kind;
use crate::record::DeviceId;
pub(crate) use crl::Serial;
pub use files::Folder;
pub(crate) use fleet::{FLEET_DEVICES_MAX, Fleet};
pub use profile::Days;
pub(crate) use profile::ServerName;

/// Why a certificate or a CRL could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("{} exists already, and nothing is overwritten: move it away, or work in another folder", .0.display())]
    Exists(PathBuf),
    #[error("{} does not exist: {remedy}", file.display())]
    Missing { file: PathBuf, remedy: String },
    #[error("{} has expired: {remedy}", file.display())]
    Expired { file: PathBuf, remedy: String },
    #[error("{}: {error}", file.display())]
    File {
        file: PathBuf,
        error: std::io::Error,
    },
    #[error("{}: {reason}", file.display())]
    Unreadable { file: PathBuf, reason: String },
    #[error("\"{}\" is no device id: 1 to 128 characters of A-Za-z0-9._:/@-", .0.escape_debug())]
    NotAnId(String),
    #[error("\"{}\" is no server name: a DNS name, like ingest.example.com or *.example.com, or an IP address", .0.escape_debug())]
    NotAName(String),
    #[error("\"{}\" is no serial number: 1 to 20 bytes in hex, as `openssl x509 -serial` prints it", .0.escape_debug())]
    NotASerial(String),
    #[error("cannot make the certificate: {0}")]
    Make(#[from] rcgen::Error),
}

/// The kind of key that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    P256,
    /// RSA keys, for clients that know no ECDSA.
    Rsa2048,
}

impl KeyKind {
    fn generate(self) -> Result<KeyPair, rcgen::Error> {
        match self {
            Self::P256 => KeyPair::generate(),
            Self::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        }
    }
}

/// An authority that can sign.
pub struct Authority {
    folder: Folder,
    issuer: Issuer<'static, KeyPair>,
    key_id: Vec<u8>,
    not_after: ASN1Time,
}

impl Authority {
    /// Makes one, and its empty CRL. The name defaults to one with random letters: names of
    /// authorities must differ, for a CRL is found by its issuer's name.
    pub fn init(
        folder: Folder,
        name: Option<&str>,
        days: Days,
        crl_days: Days,
    ) -> Result<Self, PkiError> {
        folder.must_be_free([folder.ca(), folder.ca_key(), folder.crl()])?;
        let key = KeyPair::generate()?;
        let key_pem = key.serialize_pem();
        let params = profile::authority(name, days);
        let certificate = params.self_signed(&key)?;
        let authority = Self::new(folder, params, key);
        let folder = &authority.folder;
        folder.make()?;
        files::write_key(&folder.ca_key(), &key_pem)?;
        files::write_public(&folder.crl(), &authority.empty_crl(crl_days)?)?;
        // Last: where it is, the authority is complete.
        files::write_public(&folder.ca(), &certificate.pem())?;
        Ok(authority)
    }

    fn new(folder: Folder, params: CertificateParams, key: KeyPair) -> Self {
        Self {
            folder,
            key_id: params.key_identifier(&key),
            not_after: ASN1Time::new(params.not_after),
            issuer: Issuer::new(params, key),
        }
    }

    /// Reads `ca.pem` and `ca.key`, which may come from elsewhere.
    pub(crate) fn open(folder: Folder) -> Result<Self, PkiError> {
        let dir = folder.dir().display();
        let remedy = || format!("`forebay pki init --dir {dir}` makes an authority there");
        files::must_exist(&folder.ca(), remedy)?;
        files::must_exist(&folder.ca_key(), remedy)?;
        let key = read_key(&folder.ca_key())?;
        let der = files::read_certificate(&folder.ca())?;
        let certificate = files::parse_certificate(&folder.ca(), &der)?;
        if *certificate.public_key().subject_public_key.data != *key.public_key_raw() {
            return Err(files::unreadable(
                &folder.ca_key(),
                "it is not the key of ca.pem",
            ));
        }
        let key_id = subject_key_id(&certificate);
        let no_key_id = || files::unreadable(&folder.ca(), "it has no subject key identifier");
        Ok(Self {
            key_id: key_id.ok_or_else(no_key_id)?,
            not_after: certificate.validity().not_after,
            issuer: Issuer::from_ca_cert_der(&der.as_slice().into(), key)?,
            folder,
        })
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// A server certificate that answers to `names`. Each kind of key has its own files, for a
    /// gateway may have both.
    pub(crate) fn issue_server(
        &self,
        names: &[ServerName],
        kind: KeyKind,
        days: Days,
    ) -> Result<(), PkiError> {
        self.issue(
            profile::server(names, days)?,
            kind,
            &self.folder.server(kind),
            &self.folder.server_key(kind),
        )
    }

    /// Signs the server's certificate anew, for the key that it has. Without `names` it answers to
    /// those that it answered to.
    pub(crate) fn renew_server(
        &self,
        names: &[ServerName],
        kind: KeyKind,
        days: Days,
    ) -> Result<(), PkiError> {
        let _lock = files::lock(&self.folder.ca_key())?;
        let file = self.folder.server(kind);
        let dir = self.folder.dir().display();
        files::must_exist(&file, || {
            format!("`forebay pki server --dir {dir} --name NAME` makes one")
        })?;
        let names = match names {
            [] => server_names(&file)?,
            given => given.to_vec(),
        };
        let key = read_key(&self.folder.server_key(kind))?;
        let params = self.not_beyond_end(profile::server(&names, days)?);
        files::replace(&file, &params.signed_by(&key, &self.issuer)?.pem())
    }

    /// A device certificate from which the gateway reads exactly this id.
    pub fn issue_device(&self, id: &DeviceId, days: Days) -> Result<(), PkiError> {
        self.folder.make()?;
        self.issue(
            profile::device(id, days)?,
            KeyKind::P256,
            &self.folder.device(id),
            &self.folder.device_key(id),
        )
    }

    fn issue(
        &self,
        params: CertificateParams,
        kind: KeyKind,
        file: &Path,
        key_file: &Path,
    ) -> Result<(), PkiError> {
        let params = self.not_beyond_end(params);
        let files = [file, key_file].map(Path::to_owned);
        self.folder.must_be_free(files)?;
        let key = kind.generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        files::write_key(key_file, &key.serialize_pem())?;
        files::write_public(file, &certificate.pem()).inspect_err(|_| {
            // A key without its certificate would stand in the way of the next try; if it stays,
            // that one says so.
            let _ = std::fs::remove_file(key_file);
        })
    }

    /// A certificate does not outlive its authority.
    fn not_beyond_end(&self, mut params: CertificateParams) -> CertificateParams {
        params.not_after = params.not_after.min(self.not_after.to_datetime());
        params
    }
}

/// The names that a server's certificate answers to.
fn server_names(file: &Path) -> Result<Vec<ServerName>, PkiError> {
    let der = files::read_certificate(file)?;
    let names = profile::server_names(&files::parse_certificate(file, &der)?);
    if names.is_empty() {
        return Err(files::unreadable(file, "it has no name: give it --name"));
    }
    Ok(names)
}

fn read_key(file: &Path) -> Result<KeyPair, PkiError> {
    let der = files::read_pem(file, Kind::is_key, "a private key")?;
    let reason = "it is not a private key of a kind that is known, or is damaged";
    KeyPair::try_from(der).map_err(|_| files::unreadable(file, reason))
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    for extension in certificate.iter_extensions() {
        if let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() {
            return Some(id.0.to_vec());
        }
    }
    None
}
