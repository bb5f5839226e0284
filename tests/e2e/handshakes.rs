//! Handshakes of honest devices that are out of the ordinary: many authorities, slow links, old stacks, and what each is told
//! that does not get in.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, Tls12Resumption};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, HandshakeKind, RootCertStore,
    SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::channel;
use tokio::time::{Instant, sleep_until};

use crate::harness::client::Quirks;
use crate::harness::raw::{block_on, server_name};
use crate::harness::{Ask, Client, Gateway, PATIENCE, Protocol, Setup, Via, eventually};
use crate::pki::Identity;

const POST: &[u8] = b"POST /v1/telemetry HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\n1";

/// A client of one version of TLS.
fn config(
    gateway: &Gateway,
    device: &Identity,
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(gateway.pki.root_file()).expect("a certificate"))
        .expect("an authority");
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&fs::read(&device.cert).expect("a file")).collect();
    let key = PrivateKeyDer::from_pem_file(&device.key).expect("a key");
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain.expect("a chain"), key)
        .expect("a key that fits")
}

/// A connection to `to` on which nothing has been said yet.
fn connect(config: &Arc<ClientConfig>, to: SocketAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let client = ClientConnection::new(config.clone(), server_name()).expect("a client");
    let stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    StreamOwned::new(client, stream)
}

/// Posts over h1; gives the first line of the answer, and the connection.
fn post(
    config: &Arc<ClientConfig>,
    to: SocketAddr,
) -> io::Result<(String, StreamOwned<ClientConnection, TcpStream>)> {
    let mut stream = connect(config, to);
    stream.write_all(POST)?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    Ok((String::from_utf8_lossy(&answer).into_owned(), stream))
}

/// A bundle whose names do not fit the 16 bits that their length has in a CertificateRequest.
#[test]
fn a_bundle_of_a_thousand_authorities_lets_devices_in() {
    let setup = Setup::new();
    setup.pki.trust_many(1000);
    let gateway = setup.start();
    let device = gateway.device("plc-1");
    for protocol in Protocol::ALL {
        let client = Client::open(protocol, &gateway, &device);
        assert_eq!(client.send(&Ask::post("1")).status, 204, "{protocol}");
    }
    let config = config(&gateway, &device, aws_lc_rs::default_provider(), &TLS12);
    let (answer, _) = post(&Arc::new(config), gateway.address).expect("an answer");
    assert_eq!(answer, "HTTP/1.1 204");
}

/// The stream, and how many bytes have come on it.
struct Counted(TcpStream, usize);

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.read(into)?;
        self.1 += bytes;
        Ok(bytes)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The certificate of an intermediate authority travels in no ticket but the first.
