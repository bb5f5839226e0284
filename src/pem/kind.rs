//! Kinds of a PEM file's sections, by their labels.

/// Kind of a section. An unknown label is never kept: it may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `CERTIFICATE`, and `X509 CERTIFICATE` as old programs wrote it.
    Certificate,
    /// `TRUSTED CERTIFICATE`: a certificate and what OpenSSL is to trust it for.
    TrustedCertificate,
    Crl,
    /// PKCS #8, PKCS #1 or SEC 1.
    Pkcs8Key,
    Pkcs1Key,
    Sec1Key,
    EncryptedKey,
    /// `EC PARAMETERS`: the curve of a key, which the key itself names as well. `openssl ecparam`
    /// writes it.
    EcParameters,
    Other,
}

impl Kind {
    pub(super) fn of(label: &[u8]) -> Self {
        match label {
            b"CERTIFICATE" | b"X509 CERTIFICATE" => Self::Certificate,
            b"TRUSTED CERTIFICATE" => Self::TrustedCertificate,
            b"X509 CRL" => Self::Crl,
            b"PRIVATE KEY" => Self::Pkcs8Key,
            b"RSA PRIVATE KEY" => Self::Pkcs1Key,
            b"EC PRIVATE KEY" => Self::Sec1Key,
            b"ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            b"EC PARAMETERS" => Self::EcParameters,
            _ => Self::Other,
        }
    }

    pub fn is_key(self) -> bool {
        matches!(
            self,
            Self::Pkcs8Key | Self::Pkcs1Key | Self::Sec1Key | Self::EncryptedKey
        )
    }

    /// Names the kind, with its article.
    pub fn name(self) -> &'static str {
        match self {
            Self::Certificate => "a certificate",
            Self::TrustedCertificate => {
                "a TRUSTED CERTIFICATE, which only OpenSSL reads (`openssl x509 -in FILE` makes a plain one)"
            }
            Self::Crl => "a CRL",
            Self::Pkcs8Key | Self::Pkcs1Key | Self::Sec1Key => "a private key",
            Self::EncryptedKey => "an encrypted private key",
            Self::EcParameters => "parameters of a curve",
            Self::Other => "a section of another kind",
        }
    }
}
