//! An HTTP/3 client over UDP's loopback. It writes its one request by hand: a client of h3's would cost as much as what
//! is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use forebay::internals::http::{self, Connection, Service};
use forebay::internals::words::Protocol;
use quinn::{ClientConfig, Endpoint, ServerConfig};
use rustls::RootCertStore;
use tokio::task::spawn_local;

use crate::support::{BODY_BYTES, caller};

const ANSWER_BYTES_MAX: usize = 512;

/// The endpoints of both sides, which know each other. Who calls is not asked: a handshake is not measured.
pub struct Loopback {
    server: Endpoint,
    client: Endpoint,
}

impl Loopback {
    pub fn new() -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".into()]).expect("a certificate");
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signing_key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a root");
        let server = ServerConfig::with_single_cert(vec![cert.der().clone()], key.into())
            .expect("a configuration");
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut client = Endpoint::client(any_port).expect("a socket");
        client.set_default_client_config(
            ClientConfig::with_root_certificates(Arc::new(roots)).expect("a root"),
        );
        Self {
            server: Endpoint::server(server, any_port).expect("a socket"),
            client,
        }
    }
}

/// One stream of a connection that it may share with others.
#[derive(Clone)]
pub struct H3 {
    connection: quinn::Connection,
    request: Rc<[u8]>,
}

impl H3 {
    pub async fn open(loopback: &Loopback, service: &Rc<Service>, number: usize) -> Self {
        let address = loopback.server.local_addr().expect("it is bound");
        let connecting = loopback
            .client
            .connect(address, "localhost")
            .expect("an address");
        let accepting = async { loopback.server.accept().await.expect("it is open").await };
        let (connected, accepted) = tokio::join!(connecting, accepting);
        let (connection, accepted) = (
            connected.expect("a connection"),
            accepted.expect("a connection"),
        );
        let serving = Connection::new(Protocol::H3, caller(service, number), service);
        spawn_local(http::h3::serve(accepted, serving, service.clone()));
        let mut control = connection.open_uni().await.expect("a control stream");
        control.write_all(&[0, 4, 0]).await.expect("empty settings");
        spawn_local(async move { control.stopped().await });
        Self {
            connection,
            request: request().into(),
        }
    }

    pub async fn post(&mut self) {
        let (mut send, mut receive) = self
            .connection
            .open_bi()
            .await
            .expect("the connection lives");
        send.write_all(&self.request)
            .await
            .expect("the connection lives");
        send.finish().expect("it is open");
        let answer = receive
            .read_to_end(ANSWER_BYTES_MAX)
            .await
            .expect("the connection lives");
        assert_eq!(answer, ACCEPTED, "a head of `:status: 204` alone");
    }
}

/// HEADERS with `:status: 204`, the entry 64 of QPACK's static table (RFC 9204 appendix A).
const ACCEPTED: [u8; 6] = [1, 4, 0, 0, 0xff, 1];

/// HEADERS, of QPACK's static table and plain text, and DATA.
fn request() -> Vec<u8> {
    let length = BODY_BYTES.to_string();
    let text = |name: u8, value: &str| [&[name, value.len() as u8], value.as_bytes()].concat();
    let (post, https, json) = (0xc0 | 20, 0xc0 | 23, 0xc0 | 46);
    let (authority, path, content_length) = (0x50, 0x51, 0x54);
    let fields = [
        text(authority, "localhost"),
        text(path, "/v1/telemetry"),
        vec![json],
        text(content_length, &length),
    ]
    .concat();
    let head = [&[0, 0, post, https], &fields[..]].concat();
    let data = [
        &[0, 0x40 | (BODY_BYTES >> 8) as u8, BODY_BYTES as u8],
        &[b'x'; BODY_BYTES][..],
    ]
    .concat();
    [&[1, head.len() as u8], &head[..], &data].concat()
}