#[test]
fn a_ticket_holds_what_the_fleet_has_in_common_once() {
    let gateway = Setup::new().start();
    let device = gateway.pki.device_below_intermediate("meter-1");
    let config = config(&gateway, &device, aws_lc_rs::default_provider(), &TLS13);
    let intermediate_bytes = CertificateDer::pem_file_iter(&device.cert)
        .expect("a file")
        .nth(1)
        .expect("an intermediate")
        .expect("a certificate")
        .len();
    let received = |config: &ClientConfig| {
        let mut config = config.clone();
        config.resumption = Resumption::disabled();
        let client = ClientConnection::new(Arc::new(config), server_name()).expect("a client");
        let stream = TcpStream::connect(gateway.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut stream = StreamOwned::new(client, Counted(stream, 0));
        stream.write_all(POST).expect("a connection");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 204");
        stream.sock.1
    };
    let (first, second) = (received(&config), received(&config));
    // Signatures of ECDSA differ by some bytes from one handshake to the next.
    assert!(second + intermediate_bytes < first + 50, "{first} {second}");
    let config = Arc::new(config);
    let kind = |config| {
        let (answer, stream) = post(config, gateway.address).expect("an answer");
        assert_eq!(answer, "HTTP/1.1 204");
        stream.conn.handshake_kind()
    };
    assert_eq!(kind(&config), Some(HandshakeKind::Full));
    assert_eq!(kind(&config), Some(HandshakeKind::Resumed));
}

/// In TLS 1.3 the server's hello stands before the alert.
#[test]
fn who_speaks_none_of_our_protocols_is_told_so() {
    let gateway = Setup::new().start();
    let device = gateway.device("plc-1");
    for version in [&TLS12, &TLS13] {
        let mut config = config(&gateway, &device, aws_lc_rs::default_provider(), version);
        config.alpn_protocols = vec![b"mqtt".to_vec()];
        let mut stream = connect(&Arc::new(config), gateway.address);
        let error = stream.write_all(POST).expect_err("no protocol in common");
        let told = error.get_ref().and_then(|error| error.downcast_ref());
        assert_eq!(
            told,
            Some(&rustls::Error::AlertReceived(
                AlertDescription::NoApplicationProtocol
            )),
            "{version:?}: {error}"
        );
    }
}

/// Another authority that calls itself as one in the bundle is not that one, whatever its key.
#[test]
fn a_namesake_of_an_authority_is_unknown() {
    let gateway = Setup::new().start();
    for namesake in [
        gateway.pki.other("root").device("plc-1"),
        gateway.pki.rsa_namesake("plc-1"),
    ] {
        for protocol in Protocol::ALL {
            let opened = Client::try_open(
                Via::Wire,
                protocol,
                &gateway,
                Some(&namesake),
                Quirks::default(),
            );
            let said = opened.map_or_else(|error| error, |client| client.closed());
            let expected = if protocol == Protocol::H3 {
                "close 304 "
            } else {
                "unknown ca"
            };
            let said = said.to_lowercase();
            assert!(said.contains(expected), "{protocol}: {said}");
        }
    }
    let series = "forebay_tls_handshakes_total{result=\"unknown_issuer\"}";
    eventually(series, || gateway.metric(series) == 6.0);
}

/// A link on which all that is sent arrives after `delay`, each way. Ends with the process.
fn slow_link(to: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    listener.set_nonblocking(true).expect("a socket");
    let link = async move {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (here, _) = listener.accept().await?;
            let there = tokio::net::TcpStream::connect(to).await?;
            let ((here, back), (there, forth)) = (here.into_split(), there.into_split());
            tokio::spawn(carry(here, forth, delay));
            tokio::spawn(carry(there, back, delay));
        }
    };
    std::thread::spawn(move || block_on::<io::Result<()>>(link));
    address
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, delay: Duration) {
    let (sender, mut receiver) = channel(64);
    let reading = async move {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes).await {
            let due = Instant::now() + delay;
            if sender.send((due, bytes[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

/// NB-IoT at the edge of its cell: 3 s a flight.
#[test]
fn a_link_of_three_seconds_a_flight_completes_its_handshake() {
    let gateway = Setup::new().start();
    let device = gateway.device("meter-1");
    let link = slow_link(gateway.address, Duration::from_secs(3));
    std::thread::scope(|scope| {
        for version in [&TLS12, &TLS13] {
            let config = config(&gateway, &device, aws_lc_rs::default_provider(), version);
            scope.spawn(move || {
                let (answer, _) = post(&Arc::new(config), link).expect("an answer");
                assert_eq!(answer, "HTTP/1.1 204", "{version:?}");
            });
        }
    });
}

/// Stacks that know sessions by their ids only, and those that know tickets.
#[test]
fn tls_1_2_resumes_by_id_and_by_ticket() {
    let gateway = Setup::new().start();
    let device = gateway.device("plc-1");
    for kind in [
        Tls12Resumption::SessionIdOnly,
        Tls12Resumption::SessionIdOrTickets,
    ] {
        let mut config = config(&gateway, &device, aws_lc_rs::default_provider(), &TLS12);
        config.resumption = Resumption::in_memory_sessions(4).tls12_resumption(kind);
        let config = Arc::new(config);
        for expected in [
            HandshakeKind::Full,
            HandshakeKind::Resumed,
            HandshakeKind::Resumed,
        ] {
            let (answer, stream) = post(&config, gateway.address).expect("an answer");
            assert_eq!(answer, "HTTP/1.1 204");
            assert_eq!(stream.conn.handshake_kind(), Some(expected));
        }
    }
    assert_eq!(
        gateway.metric("forebay_tls_handshakes_total{result=\"resumed\"}"),
        4.0
    );
}

/// Makes the offer of a modem that knows no ECDSA.
fn rsa_only() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .retain(|suite| !format!("{:?}", suite.suite()).contains("ECDHE_ECDSA"));
    let known = provider.signature_verification_algorithms;
    let is_rsa = |scheme: SignatureScheme| format!("{scheme:?}").starts_with("RSA_");
    let mapping: Vec<_> = known
        .mapping
        .iter()
        .filter(|(scheme, _)| is_rsa(*scheme))
        .copied()
        .collect();
    provider.signature_verification_algorithms = WebPkiSupportedAlgorithms {
        all: known.all,
        mapping: Vec::leak(mapping),
    };
    provider
}

/// Two pairs: who knows ECDSA gets the small one.
#[test]
fn a_stack_without_ecdsa_gets_the_rsa_certificate() {
    let setup = Setup::new();
    let rsa = setup.pki.rsa_server();
    let list = |files: [&PathBuf; 2]| format!("{},{}", files[0].display(), files[1].display());
    let ecdsa = setup.pki.server.clone();
    let gateway = setup
        .set("FOREBAY_TLS_CERT", list([&ecdsa.cert, &rsa.cert]))
        .set("FOREBAY_TLS_KEY", list([&ecdsa.key, &rsa.key]))
        .start();
    let device = gateway.device("modem-1");
    let leaf = |identity: &Identity| CertificateDer::from_pem_file(&identity.cert).expect("PEM");
    for version in [&TLS12, &TLS13] {
        for (provider, expected) in [(aws_lc_rs::default_provider(), &ecdsa), (rsa_only(), &rsa)] {
            let config = config(&gateway, &device, provider, version);
            let (answer, stream) = post(&Arc::new(config), gateway.address).expect("an answer");
            assert_eq!(answer, "HTTP/1.1 204");
            let presented = stream.conn.peer_certificates().expect("a chain");
            assert_eq!(presented[0], leaf(expected), "{version:?}");
        }
    }
    // Both pairs are watched, and both give their names.
    let renewed = gateway.pki.renewed_server("ingest.example.com");
    gateway
        .pki
        .replace("server.key", &fs::read(renewed.key).expect("a key"));
    gateway
        .pki
        .replace("server.pem", &fs::read(renewed.cert).expect("a chain"));
    let client = Client::open(Protocol::H1, &gateway, &device);
    let ask = Ask::post("1").at("ingest.example.com");
    eventually("the new name", || client.send(&ask).status == 204);
    let ask = Ask::post("1").at("rsa.example.com");
    assert_eq!(client.send(&ask).status, 204);
}

/// As many places as workers: those that wait for a TCP connection take none.
#[test]
fn workers_that_wait_hold_no_places() {
    let gateway = Setup::new()
        .set("FOREBAY_WORKERS", 8)
        .set("FOREBAY_CONNECTIONS_MAX", 8)
        .set("FOREBAY_ADDRESS_CONNECTIONS_MAX", 8)
        .set("FOREBAY_HANDSHAKES_MAX", 8)
        .start();
    let device = gateway.device("plc-1");
    let open = |protocol| {
        let client = Client::open(protocol, &gateway, &device);
        assert_eq!(client.send(&Ask::post("1")).status, 204, "{protocol}");
        client
    };
    let quic = [(); 4].map(|()| open(Protocol::H3));
    let tcp = [(); 4].map(|()| open(Protocol::H1));
    drop((quic, tcp));
}

fn is_answered(client: &Client, status: u16) -> bool {
    let reply = client.try_send(&Ask::post("1"));
    reply.is_ok_and(|reply| reply.status == status)
}

/// A device has so many connections; one more is closed. So it is with a certificate that names no device.
#[test]
fn a_device_has_so_many_connections() {
    let setup = Setup::new();
    let file = setup.path("audit.log");
    let gateway = setup
        .set("FOREBAY_DEVICE_CONNECTIONS_MAX", 3)
        .set("FOREBAY_AUDIT_LOG", file.display())
        .start();
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    let (device, other) = (gateway.device("plc-1"), gateway.device("plc-2"));
    let nobody = gateway.pki.device_with_uris("nobody", &["a", "b"]);
    let series = "forebay_tls_handshakes_total{result=\"device_full\"}";
    for (identity, status) in [(&device, 204), (&nobody, 403)] {
        let before = gateway.metric(series);
        let held = Protocol::ALL.map(|protocol| Client::open(protocol, &gateway, identity));
        let open = |protocol| {
            let quirks = Quirks::default();
            Client::try_open(Via::Wire, protocol, &gateway, Some(identity), quirks)
        };
        for protocol in Protocol::ALL {
            let how = open(protocol).map_or_else(|error| error, |excess| excess.closed());
            match protocol {
                Protocol::H1 => {}
                Protocol::H2 => assert!(how.contains("goaway 11"), "ENHANCE_YOUR_CALM, not {how}"),
                Protocol::H3 => assert!(how.contains("263"), "H3_EXCESSIVE_LOAD, not {how}"),
            }
        }
        eventually("all counted", || gateway.metric(series) == before + 3.0);
        assert!(is_answered(
            &Client::open(Protocol::H2, &gateway, &other),
            204
        ));
        let [h1, ..] = &held;
        assert!(is_answered(h1, status));
        drop(held);
        eventually("a place", || {
            open(Protocol::H1).is_ok_and(|client| is_answered(&client, status))
        });
    }
    assert!(
        lines().contains("\"event\":\"connection-refused\""),
        "{}",
        lines()
    );
}

/// A balancer that opens a connection and closes it again asks whether somebody listens.
#[test]
fn a_probe_of_the_port_is_no_refused_handshake() {
    let setup = Setup::new();
    let file = setup.path("audit.log");
    let gateway = setup.set("FOREBAY_AUDIT_LOG", file.display()).start();
    let (probes, series) = (20, "forebay_tls_handshakes_total{result=\"unused\"}");
    for _ in 0..probes {
        drop(TcpStream::connect(gateway.address).expect("it listens"));
    }
    eventually("all counted", || {
        gateway.metric(series) == f64::from(probes)
    });
    // One that has begun is one.
    let mut begun = TcpStream::connect(gateway.address).expect("it listens");
    begun.write_all(b"\x16\x03").expect("it reads");
    drop(begun);
    let lines = || fs::read_to_string(&file).unwrap_or_default();
    eventually("a line", || lines().contains("\"reason\":\"io\""));
    assert_eq!(
        lines().matches("handshake-refused").count(),
        1,
        "{}",
        lines()
    );
}
