//! The server under test: its address, and the request that it gets.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use http::uri::PathAndQuery;
use http::{Method, Uri};
use rustls::RootCertStore;
use rustls::client::{ClientSessionMemoryCache, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::certificates::DeviceCertificate;
use crate::cli::Server;
use crate::envelope::Envelope;
use crate::protocol::Protocol;

/// Tickets that a device keeps: Forebay sends one a connection, others send two.
const TICKETS_MAX: usize = 2;

/// A server and a request.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub uri: Uri,
    pub address: SocketAddr,
    pub host: String,
    /// The authority as the client names it: host, and port unless it is 443.
    pub authority: String,
    pub path: String,
    pub method: Method,
    pub envelope: Envelope,
}

impl Target {
    /// The server and the request that the command line names.
    pub(crate) fn of(server: &Server) -> Result<Self> {
        let (stream, method) = (server.stream.as_deref(), server.method.clone());
        Self::parse(&server.url, stream, method, server.envelope())
    }

    /// Without a path in the URL it is the stream's, or `/v1/telemetry`; that for many readings is
    /// below it.
    fn parse(url: &str, stream: Option<&str>, method: Method, envelope: Envelope) -> Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        ensure!(
            uri.scheme_str() == Some("https"),
            "{url}: https is spoken, and nothing else"
        );
        let authority = uri.authority();
        let authority = authority.with_context(|| format!("{url} names no host"))?;
        let host = authority.host().trim_matches(['[', ']']);
        let path = path(&uri, stream, envelope.records.is_some());
        Ok(Self {
            address: resolve(host, authority.port_u16().unwrap_or(443))?,
            host: host.to_owned(),
            authority: authority.to_string(),
            uri: with_path(&uri, &path)?,
            path,
            method,
            envelope,
        })
    }
}

fn path(uri: &Uri, stream: Option<&str>, is_many: bool) -> String {
    let below = if is_many { "/records" } else { "" };
    let given = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    match (stream, given) {
        (Some(stream), _) => format!("/v1/streams/{stream}{below}"),
        (None, "/") => format!("/v1/telemetry{below}"),
        (None, given) => given.to_owned(),
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs()?;
    let first = addresses.next();
    first.with_context(|| format!("{host} has no address"))
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path.parse()?);
    Ok(Uri::from_parts(parts)?)
}

/// Makes TLS configurations for devices, all of which trust the same authority.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Tls {
    pub(crate) fn new(server_ca: &Path) -> Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let file = || server_ca.display().to_string();
        for certificate in CertificateDer::pem_file_iter(server_ca).with_context(file)? {
            roots
                .add(certificate.with_context(file)?)
                .with_context(file)?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        Ok(Self {
            provider,
            verifier: verifier.with_context(file)?,
        })
    }

    /// The configuration of a device; `resume` keeps session tickets with it.
    pub(crate) fn device(
        &self,
        protocol: Protocol,
        identity: &DeviceCertificate,
        resume: bool,
    ) -> Result<Arc<rustls::ClientConfig>> {
        let DeviceCertificate { certificate, key } = identity;
        let builder = rustls::ClientConfig::builder_with_provider(self.provider.clone());
        let builder = builder
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_webpki_verifier(self.verifier.clone());
        let mut config =
            builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key())?;
        config.alpn_protocols = vec![protocol.alpn().to_vec()];
        config.resumption = resumption(resume);
        Ok(Arc::new(config))
    }
}

fn resumption(is_wanted: bool) -> Resumption {
    if !is_wanted {
        return Resumption::disabled();
    }
    Resumption::store(Arc::new(ClientSessionMemoryCache::new(TICKETS_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_the_urls_or_the_streams() {
        const ONE: Envelope = Envelope {
            records: None,
            encoding: None,
        };
        const MANY: Envelope = Envelope {
            records: Some(2),
            ..ONE
        };
        let path =
            |url, stream| Target::parse(url, stream, Method::POST, ONE).map(|target| target.path);
        let many = Target::parse("https://localhost", Some("alarms"), Method::POST, MANY).unwrap();
        assert_eq!(many.path, "/v1/streams/alarms/records");
        assert_eq!(
            path("https://127.0.0.1:8443", None).unwrap(),
            "/v1/telemetry"
        );
        assert_eq!(
            path("https://127.0.0.1:8443/", Some("alarms")).unwrap(),
            "/v1/streams/alarms"
        );
        assert_eq!(path("https://127.0.0.1/x?y=1", None).unwrap(), "/x?y=1");
        let target = Target::parse("https://[::1]:8443/in", None, Method::PUT, ONE).unwrap();
        assert_eq!(
            (target.host.as_str(), target.authority.as_str()),
            ("::1", "[::1]:8443")
        );
        assert_eq!(target.uri, "https://[::1]:8443/in");
        assert!(path("http://127.0.0.1", None).is_err() && path("127.0.0.1:8443", None).is_err());
    }
}
