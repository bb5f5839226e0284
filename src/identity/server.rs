//! The server's own certificate: the names it is asked by, and when it expires.

use std::net::IpAddr;

use x509_parser::asn1_rs::{FromDer, Tag};
use x509_parser::certificate::X509Certificate;

use super::{IdentityError, alternative_names, timestamp};
use crate::record::Timestamp;

/// What clients may call the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerCertificate {
    /// DNS names, some with a `*.`, and IP addresses in their canonical form.
    pub names: Vec<String>,
    pub not_after: Timestamp,
}

/// Reads the subject alternative names of a server certificate in DER.
pub(crate) fn server(leaf_der: &[u8]) -> Result<ServerCertificate, IdentityError> {
    let (_, certificate) =
        X509Certificate::from_der(leaf_der).map_err(|_| IdentityError::Malformed)?;
    let dns_names = alternative_names(&certificate, Tag(2))?;
    let addresses = alternative_names(&certificate, Tag(7))?;
    let dns_names = dns_names
        .into_iter()
        .filter_map(|name| Some(std::str::from_utf8(name).ok()?.to_owned()));
    let addresses = addresses
        .into_iter()
        .filter_map(ip_address)
        .map(|address| address.to_string());
    let names = dns_names.chain(addresses).collect();
    Ok(ServerCertificate {
        names,
        not_after: timestamp(certificate.validity().not_after),
    })
}

fn ip_address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}
