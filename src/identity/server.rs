//! The server's own certificate: the names it is asked by, and when it expires.

use std::net::IpAddr;

use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;

use super::{DNS_NAME, IP_ADDRESS, IdentityError, alternative_names, chain, timestamp};
use crate::record::Timestamp;

/// The names by which clients may call the gateway, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerCertificate {
    /// DNS names, some with a `*.`, and IP addresses in their canonical form.
    pub names: Vec<String>,
    /// When it expires, or, in `tls`, the first certificate of its chain.
    pub not_after: Timestamp,
}

/// Reads the subject alternative names of a server certificate in DER.
pub(crate) fn server(leaf_der: &[u8]) -> Result<ServerCertificate, IdentityError> {
    let certificate = X509Certificate::from_der(leaf_der);
    let (_, certificate) = certificate.map_err(|_| IdentityError::Malformed)?;
    let mut names = Vec::new();
    for name in alternative_names(&certificate, DNS_NAME)? {
        names.extend(std::str::from_utf8(name).map(str::to_owned));
    }
    for octets in alternative_names(&certificate, IP_ADDRESS)? {
        names.extend(ip_address(octets).map(|address| address.to_string()));
    }
    Ok(ServerCertificate {
        names,
        not_after: timestamp(certificate.validity().not_after),
    })
}

/// When a certificate in DER expires.
pub(crate) fn expiry(der: &[u8]) -> Result<Timestamp, IdentityError> {
    let certificate = chain::parse(der)?;
    Ok(timestamp(certificate.validity().not_after))
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(octets.into());
    }
    let octets = <[u8; 16]>::try_from(octets).ok()?;
    Some(octets.into())
}
